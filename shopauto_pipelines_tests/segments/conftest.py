"""Hand-made people: rows of the 360° view and of scores, with zeros and nulls where a test says nothing."""

from collections.abc import Callable
from datetime import date

import ibis
import ibis.expr.types as ir
import pyarrow as pa
import pytest

from shopauto_pipelines.features.tables import CUSTOMER_360
from shopauto_pipelines.platform.tables import Table
from shopauto_pipelines.predictions.tables import SCORES
from shopauto_pipelines.segments.declaration import SegmentDeclaration, load_segments
from shopauto_pipelines.segments.membership import membership

_ZERO = {"string": "", "int64": 0, "float64": 0.0, "boolean": False}


def _rows(table: Table, people: dict[str, dict]) -> pa.Table:
    defaults = {c.name: _ZERO.get(c.type) if c.required else None for c in table.columns}
    rows = [defaults | {"customer_id": who} | values for who, values in people.items()]
    unknown = {name for row in rows for name in row} - set(defaults)
    assert not unknown, f"{table.name} has no columns {unknown}"
    return pa.Table.from_pylist(rows, schema=table.arrow_schema)


@pytest.fixture(scope="session")
def customers_rows() -> Callable[[dict[str, dict]], pa.Table]:
    """``{customer_id: {column: value}}`` as rows of ``features/customer_360``."""
    return lambda people: _rows(CUSTOMER_360, people)


@pytest.fixture(scope="session")
def scores_rows() -> Callable[[dict[str, dict]], pa.Table]:
    """``{customer_id: {column: value}}`` as rows of ``predictions/scores``."""
    return lambda people: _rows(SCORES, people)


@pytest.fixture(scope="session")
def shipped() -> dict[str, SegmentDeclaration]:
    """The segments of the playbook, by name."""
    return {segment.name: segment for segment in load_segments()}


@pytest.fixture(scope="session")
def declare() -> Callable[..., SegmentDeclaration]:
    """A segment from its condition."""
    return lambda name, where, **more: SegmentDeclaration(
        name=name, description=f"People of {name}", where=where, **more
    )


@pytest.fixture
def inside(customers_rows, scores_rows) -> Callable[..., dict[str, set[str]]]:
    """Who is in which segment: ``{segment: {customer_id}}``."""

    def compute(
        segments: list[SegmentDeclaration],
        people: dict[str, dict],
        scores: dict[str, dict] | None = None,
        as_of: date = date(2025, 6, 30),
    ) -> dict[str, set[str]]:
        rows: ir.Table = membership(
            ibis.memtable(customers_rows(people)), ibis.memtable(scores_rows(scores or {})), None, segments, as_of
        )
        found: dict[str, set[str]] = {}
        for row in rows.to_pyarrow().to_pylist():
            assert row["customer_id"] not in found.setdefault(row["segment"], set()), "a member twice"
            found[row["segment"]].add(row["customer_id"])
        return found

    return compute

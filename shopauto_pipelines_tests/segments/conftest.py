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
from shopauto_pipelines.profiles.tables import IDENTITIES
from shopauto_pipelines.segments.declaration import SegmentDeclaration, load_segments
from shopauto_pipelines.segments.events import EVENTS
from shopauto_pipelines.segments.inputs import Inputs
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
    return lambda name, where=None, **more: SegmentDeclaration(
        name=name, description=f"People of {name}", where=where, **more
    )


def rollup_rows(table: Table, rows: list[dict]) -> pa.Table:
    """Rows of a daily rollup with their ``day``; zeros where a row says nothing."""
    defaults = {c.name: _ZERO[c.type] if c.required else None for c in table.columns}
    unknown = {name for row in rows for name in row} - set(defaults) - {"day"}
    assert not unknown, f"{table.name} has no columns {unknown}"
    schema = table.arrow_schema.append(pa.field("day", pa.date32()))
    return pa.Table.from_pylist([defaults | row for row in rows], schema=schema)


@pytest.fixture(scope="session")
def inputs_of(customers_rows, scores_rows) -> Callable[..., Inputs]:
    """Inputs of segments: people, their scores, what they did by rollup, and persons by shop id where not the same."""

    def build(
        people: dict[str, dict],
        scores: dict[str, dict] | None = None,
        did: dict[Table, list[dict]] | None = None,
        persons: dict[str, str] | None = None,
    ) -> Inputs:
        who = {name: name for name in people} | (persons or {})
        identities = [
            {"shop_customer_id": account, "customer_id": person, "rule": "shop_id", "rules_version": 1}
            for account, person in who.items()
        ]
        return Inputs(
            ibis.memtable(customers_rows(people)),
            ibis.memtable(scores_rows(scores or {})),
            ibis.memtable(pa.Table.from_pylist(identities, schema=IDENTITIES.arrow_schema)),
            {
                table.name: ibis.memtable(rollup_rows(table, (did or {}).get(table, [])))
                for table in {event.rollup for event in EVENTS.values()}
            },
        )

    return build


@pytest.fixture
def inside(inputs_of) -> Callable[..., dict[str, set[str]]]:
    """Who is in which segment: ``{segment: {customer_id}}``."""

    def compute(
        segments: list[SegmentDeclaration],
        people: dict[str, dict],
        scores: dict[str, dict] | None = None,
        as_of: date = date(2025, 6, 30),
        **more,
    ) -> dict[str, set[str]]:
        rows: ir.Table = membership(inputs_of(people, scores, **more), None, segments, as_of)
        found: dict[str, set[str]] = {}
        for row in rows.to_pyarrow().to_pylist():
            assert row["customer_id"] not in found.setdefault(row["segment"], set()), "a member twice"
            found[row["segment"]].add(row["customer_id"])
        return found

    return compute

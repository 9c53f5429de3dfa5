"""Runs a Great Expectations suite on partitions of a lake table.

Expectations about rows run on bounded batches of the columns they need. Whole-table facts (row count, duplicate keys,
and whatever a room adds) are computed by the engine in one pass and handed to the suite as a one-row-per-partition frame.
Findings name expectation, column, count and row keys, never a value: values may be private.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from datetime import date
from functools import cache
from typing import TYPE_CHECKING, Any

import ibis
import ibis.expr.types as ir
import pandas as pd
from ibis import _

from shopauto_pipelines.platform.lake import Lake
from shopauto_pipelines.platform.memory import give_back
from shopauto_pipelines.platform.progress import report
from shopauto_pipelines.platform.tables import Table

if TYPE_CHECKING:
    from great_expectations.core.batch_definition import BatchDefinition

#: Rows of a batch; Great Expectations takes about half a second for twelve expectations on it.
BATCH_ROWS = 250_000

#: Rows of several days that a check looks at together: keys that are compared take some hundred bytes each.
ROWS_AT_ONCE = 5_000_000

#: Row keys that a finding lists.
LISTED_ROWS = 10


@dataclass(frozen=True)
class Expect:
    """One expectation by its Great Expectations class name, e.g. ``Expect("ExpectColumnValuesToNotBeNull", "email")``.

    With ``fact=True`` the column is one of the suite's facts, else one of the table's columns.
    """

    kind: str
    column: str
    options: dict[str, Any] = field(default_factory=dict, hash=False)
    fact: bool = False

    @property
    def name(self) -> str:
        """What the finding calls it, e.g. ``expect_column_values_to_not_be_null(email)``."""
        words = "".join(f"_{c.lower()}" if c.isupper() else c for c in self.kind).lstrip("_")
        options = "".join(f", {key}={value}" for key, value in self.options.items())
        return f"{words}({self.column}{options})"


@dataclass(frozen=True)
class Suite:
    """The expectations of a table. ``facts`` computes extra facts: from the rows to one row per partition value."""

    table: Table
    expectations: tuple[Expect, ...]
    facts: Callable[[ir.Table], dict[str, ir.Value]] = lambda rows: {}

    @classmethod
    def of(cls, table: Table, *more: Expect, facts: Callable[[ir.Table], dict[str, ir.Value]] | None = None) -> Suite:
        """A suite from the declaration (required columns are not null, the key is unique) and ``more``."""
        required = tuple(Expect("ExpectColumnValuesToNotBeNull", c.name) for c in table.columns if c.required)
        return cls(table, (*required, _none("duplicate_keys"), *more), facts or (lambda rows: {}))

    @classmethod
    def of_large(
        cls, table: Table, *more: Expect, facts: Callable[[ir.Table], dict[str, ir.Value]] | None = None
    ) -> Suite:
        """The same for a table of many rows per person: the engine counts what is missing, and no row leaves it."""

        def counted(rows: ir.Table) -> dict[str, ir.Value]:
            missing = ibis.or_(*(rows[c.name].isnull() for c in table.columns if c.required))
            return {"missing_values": missing.sum(), **(facts(rows) if facts else {})}

        return cls(table, (_none("duplicate_keys"), _none("missing_values"), *more), counted)


def _none(fact: str) -> Expect:
    return Expect("ExpectColumnValuesToBeBetween", fact, {"max_value": 0}, fact=True)


@dataclass(frozen=True)
class Finding:
    """An expectation that does not hold: how many rows of how many, and the keys of the first of them."""

    expectation: str
    column: str
    unexpected: int
    rows: int
    keys: tuple[str, ...]


def run_suite(lake: Lake, suite: Suite, days: Sequence[date]) -> tuple[list[Finding], int]:
    """Findings of the suite on the partitions ``days``, and the number of rows looked at."""
    found: dict[Expect, Finding] = {}
    seen = partitions = 0
    for part in in_parts(lake, suite.table, days):
        facts = _look(lake, suite, part, found)
        seen, partitions = seen + int(facts["rows"].sum()), partitions + len(facts)
    return [replace(finding, rows=partitions if e.fact else seen) for e, finding in found.items()], seen


def in_parts(lake: Lake, table: Table, days: Sequence[date]) -> Iterator[list[date]]:
    """The days, so many at a time that a check of the table has room for them; tells how far it is."""
    done = 0
    for part in lake.parts(table, days, ROWS_AT_ONCE):
        yield part
        done += len(part)
        report(f"check of {table.name}", done, len(days))


def _look(lake: Lake, suite: Suite, days: list[date], found: dict[Expect, Finding]) -> pd.DataFrame:
    """Add to ``found`` what the days break; returns their facts, ``rows`` among them."""
    rows = lake.between(suite.table, days[0], days[-1], once=True)
    partition = suite.table.partition
    by_row = [e for e in suite.expectations if not e.fact]
    keys = [partition, *suite.table.key]
    if by_row:
        needed = rows.select(sorted({e.column for e in by_row} | set(keys)))
        for batch in lake.engine.ordered(needed, keys, BATCH_ROWS):
            if batch.num_rows:
                _validate(found, batch.to_pandas(), by_row, keys)
    facts = _facts(rows, suite, partition)
    _validate(found, facts, [e for e in suite.expectations if e.fact], [partition])
    give_back(int(facts["rows"].sum()))
    return facts


def _facts(rows: ir.Table, suite: Suite, partition: str) -> pd.DataFrame:
    keys = rows.group_by([partition, *suite.table.key]).agg(copies=_.count())
    duplicates = keys.group_by(partition).agg(rows=_.copies.sum(), duplicate_keys=(_.copies - 1).sum())
    extra = suite.facts(rows)
    if extra:
        more = rows.group_by(partition).agg(**extra)
        duplicates = duplicates.join(more, partition)
    return duplicates.order_by(partition).to_pandas()


@contextmanager
def _without_spark() -> Iterator[None]:
    """Hide Spark while the library is imported, which would import it where it is installed, with its Connect.

    Whoever imports Connect without the packages it needs is ended by pyspark, with code 0, in every process that has no main
    file: ``python -c``, and the workers that are started so.
    """
    hidden = "pyspark.sql.connect" if "pyspark" in sys.modules else "pyspark"
    known = sys.modules.get(hidden)
    sys.modules[hidden] = None  # type: ignore[assignment]
    try:
        yield
    finally:
        if known is None:
            del sys.modules[hidden]
        else:
            sys.modules[hidden] = known


@cache
def _frames() -> BatchDefinition:
    """What makes a data frame a batch. Made once: its context writes its own description at every step."""
    os.environ.setdefault("GX_ANALYTICS_ENABLED", "false")
    with _without_spark():
        import great_expectations as gx  # takes seconds to import: only where a suite runs

    context = gx.get_context(mode="ephemeral")
    context.variables.progress_bars = {"globally": False}  # type: ignore[assignment]
    asset = context.data_sources.add_pandas("frame").add_dataframe_asset("rows")
    return asset.add_batch_definition_whole_dataframe("all")


def _validate(
    found: dict[Expect, Finding], frame: pd.DataFrame, expectations: Sequence[Expect], keys: list[str]
) -> None:
    """Add to ``found`` what ``frame`` breaks. Which rows is asked only of the expectations that fail: it is slow."""
    batch = _frames().get_batch({"dataframe": frame})
    import great_expectations as gx

    checks = [
        getattr(gx.expectations, e.kind)(column=e.column, meta={"number": n}, **e.options)
        for n, e in enumerate(expectations)
    ]
    for result in batch.validate(gx.ExpectationSuite("all", checks), result_format="BASIC").results:
        config = result.expectation_config
        assert config is not None
        assert config.meta is not None
        number = config.meta["number"]
        expectation = expectations[number]
        if result.exception_info and result.exception_info.get("raised_exception"):
            raise RuntimeError(f"{expectation.name} could not be evaluated")
        if not result.success:
            complete = batch.validate(checks[number], result_format="COMPLETE").result
            _add(found, expectation, _finding(expectation, complete, frame, keys))


def _finding(expectation: Expect, result: dict[str, Any], frame: pd.DataFrame, keys: list[str]) -> Finding:
    at = (result.get("unexpected_index_list") or [])[:LISTED_ROWS]
    return Finding(
        expectation.name,
        expectation.column,
        int(result.get("unexpected_count") or 1),
        int(result.get("element_count") or len(frame)),
        tuple(" ".join(str(frame.iloc[i][k]).removesuffix(" 00:00:00") for k in keys) for i in at),
    )


def _add(found: dict[Expect, Finding], expectation: Expect, new: Finding) -> None:
    old = found.get(expectation)
    if old is None:
        found[expectation] = new
    else:
        keys = (old.keys + new.keys)[:LISTED_ROWS]
        found[expectation] = Finding(
            new.expectation, new.column, old.unexpected + new.unexpected, old.rows + new.rows, keys
        )

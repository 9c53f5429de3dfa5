"""Reading: rows judged and added up by the engine, one row per customer and day in memory."""

from __future__ import annotations

import threading
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import date
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import duckdb
import pyarrow as pa
import sqlglot
from sqlglot import exp

from shopauto_pipelines.platform.progress import report
from shopauto_pipelines.predictions.transactions.columns import Columns, choose, named
from shopauto_pipelines.predictions.transactions.files import (
    File,
    TransactionsError,
    first_line,
    lines_of,
    quoted,
    text,
)
from shopauto_pipelines.predictions.transactions.values import EARLIEST, Values
from shopauto_pipelines.sources.expressions import ExpressionError, parse, plain

#: Purchases: one row per customer and day; ``cents`` is the sum of them in hundredths, above zero.
TRANSACTIONS = pa.schema([("customer_id", pa.string()), ("day", pa.date32()), ("cents", pa.int64())])

LATER = "later than the day asked for"
#: Reasons for which a row is set aside, in the order in which they are asked.
REASONS = (
    "left out by --where",
    LATER,
    "no customer",
    "no time",
    "time cannot be read",
    f"time before {EARLIEST.year}: a placeholder",
    "no amount",
    "amount is not a number",
    "amount not above zero",
)
BROKEN = "broken line"


@dataclass(frozen=True)
class Read:
    """What was read.

    ``transactions`` is of :data:`TRANSACTIONS`, one row per customer and day up to ``as_of``, in this order. ``rows`` of the
    file = ``kept`` + the sum of ``set_aside`` (reason → rows). ``examples`` has a time or an amount that could not be read,
    by reason. ``guessed`` are the roles whose columns nobody had named.
    """

    transactions: pa.Table
    columns: Columns
    guessed: tuple[str, ...]
    as_of: date
    first_day: date
    last_day: date
    customers: int
    rows: int
    kept: int
    set_aside: Mapping[str, int]
    examples: Mapping[str, str]
    notes: tuple[str, ...]


def read(
    path: str | Path,
    columns: Columns | None = None,
    as_of: date | None = None,
    *,
    today: date | None = None,
    time_format: str | None = None,
    where: str | None = None,
    threads: int | None = None,
    memory: str | None = None,
) -> Read:
    """Read a file, a folder or a glob of CSV (``.csv``, ``.tsv``, ``.txt``, also ``.gz``) or Parquet files.

    ``as_of``: nothing later is used; by default the last day in the file that is not after ``today``. Times with an offset
    are taken to UTC, others as they are; also read are YYYYMMDD, seconds and milliseconds since 1970, and ``time_format``
    (``strptime``'s). ``where``: an SQL condition on the file's columns; other rows are left out. ``threads`` and ``memory``
    bound the engine. Raises :class:`TransactionsError`.
    """
    with TemporaryDirectory(prefix="transactions-") as folder:
        config: dict[str, Any] = {"temp_directory": folder}
        config |= {"threads": str(threads)} if threads else {}
        config |= {"memory_limit": memory} if memory else {}
        with duckdb.connect(config=config) as con:
            con.execute("set TimeZone = 'UTC'")
            con.execute("set enable_progress_bar = false")
            try:
                values = Values(con, File.found(con, path), time_format)
                return _Reading(values, where).read(columns or Columns(), as_of, today)
            except duckdb.Error as error:
                raise TransactionsError(f"{path}: cannot be read: {first_line(error)}") from None


@dataclass
class _Reading:
    """One reading of one file."""

    values: Values
    where: str | None
    notes: list[str] = field(default_factory=list)
    scans: int = -1

    def read(self, asked: Columns, as_of: date | None, today: date | None) -> Read:
        if not self.values.sample():
            lost = self._swallowed(0) or f"there are no rows. {self.file.listed()}"
            raise TransactionsError(f"{self.file.shown}: {lost}")
        chosen, guessed = choose(self.values, asked)
        latest = as_of or today or date.max
        self._add_up(chosen, latest)
        broken, not_utf8 = self._broken()
        if not_utf8 and "utf-8" in self.file.encodings:
            self.values.file = self.file.as_latin_1()
            self._add_up(chosen, latest)
            broken, _ = self._broken()
        if other := self.file.encodings - {"utf-8"}:
            self.notes.append(f"the file is not UTF-8; it was read as {' and '.join(sorted(other))}")
        return self._result(chosen, guessed, as_of, latest, broken)

    @property
    def con(self) -> duckdb.DuckDBPyConnection:
        return self.values.con

    @property
    def file(self) -> File:
        return self.values.file

    def _add_up(self, chosen: Columns, latest: date) -> None:
        """Fill the table ``sums``: one row per customer and day that is kept, and one per reason of those that are not."""
        customer, time = str(chosen.customer), str(chosen.time)
        paid = [str(name) for name in (chosen.amount, chosen.quantity, chosen.price) if name]
        no_amount = " or ".join(f"{quoted(name)} is null" for name in paid)
        shown = " || ' × ' || ".join(f"cast({quoted(name)} as varchar)" for name in paid)
        condition = self._condition()
        left_out, later, none, no_time, time_bad, too_early, missing, no_number, not_above = map(text, REASONS)
        if self.file.parts:
            self.scans = self.values.one("select coalesce(max(scan_id), -1) from reject_scans")
        self._run(f"""create or replace temp table sums as
            with typed as (
                select {self.values.customer(customer)} as customer, {self.values.time(time)} as moment,
                    {self._amount(chosen)} as amount, {quoted(time)} is null as no_time, {no_amount} as no_amount,
                    {condition} as wanted, cast({quoted(time)} as varchar) as time_shown, {shown} as amount_shown
                from {self.file.values}
            ), measured as (
                select * exclude (moment), cast(case when isfinite(moment) then moment end as date) as day,
                    try_cast(case when abs(amount) < 1e15 then round(amount * 100) end as bigint) as cents
                from typed
            ), judged as (
                select *, case
                    when not wanted then {left_out}
                    when day > date '{latest}' then {later}
                    when customer is null then {none}
                    when no_time then {no_time}
                    when day is null then {time_bad}
                    when day < date '{EARLIEST}' then {too_early}
                    when no_amount then {missing}
                    when cents is null then {no_number}
                    when cents <= 0 then {not_above} end as reason
                from measured
            )
            select reason, case when reason is null then customer end as customer_id,
                case when reason is null then day end as day, count(*) as n,
                sum(case when reason is null then cents end) as cents,
                min(case when reason = {time_bad} then time_shown when reason = {no_number} then amount_shown
                    when reason = {later} then cast(day as varchar) end) as example
            from judged group by 1, 2, 3""")

    def _amount(self, chosen: Columns) -> str:
        """SQL of the amount in major units (double)."""
        if chosen.amount:
            return self.values.number(chosen.amount)
        return f"{self.values.number(str(chosen.quantity))} * {self.values.number(str(chosen.price))}"

    def _condition(self) -> str:
        """SQL of what ``where`` says, over the file's columns; numbers of CSV files compare as numbers."""
        if self.where is None:
            return "true"
        try:
            expression = parse(self.where)
        except ExpressionError as error:
            raise TransactionsError(f"--where: {error}") from None
        meant = {plain(name): sqlglot.parse_one(self._compared(name), dialect="duckdb") for name in expression.columns}
        tree = sqlglot.parse_one(expression.sql, dialect="duckdb")
        told = tree.transform(lambda node: meant.get(node.name, node) if isinstance(node, exp.Column) else node)
        sql = told.sql("duckdb")
        try:
            self.con.execute(f"select count(*) filter (where ({sql})) from sample")
        except duckdb.Error as error:
            text = "; the columns of a CSV file are text where not all values are numbers" if self.file.parts else ""
            raise TransactionsError(f"--where: {first_line(error)}{text}") from None
        return f"coalesce(({sql}), false)"

    def _compared(self, name: str) -> str:
        """SQL of a column that ``where`` names."""
        column = str(named(self.file, "where", name))
        alike = [other for other in self.file.types if plain(other) == plain(column)]
        if len(alike) > 1:
            raise TransactionsError(f"--where: {' and '.join(f'`{other}`' for other in alike)} are called alike")
        number = self.file.type(column) == "VARCHAR" and self.file.types[column] in ("BIGINT", "DOUBLE")
        return f"try_cast({quoted(column)} as double)" if number else quoted(column)

    def _run(self, sql: str) -> None:
        """Run a statement and report how far it is."""
        failed: list[BaseException] = []

        def work() -> None:
            try:
                self.con.execute(sql)
            except BaseException as error:
                failed.append(error)

        worker = threading.Thread(target=work, daemon=True)
        worker.start()
        try:
            while worker.is_alive():
                worker.join(0.2)
                report("%", max(0, min(100, int(self.con.query_progress()))), 100)
            report("%", 100, 100)
        except KeyboardInterrupt:
            self.con.interrupt()
            worker.join()
            raise
        if failed:
            raise failed[0]

    def _broken(self) -> tuple[int, bool]:
        """How many lines of the last adding up were broken, and whether one was not UTF-8."""
        if not self.file.parts:
            return 0, False
        return self.con.execute(
            "select count(distinct (scan_id, file_id, line)), "
            "coalesce(bool_or(regexp_matches(cast(error_type as varchar), '(?i)unicode|encod')), false) "
            f"from reject_errors where scan_id > {self.scans}"
        ).fetchall()[0]

    def _swallowed(self, rows: int) -> str | None:
        """What an open quote has made of the lines after it; ``None`` where none is missing."""
        if not self.file.parts:
            return None
        line = self.values.one(
            f"select min(line) from reject_errors where scan_id > {self.scans} and cast(error_type as varchar) = 'UNQUOTED VALUE'"
        )
        lost = sum(map(lines_of, self.file.files)) - rows if line else 0
        return (
            f"a quote in line {line:,} is never closed: up to {lost:,} lines after it are lost; mend it"
            if lost > 0
            else None
        )

    def _result(self, chosen: Columns, guessed: tuple[str, ...], as_of: date | None, latest: date, broken: int) -> Read:
        found = self.con.execute(
            "select reason, sum(n)::bigint, min(example) from sums where reason is not null group by 1"
        ).fetchall()
        counts = {reason: n for reason, n, _ in found}
        set_aside = {reason: counts[reason] for reason in REASONS if reason in counts}
        if broken:
            set_aside[BROKEN] = broken
        examples = {reason: example for reason, _, example in found if example}
        first, last, kept, customers, most = self.con.execute("""
            select min(first), max(last), coalesce(sum(n), 0)::bigint, count(*), max(n)::bigint from (
                select customer_id, min(day) as first, max(day) as last, sum(n) as n
                from sums where reason is null group by 1)""").fetchall()[0]
        later = examples.pop(LATER, None)
        if not kept:
            if later:
                raise TransactionsError(
                    f"{self.file.shown}: the first purchase in the file is of {later}, after {latest}: nothing is known by then"
                )
            swallowed = f" {lost[0].upper()}{lost[1:]}." if (lost := self._swallowed(sum(set_aside.values()))) else ""
            why = "; ".join(
                f"{n:,} × {reason}" + (f" (e.g. `{examples[reason]}`)" if reason in examples else "")
                for reason, n in set_aside.items()
            )
            raise TransactionsError(f"{self.file.shown}: no row can be used: {why}. Read as {chosen}.{swallowed}")
        if lost := self._swallowed(kept + sum(set_aside.values())):
            self.notes.append(lost)
        if customers > 100 and most > max(0.05 * kept, 20 * kept / customers):
            self.notes.append(
                f"one customer has {most / kept:.0%} of all rows: if that is a placeholder such as `guest`, leave it out "
                "with --where"
            )
        rows = self.con.execute(
            "select customer_id, day, cast(cents as bigint) as cents from sums where reason is null order by customer_id, day"
        )
        return Read(
            transactions=rows.fetch_arrow_table().cast(TRANSACTIONS),
            columns=chosen,
            guessed=guessed,
            as_of=as_of or last,
            first_day=first,
            last_day=last,
            customers=customers,
            rows=kept + sum(set_aside.values()),
            kept=kept,
            set_aside=set_aside,
            examples=examples,
            notes=tuple(self.notes),
        )

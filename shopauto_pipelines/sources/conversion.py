"""One staged file or database table → the landing of one canonical table: typed rows, quarantined rows, and their count.

A few DuckDB statements that stream: compute the mapping's expressions, cast to the canonical types, set aside what is wrong
with its reason, hash the rows of each day. Where staged rows come from is the business of ``reading`` and ``database``; when
to convert, and what is visible to readers, that of ``landing``.
"""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import date
from pathlib import Path
from typing import NamedTuple

import duckdb

from shopauto_pipelines.platform.lake import Lake
from shopauto_pipelines.platform.settings import Settings
from shopauto_pipelines.platform.tables import Column, Table
from shopauto_pipelines.sources.expressions import OFFSET, Refusal, define_helpers, plain
from shopauto_pipelines.sources.mapping import TABLES, SourceMapping, TableMapping, mappable
from shopauto_pipelines.sources.reading import LONGEST_RAW, LandingError, Staged
from shopauto_pipelines.sources.tables import ALLOWED_VALUES, NEVER_NEGATIVE, TIME_COLUMN

#: Earlier days are taken for mistakes: one such row would otherwise make decades of daily partitions.
EARLIEST = date(1990, 1, 1)

#: Part of every landing's name: raise it when the rules of this module change, and everything is landed again.
RULES = "3"

#: Reason of a row whose day has not come yet.
IN_THE_FUTURE = "in the future"


class Marks(NamedTuple):
    """What tells whether a day's rows changed: a hash of all, in their lines, and one of their ``values`` alone."""

    rows: str
    values: str


@dataclass
class FileReport:
    """What became of one file for one table. ``days`` are those whose rows changed."""

    file: str
    table: str
    read: int = 0
    landed: int = 0
    quarantined: int = 0
    excluded: int = 0
    folded: int = 0
    reasons: dict[str, int] = field(default_factory=dict)
    unchanged: bool = False
    days: list[date] = field(default_factory=list)


def _text(value: str) -> str:
    return "'" + value.replace("'", "''") + "'"


class Conversion:
    """One staged file or database table, for one canonical table."""

    def __init__(
        self,
        lake: Lake,
        mapping: SourceMapping,
        name: str,
        staged: Staged,
        folder: Path,
        file: str,
        settings: Settings,
        today: date,
    ) -> None:
        self.source, self.name, self.staged, self.file, self.today = mapping, name, staged, file, today
        self.mapping: TableMapping = mapping.tables[name]
        self.table: Table = TABLES[name]
        self.settings = settings
        self.zone = mapping.timezone or settings.timezone
        self.typed = folder / f"{name}.typed.parquet"
        self.folder = folder
        self.con = lake.con.con.cursor()
        self.con.execute("set TimeZone = 'UTC'")
        define_helpers(self.con, self.zone)

    def run(self, target: Path) -> tuple[FileReport, dict[str, Marks]]:
        """Write ``target`` and the quarantine beside it.

        Returns the report, and the marks of each day's rows. Raises :class:`LandingError` where an expression fails on all rows
        alike, or a row would be lost.
        """
        try:
            self._type_rows()
            counts, folded = self._counts()
            days, reasons, landed, quarantined = self._write(target)
        except duckdb.Error as error:
            raise LandingError(
                f"{self.file}: {self.table.name}: the mapping does not fit the data: {_worded(error)}"
            ) from None
        finally:
            self.con.close()
        read = self.staged.count
        result = FileReport(self.file, self.name, read, landed, quarantined, read - counts, folded, reasons)
        if read != landed + quarantined + result.excluded + folded:
            raise LandingError(f"{self.file}: {self.table.name}: rows do not add up ({result}); nothing was loaded")
        return result, days

    def _type_rows(self) -> None:
        """All rows, typed, with what is wrong with them, to a staged file."""
        rows = f"read_parquet({_text(str(self.staged.rows))})"
        defects = f"read_parquet({_text(str(self.staged.defects))})"
        used = ", ".join(sorted({_text(plain(name)) for name in self.mapping.file_columns}))
        relation = f"select *, {_NOTHING} as _bad from {rows}"
        if self.staged.defect_count:
            shown = (
                'case "column" '
                + " ".join(f"when {_text(plain(k))} then {_text(v)}" for k, v in self.staged.columns.items())
                + " end"
            )
            problem = f"{{'column_name': {shown}, 'reason': reason, 'raw_value': raw_value}}"
            spoilt = f"""select _row, first({problem} order by "column" nulls first, reason) as _bad
                from {defects} where "column" is null or "column" in ({used or "''"}) group by _row"""
            columns = "".join(f"r.{_quoted(plain(name))}, " for name in self.staged.columns)
            relation = f"""select coalesce(r._row, d._row) as _row, {columns} d._bad
                from {rows} r full join ({spoilt}) d using (_row)"""
        condition = self.mapping.condition
        if condition:
            relation = (
                f"select * replace (coalesce(_bad, {_refused('', condition.refusals)}) as _bad) from ({relation})"
            )
            relation = f"select *, ({condition.sql}) as _keep from ({relation})"
            relation = f"select * exclude (_keep) from ({relation}) where _bad is not null or _keep"
        expressions = self.mapping.expressions.items()
        if self.mapping.group_by:
            by_row = {r.call: (name, r) for name, e in reversed(expressions) for r in e.refusals if not r.aggregated}
            if by_row:
                refused = ", ".join(_refused(name, [r]) for name, r in by_row.values())
                relation = f"select * replace (coalesce(_bad, {refused}) as _bad) from ({relation})"
            self.con.execute(f"create or replace temp view kept as {relation}")
            computed = ", ".join(_computed(n, e.sql, [r for r in e.refusals if r.aggregated]) for n, e in expressions)
            keys = ", ".join(e.sql for e in self.mapping.groups)
            grouped = f"""select min(_row) as _row, count(*) as _rows, {_NOTHING} as _bad, {computed}
                from kept where _bad is null group by {keys}"""
            relation = f"{grouped} union all by name select _row, 1 as _rows, _bad from kept where _bad is not null"
        else:
            self.con.execute(f"create or replace temp view kept as {relation}")
            computed = ", ".join(_computed(n, e.sql, e.refusals) for n, e in expressions)
            relation = f"select _row, 1 as _rows, _bad, {computed} from kept"
        self.con.execute(f"create or replace temp view computed as {relation}")
        kinds = dict(self.con.execute("select column_name, column_type from (describe computed)").fetchall())
        self._copy(self._typed_select(kinds), self.typed, "lz4")

    def _typed_select(self, kinds: dict[str, str]) -> str:
        """``computed`` with every column cast to its canonical type, ``day``, and the first thing that is wrong."""
        casts: list[str] = []
        checks: list[tuple[str, str]] = [("_bad is not null", "_bad")]
        for column in self.table.columns:
            if column.name not in mappable(self.table):
                continue
            if column.name not in kinds:
                casts.append(f"cast(null as {_sql_type(column)}) as {_quoted(column.name)}")
                continue
            quoted = _quoted(column.name)
            value, reason = _cast(column, quoted, kinds[column.name], self.zone)
            casts.append(f"{value} as {quoted}")
            if self.mapping.expressions[column.name].refusals:
                refused = _quoted("_r_" + column.name)
                casts.append(refused)
                checks.append((f"({quoted} is null and {refused} is not null)", refused))
            if column.type != "string":
                given = _quoted("_x_" + column.name)
                casts.append(f"nullif(trim(cast({quoted} as varchar)), '') as {given}")
                checks.append(_bad(column.name, f"{quoted} is null and {given} is not null", reason, given))
            allowed = ALLOWED_VALUES.get((self.table.name, column.name))
            if allowed:
                listed = ", ".join(_text(value) for value in allowed)
                checks.append(
                    _bad(column.name, f"{quoted} not in ({listed})", f"not one of {', '.join(allowed)}", quoted)
                )
            if (self.table.name, column.name) in NEVER_NEGATIVE:
                checks.append(_bad(column.name, f"{quoted} < 0", "is negative", quoted))
        required = [c.name for c in self.table.columns if c.required and c.name in mappable(self.table)]
        checks += [_bad(name, f"{_quoted(name)} is null", "is missing", "null") for name in required]
        time = _quoted(TIME_COLUMN[self.table.name])
        raw_time = _quoted("_x_" + TIME_COLUMN[self.table.name])
        checks.append(_bad(TIME_COLUMN[self.table.name], f"_day > date '{self.today}'", IN_THE_FUTURE, raw_time))
        checks.append(
            _bad(TIME_COLUMN[self.table.name], f"_day is null and {time} is not null", "not a time", raw_time)
        )
        checks.append(_bad(TIME_COLUMN[self.table.name], f"_day < date '{EARLIEST}'", f"before {EARLIEST}", raw_time))
        inner = f"select _row, _rows, _bad, {', '.join(casts)} from computed"
        if self.name in ("customers", "orders", "form_submissions") and "email" in self.mapping.columns:
            guest = "case when email like '%@%' then 'guest:' || left(sha256(lower(trim(email))), 16) end"
            inner = f"select * replace (coalesce(shop_customer_id, {guest}) as shop_customer_id) from ({inner})"
        shop_time = (
            time
            if self.settings.timezone == "UTC"
            else f"timezone({_text(self.settings.timezone)}, timezone('UTC', {time}))"
        )
        # A time near the ends of the calendar has no local day; it is far too early or late in any zone.
        dated = f"select *, try_cast({shop_time} as date) as _day from ({inner})"
        # Hardly any row is wrong: only those that are pay for finding out what it is.
        wrong = " or ".join(f"({condition})" for condition, _ in checks)
        first = " ".join(f"when {condition} then {problem}" for condition, problem in checks)
        judged = f"select *, case when {wrong} then case {first} end end as _wrong from ({dated})"
        outside = f"_day > date '{self.today}' or _day < date '{EARLIEST}'"
        columns = ", ".join(_quoted(name) for name in mappable(self.table))
        return f"""select _row, _rows, case when not ({outside}) then _day end as day, {columns},
            _wrong.column_name as bad_column, _wrong.reason as bad_reason, _wrong.raw_value as bad_value from ({judged})"""

    def _counts(self) -> tuple[int, int]:
        """Rows that were kept by ``where``, and how many of them were folded into others."""
        kept, rows = self.con.execute(f"select coalesce(sum(_rows), 0), count(*) from {self._all()}").fetchone() or (
            0,
            0,
        )
        return int(kept), int(kept) - int(rows)

    def _all(self) -> str:
        return f"read_parquet({_text(str(self.typed))})"

    def _write(self, target: Path) -> tuple[dict[str, Marks], dict[str, int], int, int]:
        """Landing and quarantine files; returns the days' hashes, the reasons' counts, rows landed and quarantined."""
        target.parent.mkdir(parents=True, exist_ok=True)
        key = ", ".join(_quoted(name) for name in self.table.key)
        self.con.execute(
            f"create or replace temp table repeated as select {key}, min(_row) as _first from {self._all()}"
            f" where bad_reason is null group by {key} having count(*) > 1"
        )
        marked = f"""select t.*, r._first is not null and t._row <> r._first as _again
            from {self._all()} t left join repeated r using ({key})"""
        columns = ", ".join(_quoted(name) for name in mappable(self.table))
        lineage = f"{_text(self.source.name)} as source, {_text(self.file)} as source_file, _row as source_row"
        good = f"select {columns}, {lineage}, day from ({marked}) where bad_reason is null and not _again order by day, _row"
        undated, first = self.con.execute(
            f"select count(*) filter (day is null), coalesce(arg_min(day, _row), date '{self.today}') from {self._all()}"
        ).fetchone() or (0, self.today)
        # a row without a day lies on that of the nearest row above it, where it stays when the file grows; else on the first one
        above = f"(select _row as _above, day as _day_above from {self._all()} where day is not null)"
        near = f"(select * from ({marked}) asof left join {above} on _row >= _above)" if undated else f"({marked})"
        own = f"coalesce(day, _day_above, date '{first}')" if undated else "day"
        values = ", ', ', ".join(f"cast({_quoted(name)} as varchar)" for name in self.table.key)
        bad = f"""select {_text(self.table.name)} as "table", {lineage},
            case when bad_reason is not null then bad_column else {_text(", ".join(self.table.key))} end as "column",
            coalesce(bad_reason, 'duplicate key') as reason,
            {_shortened(f"case when bad_reason is not null then bad_value else concat({values}) end")} as raw_value,
            {own} as day
            from {near} where bad_reason is not null or _again order by day, source_row"""
        quarantine = target.with_name(target.name.replace(".parquet", ".quarantine.parquet"))
        self._swap(good, target)
        self._swap(bad, quarantine)
        self.con.execute("drop table repeated")
        landed_days = self._hashes(target)
        bad_days = self._hashes(quarantine)
        none = Marks("", "")
        both = {d: (landed_days.get(d, none), bad_days.get(d, none)) for d in sorted({*landed_days, *bad_days})}
        days = {d: Marks(f"{good.rows}/{bad.rows}", f"{good.values}/{bad.values}") for d, (good, bad) in both.items()}
        reasons = dict(
            self.con.execute(
                f"select reason, count(*) from read_parquet({_text(str(quarantine))}) group by 1 order by 1"
            ).fetchall()
        )
        landed = self.con.execute(f"select count(*) from read_parquet({_text(str(target))})").fetchone()[0]  # type: ignore[index]
        return days, reasons, landed, sum(reasons.values())

    def _hashes(self, file: Path) -> dict[str, Marks]:
        named = self.con.execute(f"describe select * exclude (source_row) from read_parquet({_text(str(file))})")
        values = ", ".join(_quoted(name) for name, *_ in named.fetchall())
        rows = self.con.execute(  # a sum: rows may be equal but for their lines
            f"""select cast(day as varchar), count(*), bit_xor(hash(t)), sum(hash({values})::hugeint) % (2::hugeint ^ 64)::hugeint
            from read_parquet({_text(str(file))}) t group by day"""
        ).fetchall()
        return {day: Marks(f"{count}.{mark:x}", f"{count}.{int(total):x}") for day, count, mark, total in rows}

    def _copy(self, select: str, file: Path, compression: str = "zstd") -> None:
        self.con.execute(f"copy ({select}) to {_text(str(file))} (format parquet, compression {compression})")

    def _swap(self, select: str, target: Path) -> None:
        staged = self.folder / target.name
        self._copy(select, staged)
        os.replace(staged, target)


#: SQL: nothing is wrong.
_NOTHING = "cast(null as struct(column_name varchar, reason varchar, raw_value varchar))"


def _quoted(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'


def _shortened(value: str) -> str:
    return f"(case when length({value}) > {LONGEST_RAW} then left({value}, {LONGEST_RAW - 1}) || '…' else {value} end)"


def _bad(column: str, condition: str, reason: str, value: str) -> tuple[str, str]:
    """SQL: when something is wrong with a column, and what it is."""
    problem = f"{{'column_name': {_text(column)}, 'reason': {_text(reason)}, 'raw_value': cast({value} as varchar)}}"
    return condition, problem


def _refused(column: str, refusals: Sequence[Refusal]) -> str:
    """SQL: what the helpers refused, the first one's argument as the value; null where nothing."""
    name = _text(column) if column else "cast(null as varchar)"
    cases = [
        f"when {r.condition} then {{'column_name': {name}, 'reason': {_text(r.reason)}, "
        f"'raw_value': cast({r.argument} as varchar)}}"
        for r in refusals
    ]
    return f"(case {' '.join(cases)} else {_NOTHING} end)" if cases else _NOTHING


def _computed(column: str, value: str, refusals: Sequence[Refusal]) -> str:
    """SQL: a column's value, and why it is null where a helper refused; asked only where it is null, which is rare."""
    refused = f"case when ({value}) is null then {_refused(column, refusals)} end" if refusals else _NOTHING
    return f"{value} as {_quoted(column)}, {refused} as {_quoted('_r_' + column)}"


_SQL_TYPES = {
    "string": "varchar",
    "int64": "bigint",
    "float64": "double",
    "timestamp(6)": "timestamp",
    "boolean": "boolean",
    "date": "date",
}


def _sql_type(column: Column) -> str:
    return _SQL_TYPES[column.type]


def _cast(column: Column, value: str, kind: str, zone: str) -> tuple[str, str]:
    """SQL that reads ``value`` of DuckDB type ``kind`` as the column's type or null, and the reason where it cannot."""
    text = kind == "VARCHAR"
    if column.type == "string":
        return f"nullif(trim(cast({value} as varchar)), '')", "not text"
    if text:
        value = f"nullif(trim({value}), '')"
    if column.type == "int64":
        return (value if kind == "BIGINT" else f"whole({value})"), "not a whole number"
    if column.type == "float64":
        number = f"try_cast({value} as double)"
        return f"(case when isfinite({number}) then {number} end)", "not a number"
    if column.type == "boolean":
        return f"flag({value})", "not true or false"
    if column.type == "date":
        return f"try_cast({value} as date)", "not a date"
    if kind == "TIMESTAMP WITH TIME ZONE":
        return f"timezone('UTC', {value})", "not a time"
    naive = f"try_cast({value} as timestamp)"
    local = naive if zone == "UTC" else f"timezone('UTC', timezone({_text(zone)}, {naive}))"
    if text:
        offset = f"regexp_matches({value}, '{OFFSET}')"
        return (
            f"(case when {offset} then timezone('UTC', try_cast({value} as timestamptz)) else {local} end)",
            "not a time",
        )
    return local, "not a time"


def _worded(error: duckdb.Error) -> str:
    """What is wrong, without the value at which an expression stopped: it may be private."""
    if isinstance(error, duckdb.DataError | duckdb.InvalidInputException):
        column = re.search(r"source column (\S+)", str(error))
        read = f" of `{column[1]}`" if column else ""
        return f"an expression stops at a value{read}; helpers such as whole(x) set its row aside"
    return str(error).split("\n\n")[0].strip().replace("\n", " ")

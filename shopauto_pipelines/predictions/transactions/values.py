"""What stands in the columns: SQL of a customer, a time and an amount, as the first rows show how these are written."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import date
from typing import Any

import duckdb

from shopauto_pipelines.predictions.transactions.files import File, TransactionsError, quoted, text

#: Earlier times are placeholders (the epoch, 1900-01-01), not purchases.
EARLIEST = date(1971, 1, 1)

_SAMPLE = 20_000
_WHOLE = ("TINYINT", "SMALLINT", "INTEGER", "BIGINT", "HUGEINT", "UTINYINT", "USMALLINT", "UINTEGER", "UBIGINT")

#: A number among at most a currency (sign, or up to three letters), thousand marks, a sign or brackets around it.
_CURRENCY = r"(?:\p{L}{1,3}\.?)?(?:\p{Sc}|\x{80})?"
_MONEY = rf"[(+\-−]?\s*{_CURRENCY}\s*[+\-−]?\s*\d[\d.,'’ \x{{a0}}\x{{202f}}]*{_CURRENCY}\s*[)\-−]?"
#: Two numbers and a year, with or without a time of day.
_PARTS = r"(\d{1,2})([/.\-])(\d{1,2})[/.\-](\d{2}|\d{4})(?:[ T,]+\d{1,2}:.*)?"


@dataclass
class Values:
    """The values of a file; ``time_format`` is how its times are written, where somebody said so."""

    con: duckdb.DuckDBPyConnection
    file: File
    time_format: str | None

    def sample(self) -> int:
        """Take the first rows as the table ``sample``; how many there are."""
        self.con.execute("set preserve_insertion_order = true")  # the first rows, whatever the number of threads
        self.con.execute(f"create or replace temp table sample as from {self.file.values} limit {_SAMPLE}")
        self.con.execute("set preserve_insertion_order = false")
        return int(self.one("select count(*) from sample"))

    def one(self, sql: str) -> Any:
        """The only value of a query."""
        return self.con.execute(sql).fetchall()[0][0]

    def only_dates(self) -> list[str]:
        """The columns that are dates or times to the engine."""
        return [name for name, kind in self.file.types.items() if kind.startswith(("DATE", "TIMESTAMP"))]

    def is_time(self, name: str) -> bool:
        """Whether most values of a column are times."""
        if self.time_format is None and self.file.type(name) == "VARCHAR" and self._order_of_parts(name) == "unclear":
            return True  # a date it is; which one is asked later
        return self._share(f"{self.time(name)} >= timestamp '{EARLIEST}'", name) >= 0.5

    def is_number(self, name: str) -> bool:
        """Whether most values of a column are numbers."""
        return self._share(f"({self.number(name)}) is not null", name) >= 0.5

    def _share(self, condition: str, name: str) -> float:
        """Share of the sample's values for which a condition holds."""
        value = quoted(name)
        counted = f"select count(*) filter (where {value} is not null), count(*) filter (where {condition}) from sample"
        try:
            there, right = self.con.execute(counted).fetchall()[0]
        except duckdb.Error:
            return 0.0  # not a type that could be cast
        return right / there if there else 0.0

    def customer(self, name: str) -> str:
        """SQL of the id as text; whole numbers lose the `.0` that spreadsheets and pandas add."""
        value, kind = quoted(name), self.file.type(name)
        if kind in _WHOLE:
            return f"cast({value} as varchar)"
        shown = f"cast({value} as varchar)"
        if kind in ("DOUBLE", "FLOAT"):
            whole = (
                f"when abs({value}) < 9e15 and {value} = floor({value}) then cast(cast({value} as bigint) as varchar)"
            )
            return f"case {whole} when not isnan({value}) then {shown} end"
        whole = f"when suffix({shown}, '0') and contains({shown}, '.') then regexp_replace({shown}, '^(-?\\d+)\\.0+$', '\\1')"
        return f"case {whole} else {shown} end"

    def number(self, name: str) -> str:
        """SQL of a number (double); null where there is none or it is something else."""
        value = quoted(name)
        if self.file.type(name) != "VARCHAR":
            return f"try_cast({value} as double)"
        digits = f"regexp_extract({value}, '\\d[\\d.,''’ \\x{{a0}}\\x{{202f}}]*')"
        fast = f"try_cast({value} as double), "
        if self._decimal_comma(name):
            cleaned, fast = f"replace(regexp_replace({digits}, '[^\\d,]', '', 'g'), ',', '.')", ""
        else:
            cleaned = f"regexp_replace({digits}, '[^\\d.]', '', 'g')"
        sign = f"case when regexp_matches({value}, '[(\\-−]') then -1 else 1 end"
        money = f"case when regexp_full_match({value}, {text(_MONEY)}) then {sign} * try_cast({cleaned} as double) end"
        return f"coalesce({fast}{money})"

    def _decimal_comma(self, name: str) -> bool:
        """Whether a comma separates the decimals, by what stands in the sample."""
        value = quoted(name)
        ends = [
            self.one(f"select count(*) from sample where regexp_matches({value}, '{mark}\\d{{1,2}}\\D*$')")
            for mark in (",", "\\.")
        ]
        return ends[0] > ends[1]

    def time(self, name: str) -> str:
        """SQL of the time, a timestamp in UTC; null where it cannot be read."""
        value, kind = quoted(name), self.file.type(name)
        if kind == "TIMESTAMP WITH TIME ZONE":
            return f"timezone('UTC', {value})"
        if kind.startswith(("DATE", "TIMESTAMP")):
            return f"cast({value} as timestamp)"
        if self.time_format:
            return f"timezone('UTC', cast(try_strptime(cast({value} as varchar), {text(self.time_format)}) as timestamptz))"
        number = _time_of_number(f"try_cast({value} as double)")
        if kind != "VARCHAR":
            return number
        if self._share(f"try_cast({value} as double) is not null", name) >= 0.5:
            return number
        order = self._order_of_parts(name)
        if order == "unclear":
            raise TransactionsError(
                f"{self.file.shown}: `{name}` can be day/month or month/day, no value tells which: "
                "give --time-format '%d/%m/%Y' or '%m/%d/%Y' (with %H:%M where there is a time)"
            )
        # a cast that heeds offsets costs eight times as much: most values are too short for one
        short = f"length({value}) <= 16 or (length({value}) = 19 and {value}[17] = ':')"
        tidy = f"regexp_replace({value}, ' ?([+-]\\d\\d):?(\\d\\d)( UTC)?$', '\\1:\\2')"
        long = f"timezone('UTC', coalesce(try_cast({value} as timestamptz), try_cast({tidy} as timestamptz)))"
        iso = f"case when {short} then try_cast({value} as timestamp) else {long} end"
        if order or self._share(f"{iso} is not null", name) < 0.5:
            if order:
                tidy = f"trim(regexp_replace({value}, '^(\\d+)[/.\\-](\\d+)[/.\\-](\\d+)[ T,]*', '\\1-\\2-\\3 '))"
            else:
                tidy = f"regexp_replace(translate({value}, ',-', '  '), ' +', ' ', 'g')"
            formats = ", ".join(map(text, _formats(order) if order else _NAMED))
            return f"try_strptime({tidy}, [{formats}])"
        return iso

    def _order_of_parts(self, name: str) -> str | None:
        """``dmy`` or ``mdy`` where times are two numbers and a year, ``unclear`` where nothing tells; else ``None``."""
        value = quoted(name)
        if self._share(f"regexp_full_match({value}, {text(_PARTS)})", name) < 0.5:
            return None
        largest = ", ".join(f"max(try_cast(regexp_extract({value}, {text(_PARTS)}, {n}) as integer))" for n in (1, 3))
        dots = self.one(
            f"select count(*) filter (where contains(split_part({value}, ' ', 1), '.')) * 2 > count({value}) from sample"
        )
        for rows in ("sample", self.file.values):
            first, second = self.con.execute(f"select {largest} from {rows}").fetchall()[0]
            if (first or 0) > 12 or (second or 0) > 12:
                return "dmy" if (first or 0) > 12 else "mdy"
            if dots:
                return "dmy"  # nobody writes 12.31.2020
        return "unclear"


def _time_of_number(value: str) -> str:
    """SQL of the UTC time that a number stands for: YYYYMMDD (also with HHMM, HHMMSS) or a time since 1970."""
    digits = f"cast(cast({value} as bigint) as varchar)"
    since = {1: (31_536_000, 4_102_444_800), 1e3: (3e11, 4.2e12), 1e6: (1e14, 4.2e15), 1e9: (1e17, 4.2e18)}
    written = {"%Y%m%d": 1, "%Y%m%d%H%M": 10**4, "%Y%m%d%H%M%S": 10**6}
    cases = [
        f"when {value} between {19_710_101 * unit} and {21_010_101 * unit} then try_strptime({digits}, '{form}')"
        for form, unit in written.items()
    ]
    cases += [
        f"when {value} between {low:.0f} and {high:.0f} then timezone('UTC', to_timestamp({value} / {unit:.0f}))"
        for unit, (low, high) in since.items()
    ]
    return f"case {' '.join(cases)} end"


_CLOCKS = ("", " %H:%M", " %H:%M:%S", " %H:%M:%S.%f", " %I:%M %p", " %I:%M:%S %p")
#: With a month's name; commas and dashes are blanks by then.
_NAMED = tuple(day + clock for day in ("%d %b %Y", "%d %B %Y", "%b %d %Y", "%B %d %Y", "%d %b %y") for clock in _CLOCKS)


def _formats(order: str) -> tuple[str, ...]:
    """Formats of a date in parts, divided by dashes; two digits of a year are tried first, four do not fit there."""
    day = "%d-%m-" if order == "dmy" else "%m-%d-"
    return tuple(day + year + clock for year in ("%y", "%Y") for clock in _CLOCKS)

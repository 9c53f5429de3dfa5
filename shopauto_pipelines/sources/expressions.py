"""The SQL of a source mapping: its helper functions, and the check that an expression is safe and known.

Expressions are DuckDB SQL over the columns of one file: scalar functions, aggregates where the table is grouped, windows.
No queries, no tables, nothing that gives another answer tomorrow (``random()``, ``now()``). Reading files and writing
tables is in ``landing.py``.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from difflib import get_close_matches
from functools import cache
from typing import ClassVar

import duckdb
import sqlglot
from sqlglot import exp
from sqlglot.dialects.duckdb import DuckDB
from sqlglot.parsers.duckdb import DuckDBParser

from shopauto_pipelines.platform import words

#: The row's number in its file may be used like a column.
SOURCE_ROW = "source_row"

#: Helpers that refuse what they cannot read: their value is then null, and the row is quarantined with this reason.
REFUSALS = {
    "number": "not a number",
    "whole": "not a whole number",
    "cents": "not an amount of money",
    "local_time": "not a time",
    "utc_time": "not a time",
    "flag": "not true or false",
}

#: SQL regular expression: a time as text says itself which zone it is in.
OFFSET = r":\d\d.*((?i:z| utc)|[+-]\d\d(:?\d\d)?)\s*$"

#: ``number`` keeps 6 decimals, ``cents`` rounds half away from zero, ``local_time`` is read, and given, in the source's time
#: zone, ``identifier`` drops the ``.0`` that spreadsheets add to numeric ids. A time with an offset is that instant in both.
HELPERS = (
    # Casting text to wider decimals than 18 digits takes a hundred times as long.
    "number(x) as try_cast(x as decimal(18,6))",
    "whole(x) as (case when try_cast(x as bigint) = try_cast(x as double) then try_cast(x as bigint) end)",
    # Rounded before it is multiplied: the largest of amounts would not fit into 18 digits, and stop the load.
    "cents(x) as try_cast(round(try_cast(x as decimal(18,6)), 2) * cast(100 as decimal(3,0)) as bigint)",
    f"local_time(x) as (case when regexp_matches(cast(x as varchar), '{OFFSET}')"
    " then timezone($zone, try_cast(x as timestamptz)) else try_cast(x as timestamp) end), (x, f) as try_strptime(x, f)",
    f"utc_time(x) as (case when regexp_matches(cast(x as varchar), '{OFFSET}')"
    " then try_cast(x as timestamptz) else timezone('UTC', try_cast(x as timestamp)) end),"
    " (x, f) as try_cast(try_strptime(x, f) as timestamptz)",
    "flag(x) as try_cast(trim(cast(x as varchar)) as boolean)",
    "identifier(x) as nullif(regexp_replace(trim(cast(x as varchar)), '\\.0+$', ''), '')",
)

_CLOCK = (
    exp.CurrentDate,
    exp.CurrentTime,
    exp.CurrentTimestamp,
    exp.Localtime,
    exp.Localtimestamp,
    exp.UtcDate,
    exp.UtcTimestamp,
)
_NOT_ALLOWED = (exp.Query, exp.Table, exp.Star, exp.Placeholder, exp.Parameter, exp.Command, exp.DDL, exp.Lambda)


class _Dialect(DuckDB):
    """DuckDB's, but that a helper is ours where another database has a function of its name."""

    class Parser(DuckDBParser):
        """Reads the names of helpers as any other name."""

        FUNCTIONS: ClassVar[dict[str, Callable]] = {
            name: function
            for name, function in DuckDBParser.FUNCTIONS.items()
            if name.lower() not in {helper.partition("(")[0] for helper in HELPERS}
        }


class ExpressionError(ValueError):
    """An expression is not valid; the text says what is wrong with it."""


@dataclass(frozen=True)
class Refusal:
    """One use of a refusing helper: the ``call`` is null although its ``argument`` is not."""

    call: str
    argument: str
    reason: str
    aggregated: bool

    @property
    def condition(self) -> str:
        """SQL: true where the helper refused its argument."""
        return f"(({self.argument}) is not null and ({self.call}) is null)"


@dataclass(frozen=True)
class Expression:
    """A checked expression. ``sql`` refers to columns by their :func:`plain` names, quoted."""

    sql: str
    columns: tuple[str, ...]
    refusals: tuple[Refusal, ...]
    aggregated: bool


def plain(name: str) -> str:
    """A column name without case, spaces, underscores and dashes: ``Invoice Date`` and ``invoice_date`` are the same."""
    return re.sub(r"[\s_.\-]+", "", name).casefold()


def nearest(name: str, valid: list[str]) -> str:
    """:func:`words.nearest`, with names compared as columns are."""
    return words.nearest(name, valid, alike=plain)


@cache
def parse(text: str) -> Expression:
    """Check ``text``; raises :class:`ExpressionError`."""
    try:
        statements = sqlglot.parse(f"select {text}", dialect=_Dialect)
    except sqlglot.errors.SqlglotError as error:
        details = getattr(error, "errors", None) or [{"description": str(error)}]
        raise ExpressionError(f"`{text}` is not valid SQL: {details[0].get('description')}") from None
    select = statements[0]
    if len(statements) != 1 or not isinstance(select, exp.Select) or len(select.expressions) != 1:
        raise ExpressionError(f"`{text}` must be one SQL expression")
    if any(value for key, value in select.args.items() if key not in ("kind", "expressions")):
        raise ExpressionError(f"`{text}` must be an expression over the file's columns, not a query")
    tree = select.expressions[0]
    _check(tree, text)
    names: dict[str, str] = {}
    for column in list(tree.find_all(exp.Column)):
        if column.table:
            raise ExpressionError(f"`{column.sql('duckdb')}` in `{text}`: name the column alone")
        if plain(column.name) == plain(SOURCE_ROW):
            replacement = exp.column("_row", quoted=True)
        else:
            names.setdefault(plain(column.name), column.name)
            replacement = exp.column(plain(column.name), quoted=True)
        if column is tree:
            tree = replacement
        else:
            column.replace(replacement)
    return Expression(tree.sql("duckdb"), tuple(names.values()), tuple(_refusals(tree)), _aggregated(tree))


def _check(tree: exp.Expression, text: str) -> None:
    for node in tree.walk():
        if isinstance(node, _NOT_ALLOWED) and not (isinstance(node, exp.Star) and isinstance(node.parent, exp.Count)):
            raise ExpressionError(f"`{text}` must be an expression over the file's columns, not a query")
        if isinstance(node, exp.Func):
            name = (node.name if isinstance(node, exp.Anonymous) else node.sql_name()).lower()
            if name in _unsteady() or isinstance(node, (exp.Rand, *_CLOCK)):
                raise ExpressionError(
                    f"`{name}()` in `{text}` gives another answer each time; a mapping must not use it"
                )
            if isinstance(node, exp.Anonymous) and name not in _functions():
                hint = get_close_matches(name, sorted(_functions()), n=1)
                raise ExpressionError(
                    f"unknown function `{name}()` in `{text}`" + (f"; did you mean `{hint[0]}()`?" if hint else "")
                )


def _refusals(tree: exp.Expression) -> list[Refusal]:
    found = []
    for node in tree.find_all(exp.Anonymous):
        reason = REFUSALS.get(node.name.lower())
        if reason and node.expressions:
            argument = node.expressions[0]
            found.append(Refusal(node.sql("duckdb"), argument.sql("duckdb"), reason, _aggregated(argument)))
    return found[::-1]  # innermost first: its value is the one at fault


def _aggregated(tree: exp.Expression) -> bool:
    for node in tree.walk():
        if isinstance(node, exp.AggFunc) and not node.find_ancestor(exp.Window):
            return True
        if (
            isinstance(node, exp.Anonymous)
            and node.name.lower() in _aggregates()
            and not node.find_ancestor(exp.Window)
        ):
            return True
    return False


def define_helpers(con: duckdb.DuckDBPyConnection, zone: str) -> None:
    """Make the helpers known to a connection, which is set to UTC, for a source whose times are in ``zone``."""
    for helper in HELPERS:
        name, _, body = helper.replace("$zone", f"'{zone}'").partition("(")
        con.execute(f"create or replace temp macro {name}({body}")


@cache
def _catalogue() -> tuple[frozenset[str], frozenset[str], frozenset[str]]:
    with duckdb.connect() as con:
        rows = con.execute(
            "select function_name, function_type, coalesce(stability, 'CONSISTENT') from duckdb_functions()"
            " where function_type in ('scalar', 'aggregate', 'macro')"
        ).fetchall()
    known = {name.lower() for name, _, _ in rows} | {helper.partition("(")[0] for helper in HELPERS}
    aggregates = {name.lower() for name, kind, _ in rows if kind == "aggregate"}
    unsteady = {name.lower() for name, _, stability in rows if stability != "CONSISTENT"}
    return frozenset(known), frozenset(aggregates), frozenset(unsteady)


def _functions() -> frozenset[str]:
    return _catalogue()[0]


def _aggregates() -> frozenset[str]:
    return _catalogue()[1]


def _unsteady() -> frozenset[str]:
    return _catalogue()[2]

"""The language of ``where``: a SQL condition on one person, checked when it is loaded, then an Ibis expression.

The SQL is parsed (DuckDB's dialect) and translated node by node. What is not listed here does not exist: no subquery,
no aggregate, no function that reads a file or the clock. Types are checked, since engines differ in what they convert
silently.
Which columns there are is not decided here.
"""

from __future__ import annotations

import operator
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import date
from difflib import get_close_matches
from functools import reduce
from typing import Any

import ibis
import ibis.expr.datatypes as dt
import ibis.expr.types as ir
import sqlglot
from ibis.common.exceptions import IbisError
from sqlglot import exp
from sqlglot.errors import SqlglotError
from sqlglot.tokens import Token, TokenType

from shopauto_pipelines.platform.tables import Column

#: Most characters, tokens and nested parentheses of a condition, and characters of a number in it.
LIMITS = {"characters": 4_000, "tokens": 600, "depth": 20, "digits": 15}

#: Name that stands for the day of the partition.
AS_OF = "as_of"

_SOME_DAY = date(2000, 1, 1)


class PredicateError(ValueError):
    """A condition is not one; the text says which part and what to write instead."""


@dataclass(frozen=True)
class Predicate:
    """A checked condition: its ``sql``, and the ``columns`` it needs."""

    sql: str
    columns: frozenset[str]
    _tree: exp.Expr

    def apply(self, rows: ir.Table, as_of: date) -> ir.BooleanValue:
        """True for the rows that meet the condition; false, never null, for all others."""
        return ibis.coalesce(_Translation(rows, as_of).of(self._tree), ibis.literal(False))


def parse(sql: str, columns: Mapping[str, Column]) -> Predicate:
    """Check ``sql`` against the declared ``columns``; raises :class:`PredicateError`."""
    tree = _tree(sql)
    used = set()
    for node in tree.find_all(exp.Column):
        name = _column_name(node)
        if name == AS_OF:
            continue
        if name not in columns:
            close = get_close_matches(name, [n for n, c in columns.items() if not c.private], n=1)
            hint = f"; did you mean `{close[0]}`?" if close else ""
            raise PredicateError(f"there is no column `{name}`{hint}")
        if columns[name].private:
            instead = "; use `days_to_birthday`" if name == "birthday" else ""
            raise PredicateError(f"`{name}` holds private data and cannot be used in a segment{instead}")
        used.add(name)
    schema = ibis.schema({name: columns[name].type for name in sorted(used)} or {"customer_id": "string"})
    try:
        value = _Translation(ibis.table(schema, name="people"), _SOME_DAY).of(tree)
    except RecursionError:
        raise PredicateError("the condition is nested too deeply") from None
    except (IbisError, TypeError) as error:
        raise PredicateError(f"the condition cannot be computed: {error}") from None
    if not value.type().is_boolean():
        raise PredicateError(f"the condition must be true or false, but `{_shown(tree)}` is {_noun(value)}")
    return Predicate(sql, frozenset(used), tree)


def _tree(sql: str) -> exp.Expr:
    if len(sql) > LIMITS["characters"]:
        raise PredicateError(f"the condition has {len(sql)} characters; at most {LIMITS['characters']} are allowed")
    try:
        tokens = sqlglot.tokenize(sql, dialect="duckdb")
        if len(tokens) > LIMITS["tokens"] or _depth(tokens) > LIMITS["depth"]:
            raise PredicateError(
                f"the condition is too large: at most {LIMITS['tokens']} words and signs, "
                f"and {LIMITS['depth']} parentheses inside each other, are allowed"
            )
        statements = sqlglot.parse(sql, dialect="duckdb")
    except SqlglotError as error:
        details = (getattr(error, "errors", None) or [{}])[0]
        found = f" near `{details['highlight']}`" if details.get("highlight") else ""
        raise PredicateError(f"the condition is not valid SQL{found}: {details.get('description', error)}") from None
    except RecursionError:
        raise PredicateError("the condition is nested too deeply") from None
    if len(statements) != 1 or statements[0] is None:
        raise PredicateError("the condition must be exactly one SQL expression")
    return statements[0]


def _depth(tokens: list[Token]) -> int:
    depth = deepest = 0
    for token in tokens:
        depth += (token.token_type == TokenType.L_PAREN) - (token.token_type == TokenType.R_PAREN)
        deepest = max(deepest, depth)
    return deepest


def _column_name(node: exp.Column) -> str:
    if set(_arguments(node)) != {"this"} or not isinstance(node.this, exp.Identifier):
        raise PredicateError(f"`{_shown(node)}`: write the column's name alone")
    return node.name.lower()


def _arguments(node: exp.Expr) -> dict[str, Any]:
    """What was written in the node: empty and false arguments left out."""
    return {name: value for name, value in node.args.items() if value not in (None, False, [])}


def _shown(node: exp.Expr) -> str:
    text = node.sql(dialect="duckdb")
    return text if len(text) <= 80 else f"{text[:77]}…"


# Families of types: values of one family compare with each other and with nothing else.
_NUMBER, _TEXT, _TRUTH, _DAY = "a number", "a text", "true or false", "a date"


def _noun(value: ir.Value) -> str:
    kind: dt.DataType = value.type()
    if kind.is_numeric():
        return _NUMBER
    if kind.is_string():
        return _TEXT
    if kind.is_boolean():
        return _TRUTH
    return _DAY if kind.is_date() else "null" if kind.is_null() else str(kind)


_COMPARISONS: dict[type[exp.Expr], Callable[[Any, Any], Any]] = {
    exp.EQ: operator.eq,
    exp.NEQ: operator.ne,
    exp.GT: operator.gt,
    exp.GTE: operator.ge,
    exp.LT: operator.lt,
    exp.LTE: operator.le,
}
_ARITHMETIC: dict[type[exp.Expr], Callable[[Any, Any], Any]] = {
    exp.Add: operator.add,
    exp.Sub: operator.sub,
    # As floats: a product of integers may overflow, which would stop the run for every segment.
    exp.Mul: lambda a, b: a.cast("float64") * b,
    # A division by zero is null: engines disagree between null, infinity and an error.
    exp.Div: lambda a, b: a / b.nullif(0),
    exp.IntDiv: lambda a, b: a // b.nullif(0),
    exp.Mod: lambda a, b: a % b.nullif(0),
}
#: Functions of one argument: the family it must have, and what it does.
_FUNCTIONS: dict[type[exp.Expr], tuple[str, Callable[[Any], Any]]] = {
    exp.Abs: (_NUMBER, lambda x: x.abs()),
    exp.Floor: (_NUMBER, lambda x: x.floor()),
    exp.Ceil: (_NUMBER, lambda x: x.ceil()),
    exp.Lower: (_TEXT, lambda x: x.lower()),
    exp.Upper: (_TEXT, lambda x: x.upper()),
    exp.Trim: (_TEXT, lambda x: x.strip()),
    exp.Length: (_TEXT, lambda x: x.length()),
    exp.Year: (_DAY, lambda x: x.year()),
    exp.Month: (_DAY, lambda x: x.month()),
    exp.Day: (_DAY, lambda x: x.day()),
}
_ALLOWED = (
    "abs, ceil, coalesce, day, days_since, days_until, floor, greatest, least, length, lower, month, nullif, round, "
    "trim, upper, year"
)


class _Translation:
    """Turns a tree into a value of ``rows``; a node's class is translated by ``visit_<class>``, or it is refused."""

    def __init__(self, rows: ir.Table, as_of: date) -> None:
        self._rows = rows
        self._as_of = as_of

    def of(self, node: exp.Expr) -> ir.Value:
        """The value of any node."""
        kind = type(node)
        if kind in _COMPARISONS:
            left, right = self._alike(node, *self._operands(node))
            return _COMPARISONS[kind](left, right)
        if kind in _ARITHMETIC:
            return self._arithmetic(node)
        if kind in _FUNCTIONS:
            family, function = _FUNCTIONS[kind]
            self._expect(node, {"this"})
            return function(self._typed(node.this, family))
        method = getattr(self, f"visit_{kind.__name__.lower()}", None)
        if method is None:
            raise self._refused(node)
        return method(node)

    # Leaves

    def visit_column(self, node: exp.Column) -> ir.Value:
        name = _column_name(node)
        return ibis.literal(self._as_of) if name == AS_OF else self._rows[name]

    def visit_literal(self, node: exp.Literal) -> ir.Value:
        if node.is_string:
            return ibis.literal(node.this)
        if len(node.this) > LIMITS["digits"]:
            raise PredicateError(f"`{_shown(node)}`: a number has at most {LIMITS['digits']} characters")
        return ibis.literal(int(node.this)) if node.this.isdigit() else ibis.literal(float(node.this))

    def visit_boolean(self, node: exp.Boolean) -> ir.Value:
        return ibis.literal(bool(node.this))

    def visit_null(self, node: exp.Null) -> ir.Value:
        return ibis.null()

    def visit_cast(self, node: exp.Cast) -> ir.Value:
        if node.to.is_type("date") and isinstance(node.this, exp.Literal) and node.this.is_string:
            return self._date(node.this.this)
        raise PredicateError(f"`{_shown(node)}`: conversions are not allowed, only dates such as date '2025-12-31'")

    # Conditions

    def visit_paren(self, node: exp.Paren) -> ir.Value:
        return self.of(node.this)

    def visit_and(self, node: exp.And) -> ir.Value:
        return reduce(operator.and_, (self._typed(part, _TRUTH) for part in self._operand_nodes(node)))

    def visit_or(self, node: exp.Or) -> ir.Value:
        return reduce(operator.or_, (self._typed(part, _TRUTH) for part in self._operand_nodes(node)))

    def visit_not(self, node: exp.Not) -> ir.Value:
        return ~self._typed(node.this, _TRUTH)

    def visit_is(self, node: exp.Is) -> ir.Value:
        self._expect(node, {"this", "expression"})
        if isinstance(node.expression, exp.Null):
            return self.of(node.this).isnull()
        if isinstance(node.expression, exp.Boolean):
            return self._typed(node.this, _TRUTH).identical_to(self.of(node.expression))
        raise self._refused(node)

    def visit_nullsafeeq(self, node: exp.NullSafeEQ) -> ir.Value:
        left, right = self._alike(node, *self._operands(node))
        return left.identical_to(right)

    def visit_nullsafeneq(self, node: exp.NullSafeNEQ) -> ir.Value:
        left, right = self._alike(node, *self._operands(node))
        return ~left.identical_to(right)

    def visit_between(self, node: exp.Between) -> ir.Value:
        self._expect(node, {"this", "low", "high", "negate"})
        value, low, high = self._alike(node, *(self.of(node.args[name]) for name in ("this", "low", "high")))
        return self._negated(node, value.between(low, high))

    def visit_in(self, node: exp.In) -> ir.Value:
        self._expect(node, {"this", "expressions", "negate"})
        value, *options = self._alike(node, self.of(node.this), *(self.of(option) for option in node.expressions))
        return self._negated(node, value.isin(options))

    def visit_like(self, node: exp.Like) -> ir.Value:
        return self._matches(node, "like")

    def visit_ilike(self, node: exp.ILike) -> ir.Value:
        return self._matches(node, "ilike")

    def _matches(self, node: exp.Like | exp.ILike, method: str) -> ir.Value:
        self._expect(node, {"this", "expression", "negate"})
        if not (isinstance(node.expression, exp.Literal) and node.expression.is_string):
            raise PredicateError(f"`{_shown(node)}`: the pattern must be a text in quotes")
        return self._negated(node, getattr(self._typed(node.this, _TEXT), method)(node.expression.this))

    def visit_case(self, node: exp.Case) -> ir.Value:
        self._expect(node, {"this", "ifs", "default"})
        tests, results = [], []
        for branch in node.args["ifs"]:
            if node.this is None:
                tests.append(self._typed(branch.this, _TRUTH))
            else:
                left, right = self._alike(node, self.of(node.this), self.of(branch.this))
                tests.append(left == right)
            results.append(self.of(branch.args["true"]))
        default = node.args.get("default")
        otherwise = ibis.null() if default is None else self.of(default)
        *results, otherwise = self._alike(node, *results, otherwise, nulls=True)
        return ibis.cases(*zip(tests, results, strict=True), else_=otherwise)

    # Functions and arithmetic

    def visit_coalesce(self, node: exp.Coalesce) -> ir.Value:
        return ibis.coalesce(*self._list(node))

    def visit_least(self, node: exp.Least) -> ir.Value:
        return ibis.least(*self._list(node))

    def visit_greatest(self, node: exp.Greatest) -> ir.Value:
        return ibis.greatest(*self._list(node))

    def visit_nullif(self, node: exp.Nullif) -> ir.Value:
        left, right = self._alike(node, *self._operands(node))
        return left.nullif(right)

    def visit_round(self, node: exp.Round) -> ir.Value:
        self._expect(node, {"this", "decimals"})
        decimals = node.args.get("decimals")
        if decimals is not None and not (isinstance(decimals, exp.Literal) and decimals.this.isdigit()):
            raise PredicateError(f"`{_shown(node)}`: the number of decimals must be a plain number")
        value = self._typed(node.this, _NUMBER)
        return value.round(int(decimals.this)) if decimals is not None else value.round()

    def visit_anonymous(self, node: exp.Anonymous) -> ir.Value:
        name = str(node.this).lower()
        if name not in ("days_since", "days_until"):
            raise self._refused(node)
        if len(node.expressions) != 1:
            raise PredicateError(f"`{_shown(node)}`: {name} takes one date")
        day, today = self._typed(node.expressions[0], _DAY), ibis.literal(self._as_of)
        return today.delta(day, unit="day") if name == "days_since" else day.delta(today, unit="day")

    def visit_neg(self, node: exp.Neg) -> ir.Value:
        return -self._typed(node.this, _NUMBER)

    def _arithmetic(self, node: exp.Expr) -> ir.Value:
        left, right = self._operands(node)
        families = _noun(left), _noun(right)
        if families == (_NUMBER, _NUMBER):
            return _ARITHMETIC[type(node)](left, right)
        if families == (_DAY, _DAY) and isinstance(node, exp.Sub):
            return left.delta(right, unit="day")
        if families == (_DAY, _NUMBER) and right.type().is_integer() and isinstance(node, exp.Add | exp.Sub):
            days = right.as_interval("D")
            return left + days if isinstance(node, exp.Add) else left - days
        raise PredicateError(f"`{_shown(node)}`: cannot calculate with {families[0]} and {families[1]}")

    # Help

    def _date(self, text: str) -> ir.Value:
        try:
            return ibis.literal(date.fromisoformat(text))
        except ValueError:
            raise PredicateError(f"'{text}' is not a date such as '2025-12-31'") from None

    def _typed(self, node: exp.Expr, family: str) -> ir.Value:
        value = self.of(node)
        if _noun(value) != family:
            raise PredicateError(f"`{_shown(node)}` is {_noun(value)}, but must be {family} here")
        return value

    def _alike(self, node: exp.Expr, *values: ir.Value, nulls: bool = False) -> list[ir.Value]:
        """The values, if they are of one family; a text in quotes becomes a date beside dates."""
        families = [_noun(value) for value in values]
        if "null" in families and not nulls:
            raise PredicateError(f"`{_shown(node)}`: nothing is equal to null; write `is null` or `is not null`")
        if _DAY in families:
            values = tuple(self._as_day(value) for value in values)
            families = [_noun(value) for value in values]
        kinds = sorted(set(families) - {"null"})
        if len(kinds) > 1:
            raise PredicateError(f"`{_shown(node)}`: {kinds[0]} and {kinds[1]} do not go together")
        return list(values)

    def _as_day(self, value: ir.Value) -> ir.Value:
        literal = value.op()
        is_text = isinstance(literal, ibis.expr.operations.Literal) and value.type().is_string()
        return self._date(literal.value) if is_text else value

    def _list(self, node: exp.Expr) -> list[ir.Value]:
        return self._alike(node, *(self.of(part) for part in (node.this, *node.expressions)))

    def _operands(self, node: exp.Expr) -> tuple[ir.Value, ir.Value]:
        self._expect(node, {"this", "expression", "typed", "safe"})
        return self.of(node.this), self.of(node.expression)

    def _operand_nodes(self, node: exp.Expr) -> list[exp.Expr]:
        """Parts of a chain such as ``a and b and c``, which the parser nests to the left."""
        parts, rest = [], node
        while isinstance(rest, type(node)):
            parts.append(rest.expression)
            rest = rest.this
        return [rest, *reversed(parts)]

    def _negated(self, node: exp.Expr, value: ir.Value) -> ir.Value:
        return ~value if node.args.get("negate") else value

    def _expect(self, node: exp.Expr, arguments: set[str]) -> None:
        """Refuse what was written in the node and would not be translated."""
        if set(_arguments(node)) - arguments:
            raise self._refused(node)

    def _refused(self, node: exp.Expr) -> PredicateError:
        if isinstance(node, exp.Func) and not node.find(exp.Query):
            return PredicateError(f"`{_shown(node)}`: this function is not allowed; there are {_ALLOWED}")
        if isinstance(node, exp.Query | exp.Subquery | exp.Exists | exp.In | exp.Func):
            return PredicateError(f"`{_shown(node)}`: queries are not allowed, only conditions on one person")
        return PredicateError(f"`{_shown(node)}` is not allowed in a condition")

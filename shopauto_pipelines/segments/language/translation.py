"""From the tree of a condition to an Ibis value, node by node: what is not listed here does not exist.

No subquery, no aggregate, no function that reads a file or the clock. Types are checked, since engines differ in what they
convert silently. What names stand for is the business of ``names``.
"""

from __future__ import annotations

import operator
from collections.abc import Callable
from datetime import date
from functools import reduce
from typing import Any, Protocol

import ibis
import ibis.expr.datatypes as dt
import ibis.expr.operations as ops
import ibis.expr.types as ir
from ibis.common.exceptions import IbisError
from sqlglot import exp

from shopauto_pipelines.platform.words import nearest
from shopauto_pipelines.segments.events import Day
from shopauto_pipelines.segments.language.syntax import LIMITS, PredicateError, place, shown, start_of

#: Name that stands for the day of the partition.
AS_OF = "as_of"

#: The day while a condition is checked: types do not depend on it.
SOME_DAY = date(2000, 1, 1)


class Names(Protocol):
    """What columns stand for."""

    def column(self, name: str, /) -> ir.Value:
        """The value of a column."""


class Calls(Names, Protocol):
    """What ``did`` and ``in_segment`` stand for, too."""

    def did(self, node: exp.Anonymous, /) -> ir.BooleanValue:
        """The answer to a question about events."""

    def in_segment(self, node: exp.Anonymous, /) -> ir.BooleanValue:
        """Whether a person is in any of the segments."""


def chain(node: exp.Expr) -> list[exp.Expr]:
    """Parts of a chain such as ``a and b and c``, which the parser nests to the left."""
    parts, rest = [], node
    while isinstance(rest, type(node)):
        parts.append(rest.expression)
        rest = rest.this
    return [rest, *reversed(parts)]


def _column_name(node: exp.Column) -> str:
    if set(_arguments(node)) != {"this"} or not isinstance(node.this, exp.Identifier):
        raise PredicateError(f"`{shown(node)}`: write the column's name alone")
    return node.name.lower()


def _arguments(node: exp.Expr) -> dict[str, Any]:
    """What was written in the node: empty and false arguments left out."""
    return {name: value for name, value in node.args.items() if value not in (None, False, [])}


# Families of types: values of one family compare with each other and with nothing else.
_NUMBER, _TEXT, _TRUTH, _DAY = "a number", "a text", "true or false", "a date"


def noun(value: ir.Value) -> str:
    """The family of a value's type, in words."""
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
_FUNCTION_NAMES = (
    *("abs", "ceil", "coalesce", "day", "days_since", "days_until", "did", "floor", "greatest", "in_segment", "least"),
    *("length", "lower", "month", "nullif", "round", "trim", "upper", "year"),
)


def _in_one_piece(value: ir.Value) -> ir.Value:
    """The value; a truth made of others inside a function.

    Ibis sets no parentheses around ``not a`` before ``=`` and ``is null``, nor around ``a and b`` before ``is true``, ``in``
    and ``between``.
    """
    made = value.type().is_boolean() and not isinstance(value.op(), ops.Field | ops.Literal)
    return ibis.coalesce(value, ibis.null("boolean")) if made else value


#: What the parser takes for functions, and people write with signs.
_NO_FUNCTIONS = (exp.Struct, exp.Array)


class Translation:
    """Turns a tree into a value of ``rows``; a node's class is translated by ``_visit_<class>``, or it is refused."""

    def __init__(self, names: Names | Calls, as_of: Day, sql: str | None = None) -> None:
        self._names = names
        self._today = ibis.literal(as_of) if isinstance(as_of, date) else as_of
        self._sql = sql

    def of(self, node: exp.Expr) -> ir.Value:
        """The value of any node; an error says where the innermost node stands that it is about."""
        try:
            return self._of(node)
        except PredicateError as error:
            if error.at is None and self._sql:
                error.at = place(self._sql, start_of(node))
            raise
        except (IbisError, TypeError) as error:
            at = place(self._sql, start_of(node)) if self._sql else None
            raise PredicateError(f"`{shown(node)}` cannot be computed: {error}", at) from None

    def _of(self, node: exp.Expr) -> ir.Value:
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
        method = getattr(self, f"_visit_{kind.__name__.lower()}", None)
        if method is None:
            raise self._refused(node)
        return method(node)

    # Leaves

    def _visit_column(self, node: exp.Column) -> ir.Value:
        name = _column_name(node)
        return self._today if name == AS_OF else self._names.column(name)

    def _visit_literal(self, node: exp.Literal) -> ir.Value:
        if node.is_string:
            return ibis.literal(node.this)
        if len(node.this) > LIMITS["digits"]:
            raise PredicateError(f"`{shown(node)}`: a number has at most {LIMITS['digits']} characters")
        return ibis.literal(int(node.this)) if node.this.isdigit() else ibis.literal(float(node.this))

    def _visit_boolean(self, node: exp.Boolean) -> ir.Value:
        return ibis.literal(bool(node.this))

    def _visit_null(self, node: exp.Null) -> ir.Value:
        return ibis.null()

    def _visit_cast(self, node: exp.Cast) -> ir.Value:
        if node.to.is_type("date") and isinstance(node.this, exp.Literal) and node.this.is_string:
            return self._date(node.this.this)
        raise PredicateError(f"`{shown(node)}`: conversions are not allowed, only dates such as date '2025-12-31'")

    # Conditions

    def _visit_paren(self, node: exp.Paren) -> ir.Value:
        return self.of(node.this)

    def _visit_and(self, node: exp.And) -> ir.Value:
        return reduce(operator.and_, (self._typed(part, _TRUTH) for part in chain(node)))

    def _visit_or(self, node: exp.Or) -> ir.Value:
        return reduce(operator.or_, (self._typed(part, _TRUTH) for part in chain(node)))

    def _visit_not(self, node: exp.Not) -> ir.Value:
        return ~self._typed(node.this, _TRUTH)

    def _visit_is(self, node: exp.Is) -> ir.Value:
        self._expect(node, {"this", "expression"})
        if isinstance(node.expression, exp.Null):
            return _in_one_piece(self.of(node.this)).isnull()
        if isinstance(node.expression, exp.Boolean):
            return _in_one_piece(self._typed(node.this, _TRUTH)).identical_to(self.of(node.expression))
        raise PredicateError(f"`{shown(node)}`: `is` goes with null, true and false alone; write `=`")

    def _visit_nullsafeeq(self, node: exp.NullSafeEQ) -> ir.Value:
        left, right = self._alike(node, *self._operands(node))
        return left.identical_to(right)

    def _visit_nullsafeneq(self, node: exp.NullSafeNEQ) -> ir.Value:
        left, right = self._alike(node, *self._operands(node))
        return ~left.identical_to(right)

    def _visit_between(self, node: exp.Between) -> ir.Value:
        self._expect(node, {"this", "low", "high", "negate"})
        value, low, high = self._alike(node, *(self.of(node.args[name]) for name in ("this", "low", "high")))
        return self._negated(node, value.between(low, high))

    def _visit_in(self, node: exp.In) -> ir.Value:
        self._expect(node, {"this", "expressions", "negate"})
        value, *options = self._alike(node, self.of(node.this), *(self.of(option) for option in node.expressions))
        return self._negated(node, value.isin(options))

    def _visit_like(self, node: exp.Like) -> ir.Value:
        return self._matches(node, "like")

    def _visit_ilike(self, node: exp.ILike) -> ir.Value:
        return self._matches(node, "ilike")

    def _matches(self, node: exp.Like | exp.ILike, method: str) -> ir.Value:
        self._expect(node, {"this", "expression", "negate"})
        if not (isinstance(node.expression, exp.Literal) and node.expression.is_string):
            raise PredicateError(f"`{shown(node)}`: the pattern must be a text in quotes")
        return self._negated(node, getattr(self._typed(node.this, _TEXT), method)(node.expression.this))

    def _visit_case(self, node: exp.Case) -> ir.Value:
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

    def _visit_coalesce(self, node: exp.Coalesce) -> ir.Value:
        return ibis.coalesce(*self._list(node))

    def _visit_least(self, node: exp.Least) -> ir.Value:
        return ibis.least(*self._list(node))

    def _visit_greatest(self, node: exp.Greatest) -> ir.Value:
        return ibis.greatest(*self._list(node))

    def _visit_nullif(self, node: exp.Nullif) -> ir.Value:
        left, right = self._alike(node, *self._operands(node))
        return left.nullif(right)

    def _visit_round(self, node: exp.Round) -> ir.Value:
        self._expect(node, {"this", "decimals"})
        decimals = node.args.get("decimals")
        if decimals is not None and not (isinstance(decimals, exp.Literal) and decimals.this.isdigit()):
            raise PredicateError(f"`{shown(node)}`: the number of decimals must be a plain number")
        value = self._typed(node.this, _NUMBER)
        return value.round(int(decimals.this)) if decimals is not None else value.round()

    def _visit_anonymous(self, node: exp.Anonymous) -> ir.Value:
        name = str(node.this).lower()
        if name in ("did", "in_segment") and hasattr(self._names, name):
            return getattr(self._names, name)(node)
        if name not in ("days_since", "days_until"):
            raise self._refused(node)
        if len(node.expressions) != 1:
            raise PredicateError(f"`{shown(node)}`: {name} takes one date")
        day, today = self._typed(node.expressions[0], _DAY), self._today
        return today.delta(day, unit="day") if name == "days_since" else day.delta(today, unit="day")

    def _visit_neg(self, node: exp.Neg) -> ir.Value:
        return -self._typed(node.this, _NUMBER)

    def _arithmetic(self, node: exp.Expr) -> ir.Value:
        left, right = self._operands(node)
        families = noun(left), noun(right)
        if families == (_NUMBER, _NUMBER):
            return _ARITHMETIC[type(node)](left, right)
        if families == (_DAY, _DAY) and isinstance(node, exp.Sub):
            return left.delta(right, unit="day")
        if families == (_DAY, _NUMBER) and isinstance(node, exp.Add | exp.Sub):
            if not right.type().is_integer():
                raise PredicateError(f"`{shown(node)}`: days are whole numbers: `round({shown(node.expression)})`")
            days = right.as_interval("D")
            return left + days if isinstance(node, exp.Add) else left - days
        raise PredicateError(f"`{shown(node)}`: cannot calculate with {families[0]} and {families[1]}")

    # Help

    def _date(self, text: str) -> ir.Value:
        try:
            return ibis.literal(date.fromisoformat(text))
        except ValueError:
            raise PredicateError(f"'{text}' is not a date such as '2025-12-31'") from None

    def _typed(self, node: exp.Expr, family: str) -> ir.Value:
        value = self.of(node)
        if noun(value) != family:
            at = place(self._sql, start_of(node)) if self._sql else None
            raise PredicateError(f"`{shown(node)}` is {noun(value)}, but must be {family} here", at)
        return value

    def _alike(self, node: exp.Expr, *values: ir.Value, nulls: bool = False) -> list[ir.Value]:
        """The values in one piece, if they are of one family; a text in quotes becomes a date beside dates."""
        families = [noun(value) for value in values]
        if "null" in families and not nulls:
            raise PredicateError(f"`{shown(node)}`: nothing is equal to null; write `is null` or `is not null`")
        if _DAY in families:
            values = tuple(self._as_day(value) for value in values)
            families = [noun(value) for value in values]
        kinds = sorted(set(families) - {"null"})
        if len(kinds) > 1:
            asks = any(
                isinstance(part, exp.Anonymous) and str(part.this).lower() == "did" for part in node.iter_expressions()
            )
            hint = "; how often is said inside did: `at_least => 3`" if asks else ""
            raise PredicateError(f"`{shown(node)}`: {kinds[0]} and {kinds[1]} do not go together{hint}")
        return [_in_one_piece(value) for value in values]

    def _as_day(self, value: ir.Value) -> ir.Value:
        literal = value.op()
        is_text = isinstance(literal, ops.Literal) and value.type().is_string()
        return self._date(literal.value) if is_text else value

    def _list(self, node: exp.Expr) -> list[ir.Value]:
        return self._alike(node, *(self.of(part) for part in (node.this, *node.expressions)))

    def _operands(self, node: exp.Expr) -> tuple[ir.Value, ir.Value]:
        self._expect(node, {"this", "expression", "typed", "safe"})
        return self.of(node.this), self.of(node.expression)

    def _negated(self, node: exp.Expr, value: ir.Value) -> ir.Value:
        return ~value if node.args.get("negate") else value

    def _expect(self, node: exp.Expr, arguments: set[str]) -> None:
        """Refuse what was written in the node and would not be translated."""
        if set(_arguments(node)) - arguments:
            raise self._refused(node)

    def _refused(self, node: exp.Expr) -> PredicateError:
        if isinstance(node, exp.Func) and not isinstance(node, _NO_FUNCTIONS) and not node.find(exp.Query):
            name = str(node.this) if isinstance(node, exp.Anonymous) else node.sql_name().lower()
            hint = nearest(name, _FUNCTION_NAMES)
            return PredicateError(f"`{shown(node)}`: this function is not allowed; {hint}")
        if isinstance(node, exp.Query | exp.Subquery | exp.Exists | exp.In) or node.find(exp.Query):
            return PredicateError(f"`{shown(node)}`: queries are not allowed, only conditions on one person")
        return PredicateError(f"`{shown(node)}` is not allowed in a condition")

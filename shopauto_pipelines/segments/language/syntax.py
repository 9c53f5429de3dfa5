"""From the text of a condition to its tree: how large it may be, where its parts stand, what its parameters are.

What a tree means, and which of its nodes exist at all, is the business of ``translation``.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import date
from decimal import Decimal
from itertools import pairwise
from typing import ClassVar

from sqlglot import exp
from sqlglot.dialects.dialect import Dialect
from sqlglot.errors import ParseError, SqlglotError
from sqlglot.parsers.duckdb import DuckDBParser
from sqlglot.tokens import Token, TokenType

from shopauto_pipelines.platform.words import nearest

#: Most characters, tokens and nested parentheses of a condition, and characters of a number in it.
LIMITS = {"characters": 4_000, "tokens": 600, "depth": 20, "digits": 15}

_DUCKDB = Dialect.get_or_raise("duckdb")


class _Parser(DuckDBParser):
    """DuckDB's, with ``%`` beside ``*`` and ``/`` as in SQL: sqlglot reads ``a + b % 7`` as ``(a + b) % 7``."""

    TERM: ClassVar = {token: node for token, node in DuckDBParser.TERM.items() if token != TokenType.MOD}
    FACTOR: ClassVar = DuckDBParser.FACTOR | {TokenType.MOD: exp.Mod}


#: What a parameter may stand for.
Scalar = bool | int | float | date | str


class PredicateError(ValueError):
    """A condition is not one; the text says which part and what to write instead.

    ``at`` is the 1-based line and column within the condition where the part stands; ``None`` where it is all of it.
    """

    def __init__(self, message: str, at: tuple[int, int] | None = None) -> None:
        super().__init__(message)
        self.at = at

    @property
    def line(self) -> int:
        """1-based line within the condition."""
        return self.at[0] if self.at else 1

    @property
    def column(self) -> int:
        """1-based column within that line."""
        return self.at[1] if self.at else 1


def tree_of(sql: str, parameters: Mapping[str, Scalar]) -> tuple[exp.Expr, frozenset[str]]:
    """The tree of a condition with its parameters filled in, and the names of those; raises :class:`PredicateError`."""
    if len(sql) > LIMITS["characters"]:
        raise PredicateError(f"the condition has {len(sql)} characters; at most {LIMITS['characters']} are allowed")
    try:
        tokens = _DUCKDB.tokenize(sql)
        if len(tokens) > LIMITS["tokens"] or _depth(tokens) > LIMITS["depth"]:
            raise PredicateError(
                f"the condition is too large: at most {LIMITS['tokens']} words and signs, "
                f"and {LIMITS['depth']} parentheses inside each other, are allowed"
            )
        statements = _Parser(dialect=_DUCKDB).parse(_parameters_named_freely(tokens), sql)
    except ParseError as error:
        raise _unparsed(sql, error) from None
    except SqlglotError:
        at = place(sql, _untokenized(sql))
        raise PredicateError(
            "the condition is not valid SQL: what begins here, a text perhaps, has no end", at
        ) from None
    except RecursionError:
        raise PredicateError("the condition is nested too deeply") from None
    if len(statements) != 1 or statements[0] is None:
        second = next((t.end + 1 for t in tokens if t.token_type == TokenType.SEMICOLON), None)
        raise PredicateError("the condition must be exactly one SQL expression", place(sql, second))
    _mark(statements[0], tokens)
    return _filled(sql, statements[0], parameters)


def start_of(node: exp.Expr) -> int | None:
    """Offset of a node in the condition it was read from: where the first of its parts with a known place stands."""
    return min((part.meta["start"] for part in node.walk() if part._meta and "start" in part.meta), default=None)


def place(sql: str, offset: int | None) -> tuple[int, int] | None:
    """1-based line and column of an offset."""
    if offset is None:
        return None
    before = sql[:offset]
    return before.count("\n") + 1, offset - (before.rfind("\n") + 1) + 1


def shown(node: exp.Expr) -> str:
    """A node as people read it in an error, at most 80 characters."""
    text = written(node)
    return text if len(text) <= 80 else f"{text[:77]}…"


def written(node: exp.Expr) -> str:
    """A node as SQL: the same for the same tree, whatever spaces, capitals and comments it was written with."""
    return node.sql(dialect="duckdb", normalize=True, normalize_functions="lower", comments=False)


def literal(value: Scalar) -> exp.Expr:
    """A value as a node."""
    if isinstance(value, bool):
        return exp.Boolean(this=value)
    if isinstance(value, int | float):
        number = exp.Literal.number(format(abs(Decimal(repr(value))), "f"))
        return exp.Neg(this=number) if value < 0 else number
    if isinstance(value, date):
        return exp.Cast(this=exp.Literal.string(value.isoformat()), to=exp.DataType.build("date"))
    return exp.Literal.string(value)


def _parameters_named_freely(tokens: list[Token]) -> list[Token]:
    """The tokens, with parameters that are called like a word of SQL (``:on``, ``:from``) as names."""
    free = list(tokens)
    for n, (colon, name) in enumerate(pairwise(tokens), start=1):
        if colon.token_type == TokenType.COLON and name.start == colon.end + 1 and name.text.isidentifier():
            free[n] = Token(TokenType.VAR, name.text, name.line, name.col, name.start, name.end, name.comments)
    return free


def _depth(tokens: list[Token]) -> int:
    depth = deepest = 0
    for token in tokens:
        depth += (token.token_type == TokenType.L_PAREN) - (token.token_type == TokenType.R_PAREN)
        deepest = max(deepest, depth)
    return deepest


#: What the parser says, in words.
_REASONS = {
    "Required keyword": "something is missing here",
    "Expecting )": "a parenthesis is not closed",
    "Invalid expression": "this does not belong here",
}


def _unparsed(sql: str, error: ParseError) -> PredicateError:
    details = (error.errors or [{}])[0]
    near = details.get("highlight") or ""
    found = f" near `{near}`" if near else ""
    at = None
    if details.get("line") and "\n" not in near:  # the parser's column is that of the last character
        at = details["line"], max(1, details["col"] - len(near) + 1)
    said = details.get("description") or str(error)
    reason = next((words for theirs, words in _REASONS.items() if said.startswith(theirs)), said)
    return PredicateError(f"the condition is not valid SQL{found}: {reason}", at)


def _untokenized(sql: str) -> int:
    """Offset of what begins and does not end: a text without its closing quote."""
    for offset in sorted((n for n, sign in enumerate(sql) if sign in "'\"$/"), reverse=True):
        try:
            _DUCKDB.tokenize(sql[:offset])
        except SqlglotError:
            continue
        return offset
    return 0


def _mark(tree: exp.Expr, tokens: list[Token]) -> None:
    """Note the places of nodes that the parser gives none: parameters, named arguments, words such as ``null``."""
    places: dict[str, list[int]] = {}
    for before, token in zip([None, *tokens], tokens, strict=False):
        if token.token_type == TokenType.STRING:
            continue
        if before is not None and before.token_type == TokenType.COLON:
            places.setdefault(f":{token.text}", []).append(before.start)
        else:
            places.setdefault(token.text.lower(), []).append(token.start)
    for node in tree.dfs():  # in the order of the text
        if isinstance(node, exp.Placeholder):
            name = f":{node.name}" if node.this else "?"
        elif isinstance(node, exp.Var | exp.Null | exp.Boolean | exp.Star | exp.Select):
            name = "select" if isinstance(node, exp.Select) else written(node).lower()
        else:
            continue
        if found := places.get(name):
            node.meta["start"] = found.pop(0) if len(found) > 1 else found[0]


def _filled(sql: str, tree: exp.Expr, parameters: Mapping[str, Scalar]) -> tuple[exp.Expr, frozenset[str]]:
    used = set()
    for node in list(tree.find_all(exp.Placeholder)):
        name, start = node.name, start_of(node)
        at = place(sql, start)
        if not node.this or start is None:
            raise PredicateError(f"`{shown(node)}` is not allowed in a condition: a parameter is written `:name`", at)
        if name not in parameters:
            hint = nearest(name, parameters) if parameters else "declare it under `parameters`"
            raise PredicateError(f"there is no parameter `:{name}`; {hint}", at)
        used.add(name)
        value = literal(parameters[name])
        value.meta["start"] = start
        tree = value if node is tree else tree
        if node.parent is not None:
            node.replace(value)
    return tree, frozenset(used)

"""Reads the tables of a shop's database, any that SQLAlchemy speaks to, into staged rows like those of ``reading``.

The database is named by an environment variable, ``env:SHOP_DATABASE_URL``: that reference is all that is kept or shown, never
the URL, which holds a password. Nothing is written to the database. Every value arrives as the database's own text for it, as
from a CSV export, so that one mapping fits the export and the table. What the columns mean is not known here.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import sqlalchemy as sa

from shopauto_pipelines.sources.expressions import nearest
from shopauto_pipelines.sources.reading import LandingError, Staged, resolve, write

#: How a source's place says that it is a database: ``env:`` and the name of the variable with the URL.
PREFIX = "env:"

#: Rows fetched at a time.
_BATCH = 20_000

#: Seconds to wait for a PostgreSQL server.
_PATIENCE = 10

#: Times with offset in UTC, dates as 2026-01-31: what the conversion reads.
_POSTGRES_SESSION = ("set local timezone = 'UTC'", "set local datestyle = 'ISO'")


def is_database(place: object) -> bool:
    """Whether a source's place is a database rather than a file or folder."""
    return str(place).startswith(PREFIX)


@dataclass
class Database:
    """An open connection in one transaction, so that the tables read from it fit together."""

    place: str
    where: str
    connection: sa.Connection

    def stage(
        self,
        table: str,
        wanted: dict[str, tuple[list[str], str]],
        first_by: list[str],
        folder: Path,
        stem: str,
        *,
        optional: bool = False,
    ) -> Staged | None:
        """Read the wanted columns of ``table`` (``schema.name`` or ``name``) into ``folder``; ``None`` if it is not there
        and ``optional``.

        ``wanted`` is as in :func:`reading.stage`. A row's number is its primary key where that is one whole number, so that it
        outlives other rows; otherwise its place by the wanted columns ``first_by``, then by primary key or all columns.
        Raises :class:`LandingError`.
        """
        schema, _, name = table.rpartition(".")
        inspector = sa.inspect(self.connection)
        try:
            described = {column["name"]: column for column in inspector.get_columns(name, schema or None)}
            keys = inspector.get_pk_constraint(name, schema or None)["constrained_columns"]
        except sa.exc.NoSuchTableError:
            if optional:
                return None
            raise LandingError(f"{self.where} has no table `{table}`; {self._nearest(schema, name)}") from None
        shown = f"{self.place}: {table}"
        header = list(described)
        staged = Staged(folder / f"{stem}.rows.parquet", folder / f"{stem}.defects.parquet")
        staged.columns = {plain: header[place] for plain, place in resolve(shown, header, wanted, "table").items()}
        selected: dict[str, sa.ColumnClause[Any]] = {
            plain: sa.column(column) for plain, column in staged.columns.items()
        }
        texts = {plain: sa.func.nullif(sa.cast(column, sa.Text), "") for plain, column in selected.items()}
        numbered = len(keys) == 1 and isinstance(described[keys[0]]["type"], sa.Integer)
        if numbered:
            order: list[Any] = [sa.column(keys[0])]
        else:
            first = [selected[plain] for plain in first_by]
            order = [*first, *(sa.column(key) for key in keys)] if keys else [*first, *texts.values()]
        rows = [text.label(f"_shopauto_{n}") for n, text in enumerate(texts.values())]
        query = sa.select(*rows, *order[:numbered]).select_from(sa.table(name, schema=schema or None)).order_by(*order)
        with _undecoded(self.connection):
            write(self._batches(query, list(texts), numbered), staged, shown)
        return staged

    def _batches(self, query: sa.Select, names: list[str], numbered: bool) -> Iterator[tuple[pa.RecordBatch, list]]:
        """``numbered``: the last column of the query is the row's number."""
        count = 0
        for rows in self.connection.execute(query, execution_options={"yield_per": _BATCH}).partitions():
            values = list(zip(*rows, strict=True))
            places = np.arange(count + 1, count + len(rows) + 1, dtype=np.int64)
            numbers = _whole(values.pop()) if numbered else pa.array(places)
            count += len(rows)
            columns = {name: pa.array(column, pa.binary()) for name, column in zip(names, values, strict=True)}
            yield pa.RecordBatch.from_pydict({"_row": numbers, **columns}), []

    def _nearest(self, schema: str, name: str) -> str:
        inspector = sa.inspect(self.connection)
        there = [*inspector.get_table_names(schema or None), *inspector.get_view_names(schema or None)]
        if there:
            return nearest(f"{schema}.{name}".lstrip("."), [f"{schema}.{other}".lstrip(".") for other in sorted(there)])
        valid = sorted(other for other in inspector.get_schema_names() if other != "information_schema")
        return f"schema `{schema}` holds no table; {nearest(schema, valid)}" if schema else "it holds no table at all"


@contextmanager
def opened(place: str) -> Iterator[Database]:
    """The database that ``env:NAME`` names, for reading.

    Raises :class:`LandingError`, also for what goes wrong while it is read; no text of it holds the password.
    """
    url = _url(place)
    where = f"{place} ({url.set(query={}).render_as_string(hide_password=True)})"
    if (
        url.get_backend_name() == "sqlite"
        and url.database
        and "uri" not in url.query
        and not Path(url.database).exists()
    ):
        raise LandingError(f"{where}: there is no such file")
    try:
        engine = sa.create_engine(url, poolclass=sa.NullPool, **_options(url))
    except (sa.exc.ArgumentError, ImportError) as error:
        raise LandingError(f"{where}: cannot be used: {_worded(error, url)}; is its driver installed?") from None
    try:
        with engine.connect() as connection:
            if connection.dialect.name == "postgresql":
                for statement in _POSTGRES_SESSION:
                    connection.exec_driver_sql(statement)
            yield Database(place, where, connection)
    except (sa.exc.SQLAlchemyError, pa.ArrowException, UnicodeError, OSError) as error:
        raise LandingError(f"{where}: cannot be read: {_worded(error, url)}") from None


def digest(staged: Staged) -> str:
    """Changes whenever what was read changes."""
    found = hashlib.sha256()
    for file in (staged.rows, staged.defects):
        with file.open("rb") as stream:
            found.update(hashlib.file_digest(stream, "sha256").digest())
    return found.hexdigest()


def _whole(keys: tuple) -> pa.Array:
    """Row numbers; SQLite keeps any value in a column that is declared as a number. The error does not tell the value."""
    if any(type(key) is not int or abs(key) >= 1 << 63 for key in keys):
        raise pa.ArrowInvalid("the primary key of some rows is not a whole number")
    return pa.array(keys, pa.int64())


@contextmanager
def _undecoded(connection: sa.Connection) -> Iterator[None]:
    """SQLite text as its bytes: where they are not UTF-8 the staging sets the row aside, the driver would give up the table."""
    driver: Any = connection.connection.driver_connection
    if connection.dialect.name != "sqlite":
        yield
        return
    before, driver.text_factory = driver.text_factory, bytes
    try:
        yield
    finally:
        driver.text_factory = before


def _url(place: str) -> sa.URL:
    name = place.removeprefix(PREFIX)
    text = os.environ.get(name, "").strip()
    if not text:
        raise LandingError(
            f"{place}: the environment variable {name or '(no name)'} is not set; it holds the database's URL, such as "
            f"postgresql://user:password@host/shop or sqlite:////path/shop.db"
        )
    try:
        url = sa.make_url(text.replace("postgres://", "postgresql://", 1))
    except (sa.exc.ArgumentError, ValueError):
        raise LandingError(
            f"{place}: the value of {name} is not a database URL, such as postgresql://user:password@host/shop"
        ) from None
    return url.set(drivername="postgresql+psycopg") if url.drivername == "postgresql" else url


def _options(url: sa.URL) -> dict[str, Any]:
    if url.drivername != "postgresql+psycopg":
        return {}
    options: dict[str, Any] = {"isolation_level": "REPEATABLE READ", "execution_options": {"postgresql_readonly": True}}
    return options if "connect_timeout" in url.query else {**options, "connect_args": {"connect_timeout": _PATIENCE}}


def _worded(error: Exception, url: sa.URL) -> str:
    text = str(getattr(error, "orig", None) or error).strip()
    words = (text.splitlines() or [type(error).__name__])[0]
    secrets = [url.password, *(value for key, value in url.query.items() if "pass" in key or "key" in key)]
    for secret in secrets:
        words = words.replace(str(secret), "***") if secret else words
    return words

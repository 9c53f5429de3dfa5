"""PostgreSQL: the shop's own server where a URL is set, an embedded one under ``home`` otherwise. One code path for both.

Dagster keeps its runs and events in the same database (schema ``public``); the project's own tables are in schema
``shopauto`` and are made by the Alembic migrations beside this module.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import psycopg
import sqlalchemy as sa

from shopauto_pipelines.platform.errors import ShopAutoError

if TYPE_CHECKING:
    from pydantic import SecretStr

    from shopauto_pipelines.platform.embedded_postgres import EmbeddedServer
    from shopauto_pipelines.platform.settings import Settings

#: Schema of the project's own tables.
SCHEMA = "shopauto"

_MIGRATIONS = Path(__file__).parent / "migrations"

#: A machine that vanishes without a word is noticed within a minute, by both sides: a dispatcher lives as long as its session
#: does, and what it holds is locked as long. Left alone, either side would wait for two hours. Seconds, seconds, times.
_KEEPALIVE = {"keepalives_idle": 30, "keepalives_interval": 10, "keepalives_count": 3}

#: How long what was sent may remain unconfirmed, ms.
_UNCONFIRMED = 60_000


class PostgresError(ShopAutoError):
    """The database cannot be used; the text says why and what to do, without the password."""


def postgres_url(settings: Settings, driver: Literal["psycopg", "psycopg2"] = "psycopg") -> str:
    """URL of the database with the driver named, starting the embedded server where no URL is set.

    Dagster's storage needs ``psycopg2``; the project's own code uses ``psycopg`` (version 3).
    """
    if settings.postgres_url is not None:
        url = _read(settings.postgres_url.get_secret_value())
    else:
        url = sa.make_url(_embedded(settings.home / "postgres").ensure())
    return url.set(drivername=f"postgresql+{driver}").render_as_string(hide_password=False)


def _read(text: str) -> sa.URL:
    """The shop's URL; raises :class:`PostgresError` for what is none, without telling it."""
    with suppress(ValueError, sa.exc.ArgumentError):
        return sa.make_url(text.replace("postgres://", "postgresql://", 1))
    raise PostgresError(
        "SHOPAUTO_POSTGRES_URL is not like postgresql://user:password@host:port/database; in the password `@` is written as "
        "%40, `/` as %2F, `:` as %3A, `%` as %25"
    )


@cache
def _embedded(folder: Path) -> EmbeddedServer:
    """The embedded server of a folder; it stops when the last process that uses it ends."""
    from shopauto_pipelines.platform.embedded_postgres import EmbeddedServer

    folder.mkdir(parents=True, exist_ok=True)
    return EmbeddedServer(folder.resolve())


def engine(settings: Settings) -> sa.Engine:
    """Connections to the project's own tables, all migrations applied; one for all settings that name the same database.

    The embedded database is migrated by itself; a shop's own server is left alone until ``shopauto migrate`` is run.
    Raises :class:`PostgresError` where the server does not answer or its tables are not those of this version.
    """
    database = (settings.home, settings.postgres_url)
    if database not in _engines:
        _engines[database] = _engine(settings)
    return _engines[database]


_engines: dict[tuple[Path, SecretStr | None], sa.Engine] = {}


def _engine(settings: Settings) -> sa.Engine:
    at_server = {f"tcp_{name}": value for name, value in _KEEPALIVE.items()} | {"tcp_user_timeout": _UNCONFIRMED}
    options = {"search_path": SCHEMA, "timezone": "UTC"} | at_server
    made = sa.create_engine(
        postgres_url(settings),
        pool_pre_ping=True,
        hide_parameters=True,  # what could not be stored is about people, and errors are logged
        connect_args={
            **_KEEPALIVE,
            "tcp_user_timeout": _UNCONFIRMED,
            "options": " ".join(f"-c{name}={value}" for name, value in options.items()),
        },
    )
    if settings.postgres_url is None:
        _keep_up(made, _embedded(settings.home / "postgres"))
    if settings.postgres_url is None:
        migrate(made)
    else:
        _require_current(made)
    return made


@contextmanager
def _connected(target: sa.Engine) -> Iterator[sa.Connection]:
    """A transaction; raises :class:`PostgresError` where the server does not answer, or does not allow it."""
    where = target.url.render_as_string(hide_password=True)
    try:
        with target.begin() as connection:
            yield connection
    except sa.exc.OperationalError as error:
        raise PostgresError(f"PostgreSQL at {where} does not answer: {error.orig}") from None
    except sa.exc.ProgrammingError as error:
        if not isinstance(error.orig, psycopg.errors.InsufficientPrivilege):
            raise
        raise PostgresError(
            f"PostgreSQL at {where}: {error.orig}; its user has to own the database, or the schemas `{SCHEMA}` and `public`"
        ) from None


def _keep_up(made: sa.Engine, server: EmbeddedServer) -> None:
    """Nobody else looks after the embedded server: where it has died, the next connection starts it again."""

    @sa.event.listens_for(made, "do_connect")
    def connect(dialect: sa.Dialect, _record: object, arguments: tuple[Any, ...], named: dict[str, Any]) -> Any:
        try:
            return dialect.connect(*arguments, **named)
        except psycopg.OperationalError:
            server.ensure()
            return dialect.connect(*arguments, **named)


@contextmanager
def locked(settings: Settings, name: str) -> Iterator[None]:
    """Hold what goes by ``name`` for the block, against every machine that shares the database.

    Where no URL is set there is one machine only, whose files have locks of their own: nothing is held then. The lock is one
    of the database's session, so a process that dies holds nothing; it can be taken once by a thread.
    """
    if settings.postgres_url is None:
        yield
        return
    lock = sa.func.hashtextextended(f"shopauto.locked {name}", 0)
    with engine(settings).connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        connection.execute(sa.select(sa.func.pg_advisory_lock(lock)))
        try:
            yield
        finally:
            connection.execute(sa.select(sa.func.pg_advisory_unlock(lock)))


def migrate(target: sa.Engine) -> None:
    """Bring the project's tables to this version. Safe to run by several processes at once.

    Raises :class:`PostgresError` where the server does not answer or does not allow it.
    """
    from alembic import command

    with _connected(target) as connection:
        connection.execute(sa.text("select pg_advisory_xact_lock(hashtext('shopauto.migrate'))"))
        connection.execute(sa.text(f"create schema if not exists {SCHEMA}"))
        command.upgrade(_alembic(connection), "head")


def _require_current(target: sa.Engine) -> None:
    from alembic.runtime.migration import MigrationContext
    from alembic.script import ScriptDirectory

    with _connected(target) as connection:
        context = MigrationContext.configure(connection, opts={"version_table_schema": SCHEMA})
        found = context.get_current_revision()
        head = ScriptDirectory.from_config(_alembic(connection)).get_current_head()
    if found != head:
        raise PostgresError(f"the database is at migration {found}, this version needs {head}: run `shopauto migrate`")


def _alembic(connection: sa.Connection):  # noqa: ANN202  (Alembic is imported only where it is needed)
    from alembic.config import Config

    config = Config()
    config.set_main_option("script_location", str(_MIGRATIONS))
    config.attributes["connection"] = connection
    return config

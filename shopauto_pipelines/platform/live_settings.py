"""Settings that are changed while everything runs: a row in the database overrides the environment from the next tick on.

Which settings can be is said where they are declared (``json_schema_extra=CHANGEABLE``); what a value must be like too, so
that a wrong one is refused when it is set. Whoever begins something (a dispatch, a tick of a sensor, an answer) asks for
:func:`current`, always with the settings of the environment: what was unset in the meantime is then theirs again.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from functools import lru_cache
from textwrap import indent
from typing import Any, NamedTuple

import sqlalchemy as sa
from pydantic import ValidationError
from sqlalchemy.dialects.postgresql import insert

from shopauto_pipelines.platform.postgres import SCHEMA
from shopauto_pipelines.platform.settings import CHANGEABLE, PREFIX, Settings, SettingsError, mistakes
from shopauto_pipelines.platform.words import nearest

_WHEN = sa.DateTime(timezone=True)

metadata = sa.MetaData(schema=SCHEMA)

table = sa.Table(
    "live_settings",
    metadata,
    sa.Column("name", sa.Text, primary_key=True, doc="a field of Settings"),
    sa.Column("value", sa.Text, nullable=False, doc="as it would stand in the environment"),
    sa.Column("why", sa.Text, doc="the cause, for the others"),
    sa.Column("by", sa.Text, nullable=False, doc="who changed it"),
    sa.Column("at", _WHEN, nullable=False, doc="since when it holds"),
)
history = sa.Table(
    "live_setting_history",
    metadata,
    sa.Column("id", sa.BigInteger, sa.Identity(always=True), primary_key=True, doc="order of the changes"),
    sa.Column("name", sa.Text, nullable=False),
    sa.Column("value", sa.Text, doc="null: the environment's again"),
    sa.Column("why", sa.Text),
    sa.Column("by", sa.Text, nullable=False),
    sa.Column("at", _WHEN, nullable=False),
)


class Change(NamedTuple):
    """A setting that was changed. ``value`` is ``None`` where it was given back to the environment."""

    name: str
    value: str | None
    why: str | None
    by: str
    at: datetime


def names() -> list[str]:
    """The settings that can be changed, in the order of their declaration."""
    return [name for name, field in Settings.model_fields.items() if field.json_schema_extra == CHANGEABLE]


def current(database: sa.Engine | sa.Connection, settings: Settings) -> Settings:
    """The settings in force now: the environment's, with what the database says instead.

    Raises :class:`~shopauto_pipelines.platform.settings.SettingsError` where a row holds what is no value of its setting:
    nothing goes on with a cap that nobody can read.
    """
    if isinstance(database, sa.Engine):
        with database.connect() as connection:
            return current(connection, settings)
    found = database.execute(sa.select(table.c.name, table.c.value).order_by(table.c.name))
    return overlay(settings, {row.name: row.value for row in found})


def overlay(settings: Settings, values: Mapping[str, str]) -> Settings:
    """The settings with other ``values``, as the table holds them; raises ``SettingsError`` as :func:`current` does."""
    if not values:
        return settings
    try:
        return _overlay(settings, tuple(values.items()))
    except SettingsError as error:
        raise SettingsError(
            f"Settings changed in the database are not taken:\n{indent(str(error), '  ')}\n"
            "`shopauto live-settings set` corrects a value, `shopauto live-settings unset` takes it away."
        ) from None


def change(connection: sa.Connection, settings: Settings, wanted: Change) -> bool:
    """Set a setting from now on, or give it back to the environment (``value=None``). False where it was so already.

    Raises :class:`~shopauto_pipelines.platform.settings.SettingsError` for a name that cannot be changed, and for a value
    that the environment would not be allowed either. What does not fit this version any more can always be taken away.
    """
    connection.execute(sa.select(sa.func.pg_advisory_xact_lock(sa.func.hashtext("shopauto.live_settings"))))
    before = {row.name: row.value for row in connection.execute(sa.select(table.c.name, table.c.value))}
    if wanted.value is not None:
        others = {name: value for name, value in before.items() if name in names()}
        _overlay(settings, tuple((others | {wanted.name: wanted.value}).items()))
    elif wanted.name not in before:
        _require_changeable(wanted.name)
    if before.get(wanted.name) == wanted.value:
        return False
    values = wanted._asdict()
    if wanted.value is None:
        connection.execute(sa.delete(table).where(table.c.name == wanted.name))
    else:
        connection.execute(insert(table).values(values).on_conflict_do_update(index_elements=["name"], set_=values))
    connection.execute(sa.insert(history).values(values))
    return True


def changed(connection: sa.Connection) -> dict[str, Change]:
    """What is not the environment's now, by name."""
    rows = connection.execute(sa.select(*(table.c[name] for name in Change._fields)).order_by(table.c.name))
    return {row.name: Change(*row) for row in rows}


def changes(connection: sa.Connection, limit: int = 20) -> list[Change]:
    """The latest changes, the newest first."""
    columns = (history.c[name] for name in Change._fields)
    return [Change(*row) for row in connection.execute(sa.select(*columns).order_by(history.c.id.desc()).limit(limit))]


@lru_cache(maxsize=16)
def _overlay(settings: Settings, values: tuple[tuple[str, str], ...]) -> Settings:
    given: dict[str, Any] = {name: getattr(settings, name) for name in Settings.model_fields}
    for name, value in values:
        _require_changeable(name)
        given[name] = value
    try:
        return Settings(**given, _env_file=None)
    except ValidationError as error:
        told = dict(values)
        raise SettingsError(
            "\n".join(f"{name} = {told.get(name, '')}: {what}" if name else what for name, what in mistakes(error))
        ) from None


def _require_changeable(name: str) -> None:
    if name in names():
        return
    if name in Settings.model_fields:
        raise SettingsError(f"{name} is read when a process starts: set {PREFIX}{name.upper()}, and start it again")
    raise SettingsError(f"{name} is no setting; {nearest(name, names(), quote='')}")

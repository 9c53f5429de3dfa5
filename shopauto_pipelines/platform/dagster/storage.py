"""Dagster's storage: PostgreSQL and the home folder as for everything else, so ``dagster dev`` needs no configuration.

A refreshed day is some 1,500 events, a run over a year of days plans and records thousands of materialisations. Written one by
one, each on two or three connections of its own, they took minutes (6.6 min for 18 months of the sample shop on a busy machine).
Here they go over a kept connection, an event in one transaction, planned materialisations in batches.
"""

from __future__ import annotations

import math
import os
import time
from collections import defaultdict
from collections.abc import Mapping, Sequence
from itertools import groupby
from typing import Any

import sqlalchemy as sa
from dagster import AssetKey, DagsterEventType
from dagster._core.definitions.data_version import DATA_VERSION_TAG
from dagster._core.events import ASSET_CHECK_EVENTS, ASSET_EVENTS
from dagster._core.events.log import EventLogEntry
from dagster._core.storage.event_log.schema import SqlEventLogStorageTable
from dagster._core.storage.local_compute_log_manager import LocalComputeLogManager
from dagster._serdes import ConfigurableClassData
from dagster_postgres import DagsterPostgresStorage, PostgresEventLogStorage

from shopauto_pipelines.platform.postgres import postgres_url
from shopauto_pipelines.platform.settings import load_settings

# Dagster batches events only where this is set.
os.environ.setdefault("DAGSTER_EVENT_BATCH_SIZE", "1000")


class ShopAutoStorage(DagsterPostgresStorage):
    """``dagster-postgres`` on the project's database: the embedded server unless ``SHOPAUTO_POSTGRES_URL`` is set."""

    def __init__(self, inst_data: ConfigurableClassData | None = None) -> None:
        url = _url()
        super().__init__(url, inst_data=inst_data)
        kept = _kept_connection(url)
        self._event_log_storage = BatchingEventLog(url, kept)
        self._run_storage._engine = self._schedule_storage._engine = kept

    @classmethod
    def config_type(cls) -> dict[str, object]:
        """No options: the settings say where the database is."""
        return {}

    @classmethod
    def from_config_value(  # noqa: D102
        cls, inst_data: ConfigurableClassData | None, config_value: object
    ) -> ShopAutoStorage:
        return cls(inst_data)


class BatchingEventLog(PostgresEventLogStorage):
    """The event log on a kept connection, with planned materialisations inserted many at a time."""

    def __init__(self, url: str, kept: sa.Engine) -> None:
        super().__init__(url)
        self._engine = kept
        self._found: dict[str, bool] = {}
        self._versions: defaultdict[AssetKey, dict[str, str]] = defaultdict(dict)

    def store_event(self, event: EventLogEntry) -> None:
        """Store an event, and what follows from it for its asset, in one transaction; nobody listens to notifications."""
        told = event.dagster_event_type
        with self.index_transaction() as connection:
            insert = self.prepare_insert_event(event).returning(SqlEventLogStorageTable.c.id)
            number = connection.execute(insert).scalar_one()
            if told in ASSET_EVENTS:
                self._store_asset_event_tags(connection, [event], [number])
                self._store_asset_event(connection, event, number)
        if told in ASSET_CHECK_EVENTS:
            self.store_asset_check_event(event, number)
        self._note_version(event)

    def store_event_batch(self, events: Sequence[EventLogEntry]) -> None:
        """Store events of one batch; consecutive planned materialisations in one statement."""
        for planned, group in groupby(events, key=_is_planned):
            if planned:
                self._store_planned(list(group))
                continue
            for _kind, alike in groupby(group, key=_kind_and_asset):
                together = list(alike)
                super().store_event_batch(together)
                for event in together:
                    self._note_version(event)

    def get_latest_tags_by_partition(
        self,
        asset_key: AssetKey,
        event_type: DagsterEventType,
        tag_keys: Sequence[str],
        asset_partitions: Sequence[str] | None = None,
        before_cursor: int | None = None,
        after_cursor: int | None = None,
    ) -> Mapping[str, Mapping[str, str]]:
        """Tags of the latest event of each partition; the data versions of what this process made, it knows itself.

        Every step asks for those of all its inputs, which its run has mostly just made: a fifth of the statements of a day.
        """
        made = self._versions[asset_key]
        wanted = asset_partitions or ()
        only_versions = event_type == DagsterEventType.ASSET_MATERIALIZATION and [*tag_keys] == [DATA_VERSION_TAG]
        if only_versions and wanted and before_cursor is after_cursor is None and made.keys() >= {*wanted}:
            return {partition: {DATA_VERSION_TAG: made[partition]} for partition in wanted}
        return super().get_latest_tags_by_partition(
            asset_key, event_type, tag_keys, asset_partitions, before_cursor, after_cursor
        )

    def _note_version(self, event: EventLogEntry) -> None:
        """Remember the data version of a partition that was made."""
        told = event.dagster_event
        if told is None or not told.is_step_materialization or told.partition is None or told.asset_key is None:
            return
        tags = told.step_materialization_data.materialization.tags or {}
        if version := tags.get(DATA_VERSION_TAG):
            self._versions[told.asset_key][told.partition] = version

    def has_table(self, table_name: str) -> bool:
        """Whether Dagster's tables have one: asked for every materialisation, and the same as long as a process runs."""
        if table_name not in self._found:
            self._found[table_name] = super().has_table(table_name)
        return self._found[table_name]

    def _has_asset_key_col_on_connection(self, conn: sa.Connection, column_name: str) -> bool:
        """The same of a column."""
        name = f"asset_keys.{column_name}"
        if name not in self._found:
            self._found[name] = super()._has_asset_key_col_on_connection(conn, column_name)
        return self._found[name]

    def _store_planned(self, events: list[EventLogEntry]) -> None:
        insert = SqlEventLogStorageTable.insert().returning(SqlEventLogStorageTable.c.id, sort_by_parameter_order=True)
        with self.index_transaction() as connection:
            numbers = connection.scalars(insert, [self._event_to_row(event) for event in events]).all()
            last = {_kind_and_asset(event): at for at, event in enumerate(events)}
            for at in last.values():
                self._store_asset_event(connection, events[at], numbers[at])


def _url() -> str:
    """The project's database; runs that compute days as known then are recorded in a schema of their own."""
    settings = load_settings()
    url = postgres_url(settings, driver="psycopg2")
    if settings.known == "now":
        return url
    engine = sa.create_engine(url)
    with engine.begin() as connection:
        # its parts start together, and two that make it at once would fail
        connection.execute(sa.select(sa.func.pg_advisory_xact_lock(sa.func.hashtextextended(_KNOWN_THEN, 0))))
        connection.execute(sa.text(f"create schema if not exists {_KNOWN_THEN}"))
    engine.dispose()
    there = sa.make_url(url).update_query_dict({"options": f"-csearch_path={_KNOWN_THEN}"})
    return there.render_as_string(hide_password=False)


#: Schema of Dagster's tables for what is computed as known then.
_KNOWN_THEN = "known_then"


def _kept_connection(url: str) -> sa.Engine:
    """An engine whose connection is kept, and looked after where it has not been used for a second.

    What it commits may be written to disk a moment later: a server that loses its power forgets the last events of a run, and
    nothing of the outbox, whose connections are others.
    """
    kept = sa.create_engine(url, isolation_level="AUTOCOMMIT", pool_size=1)

    @sa.event.listens_for(kept, "connect")
    def _set(connection: Any, _record: Any) -> None:
        with connection.cursor() as cursor:
            cursor.execute("set synchronous_commit = off")
        connection.commit()

    @sa.event.listens_for(kept, "checkin")
    def _note(_connection: Any, record: Any) -> None:
        record.info["used"] = time.monotonic()

    @sa.event.listens_for(kept, "checkout")
    def _look_after(connection: Any, record: Any, _proxy: Any) -> None:
        if time.monotonic() - record.info.get("used", math.inf) > _UNUSED_SECONDS:
            try:
                kept.dialect.do_ping(connection)
            except kept.dialect.loaded_dbapi.Error as error:
                raise sa.exc.DisconnectionError from error  # the pool makes a new one

    return kept


#: How long a connection may lie unused before it is asked whether it still is one.
_UNUSED_SECONDS = 1.0


class StepOutput(LocalComputeLogManager):
    """What steps print, in files under the settings' home: the same for ``dagster dev`` and the command line."""

    @classmethod
    def config_type(cls) -> dict[str, object]:
        """No options: the settings say where the home is."""
        return {}

    @classmethod
    def from_config_value(  # noqa: D102
        cls, inst_data: ConfigurableClassData | None, config_value: object
    ) -> StepOutput:
        return cls(base_dir=str(load_settings().home / "output"), inst_data=inst_data)


def _is_planned(event: EventLogEntry) -> bool:
    return event.dagster_event_type == DagsterEventType.ASSET_MATERIALIZATION_PLANNED


def _kind_and_asset(event: EventLogEntry) -> tuple[DagsterEventType | None, str]:
    key = event.dagster_event.asset_key if event.dagster_event else None
    return event.dagster_event_type, key.to_string() if key else ""

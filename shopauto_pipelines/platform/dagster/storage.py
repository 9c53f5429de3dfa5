"""Dagster's storage: PostgreSQL and the home folder as for everything else, so ``dagster dev`` needs no configuration.

A run over a year of days plans and records thousands of materialisations. Written one by one, each on two connections of
its own, they took minutes (6.6 min for 18 months of the sample shop on a busy machine); here they go in batches over a kept
connection.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from itertools import groupby

import sqlalchemy as sa
from dagster import DagsterEventType
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
        url = postgres_url(load_settings(), driver="psycopg2")
        super().__init__(url, inst_data=inst_data)
        self._event_log_storage = BatchingEventLog(url)

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

    def __init__(self, url: str) -> None:
        super().__init__(url)
        self._engine = sa.create_engine(url, isolation_level="AUTOCOMMIT", pool_size=1, pool_pre_ping=True)
        self._found: dict[str, bool] = {}

    def store_event_batch(self, events: Sequence[EventLogEntry]) -> None:
        """Store events of one batch; consecutive planned materialisations of an asset in one statement."""
        for (kind, _asset), group in groupby(events, key=_kind_and_asset):
            if kind == DagsterEventType.ASSET_MATERIALIZATION_PLANNED:
                self._store_planned(list(group))
            else:
                super().store_event_batch(list(group))

    def _has_asset_key_col_on_connection(self, conn: sa.Connection, column_name: str) -> bool:
        """Whether Dagster's table has a column: asked several times a step, and the same as long as a process runs."""
        if column_name not in self._found:
            self._found[column_name] = super()._has_asset_key_col_on_connection(conn, column_name)
        return self._found[column_name]

    def _store_planned(self, events: list[EventLogEntry]) -> None:
        with self._connect() as connection:
            statement = self.prepare_insert_event_batch(events).returning(SqlEventLogStorageTable.c.id)
            ids = [int(row[0]) for row in connection.execute(statement)]
        with self.index_transaction() as connection:
            self._store_asset_event(connection, events[-1], ids[-1])


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


def _kind_and_asset(event: EventLogEntry) -> tuple[DagsterEventType | None, str]:
    key = event.dagster_event.asset_key if event.dagster_event else None
    return event.dagster_event_type, key.to_string() if key else ""

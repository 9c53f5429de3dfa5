"""Dagster's storage: PostgreSQL by the same function as everything else, so ``dagster dev`` needs no configuration."""

from __future__ import annotations

import os

from dagster._serdes import ConfigurableClassData
from dagster_postgres import DagsterPostgresStorage

from shopauto_pipelines.platform.postgres import postgres_url
from shopauto_pipelines.platform.settings import load_settings

# A run over a year of days records thousands of materialisations: written in batches, not one by one.
os.environ.setdefault("DAGSTER_EVENT_BATCH_SIZE", "1000")


class ShopAutoStorage(DagsterPostgresStorage):
    """``dagster-postgres`` on the project's database: the embedded server unless ``SHOPAUTO_POSTGRES_URL`` is set."""

    def __init__(self, inst_data: ConfigurableClassData | None = None) -> None:
        super().__init__(postgres_url(load_settings(), driver="psycopg2"), inst_data=inst_data)

    @classmethod
    def config_type(cls) -> dict[str, object]:
        """No options: the settings say where the database is."""
        return {}

    @classmethod
    def from_config_value(  # noqa: D102
        cls, inst_data: ConfigurableClassData | None, config_value: object
    ) -> ShopAutoStorage:
        return cls(inst_data)

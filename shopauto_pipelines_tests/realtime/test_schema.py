"""The tables that the migrations make are the ones the rooms declare."""

import sqlalchemy as sa
from alembic.autogenerate import compare_metadata
from alembic.runtime.migration import MigrationContext

from shopauto_pipelines.outbox import schema as outbox_schema
from shopauto_pipelines.platform import live_settings
from shopauto_pipelines.platform.postgres import SCHEMA
from shopauto_pipelines.realtime import schema as realtime_schema


def test_the_migrated_tables_are_the_declared_ones(engine):
    declared = [outbox_schema.metadata, realtime_schema.metadata, live_settings.metadata]
    options = {
        "include_schemas": True,
        "include_name": lambda name, kind, _: kind != "schema" or name == SCHEMA,
        "version_table_schema": SCHEMA,
        "compare_type": True,
    }
    with engine.connect() as connection:
        together = sa.MetaData()
        for metadata in declared:
            for table in metadata.sorted_tables:
                table.to_metadata(together)
        differences = compare_metadata(MigrationContext.configure(connection, opts=options), together)
    assert differences == []

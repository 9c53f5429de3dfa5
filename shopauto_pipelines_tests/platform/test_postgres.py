"""The embedded server starts by itself, is migrated by itself, and serves Dagster and the project from one database."""

from concurrent.futures import ThreadPoolExecutor

import dagster as dg
import pytest
import sqlalchemy as sa
from dagster._core.instance import InstanceRef

from shopauto_pipelines.platform import postgres
from shopauto_pipelines.platform.settings import PROJECT_ROOT, Settings


def test_the_embedded_server_starts_migrated_and_migrating_again_changes_nothing(settings):
    engine = postgres.engine(settings)
    with ThreadPoolExecutor(4) as pool:
        list(pool.map(postgres.migrate, [engine] * 4))
    assert "messages" in sa.inspect(engine).get_table_names(schema=postgres.SCHEMA)


def test_a_shops_own_server_is_not_migrated_behind_its_back(settings, tmp_path):
    url = sa.make_url(postgres.postgres_url(settings)).set(drivername="postgresql")
    own = Settings(home=tmp_path / "b", postgres_url=url.render_as_string(hide_password=False), _env_file=None)
    with pytest.raises(postgres.PostgresError, match="shopauto migrate"):
        postgres.engine(own)
    postgres.migrate(sa.create_engine(postgres.postgres_url(own)))
    with postgres.engine(own).connect() as connection:
        assert connection.scalar(sa.text("select count(*) from messages")) == 0


def test_a_server_that_does_not_answer_is_named_without_its_password(tmp_path):
    gone = Settings(home=tmp_path, postgres_url="postgresql://user:hunter2@127.0.0.1:1/none", _env_file=None)
    with pytest.raises(postgres.PostgresError, match=r"127\.0\.0\.1:1") as raised:
        postgres.engine(gone)
    assert "hunter2" not in str(raised.value)


def test_dagster_keeps_its_runs_in_the_same_database(settings, monkeypatch):
    monkeypatch.setenv("SHOPAUTO_HOME", str(settings.home))
    ref = InstanceRef.from_dir(str(settings.home / "dagster"), config_dir=str(PROJECT_ROOT))
    with dg.DagsterInstance.from_ref(ref) as instance:
        run = dg.materialize([dg.asset(lambda: 1, name="one")], instance=instance)
        assert instance.get_run_by_id(run.run_id).is_success
    with postgres.engine(settings).connect() as connection:
        assert connection.scalar(sa.text("select count(*) from public.runs")) == 1

"""The embedded server starts by itself, is migrated by itself, and serves Dagster and the project from one database."""

import json
import os
import shutil
import subprocess
import sys
import tempfile
import textwrap
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path

import dagster as dg
import psutil
import pytest
import sqlalchemy as sa
from dagster._core.instance import InstanceRef

from shopauto_pipelines.platform import embedded_postgres, postgres
from shopauto_pipelines.platform.settings import PROJECT_ROOT, Settings


@pytest.fixture
def settings(homes) -> Iterator[Settings]:
    """A home where the server may run: not below pytest's own folder."""
    home = Path(tempfile.mkdtemp(dir=homes))
    yield Settings(home=home, _env_file=None)
    postgres._embedded(home / "postgres").cleanup()


def test_the_embedded_server_starts_migrated_and_migrating_again_changes_nothing(settings):
    engine = postgres.engine(settings)
    with ThreadPoolExecutor(4) as pool:
        list(pool.map(postgres.migrate, [engine] * 4))
    assert "messages" in sa.inspect(engine).get_table_names(schema=postgres.SCHEMA)


@pytest.mark.parametrize("name", ["My Shop", "Anna's 100% shop & more"])
def test_a_home_may_be_called_as_it_likes(settings, monkeypatch, name):
    home = settings.home / name
    made = Settings(home=home, _env_file=None)
    with postgres.engine(made).connect() as connection:
        assert connection.scalar(sa.text("select count(*) from messages")) == 0
    monkeypatch.setenv("SHOPAUTO_HOME", str(home))
    with dg.DagsterInstance.from_ref(InstanceRef.from_dir(str(home), config_dir=str(PROJECT_ROOT))) as instance:
        assert instance.get_runs() == []
    postgres.engine(made).dispose()
    postgres._embedded(home / "postgres").cleanup()


def test_a_shops_own_server_is_not_migrated_behind_its_back(settings, tmp_path):
    url = sa.make_url(postgres.postgres_url(settings)).set(drivername="postgresql")
    own = Settings(home=tmp_path / "b", postgres_url=url.render_as_string(hide_password=False), _env_file=None)
    with pytest.raises(postgres.PostgresError, match="shopauto migrate"):
        postgres.engine(own)
    postgres.migrate(sa.create_engine(postgres.postgres_url(own)))
    with postgres.engine(own).connect() as connection:
        assert connection.scalar(sa.text("select count(*) from messages")) == 0


def test_a_user_who_may_not_make_the_tables_is_told_what_is_lacking(settings):
    with postgres.engine(settings).begin() as connection:
        connection.execute(sa.text("create role guest login"))
    owner = postgres.engine(settings).url
    with pytest.raises(postgres.PostgresError, match=r"guest.*permission denied.*its user has to own the database"):
        postgres.migrate(sa.create_engine(owner.set(username="guest")))


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


def _postmaster(settings: Settings) -> psutil.Process:
    return psutil.Process(int((settings.home / "postgres" / "postmaster.pid").read_text().split("\n")[0]))


def _kill(process: psutil.Process) -> None:
    process.kill()
    with suppress(psutil.TimeoutExpired):  # nobody may bury it
        process.wait(0.5)


def _usable(settings: Settings) -> bool:
    """Who comes anew finds the database, with what was committed."""
    postgres._engines.clear()
    postgres._embedded.cache_clear()
    with postgres.engine(settings).connect() as connection:
        return connection.scalar(sa.text("select count(*) from kept")) == 1


@pytest.fixture
def kept(settings) -> Settings:
    """A database with a committed row, whose server was killed."""
    with postgres.engine(settings).begin() as connection:
        connection.execute(sa.text("create table kept as select 1 as one"))
    postgres.engine(settings).dispose()
    _kill(_postmaster(settings))
    return settings


def test_a_killed_server_is_started_again_by_the_next_connection_of_a_process_that_lives_on(settings):
    engine = postgres.engine(settings)
    with engine.begin() as connection:
        connection.execute(sa.text("create table kept as select 1 as one"))
    for _ in range(2):
        _kill(_postmaster(settings))
        with engine.connect() as connection:
            assert connection.scalar(sa.text("select count(*) from kept")) == 1


def test_a_server_that_recovers_from_the_death_of_one_of_its_processes_is_waited_for(settings):
    engine = postgres.engine(settings)
    with engine.connect() as connection:
        backend = psutil.Process(connection.scalar(sa.text("select pg_backend_pid()")))
        backend.kill()
        with pytest.raises(sa.exc.OperationalError):
            connection.execute(sa.text("select 1"))
    with engine.connect() as connection:
        assert connection.scalar(sa.text("select 1")) == 1


def test_a_killed_server_whose_process_id_is_now_that_of_another_process_starts(kept):
    path = kept.home / "postgres" / "postmaster.pid"
    ours = [f"{os.getpid()}\n", *path.read_text().splitlines(keepends=True)[1:]]
    path.write_text("".join(ours))
    (kept.home / "postgres" / ".s.PGSQL.5432.lock").write_text("".join(ours))
    assert _usable(kept)


def test_a_folder_copied_from_one_whose_server_runs_gets_a_server_of_its_own(kept):
    other = Settings(home=kept.home / "other", _env_file=None)
    postgres.engine(other)
    copied = kept.home / "postgres" / "postmaster.pid"
    copied.write_bytes((other.home / "postgres" / "postmaster.pid").read_bytes())
    assert _usable(kept)
    assert _postmaster(kept).pid != _postmaster(other).pid
    assert _postmaster(other).is_running()
    postgres._embedded(other.home / "postgres").cleanup()


@pytest.mark.skipif(os.geteuid() != 0, reason="only root copies files of the server's own user")
def test_a_folder_that_root_copied_with_its_files_roots_own_starts(kept):
    folder = kept.home / "postgres"
    shutil.copytree(folder, kept.home / "copy", ignore=shutil.ignore_patterns(".s.*"))
    shutil.rmtree(folder)
    (kept.home / "copy").rename(folder)
    assert (folder / "PG_VERSION").owner() == "root"
    assert _usable(kept)


def test_a_server_killed_while_it_wrote_who_it_is_starts(kept):
    for content in ("", "4711\n/some", "garbage"):
        (kept.home / "postgres" / "postmaster.pid").write_text(content)
        assert _usable(kept)
        _kill(_postmaster(kept))


def test_who_uses_the_server_is_known_after_the_clock_was_set(settings, monkeypatch):
    postgres.engine(settings).dispose()
    began = psutil._psplatform.boot_time()
    monkeypatch.setattr(psutil._psplatform, "boot_time", lambda: began + 3)  # as it is then
    assert postgres._embedded(settings.home / "postgres").global_process_id_list._get() == [os.getpid()]


def test_a_list_of_users_that_is_half_written_or_outdated_is_begun_anew(kept):
    for content in ("", "[1, 2", "[1]", '{"1": 2.5, "x": 1}'):
        users = kept.home / "postgres" / ".handle_pids.json"
        users.write_text(content)
        assert _usable(kept)
        assert list(json.loads(users.read_text())) == [str(os.getpid())]


def test_a_first_start_that_is_killed_in_the_middle_is_begun_again(settings):
    half = settings.home / "postgres.new"
    half.mkdir()
    (half / "PG_VERSION").write_text("18\n")
    with postgres.engine(settings).connect() as connection:
        assert connection.scalar(sa.text("select 1")) == 1
    assert not half.exists()


def test_a_server_that_cannot_start_says_why_and_where_its_log_is(kept, monkeypatch):
    monkeypatch.setattr(embedded_postgres, "_LONGEST_START", 0.5)
    (kept.home / "postgres" / "postgresql.conf").write_text("no_such_setting = 1\n")
    with pytest.raises(postgres.PostgresError, match="no_such_setting") as raised:
        embedded_postgres.EmbeddedServer(kept.home.resolve() / "postgres").ensure()
    assert str(kept.home) in str(raised.value)


def _elsewhere(settings: Settings, script: str = "") -> subprocess.Popen:
    """Another process that uses the database and then runs a script."""
    program = f"""
        from pathlib import Path
        from shopauto_pipelines.platform import embedded_postgres, postgres
        from shopauto_pipelines.platform.settings import Settings
        settings = Settings(home=Path({str(settings.home)!r}), _env_file=None)
        connection = postgres.engine(settings).connect()
        print("open", flush=True)
        {script}
    """
    environment = {**os.environ, "PYTHONPATH": str(PROJECT_ROOT)}
    return subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(program)],
        env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip


@pytest.mark.slow
def test_the_last_user_to_leave_stops_the_server_and_killed_users_do_not_count(settings):
    first, second, third = (_elsewhere(settings, "input()") for _ in range(3))
    for user in (first, second, third):
        assert user.stdout.readline() == "open\n"
    server = _postmaster(settings)
    first.kill()
    first.wait()
    second.communicate("\n", timeout=30)
    assert server.is_running()
    third.communicate("\n", timeout=30)
    assert not (settings.home / "postgres" / "postmaster.pid").exists()


@pytest.mark.slow
def test_many_processes_at_once_after_a_kill_share_one_server(kept):
    users = [_elsewhere(kept, "input()") for _ in range(4)]
    try:
        assert [user.stdout.readline() for user in users] == ["open\n"] * 4
        assert _usable(kept)
    finally:
        for user in users:
            user.kill()
            user.communicate()

"""A check that does not fit into the engine's memory: told in the run's log, and at last what to change."""

import logging
import os
import signal
import subprocess
import sys
import threading
from datetime import date

import dagster as dg
import pytest

from shopauto_pipelines.platform.dagster.assets import asset_key
from shopauto_pipelines.platform.dagster.checks import suite_check
from shopauto_pipelines.platform.dagster.failures import errors_told
from shopauto_pipelines.platform.dagster.resources import LakeResource, SettingsResource
from shopauto_pipelines.platform.lake import open_lake
from shopauto_pipelines.platform.quality import Suite
from shopauto_pipelines.platform.settings import load_settings
from shopauto_pipelines.platform.tables import Column, Table

THINGS = Table(
    "test/things",
    "Things.",
    (Column("thing_id", "string", "id", required=True), Column("text", "string", "words", required=True)),
    ("thing_id",),
)
DAY = date(2026, 1, 2)
ROWS = 100_000


@pytest.fixture(autouse=True)
def things(tmp_path, monkeypatch):
    monkeypatch.setenv("SHOPAUTO_HOME", str(tmp_path))
    lake = open_lake(load_settings())
    words = "repeat('x', 200) || i"
    lake.con.raw_sql(f"create temp table things as select i::text as thing_id, {words} as text from range({ROWS}) t(i)")
    lake.write(THINGS, [DAY], lake.con.table("things"))


def checked(memory: str, monkeypatch) -> tuple[dg.ExecuteInProcessResult, list[str]]:
    """A run of the check with so much memory for the engine, and the warnings of its log."""
    monkeypatch.setenv("SHOPAUTO_ENGINE_MEMORY", memory)
    monkeypatch.setenv("SHOPAUTO_ENGINE_THREADS", "4")
    settings = SettingsResource()
    with dg.DagsterInstance.ephemeral() as instance:
        result = dg.materialize(
            [dg.AssetSpec(asset_key(THINGS)), suite_check(Suite.of(THINGS))],
            selection=dg.AssetSelection.all_asset_checks(),
            resources={"settings": settings, "lake": LakeResource(settings=settings)},
            tags={"dagster/asset_partition_range_start": str(DAY), "dagster/asset_partition_range_end": str(DAY)},
            instance=instance,
            raise_on_error=False,
        )
        told = [entry.user_message for entry in instance.all_logs(result.run_id) if entry.level == logging.WARNING]
    return result, told


def test_where_it_fits_nothing_is_said(monkeypatch):
    result, told = checked("500MB", monkeypatch)
    (evaluation,) = result.get_asset_check_evaluations()
    assert (evaluation.passed, evaluation.metadata["rows"].value) == (True, ROWS)
    assert not told


def test_where_it_does_not_the_log_says_that_fewer_threads_are_tried_and_the_failure_what_to_change(monkeypatch):
    result, told = checked("2MB", monkeypatch)
    (failure,) = result.filter_events(lambda event: event.is_step_failure)
    said = failure.step_failure_data.user_failure_data.description
    assert said.startswith("the check of test/things does not fit")
    assert said.endswith("SHOPAUTO_ENGINE_MEMORY")
    assert all(line.startswith("the check of test/things does not fit") for line in told)
    assert [line.rpartition(" ")[2] for line in told] == ["2", "1"]


def test_a_run_that_is_stopped_in_the_middle_of_a_query_computes_nothing_more(monkeypatch):
    started = []

    def counted(name: str) -> dg.AssetsDefinition:
        @dg.asset(name=name)
        def asset(lake: LakeResource) -> None:
            started.append(name)
            threading.Timer(0.5, os.kill, (os.getpid(), signal.SIGINT)).start()
            with errors_told():
                lake.lake().engine.fetch("select sum(a.i * b.i) from range(1000000) a(i), range(1000000) b(i)")

        return asset

    settings = SettingsResource()
    with dg.DagsterInstance.ephemeral() as instance:
        result = dg.materialize(
            [counted("one"), counted("another")],
            resources={"settings": settings, "lake": LakeResource(settings=settings)},
            instance=instance,
            raise_on_error=False,
        )
    assert not result.success
    assert len(started) == 1


_STOPPED = """
import os, signal, threading
from pathlib import Path
from shopauto_pipelines.platform.engine import DuckDB

threading.Timer(0.5, os.kill, (os.getpid(), signal.SIGINT)).start()
DuckDB(Path("spill"), threads=2).fetch("select sum(a.i * b.i) from range(1000000) a(i), range(1000000) b(i)")
"""


def test_a_process_that_is_stopped_in_the_middle_of_a_query_does_not_wait_for_its_end(tmp_path):
    ended = subprocess.run(
        [sys.executable, "-c", _STOPPED], cwd=tmp_path, timeout=60, check=False, capture_output=True, text=True
    )
    assert "interrupted" in ended.stderr.lower()

"""The production instance for real: code server, queue, launcher and pods, against a stand-in for the Kubernetes API.

Everything but the cluster is what it is in production: ``deploy/dagster.yaml``, the commands of ``deploy/values.yaml``,
PostgreSQL by URL. The pods are processes of this machine.
"""

from __future__ import annotations

import logging
import os
import socket
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import dagster as dg
import pytest
import sqlalchemy as sa
import yaml
from dagster._core.instance import InstanceRef
from dagster._core.launcher import WorkerStatus
from dagster._core.test_utils import create_test_daemon_workspace_context
from dagster._core.workspace.load_target import WorkspaceFileTarget
from dagster._daemon.auto_run_reexecution.auto_run_reexecution import consume_new_runs_for_automatic_reexecution
from dagster._daemon.monitoring import execute_run_monitoring_iteration
from dagster._daemon.run_coordinator.queued_run_coordinator_daemon import QueuedRunCoordinatorDaemon
from dagster_graphql.test.utils import execute_dagster_graphql

from shopauto_pipelines.platform import postgres
from shopauto_pipelines.platform.dagster.cluster_launcher import ClusterLauncher
from shopauto_pipelines.platform.dagster.runs import COMMAND_LINE_TAG
from shopauto_pipelines.platform.dagster.warm_launcher import PROCESS_TAG
from shopauto_pipelines.platform.lake import Lake
from shopauto_pipelines.platform.settings import Settings
from shopauto_pipelines.realtime.abandoned_carts import PROFILE_TABLES
from shopauto_pipelines_tests.deploy.kubernetes_stand_in import Cluster, program
from shopauto_pipelines_tests.deploy.test_manifests import environment_file, launcher, parts_of_the_chart, read
from shopauto_pipelines_tests.e2e.forks import Forked
from shopauto_pipelines_tests.outbox.conftest import DAY, database_home, shared_engine
from shopauto_pipelines_tests.outbox.shop import fill, write_shop

__all__ = ["database_home", "shared_engine"]

pytestmark = [pytest.mark.slow, pytest.mark.xdist_group("cluster")]

_LAUNCH = """
mutation ($given: ExecutionParams!) {
  launchPipelineExecution(executionParams: $given) {
    __typename
    ... on LaunchRunSuccess { run { runId } }
    ... on PythonError { message }
    ... on RunConfigValidationInvalid { errors { message } }
  }
}
"""


@dataclass
class Production:
    """The instance as webserver and daemon have it, the code server's workspace, and the cluster."""

    instance: dg.DagsterInstance
    workspace: Any
    cluster: Cluster
    home: Path
    environment: dict[str, str]

    def launch(self, *assets: str, job: str = "__ASSET_JOB", config: dict[str, Any] | None = None, **tags: str) -> str:
        """Launch a run as the UI does; returns its id."""
        given = {
            "selector": {
                "repositoryLocationName": "shopauto",
                "repositoryName": "__repository__",
                "pipelineName": job,
                **({"assetSelection": [{"path": name.split("/")} for name in assets]} if assets else {}),
                **({"assetCheckSelection": []} if assets else {}),
            },
            "runConfigData": config or {},
            "mode": "default",
            "executionMetadata": {"tags": [{"key": key, "value": value} for key, value in tags.items()]},
        }
        told = execute_dagster_graphql(self.workspace.create_request_context(), _LAUNCH, {"given": given})
        return told.data["launchPipelineExecution"]["run"]["runId"]

    def send(self) -> str:
        """Launch the welcome's outbox for the newest day."""
        return self.launch("outbox/welcome", **{"dagster/partition": str(DAY)})

    def dequeue(self) -> None:
        """What the daemon does every few seconds."""
        list(QueuedRunCoordinatorDaemon(interval_seconds=5).run_iteration(self.workspace))

    def look_after(self) -> None:
        """What the daemon does every minute: tell lost runs, and launch them again."""
        told = logging.getLogger(__name__)
        list(execute_run_monitoring_iteration(self.workspace, told))
        list(consume_new_runs_for_automatic_reexecution(self.workspace, self.instance.get_run_records(), told))

    def wait(self, run_id: str, *statuses: dg.DagsterRunStatus) -> dg.DagsterRun:
        """The run, once it has one of the statuses."""
        deadline = time.monotonic() + 60
        while (run := self.instance.get_run_by_id(run_id)).status not in statuses:
            assert time.monotonic() < deadline, (run.status, self.log(run_id))
            assert not run.is_finished, (run.status, self.log(run_id))
            time.sleep(0.1)
        return run

    def log(self, run_id: str) -> str:
        """What a run's pod printed."""
        pod = self.cluster.pods.get(f"dagster-run-{run_id}")
        return pod.log.read_text()[-3000:] if pod else "no pod"

    def inbox(self) -> list[str]:
        """Who has a message, in the local inbox that the pods share."""
        return sorted(path.name for path in self.home.glob("inbox/messages/*.eml"))

    def states(self) -> dict[str, int]:
        """The ledger's messages by state."""
        with postgres.engine(Settings(_env_file=None)).connect() as connection:
            found = connection.execute(sa.text("select state, count(*) from messages group by 1"))
            return {state: count for state, count in found}


@pytest.fixture(scope="module")
def production(shared_engine, homes) -> Iterator[Production]:
    with ExitStack() as stack:
        folder = Path(tempfile.mkdtemp(dir=homes))
        home, instance_home = folder / "home", folder / "instance"
        for each in (home, instance_home):
            each.mkdir()
        with shared_engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
            connection.execute(sa.text("drop database if exists cluster (force)"))
            connection.execute(sa.text("create database cluster"))
        url = shared_engine.url.set(drivername="postgresql", database="cluster").render_as_string(hide_password=False)
        ours = {"SHOPAUTO_HOME": str(home), "SHOPAUTO_FIRST_DAY": "2026-01-01", "SHOPAUTO_ENGINE_THREADS": "1"}
        maps = {"shopauto-settings": environment_file() | ours}
        secrets = {"shopauto-secrets": {"SHOPAUTO_POSTGRES_URL": url, "SHOPAUTO_SECRET_KEY": "a-key"}}
        environment = {
            **{name: os.environ[name] for name in ("PATH", "HOME") if name in os.environ},
            **maps["shopauto-settings"],
            **secrets["shopauto-secrets"],
            "DAGSTER_HOME": str(instance_home),
        }
        patch = stack.enter_context(pytest.MonkeyPatch.context())
        for name, value in environment.items():
            patch.setenv(name, value)

        cluster = Cluster(folder, maps, secrets)
        stack.callback(cluster.close)
        kubernetes = {"load_incluster_config": False, "kubeconfig_file": str(cluster.kubeconfig)}
        told = read("dagster.yaml")
        told["run_launcher"]["config"] |= kubernetes | {"dagster_home": str(instance_home)}
        (instance_home / "dagster.yaml").write_text(yaml.safe_dump(told))
        for argv in (["shopauto", "migrate"], ["dagster", "instance", "migrate"]):
            _finish(argv, environment, folder)
        lake = Lake(home / "lake", 1)
        write_shop(lake, people=8, refused=2)
        for table in PROFILE_TABLES:
            if not lake.days(table):
                fill(lake, table, DAY, [])
        code, workspace_file = _code_server(environment, folder)
        stack.callback(code.kill)

        instance = stack.enter_context(dg.DagsterInstance.from_ref(InstanceRef.from_dir(str(instance_home))))
        workspace = stack.enter_context(
            create_test_daemon_workspace_context(WorkspaceFileTarget([str(workspace_file)]), instance)
        )
        yield Production(instance, workspace, cluster, home, environment | {"WORKSPACE": str(workspace_file)})


def _finish(argv: list[str], environment: dict[str, str], folder: Path) -> str:
    log = folder / "command.log"
    log.write_text("")
    process = Forked(program(argv), environment, str(log))
    process.join(120)
    assert process.exitcode == 0, log.read_text()
    return log.read_text()


def _code_server(environment: dict[str, str], folder: Path) -> tuple[Forked, Path]:
    """The code server as the chart starts it, and a workspace that knows its port."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    part = parts_of_the_chart()["code server"]
    image = "{repository}:{tag}".format(**part["image"])
    log = folder / "code.log"
    log.touch()
    argv = ["dagster", "api", "grpc", "-h", "127.0.0.1", "-p", str(port), *part["dagsterApiGrpcArgs"]]
    code = Forked(program(argv), {**environment, "DAGSTER_CURRENT_IMAGE": image}, str(log))
    workspace = read("workspace.yaml")
    (target,) = workspace["load_from"]
    target["grpc_server"] |= {"host": "127.0.0.1", "port": port, "location_name": part["name"]}
    path = folder / "workspace.yaml"
    path.write_text(yaml.safe_dump(workspace))
    deadline = time.monotonic() + 60
    while True:
        with socket.socket() as asked:
            if asked.connect_ex(("127.0.0.1", port)) == 0:
                return code, path
        assert code.is_alive(), log.read_text()
        assert time.monotonic() < deadline, log.read_text()
        time.sleep(0.1)


def test_the_instance_is_the_declared_one_and_the_definitions_are_valid_against_it(production):
    instance = production.instance
    assert isinstance(instance.run_launcher, ClusterLauncher)
    assert instance.storage_directory().startswith("/tmp/dagster")
    assert instance.run_monitoring_enabled
    assert (instance.run_retries_enabled, instance.run_retries_max_retries) == (True, 2)
    assert not instance.run_retries_retry_on_asset_or_op_failure
    concurrency = instance.get_concurrency_config()
    assert concurrency.run_queue_config.max_concurrent_runs == 10
    assert concurrency.pool_config.default_pool_limit == 2
    folder = production.home.parent
    told = _finish(
        ["dagster", "definitions", "validate", "-w", production.environment["WORKSPACE"]],
        production.environment,
        folder,
    )
    assert "All code locations passed validation" in told


def test_a_day_sent_by_two_pods_at_once_one_of_which_is_lost_reaches_everybody_once(production):
    first, second = production.send(), production.send()
    production.dequeue()
    assert production.cluster.refused == []
    production.wait(first, dg.DagsterRunStatus.STARTED, dg.DagsterRunStatus.SUCCESS)
    production.cluster.pods[f"dagster-run-{first}"].kill()
    production.wait(second, dg.DagsterRunStatus.SUCCESS)
    if production.instance.get_run_by_id(first).status != dg.DagsterRunStatus.SUCCESS:
        production.look_after()
        assert production.instance.get_run_by_id(first).status == dg.DagsterRunStatus.FAILURE
        production.look_after()
        again = [run for run in production.instance.get_runs() if run.parent_run_id == first]
        assert len(again) == 1
        production.dequeue()
        production.wait(again[0].run_id, dg.DagsterRunStatus.SUCCESS)
    assert len(production.inbox()) == 8
    assert production.states() == {"sent": 8}
    pod = production.cluster.pods[f"dagster-run-{second}"]
    (container,) = pod.manifest["spec"]["template"]["spec"]["containers"]
    assert container["image"] == "{repository}:{tag}".format(**parts_of_the_chart()["code server"]["image"])
    assert container["resources"] == launcher()["resources"]


def test_runs_that_compute_wait_for_each_other_and_runs_that_send_do_not(production):
    production.cluster.holding = True
    day = {"dagster/partition": str(DAY)}
    computing = [production.launch("raw/orders", **day)]
    production.dequeue()  # the first look at a new pool takes down its limit
    computing += [production.launch("raw/orders", **day) for _ in range(2)]
    sending = production.send()
    production.dequeue()
    production.cluster.holding = False
    status = {run_id: production.instance.get_run_by_id(run_id).status for run_id in (*computing, sending)}
    for run_id in status:
        production.instance.report_run_canceled(production.instance.get_run_by_id(run_id))
    starting, queued = dg.DagsterRunStatus.STARTING, dg.DagsterRunStatus.QUEUED
    assert [*status.values()] == [starting, starting, queued, starting]


def test_a_run_of_a_command_line_is_not_taken_for_a_lost_pod(production):
    held = production.instance.run_launcher
    run = production.instance.create_run_for_job(_nothing, tags={COMMAND_LINE_TAG: "elsewhere:1"})
    assert held.check_run_worker_health(run).status == WorkerStatus.RUNNING
    repeats = {COMMAND_LINE_TAG: "elsewhere:1", "dagster/parent_run_id": run.run_id}  # as a pod, with the same tags
    again = production.instance.create_run_for_job(_nothing, tags=repeats)
    assert held.check_run_worker_health(again).status == WorkerStatus.UNKNOWN


def test_a_run_without_a_pod_is_lost_and_one_that_kubernetes_does_not_speak_of_is_not(production):
    run, held = production.instance.create_run_for_job(_nothing), production.instance.run_launcher
    assert held.check_run_worker_health(run).status == WorkerStatus.UNKNOWN
    production.cluster.silent = True
    assert held.check_run_worker_health(run).status == WorkerStatus.RUNNING
    production.cluster.silent = False


def test_the_job_of_abandoned_carts_needs_no_pod(production):
    pods = len(production.cluster.pods)
    none = {"ops": {"realtime__abandoned_carts": {"config": {"first_id": 0, "last_id": 0}}}}
    run_id = production.launch(job="abandoned_carts", config=none)
    run = production.wait(run_id, dg.DagsterRunStatus.SUCCESS)
    assert PROCESS_TAG in run.tags
    assert len(production.cluster.pods) == pods


@dg.op
def _nobody() -> None:
    pass


@dg.job
def _nothing() -> None:
    _nobody()

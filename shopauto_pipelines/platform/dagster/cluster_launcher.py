"""Runs as pods of a Kubernetes cluster, but for the jobs that must start within a second. Needs the extra ``k8s``.

A pod takes ten seconds and more until it has started and imported everything. So the jobs named in ``warm`` are forked in the
daemon's own pod (``warm_launcher``), and all others are left to ``dagster-k8s``. In ``deploy/dagster.yaml``.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, cast

from dagster import DagsterInstance, DagsterRun, Field, Shape
from dagster._core.launcher import CheckRunHealthResult, LaunchRunContext, WorkerStatus
from dagster._serdes import ConfigurableClassData
from dagster_k8s import K8sRunLauncher

from shopauto_pipelines.platform.dagster.runs import command_line
from shopauto_pipelines.platform.dagster.warm_launcher import PROCESS_TAG, WarmLauncher

#: How ``dagster-k8s`` ends its word on a run whose job is not there any more; what else is unknown is Kubernetes' silence.
_NO_POD = "could not be found"


class ClusterLauncher(K8sRunLauncher):
    """``K8sRunLauncher`` for all jobs but those of ``warm``, whose options are those of the ``WarmLauncher``."""

    def __init__(self, warm: Mapping[str, Any] | None = None, **kubernetes: Any) -> None:
        super().__init__(**kubernetes)
        self._here = WarmLauncher(**(warm or {}))

    @classmethod
    def config_type(cls) -> dict[str, Any]:
        """The options of ``K8sRunLauncher``, and ``warm``."""
        here = Field(
            Shape(WarmLauncher.config_type()),
            is_required=False,
            description="What runs in the daemon's own pod, and what is done beforehand.",
        )
        return {**cast(dict[str, Any], K8sRunLauncher.config_type()), "warm": here}

    @classmethod
    def from_config_value(  # noqa: D102
        cls, inst_data: ConfigurableClassData | None, config_value: Mapping[str, Any]
    ) -> ClusterLauncher:
        return cls(inst_data=inst_data, **config_value)

    def register_instance(self, instance: DagsterInstance) -> None:
        """Tell both ways of starting a run whose runs they are."""
        super().register_instance(instance)
        self._here.register_instance(instance)

    def warm_up(self) -> None:
        """Start the warm process of this pod."""
        self._here.warm_up()

    def launch_run(self, context: LaunchRunContext) -> None:
        """Start the run here, or have the cluster start it."""
        launch = self._here.launch_run if self._here.is_warm(context.dagster_run) else super().launch_run
        launch(context)

    def terminate(self, run_id: str) -> bool:
        """Interrupt the run where it runs; true where it was alive."""
        run = self._instance.get_run_by_id(run_id)
        if run is not None and PROCESS_TAG in run.tags:
            return self._here.terminate(run_id)
        return bool(super().terminate(run_id))

    def check_run_worker_health(self, run: DagsterRun) -> CheckRunHealthResult:
        """Whether the run's process or pod is alive, as far as anybody can tell.

        Of runs of a command line nothing is known: it ends them itself. Nor is anything while Kubernetes does not answer: taken
        for lost, every run under way would be started a second time.
        """
        if PROCESS_TAG in run.tags:
            return self._here.check_run_worker_health(run)
        if command_line(run.tags):
            return CheckRunHealthResult(WorkerStatus.RUNNING, "started by a command line: not known")
        found = super().check_run_worker_health(run)
        if found.status == WorkerStatus.UNKNOWN and not (found.msg or "").endswith(_NO_POD):
            return CheckRunHealthResult(WorkerStatus.RUNNING, f"not known: {found.msg}")
        return found

    def get_run_worker_debug_info(self, run: DagsterRun, include_container_logs: bool | None = True) -> str | None:
        """What the cluster says of a run's pod; nothing of what has none."""
        if PROCESS_TAG in run.tags or command_line(run.tags):
            return None
        return super().get_run_worker_debug_info(run, include_container_logs)

    def dispose(self) -> None:
        """Let the warm process go."""
        self._here.dispose()
        super().dispose()

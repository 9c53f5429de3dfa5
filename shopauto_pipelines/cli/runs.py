"""Runs Dagster jobs from the command line: real runs in the real instance, seen in the UI, with a progress bar."""

from __future__ import annotations

import socket
import uuid
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import date
from functools import cache

import dagster as dg
from dagster._core.execution.plan.objects import ErrorSource
from dagster._core.instance import InstanceRef
from dagster._core.storage.noop_compute_log_manager import NoOpComputeLogManager
from rich.console import Console

from shopauto_pipelines.cli.progress import bars
from shopauto_pipelines.orchestration.flow import flow
from shopauto_pipelines.orchestration.health import FailedRun, Made
from shopauto_pipelines.platform.dagster.runs import COMMAND_LINE_TAG, command_line, range_tags, run_days, this_process
from shopauto_pipelines.platform.errors import ShopAutoError
from shopauto_pipelines.platform.postgres import engine
from shopauto_pipelines.platform.processes import lives
from shopauto_pipelines.platform.progress import listening
from shopauto_pipelines.platform.settings import PROJECT_ROOT, load_settings
from shopauto_pipelines.platform.tables import Table

#: How many failed runs over days are told, of how many failed runs, and how much of what each said.
_MOST_FAILED, _MOST_LOOKED_AT, _LONGEST_WHY = 25, 2_000, 200


class RunFailed(ShopAutoError):
    """A run did not succeed; the text says which steps and checks failed and why, without a traceback."""


@contextmanager
def instance() -> Iterator[dg.DagsterInstance]:
    """The project's Dagster instance, as ``dagster.yaml`` describes it.

    Raises :class:`~shopauto_pipelines.platform.postgres.PostgresError` where its database cannot be used.
    """
    settings = load_settings()
    engine(settings)  # says what is wrong; Dagster would not
    ref = InstanceRef.from_dir(
        str(settings.home / "dagster"),
        config_dir=str(PROJECT_ROOT),
        # the output of this process is the person's at the terminal
        overrides={
            "compute_logs": {"module": NoOpComputeLogManager.__module__, "class": NoOpComputeLogManager.__name__}
        },
    )
    with dg.DagsterInstance.from_ref(ref) as made:
        _close_abandoned(made, alone=settings.postgres_url is None)
        yield made


def run_job(
    instance: dg.DagsterInstance,
    job: str,
    start: date,
    end: date,
    console: Console,
    models: Sequence[str] = (),
) -> str:
    """Run ``job`` over the days ``start`` … ``end`` as one run; returns the run's id, raises :class:`RunFailed`.

    ``models``: ids of those to score with instead of the ones in force.
    """
    definition = _definitions().resolve_job_def(job)
    run_id = str(uuid.uuid4())
    span = f"{start}" if start == end else f"{start} … {end}"
    with bars(console) as progress:
        bar = progress.add_task(f"{job} {span}", total=len(definition.graph.node_dict), detail="")

        def on_event(entry: dg.EventLogEntry) -> None:
            event = entry.dagster_event
            if event is None:
                return
            if event.is_step_start:
                progress.update(bar, detail=_step_name(event.step_key))
            elif event.is_step_success or event.is_step_failure or event.is_step_skipped:
                progress.advance(bar)

        def on_report(what: str, done: int, total: int) -> None:
            if total > 1:
                progress.update(bar, detail=f"{what} {done}/{total}")

        instance.add_event_listener(run_id, on_event)
        with listening(on_report):
            result = definition.execute_in_process(
                instance=instance,
                run_id=run_id,
                tags={
                    **range_tags(start, end),
                    COMMAND_LINE_TAG: this_process(),
                    "shopauto/launched_by": "command line",
                },
                run_config={
                    "loggers": {"console": {"config": {"log_level": "CRITICAL"}}},
                    "ops": {"predictions__models": {"config": {"named": [*models]}}} if models else {},
                },
                raise_on_error=False,
            )
        progress.update(bar, detail="done" if result.success else "failed")
    if not result.success:
        raise RunFailed(_reasons(result, job, span))
    return run_id


def made_in_order() -> list[Made]:
    """The lake's tables in the order a refresh makes them, each with what it is made of."""
    return flow(_definitions().resolve_asset_graph())


def logs() -> list[Table]:
    """The tables of days, of which every state as of a later day is made: raw logs and rollups."""
    return [made.table for made in made_in_order() if made.table.partition == "day"]


def failed_runs(instance: dg.DagsterInstance) -> list[FailedRun]:
    """The latest runs over days that failed, were cancelled, or were killed."""
    ended = dg.RunsFilter(statuses=[dg.DagsterRunStatus.FAILURE, dg.DagsterRunStatus.CANCELED])
    found: list[FailedRun] = []
    for record in instance.get_run_records(ended, limit=_MOST_LOOKED_AT):  # of sensors' runs there may be many more
        if len(found) == _MOST_FAILED:
            break
        run = record.dagster_run
        try:
            days = run_days(run.tags)
        except ValueError:  # a run of no days
            continue
        at = int((record.end_time or record.update_timestamp.timestamp()) * 1e9)
        found.append(
            FailedRun(run.run_id, (days[0], days[-1]), _assets_of(instance, run), at, _why_failed(instance, run))
        )
    return found


def _assets_of(instance: dg.DagsterInstance, run: dg.DagsterRun) -> frozenset[str]:
    """What the run was for: those selected, or those its plan names, which may be fewer than its job has today."""
    if run.asset_selection:
        return frozenset(key.to_user_string() for key in run.asset_selection)
    plan = run.execution_plan_snapshot_id
    if plan is None:
        return frozenset()
    return frozenset(map(_step_name, instance.get_execution_plan_snapshot(plan).step_keys_to_execute))


def _why_failed(instance: dg.DagsterInstance, run: dg.DagsterRun) -> str:
    """What stopped it, in a line: the check that failed, or the first step and what it said; else what Dagster says of it."""
    for entry in instance.all_logs(run.run_id, of_type=dg.DagsterEventType.ASSET_CHECK_EVALUATION):
        check = entry.dagster_event.asset_check_evaluation_data if entry.dagster_event else None
        if check and check.blocking and not check.passed and check.severity == dg.AssetCheckSeverity.ERROR:
            return _line(
                f"check {check.asset_key.to_user_string()}:{check.check_name}: {check.description or 'failed'}"
            )
    for kind in (dg.DagsterEventType.STEP_FAILURE, dg.DagsterEventType.RUN_FAILURE):
        for entry in instance.all_logs(run.run_id, of_type=kind):
            event = entry.dagster_event
            if event is not None and event.is_step_failure:
                return _line(f"{_step_name(event.step_key)}: {_said(event)}")
            if event is not None:
                return _line(event.message or "")
    return "cancelled"


def _line(text: str) -> str:
    words = " ".join(text.split())
    return words if len(words) <= _LONGEST_WHY else f"{words[:_LONGEST_WHY]}…"


@cache
def _definitions() -> dg.Definitions:
    """What Dagster sees: read once, a refresh runs two jobs."""
    from shopauto_pipelines.definitions import defs

    return defs()


def _reasons(result: dg.ExecuteInProcessResult, job: str, span: str) -> str:
    if any(map(_interrupted, result.filter_events(lambda event: event.is_step_failure))):
        return (
            f"{job} {span} was interrupted (run {result.run_id}). Nothing is half written: run it again. `shopauto health` "
            "says what is left of days that were begun"
        )
    lines = [f"{job} {span} did not finish (run {result.run_id}; open it in the Dagster UI for the full log):"]
    for check in result.get_asset_check_evaluations():
        if not check.passed:
            severity = "warning" if check.severity == dg.AssetCheckSeverity.WARN else "stopped the run"
            lines.append(
                f"  check {check.asset_key.to_user_string()}:{check.check_name} {severity}: {check.description}"
            )
    for event in result.filter_events(lambda event: event.is_step_failure):
        error = event.step_failure_data.error
        if error is None or "AssetCheck" not in (error.cls_name or ""):  # told above
            lines.append(f"  {_step_name(event.step_key)}: {_said(event)}")
    return "\n".join(lines)


def _said(event: dg.DagsterEvent) -> str:
    """What a step said when it failed: its words for users, else the message of the error that began it."""
    if _interrupted(event):
        return "interrupted"
    failure = event.step_failure_data
    if failure.user_failure_data is not None and failure.user_failure_data.description:
        return str(failure.user_failure_data.description)
    error = failure.error
    while error is not None and error.cause is not None:
        error = error.cause
    return error.message.strip() if error else ""


def _interrupted(event: dg.DagsterEvent) -> bool:
    """Whether the step failed because somebody stopped the run, as by Ctrl+C."""
    return event.step_failure_data.error_source == ErrorSource.INTERRUPT


def _step_name(key: str | None) -> str:
    return (key or "").replace("__", "/")


def _close_abandoned(instance: dg.DagsterInstance, *, alone: bool) -> None:
    """Mark runs of command lines that were killed as failed: they would count as running for ever, and hold up the queue.

    ``alone``: only this machine has the database, so all of them are its own, whatever it was called then.
    """
    for run in instance.get_runs(dg.RunsFilter(statuses=[dg.DagsterRunStatus.STARTED, dg.DagsterRunStatus.STARTING])):
        told = (command_line(run.tags) or "").split(":")
        if len(told) != 3 or not (alone or told[0] == socket.gethostname()):
            continue
        if not lives(int(told[1]), float(told[2])):
            instance.report_run_failed(
                run, "The process that ran it was killed; run it again: nothing is half written."
            )

"""The Dagster face of carts that become due: two sensors of one job, both off at first.

``carts_after_quiet_hours`` looks every minute whether messages that were held over a night may leave. ``abandoned_carts`` waits
for carts, and asks for one run at a time. Dagster looks at a sensor every few seconds; this one waits inside its evaluation, on
PostgreSQL's word and on the time the next cart is due, so that nothing is late by a poll. Its cursor is the last number of
``due_carts`` that a run has dealt with, and moves when that run has succeeded. All else is read off Dagster's own runs, so a
restart in the middle loses nothing: the runs after a cursor carry it as a tag, their keys name the run that failed before them,
and a key is taken once.
"""

import time
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

import dagster as dg
import psycopg
import sqlalchemy as sa
from dagster._core.launcher import WorkerStatus
from dagster._core.storage.dagster_run import RunRecord

from shopauto_pipelines.campaigns.declaration import Campaign, load_campaigns
from shopauto_pipelines.campaigns.live import cart_waits, longest_valid, realtime
from shopauto_pipelines.outbox import controls
from shopauto_pipelines.outbox.hours import Hours, come, quarter
from shopauto_pipelines.platform import live_settings
from shopauto_pipelines.platform.clock import Clock
from shopauto_pipelines.platform.dagster.resources import SettingsResource
from shopauto_pipelines.platform.postgres import engine
from shopauto_pipelines.platform.settings import Settings
from shopauto_pipelines.realtime import abandoned_carts, carts

#: The job, and the step that takes the range.
JOB = "abandoned_carts"
STEP = "realtime__abandoned_carts"

#: The tag that tells after which number a run's carts begin.
AFTER = "shopauto/carts_after"

#: Longest a tick may wait, seconds: well under the 60 in which Dagster gives it up.
_LONGEST = 25.0

#: Seconds between two looks at a run that is under way.
_LOOK = 0.1

#: A run without a change for so many seconds, whose process does not hold the job's lock, is dead.
_DEAD_AFTER = 60.0

#: A batch that failed is tried again after the first of these seconds, and later each time.
_AGAIN = (5.0, 10.0, 20.0, 40.0, 80.0, 160.0, 300.0)


@dg.sensor(
    name="abandoned_carts",
    job_name=JOB,
    minimum_interval_seconds=1,
    default_status=dg.DefaultSensorStatus.STOPPED,
    description=(
        "Finds carts that nothing has happened to for as long as a step of a cart campaign waits, and has the job "
        "`abandoned_carts` write to their owners within seconds. One batch at a time; a batch that failed is tried again. "
        "Nothing is asked for while all cart campaigns are stopped."
    ),
)
def abandoned_carts_sensor(
    context: dg.SensorEvaluationContext, settings: SettingsResource
) -> dg.RunRequest | dg.SkipReason:
    """Wait for the next batch: at most one run per tick, none while one is under way."""
    return _Tick(context, settings.settings, settings.clock, realtime(load_campaigns().values())).wait(_LONGEST)


@dg.sensor(
    name="carts_after_quiet_hours",
    job_name=JOB,
    minimum_interval_seconds=60,
    default_status=dg.DefaultSensorStatus.STOPPED,
    description=(
        "Has the job `abandoned_carts` send what was held while the quiet hours of a cart's owner lasted, once they are over. "
        "Switch it on together with `abandoned_carts`."
    ),
)
def carts_after_quiet_hours(settings: SettingsResource) -> dg.RunRequest | dg.SkipReason:
    """One run a quarter of an hour at the most, of no new cart: one that failed is tried again with the next."""
    now, campaigns = settings.clock.now(), {campaign.name for campaign in realtime(load_campaigns().values())}
    with engine(settings.settings).connect() as connection:
        hours = Hours.of(live_settings.current(connection, settings.settings))
        found = come(connection, hours, now) if hours else []
    if not any(held.campaign in campaigns for held in found):
        return dg.SkipReason("nothing is held" if hours else "live mode is off: nothing waits for its hour")
    none = {"first_id": 0, "last_id": 0}
    return dg.RunRequest(run_key=f"hour:{quarter(now)}", run_config={"ops": {STEP: {"config": none}}})


class _Tick:
    """One evaluation of the sensor."""

    def __init__(
        self, context: dg.SensorEvaluationContext, settings: Settings, clock: Clock, campaigns: Sequence[Campaign]
    ) -> None:
        self._context, self._settings, self._clock, self._campaigns = context, settings, clock, campaigns
        self._instance = context.instance
        self._engine = engine(settings)
        self._after = int(context.cursor or 0)

    def wait(self, seconds: float) -> dg.RunRequest | dg.SkipReason:
        """Look, and look again when there may be something new, for so many seconds."""
        until = time.monotonic() + seconds
        with self._engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
            driver = connection.connection.driver_connection
            assert isinstance(driver, psycopg.Connection)
            driver.execute(f"listen {carts.CHANNEL}")  # before the first look: what comes between is not missed
            try:
                while True:
                    found = self._look(connection)
                    left = until - time.monotonic()
                    if isinstance(found, dg.RunRequest) or left <= 0:
                        break
                    _, pause = found
                    for _ in driver.notifies(timeout=min(left, pause), stop_after=1):
                        pass
            finally:
                driver.execute("unlisten *")
        self._context.update_cursor(str(self._after))
        return found if isinstance(found, dg.RunRequest) else dg.SkipReason(found[0])

    def _look(self, connection: sa.Connection) -> dg.RunRequest | tuple[str, float]:
        """The run to ask for, or why there is none, and after how many seconds to look again at the latest."""
        failed, again_in = "", 0.0
        while run := self._latest_run():
            if run.dagster_run.status == dg.DagsterRunStatus.SUCCESS:
                given: Any = run.dagster_run.run_config
                self._after = int(given["ops"][STEP]["config"]["last_id"])
                continue
            if not run.dagster_run.is_finished:
                if not self._is_dead(run, connection):
                    return f"run {run.dagster_run.run_id} is under way", _LOOK
                self._bury(run.dagster_run.run_id)
                continue
            failed = run.dagster_run.run_id
            attempts = self._instance.get_runs_count(self._of_these_carts())
            again_in = _AGAIN[min(attempts, len(_AGAIN)) - 1] - _seconds_since(run, self._clock)
            break
        if why := self._stopped(connection):
            return why, _LONGEST
        now, current = self._clock.now(), live_settings.current(connection, self._settings)
        waits, valid = cart_waits(self._campaigns, current), longest_valid(self._campaigns)
        with self._engine.begin() as writing:
            carts.queue_due(writing, waits, at=now, valid=valid, limit=abandoned_carts.MOST_CARTS)
        if again_in > 0:
            return f"the carts after {self._after} failed, and are tried again in {again_in:.0f} s", again_in
        found = carts.batch(connection, self._after, abandoned_carts.MOST_CARTS)
        if found is None:
            next_at = carts.next_due(connection, waits, at=now, valid=valid)
            return "no cart is due", (next_at - self._clock.now()).total_seconds() if next_at else _LONGEST
        first_id, last_id = found
        return dg.RunRequest(
            run_key=f"{self._after}:{failed}",
            run_config={"ops": {STEP: {"config": {"first_id": first_id, "last_id": last_id}}}},
            tags={AFTER: str(self._after)},
        )

    def _latest_run(self) -> RunRecord | None:
        return next(iter(self._instance.get_run_records(self._of_these_carts(), limit=1)), None)

    def _of_these_carts(self) -> dg.RunsFilter:
        """All runs after the cursor, those that somebody has started again by hand too."""
        return dg.RunsFilter(job_name=JOB, tags={AFTER: str(self._after)})

    def _is_dead(self, run: RunRecord, connection: sa.Connection) -> bool:
        """Whether nobody works on it any more: its launcher says so, or nothing has moved for long."""
        launcher = self._instance.run_launcher
        if launcher.supports_check_run_worker_health:
            found = launcher.check_run_worker_health(run.dagster_run)
            if found.run_worker_id or found.status == WorkerStatus.NOT_FOUND:
                return found.status == WorkerStatus.NOT_FOUND
        waits = run.dagster_run.status == dg.DagsterRunStatus.QUEUED
        stands_still = _seconds_since(run, self._clock) > _DEAD_AFTER
        return not waits and stands_still and not abandoned_carts.is_at_work(connection)

    def _bury(self, run_id: str) -> None:
        run = self._instance.get_run_by_id(run_id)
        if run and not run.is_finished:  # it may have ended well since we looked
            self._instance.report_run_failed(run, "The process of the run is gone. Its carts are tried again.")

    def _stopped(self, connection: sa.Connection) -> str | None:
        """Why no cart campaign may send; ``None`` where one may."""
        if not self._campaigns:
            return "there is no campaign about abandoned carts"
        reasons = [controls.stopped(connection, campaign.name) for campaign in self._campaigns]
        return reasons[0] if all(reasons) else None


def _seconds_since(run: RunRecord, clock: Clock) -> float:
    """Seconds since the run changed last."""
    changed = run.update_timestamp.replace(tzinfo=UTC) if run.update_timestamp.tzinfo is None else run.update_timestamp
    return (clock.now() - max(changed, datetime.fromtimestamp(run.end_time or 0, UTC))) / timedelta(seconds=1)


SENSORS = [abandoned_carts_sensor, carts_after_quiet_hours]

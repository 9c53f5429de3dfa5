"""The schedules. Off in a fresh install: nothing runs, and nothing is sent, until somebody switches them on."""

import dagster as dg

from shopauto_pipelines.orchestration.jobs import DAILY_REFRESH

DAILY = dg.build_schedule_from_partitioned_job(
    DAILY_REFRESH,
    name="daily_refresh_at_five",
    hour_of_day=5,
    description="Refreshes yesterday at 05:00 in the shop's time zone, and sends its messages.",
    default_status=dg.DefaultScheduleStatus.STOPPED,
)

SCHEDULES = [DAILY]

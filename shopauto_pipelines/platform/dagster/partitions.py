"""The partitions, defined once: the shop's days.

``day`` tables hold what happened on a day, ``as_of`` tables the state at its end; both are keyed by the same days.
"""

from __future__ import annotations

from datetime import date

import dagster as dg

from shopauto_pipelines.platform.lake import Lake, storage_of
from shopauto_pipelines.platform.settings import load_settings

_settings = load_settings()

#: First day where no setting says so and nothing has been loaded: the first day of the sample shop.
_DEFAULT_FIRST_DAY = date(2025, 1, 1)

#: Never after the first day of the data: what is refreshed is made of all of it.
_FIRST_DAYS = [day for day in (_settings.first_day, Lake.first_day(storage_of(_settings))) if day]

DAILY = dg.DailyPartitionsDefinition(
    start_date=min(_FIRST_DAYS, default=_DEFAULT_FIRST_DAY).isoformat(),
    timezone=_settings.timezone,
)

#: A range of days is one run: 0.1 s a day instead of the seconds each run costs to start.
ONE_RUN = dg.BackfillPolicy.single_run()

"""The jobs, and the executor they share."""

import dagster as dg

from shopauto_pipelines.platform.dagster.assets import LANE_TAG, PARTITION_TAG

#: Steps run one after the other in the run's process: each uses all cores through the engine already, and a step costs
#: 0.07 s in process against 1.4 s in a process of its own.
EXECUTOR = dg.in_process_executor

LOAD_HISTORY = dg.define_asset_job(
    "load_history",
    selection=dg.AssetSelection.tag(PARTITION_TAG, "day"),
    description="Raw logs, claims and rollups of past days: what every as-of day after them is computed from.",
)

DAILY_REFRESH = dg.define_asset_job(
    "daily_refresh",
    selection=dg.AssetSelection.all() - dg.AssetSelection.tag(LANE_TAG, "realtime"),
    description="The whole house for a day: raw data to messages. Sends only for the newest day, and never in a backfill.",
)

ABANDONED_CARTS = dg.define_asset_job(
    "abandoned_carts",
    selection=dg.AssetSelection.tag(LANE_TAG, "realtime"),
    executor_def=EXECUTOR,
    tags={"dagster/max_retries": "0"},  # its sensor tries a batch again
    description="A batch of carts that are due: from the queue to their owners. Asked for by the sensor of the same name.",
)

#: Jobs that compute days.
OF_DAYS = [LOAD_HISTORY, DAILY_REFRESH]

JOBS = [*OF_DAYS, ABANDONED_CARTS]

"""The front door: everything Dagster sees, in the order the data walks through it. Nothing else lives here."""

from pathlib import Path

import dagster as dg

from shopauto_pipelines.explain import assets as explain
from shopauto_pipelines.features import assets as features
from shopauto_pipelines.features import checks as features_checks
from shopauto_pipelines.insights import assets as insights
from shopauto_pipelines.orchestration import jobs, schedules
from shopauto_pipelines.outbox import assets as outbox
from shopauto_pipelines.outbox import checks as outbox_checks
from shopauto_pipelines.outbox import sensors as outbox_sensors
from shopauto_pipelines.platform.dagster.io_manager import LakeIOManager
from shopauto_pipelines.platform.dagster.resources import LakeResource, SettingsResource
from shopauto_pipelines.platform.settings import load_settings
from shopauto_pipelines.predictions import assets as predictions
from shopauto_pipelines.predictions import checks as predictions_checks
from shopauto_pipelines.profiles import assets as profiles
from shopauto_pipelines.profiles import checks as profiles_checks
from shopauto_pipelines.realtime import assets as realtime
from shopauto_pipelines.realtime import checks as realtime_checks
from shopauto_pipelines.realtime import sensors as realtime_sensors
from shopauto_pipelines.recommendations import assets as recommendations
from shopauto_pipelines.recommendations import checks as recommendations_checks
from shopauto_pipelines.segments import assets as segments
from shopauto_pipelines.segments import checks as segments_checks
from shopauto_pipelines.sources import assets as sources
from shopauto_pipelines.sources import checks as sources_checks


@dg.definitions
def defs() -> dg.Definitions:
    """The rooms, and the playbook under ``defs/``: sources, segments, and the audience of each campaign.

    Where past days are seen as known then, nothing acts: no sends, no collector, no gate, no schedule, no sensor.
    """
    acts = load_settings().known == "now"
    settings = SettingsResource()
    lake = LakeResource(settings=settings)
    rooms = dg.Definitions(
        assets=[
            *sources.ASSETS,
            *profiles.ASSETS,
            *features.ASSETS,
            *predictions.ASSETS,
            *recommendations.ASSETS,
            *segments.ASSETS,
            *insights.ASSETS,
            *([*outbox.ASSETS, *realtime.ASSETS, *explain.ASSETS] if acts else []),
        ],
        asset_checks=[
            *sources_checks.CHECKS,
            *profiles_checks.CHECKS,
            *features_checks.CHECKS,
            *predictions_checks.CHECKS,
            *recommendations_checks.CHECKS,
            *segments_checks.CHECKS,
            *([*outbox_checks.CHECKS, *realtime_checks.CHECKS] if acts else []),
        ],
        jobs=jobs.JOBS if acts else jobs.OF_DAYS,
        schedules=schedules.SCHEDULES if acts else [],
        sensors=[*outbox_sensors.SENSORS, *realtime_sensors.SENSORS] if acts else [],
        resources={"settings": settings, "lake": lake, "lake_io": LakeIOManager(lake=lake)},
        executor=jobs.EXECUTOR,
    )
    playbook = dg.load_from_defs_folder(path_within_project=Path(__file__).parent)
    return dg.Definitions.merge(rooms, playbook)

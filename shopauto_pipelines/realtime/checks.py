"""What must hold of what is served: nobody who is active is called lapsed."""

import dagster as dg

from shopauto_pipelines.platform.dagster.resources import LakeResource, SettingsResource
from shopauto_pipelines.platform.postgres import engine
from shopauto_pipelines.realtime.serving import leaks


@dg.asset_check(
    asset=["realtime", "people"],
    name="left_alone",
    blocking=True,
    description=(
        "Nobody is served as lapsed who is active, has left the segment, or seeks discounts or is held out without saying so. "
        "Counted anew, from features and segments, of what readers see."
    ),
)
def left_alone(lake: LakeResource, settings: SettingsResource) -> dg.AssetCheckResult:
    """Read the served tables as the collector does."""
    with engine(settings.settings).connect() as connection:
        wrong = leaks(connection, lake.front(), settings.settings)
    found = ", ".join(f"{n:,} {what}" for what, n in wrong.items() if n)
    return dg.AssetCheckResult(
        passed=not found,
        metadata=wrong,
        description=f"realtime/people serves as lapsed who must be left alone: {found}" if found else None,
    )


CHECKS = [left_alone]

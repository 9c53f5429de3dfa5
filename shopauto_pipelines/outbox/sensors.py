"""The Dagster face of what goes on later: the rest of staged roll-outs, and what waits for its hour.

Off in a fresh install, like everything that sends.
"""

from collections.abc import Iterator

import dagster as dg

from shopauto_pipelines.outbox import breakers
from shopauto_pipelines.outbox.assets import ASSETS
from shopauto_pipelines.outbox.hours import Hours, come, quarter
from shopauto_pipelines.outbox.windows import look
from shopauto_pipelines.platform import live_settings
from shopauto_pipelines.platform.dagster.resources import LakeResource, SettingsResource
from shopauto_pipelines.platform.postgres import engine

_SENT_DAILY = {asset.key for asset in ASSETS}


@dg.sensor(
    name="rest_of_roll_outs",
    target=dg.AssetSelection.groups("outbox"),
    minimum_interval_seconds=300,
    default_status=dg.DefaultSensorStatus.STOPPED,
    description=(
        "Sends the rest of a campaign that is rolled out in stages, once its wait is over and no breaker has tripped. "
        "Without it, materialise the campaign's outbox again by hand."
    ),
)
def rest_of_roll_outs(settings: SettingsResource) -> Iterator[dg.RunRequest | dg.SkipReason]:
    """One run a campaign and stage. The key holds how many have gone: a run that failed is not started again by itself."""
    with engine(settings.settings).connect() as connection:
        current = live_settings.current(connection, settings.settings)
        due = breakers.rests_due(connection, current, at=settings.clock.now())
    daily = [found for found in due if dg.AssetKey(["outbox", found[0]]) in _SENT_DAILY]
    for campaign, as_of, gone in daily:
        yield dg.RunRequest(
            run_key=f"{campaign}:{as_of}:{gone}",
            partition_key=str(as_of),
            asset_selection=[dg.AssetKey(["outbox", campaign])],
        )
    if not daily:
        yield dg.SkipReason("no roll-out has a rest that is due")


@dg.sensor(
    name="messages_in_their_hour",
    target=dg.AssetSelection.groups("outbox"),
    minimum_interval_seconds=300,
    default_status=dg.DefaultSensorStatus.STOPPED,
    description=(
        "Sends the messages whose hour has come: people's best hours, and the end of their quiet hours. In live mode nearly "
        "every message waits for one, so switch it on together with the daily refresh."
    ),
)
def messages_in_their_hour(settings: SettingsResource, lake: LakeResource) -> Iterator[dg.RunRequest | dg.SkipReason]:
    """One run a campaign and quarter of an hour, while its day may be sent: one that failed is tried again with the next."""
    now, database, chosen = settings.clock.now(), engine(settings.settings), settings.settings
    with database.connect() as connection:
        hours = Hours.of(live_settings.current(connection, chosen))
        found = come(connection, hours, now) if hours else []
    daily = [
        each
        for each in found
        if dg.AssetKey(["outbox", each.campaign]) in _SENT_DAILY
        and look(database, lake.front(), chosen, settings.clock, each.campaign, each.as_of).open
    ]
    for campaign, as_of, _ in daily:
        yield dg.RunRequest(
            run_key=f"{campaign}:{as_of}:hour:{quarter(now)}",
            partition_key=str(as_of),
            asset_selection=[dg.AssetKey(["outbox", campaign])],
        )
    if not daily:
        yield dg.SkipReason("no message's hour has come" if hours else "live mode is off: nothing waits for its hour")


SENSORS = [rest_of_roll_outs, messages_in_their_hour]

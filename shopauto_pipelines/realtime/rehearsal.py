"""What is the same for every batch of carts, done before there is one. Nothing is planned, nothing is sent.

The warm launcher calls :func:`prepare` in the process that runs are forked from, and :func:`rehearse` in the process of the
next run, while it waits.
"""

from __future__ import annotations

import importlib
from datetime import UTC, datetime, timedelta

from shopauto_pipelines.campaigns import live
from shopauto_pipelines.campaigns.declaration import load_campaigns
from shopauto_pipelines.outbox.channels.choice import channel_for
from shopauto_pipelines.platform import live_settings
from shopauto_pipelines.platform.clock import SystemClock
from shopauto_pipelines.platform.lake import open_lake
from shopauto_pipelines.platform.postgres import engine
from shopauto_pipelines.platform.settings import load_settings
from shopauto_pipelines.realtime import abandoned_carts

#: Libraries that are imported where they are first used.
_LATE = ("ibis.backends.duckdb", "mjml.mjml2html", "pyarrow.dataset", "alembic.command", "alembic.config")


def prepare() -> None:
    """Import, and compile what is asked of the lake."""
    for name in _LATE:
        importlib.import_module(name)
    channel_for(load_settings()).close()
    load_campaigns()
    live.prepare()


def rehearse() -> None:
    """Connect, and decide on a cart that nobody has."""
    settings, clock = load_settings(), SystemClock()
    database = engine(settings)
    current = live_settings.current(database, settings)
    lake = open_lake(settings)
    channel_for(current).close()
    day = abandoned_carts.profile_day(lake, current, clock.now())
    nobody = live.CartTrigger("", "rehearsal", datetime(2000, 1, 1, tzinfo=UTC), timedelta(), {})
    for campaign in live.realtime(load_campaigns().values()):
        live.decide(campaign, [nobody], lake, current, profile_day=day, now=clock.now(), offered=[])

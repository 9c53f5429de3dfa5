"""A replay of days whose messages were real decides what was really decided: on a shop that sends every day."""

import random
from datetime import timedelta

import pytest
from ibis import _

from shopauto_pipelines.campaigns import tables
from shopauto_pipelines.campaigns.asked import leaving_day
from shopauto_pipelines.campaigns.audience import Sources, audience, reads
from shopauto_pipelines.outbox.dispatch import dispatch
from shopauto_pipelines.platform.clock import FixedClock
from shopauto_pipelines.platform.lake import LakeTable
from shopauto_pipelines.replay.simulation import playbook_with, simulate
from shopauto_pipelines.sources.landing import OWN_SOURCE, read_manifest
from shopauto_pipelines.sources.tables import MESSAGE_EVENTS
from shopauto_pipelines_tests.campaigns.conftest import lake_rows
from shopauto_pipelines_tests.outbox import conftest as outbox
from shopauto_pipelines_tests.outbox import shop
from shopauto_pipelines_tests.replay.conftest import DAYS, FIRST, campaign, make_lake, planned, sent, settings_of

#: So many days are real.
LAST = 4

#: In the order in which they are planned.
CAMPAIGNS = {
    "urgent": campaign(name="urgent", priority=9, holdout_percent=30, steps=campaign().steps[1:]),
    "hello": campaign(holdout_percent=10),
}


@pytest.mark.slow
@pytest.mark.parametrize(
    ("timezone", "replays"),
    [
        ("UTC", [("hello", 1, "as-sent"), ("hello", 2, "planned")]),
        ("Europe/Belgrade", [("hello", 2, "as-sent")]),
    ],
)
def test_a_replay_from_any_day_on_plans_what_was_planned_when_every_message_was_sent(tmp_path, timezone, replays):
    draw = random.Random(7)
    people = {f"c{n}": FIRST + timedelta(days=draw.randrange(-4, 5)) for n in range(24)}
    lake = make_lake(tmp_path / "lake", people)
    settings = settings_of(tmp_path, holdout_percent=5, cap_messages=2, cap_days=4, timezone=timezone)
    really = {name: [] for name in CAMPAIGNS}
    for day in DAYS[:LAST]:
        landed = leaving_day(CAMPAIGNS["hello"], day)  # as the outbox lands what it sent, see below
        events = []
        for name, one in CAMPAIGNS.items():
            before = (LakeTable(lake, tables.audience("urgent")),) if name == "hello" else ()
            sources = Sources({table.name: LakeTable(lake, table) for table in reads(one)}, before)
            lake.write(tables.audience(name), [day], audience(one, sources, settings, day))
            rows = lake.on(tables.audience(name), day).filter(_.decision == "planned").to_pyarrow().to_pylist()
            really[name] += [(day, row["step"], row["customer_id"]) for row in rows]
            events += [sent(row["customer_id"], landed, name, row["step"], row["occasion"]) for row in rows]
        lake.write(MESSAGE_EVENTS, [landed], lake_rows(MESSAGE_EVENTS, *events))
    assert {len(really[name]) > 5 for name in CAMPAIGNS} == {True}
    for name, start, others in replays:
        days = DAYS[start:LAST]
        replayed = simulate(lake, settings, playbook_with(CAMPAIGNS[name], CAMPAIGNS), name, days, others)
        assert planned(replayed, name) == sorted(row for row in really[name] if row[0] in days), (name, start, others)


@pytest.mark.parametrize("timezone", ["UTC", "Europe/Bucharest", "America/Sao_Paulo"])
def test_a_message_counts_as_sent_on_the_day_that_the_outbox_lands_it_on(engine, lake, settings, timezone):
    shop.write_shop(lake, people=1)
    local = settings.model_copy(update={"timezone": timezone})
    assert dispatch(engine, lake, local, shop.campaign(), outbox.DAY, clock=FixedClock(outbox.AT)).sent == 1
    (landed,) = read_manifest(lake, OWN_SOURCE).files.values()
    assert [*landed.days] == [leaving_day(shop.campaign(), outbox.DAY).isoformat()]

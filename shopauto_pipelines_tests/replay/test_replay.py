"""Replays on a hand-made shop: what is planned day by day, what counts as sent, and what is told of it."""

import html
import json
import re
from dataclasses import replace
from datetime import date, datetime, time, timedelta
from xml.etree import ElementTree

import pyarrow as pa
import pytest

from shopauto_pipelines.campaigns.declaration import Campaign, Incentive, Step
from shopauto_pipelines.campaigns.tables import audience
from shopauto_pipelines.features.tables import CUSTOMER_360
from shopauto_pipelines.platform.lake import days_between
from shopauto_pipelines.predictions.tables import SCORES
from shopauto_pipelines.profiles.tables import CONSENT, IDENTITIES
from shopauto_pipelines.replay import readings, report, words
from shopauto_pipelines.replay.ledger import VirtualLedger
from shopauto_pipelines.replay.replaying import replay as replaying
from shopauto_pipelines.replay.result import Replay
from shopauto_pipelines.replay.simulation import playbook_with, simulate
from shopauto_pipelines.replay.versions import ReplayError
from shopauto_pipelines.segments.tables import CHANGES, DECLARED, MEMBERSHIP
from shopauto_pipelines.sources.landing import land_rows
from shopauto_pipelines.sources.tables import MESSAGE_EVENTS
from shopauto_pipelines_tests.campaigns.conftest import lake_rows
from shopauto_pipelines_tests.replay.conftest import (
    DAYS,
    FIRST,
    LAST,
    PEOPLE,
    by_day,
    campaign,
    days,
    make_lake,
    planned,
    sent,
    settings_of,
)

LETTER = {"subject": {"en": "Hi"}, "template": "letter"}


def test_each_step_is_planned_on_its_day_exactly_once(shop, rules):
    hello = campaign()
    ledger = simulate(shop, rules, playbook_with(hello, {"hello": hello}), "hello", DAYS[:7], "as-sent")
    assert planned(ledger) == [
        (DAYS[0], "first", "ann"),
        (DAYS[1], "first", "bob"),
        (DAYS[2], "first", "cleo"),
        (DAYS[2], "first", "dan"),
        (DAYS[3], "second", "ann"),
        (DAYS[4], "second", "bob"),
        (DAYS[5], "second", "cleo"),
        (DAYS[5], "second", "dan"),
    ]


def test_a_campaign_that_is_switched_off_is_replayed_as_if_it_were_on(replay):
    assert replay(campaign(enabled=False), end=FIRST).outcomes[0].messages == 1


def test_what_it_really_sent_counts_up_to_the_first_day_and_not_after(replay, tell):
    before, after = days(1, 5)
    tell(sent("ann", before, "hello", "first", FIRST), sent("bob", after, "hello", "second", DAYS[1]))
    found = replay(campaign(), start=DAYS[1])
    assert by_day(found) == {(1, "first"): 1, (2, "first"): 2, (3, "second"): 1, (4, "second"): 1, (5, "second"): 2}
    assert found.outcomes[0].really_sent == 1
    assert "1 of the messages really went out" in " ".join(words.notes_on_aftermath(found))


def test_who_unsubscribed_did_so_whatever_the_message_was(replay, tell):
    tell(sent("ann", DAYS[2], "hello", "first", FIRST, kind="unsubscribe"))
    found = replay(campaign(exit_on=["unsubscribed"]), end=DAYS[3])
    assert (3, "second") not in by_day(found)
    assert found.outcomes[0].refused("unsubscribed").messages == 1


def test_messages_that_others_really_sent_use_up_the_cap(replay, tell):
    tell(*(sent("ann", day, "news", "issue", day) for day in days(1, 2, 3)))
    (outcome,) = (found := replay(campaign(), settings={"cap_messages": 2, "cap_days": 3}, end=DAYS[4])).outcomes
    assert (outcome.capped.met, outcome.capped.later) == (1, 1)
    assert by_day(found)[4, "second"] == 2, "ann's second message waits until the window holds one message only"
    assert outcome.overlaps[0].same_day == 1, "her first one left with the news of day 1"
    assert outcome.overlaps[0].within_cap_days == 2


def test_a_message_counts_on_the_shops_day_on_which_it_leaves(shop, tmp_path):
    ledger = VirtualLedger(shop, "days", settings_of(tmp_path, timezone="Europe/Belgrade"))
    carts = campaign(name="carts", trigger={"cart_abandoned": {}}, steps=[Step(name="now", wait_hours=1, **LETTER)])
    half_past_midnight = datetime.combine(FIRST, time(22, 30))
    for one in (carts, campaign()):
        row = {"customer_id": "ann", "decision": "planned", "send_from": half_past_midnight}
        rows = lake_rows(audience(one.name), row)
        ledger.note(one, FIRST, shop.con.create_table(f"decided_{one.name}", rows, temp=True, overwrite=True))
    assert ledger.lake.con.table(ledger.sent).on.to_pyarrow().to_pylist() == [DAYS[1]] * 2


def test_messages_planned_first_that_really_went_out_take_the_place_of_the_day(replay, tell):
    tell(sent("ann", DAYS[1], "urgent", "now", FIRST), sent("bob", DAYS[2], "later", "now", DAYS[1]))
    others = [campaign(name="urgent", priority=9), campaign(name="later", priority=0)]
    found = replay(campaign(priority=5), *others, end=DAYS[2])
    assert found.outcomes[0].refused("day_cap").put_off == 1
    assert by_day(found)[1, "first"] == 2, "ann a day late, and bob, whose other message was of a lower priority"


def test_with_others_planned_the_whole_playbook_is_replayed_in_its_order(replay, tell):
    tell(sent("dan", DAYS[3], "urgent", "first", "x"), sent("dan", DAYS[4], "urgent", "first", "y"))
    urgent = campaign(name="urgent", priority=9, steps=campaign().steps[:1])
    off = campaign(name="off", priority=9, enabled=False)
    found = replay(campaign(), urgent, off, others="planned", end=DAYS[3])
    told = "urgent takes each person's first day; what it really sent since does not count"
    assert by_day(found) == {(1, "first"): 1, (2, "first"): 1, (3, "first"): 2, (3, "second"): 1}, told
    assert {one.campaign: one.within_cap_days for one in found.outcomes[0].overlaps} == {None: 5, "urgent": 5}


def test_who_is_held_out_gets_nothing_and_is_followed_beside_the_others(plain):
    outcome = plain.outcomes[1]
    held = outcome.refused("campaign_holdout")
    assert held.people + outcome.people == 4
    assert held.people
    assert held.people == outcome.held_out
    followed = [one for one in outcome.aftermath if one.step is None]
    assert sum(one.count for one in followed) == 4
    assert sum(one.orders for one in followed) == 2
    assert "too few" in " ".join(words.notes_on_aftermath(plain))
    assert not [line for line in words.aftermath(plain) if line.group == "held out"]


def test_what_people_did_counts_from_the_day_after_for_so_many_days(plain, replay):
    by_step = {one.step: one for one in plain.outcomes[0].aftermath if one.group == "planned"}
    # ann ordered two days after her first message, cleo one day after hers
    assert (by_step["first"].count, by_step["first"].ordered, by_step["first"].revenue_cents) == (4, 2, 10_000)
    assert by_step["second"].ordered == 0
    assert by_step[None] == replace(by_step["first"], step=None)
    assert words.ANYWAY in words.notes_on_aftermath(plain)
    late = {one.step: one for one in replay(campaign(), within_days=9).outcomes[0].aftermath}
    assert (late["first"].count, late["first"].recent) == (2, 2), "days that are not over are left out"


def test_offers_are_granted_once_an_occasion_within_their_cap_and_cost_what_they_would(replay):
    steps = [
        Step(name=name, wait_days=wait, offer=Incentive(valid_days=3), **LETTER)
        for name, wait in (("first", 0), ("second", 3))
    ]
    (outcome,) = replay(campaign(steps=steps), end=DAYS[3]).outcomes
    (offer,) = outcome.offers
    assert (offer.kind, offer.offers, offer.at_most_cents) == ("free_shipping", 4, 4 * 500)
    assert (offer.ordered_anyway, offer.anyway_cents) == (2, 2 * 500)
    assert outcome.message_cents == 5 * 50
    assert replay(campaign(steps=steps), settings={"offer_cap": 0}, end=DAYS[0]).outcomes[0].offers == ()


def test_reach_says_how_much_of_each_segment_got_a_message_while_in_it(plain):
    (reach,) = plain.outcomes[0].reach
    assert (reach.segment, reach.people, reach.members) == ("everybody", 4, 6)
    assert reach.share == pytest.approx(4 / 6, abs=1e-6)


def test_two_versions_stand_side_by_side(replay):
    later = [step.model_copy(update={"wait_days": 5}) if step.name == "second" else step for step in campaign().steps]
    found = replay(campaign(), changed=campaign(steps=later))
    assert [outcome.version for outcome in found.outcomes] == ["as declared", "changed"]
    assert by_day(found, 1) == {(0, "first"): 1, (1, "first"): 1, (2, "first"): 2, (5, "second"): 1}
    assert found.difference.people_in_both == 4
    assert found.difference.people_only == {"as declared": 0, "changed": 0}
    assert found.difference.messages_only == {"as declared": 3, "changed": 0}
    assert {(one.customer_id, one.instead) for one in found.difference.named} == {
        ("bob", None),
        ("cleo", None),
        ("dan", None),
    }


def test_people_of_one_version_only_are_named_with_the_reason_of_the_other(plain):
    only = [one for one in plain.difference.named if one.version == "as declared"]
    assert plain.difference.people_only["as declared"] == len({one.customer_id for one in only}) > 0
    assert {one.instead for one in only} == {"campaign_holdout"}
    assert words.instead("campaign_holdout") == "the person is in the holdout of this campaign"


def test_of_each_version_the_first_messages_are_named_that_the_other_does_not_plan(replay, monkeypatch):
    monkeypatch.setattr(readings, "NAMED", 2)
    (first, _) = campaign().steps
    later = first.model_copy(update={"name": "greeting", "wait_days": 2})
    found = replay(campaign(steps=[first]), changed=campaign(steps=[later]))
    assert found.difference.messages_only == {"as declared": 4, "changed": 4}
    for version, day in (("as declared", FIRST), ("changed", DAYS[2])):
        named, further = found.difference.only(version, 1)
        assert [(one.customer_id, one.day) for one in named] == [("ann", day)]
        assert further == 3
    assert "Nobody." not in report.page(found)


def test_the_days_of_a_birthday_are_not_told_of_anybody(tmp_path, rules):
    lake = make_lake(tmp_path / "lake")
    for day in DAYS:
        people = lake.on(CUSTOMER_360, day).to_pyarrow().to_pylist()
        born = [row | {"birthday": date(1990, 6, 12)} for row in people]
        lake.write(CUSTOMER_360, [day], lake_rows(CUSTOMER_360, *born))
    wishes = campaign(trigger={"birthday": {}}, steps=campaign().steps[:1])
    changed = wishes.model_copy(update={"holdout_percent": 100})
    found = replaying(lake, rules, {"hello": wishes}, "hello", FIRST, DAYS[5], changed=changed)
    assert found.difference.messages_only["as declared"] > 0
    assert found.as_json()["difference"]["named"] is None
    shown = report.page(found)
    assert words.UNNAMED in shown
    assert "<td>ann</td>" not in shown


@pytest.fixture
def merging(tmp_path):
    """Makes a shop in which bob's account turns out to be ann's on one of the days."""

    def made(since):
        lake = make_lake(tmp_path / f"merged_{since}")
        for day in DAYS[since:]:
            for table in (CUSTOMER_360, CONSENT, MEMBERSHIP):
                rows = lake.on(table, day).to_pyarrow().to_pylist()
                lake.write(table, [day], lake_rows(table, *(row for row in rows if row["customer_id"] != "bob")))
            people = [row["shop_customer_id"] for row in lake.on(IDENTITIES, day).to_pyarrow().to_pylist()]
            ids = [{"shop_customer_id": who, "customer_id": "ann" if who == "bob" else who} for who in people]
            lake.write(IDENTITIES, [day], lake_rows(IDENTITIES, *ids))
        return lake

    return made


def test_messages_to_an_account_that_is_merged_later_count_for_the_person(merging, tmp_path):
    hello = campaign(steps=[campaign().steps[0], campaign().steps[1].model_copy(update={"wait_days": 5})])
    settings = settings_of(tmp_path, cap_messages=2, cap_days=9)
    found = replaying(merging(4), settings, {"hello": hello}, "hello", FIRST, DAYS[6])
    assert by_day(found) == {(0, "first"): 1, (1, "first"): 1, (2, "first"): 2}
    assert found.outcomes[0].refused("cap").people == 1, "ann, who had a first message as bob, too"


def test_offers_that_only_the_changed_version_of_a_cart_campaign_brings_are_said_to_be_left_out(replay):
    step = Step(name="now", wait_hours=1, **LETTER)
    carts, generous = (
        campaign(name="carts", trigger={"cart_abandoned": {}}, steps=[step.model_copy(update={"offer": offer})])
        for offer in (None, Incentive())
    )
    told = words.notes(replay(carts, changed=generous, end=FIRST))
    assert any("these offers are not counted" in note for note in told)


def test_an_offer_to_an_account_that_is_merged_later_counts_for_the_person(merging, tmp_path):
    steps = [
        Step(name=name, wait_days=wait, offer=Incentive(valid_days=3), **LETTER)
        for name, wait in (("first", 0), ("second", 5))
    ]
    lake = merging(4)
    for day in DAYS[:4]:  # ann agrees on the day on which bob turns out to be her
        agreed = [row for row in lake.on(CONSENT, day).to_pyarrow().to_pylist() if row["customer_id"] != "ann"]
        lake.write(CONSENT, [day], lake_rows(CONSENT, *agreed))
    hello = campaign(steps=steps, valid_days=1)
    found = replaying(lake, settings_of(tmp_path), {"hello": hello}, "hello", FIRST, DAYS[5])
    assert by_day(found) == {(1, "first"): 1, (2, "first"): 2, (5, "second"): 1}
    assert sum(one.offers for one in found.outcomes[0].offers) == 3, "bob, cleo and dan; ann had hers as bob"


def test_what_was_really_sent_to_an_account_overlaps_whatever_the_person_is_called_since(merging, rules):
    told = []
    for since in (len(DAYS), len(DAYS) - 1):
        lake = merging(since)
        lake.write(MESSAGE_EVENTS, [DAYS[2]], lake_rows(MESSAGE_EVENTS, sent("bob", DAYS[2], "other", "x", DAYS[2])))
        found = replaying(lake, rules, {"hello": campaign()}, "hello", FIRST, DAYS[1])
        told.append([(one.campaign, one.same_day) for one in found.outcomes[0].overlaps])
    assert told[0] == told[1] == [(None, 1), ("other", 1)]


def test_offers_that_hold_longer_than_the_data_goes_are_not_known_yet(replay):
    (first, _) = campaign().steps
    offered = [first.model_copy(update={"offer": Incentive(valid_days=14)})]
    found = replay(campaign(steps=offered), end=DAYS[3])
    (offer,) = found.outcomes[0].offers
    assert (offer.offers, offer.ordered_anyway, offer.open) == (4, 2, 2)
    assert f"no order until {LAST}" in report.page(found)
    short = [first.model_copy(update={"offer": Incentive(valid_days=3)})]
    assert replay(campaign(steps=short), end=DAYS[3]).outcomes[0].offers[0].open == 0


def test_who_is_held_out_and_leaves_the_audience_afterwards_is_held_out_all_the_same(replay, tell):
    tell(
        *(
            sent(who, DAYS[3], "hello", "first", PEOPLE[who], kind="unsubscribe")
            for who in ("ann", "bob", "cleo", "dan")
        )
    )
    found = replay(campaign(holdout_percent=90, exit_on=["unsubscribed"], valid_days=7))
    (outcome,) = found.outcomes
    (held,) = (one for one in outcome.aftermath if one.group == "held" and one.step is None)
    assert outcome.refused("campaign_holdout").people < outcome.held_out == held.count + held.recent
    assert f"<b>{outcome.held_out}</b><span>people held out</span>" in report.page(found)


def test_of_the_held_out_whose_days_are_not_over_it_says_so(replay):
    found = replay(campaign(holdout_percent=90), within_days=9)
    (held,) = (one for one in found.outcomes[0].aftermath if one.group == "held" and one.step is None)
    assert held.recent > 0
    told = f"too few to say anything of them: {held.count}, and it takes {words.FEW}; the days of {held.recent} more are not"
    assert told in " ".join(words.notes_on_aftermath(found))


def test_days_that_are_missing_are_named_with_the_command_that_makes_them(shop, replay):
    lacking = shop.path(SCORES, DAYS[2]).parent
    away = lacking.rename(shop.root / "away")
    try:
        with pytest.raises(ReplayError) as refused:
            replay(campaign())
        assert f"{DAYS[2]} cannot be replayed: predictions/scores has not been computed" in str(refused.value)
        assert f"shopauto refresh --day {DAYS[2]}" in str(refused.value)
        found = replay(campaign(), skip_missing=True, end=DAYS[3])
    finally:
        away.rename(lacking)
    assert found.skipped == (DAYS[2],)
    assert by_day(found) == {(0, "first"): 1, (1, "first"): 1, (3, "first"): 2, (3, "second"): 1}
    assert f"1 day, {DAYS[2]}, has not been computed" in " ".join(words.notes(found))


def test_whom_earlier_days_triggered_that_were_never_computed_is_told_as_not_known(tmp_path, rules):
    lake, since = make_lake(tmp_path / "lake"), FIRST - timedelta(days=5)
    at = [datetime.combine(day, time(9)) for day in (since, LAST)]
    told = {"event_id": ["a", "b"], "happened_at": at, "type": ["open"] * 2}
    for day in DAYS:
        lake.write(DECLARED, [day], lake_rows(DECLARED))
    land_rows(lake, "shop", MESSAGE_EVENTS, "events", pa.table(told), rules)
    entered = campaign(trigger={"segment_entered": "everybody"})

    def untold(one: Campaign, start: date = FIRST) -> Replay:
        return replaying(lake, rules, {"hello": one}, "hello", start, DAYS[5], skip_missing=True)

    assert entered.lookback_days == 6
    found = untold(entered)
    assert found.untold.days == tuple(days_between(since, FIRST - timedelta(days=1)))
    (note,) = (note for note in words.notes(found) if "is not known" in note)
    assert f"Whom {since} to {FIRST - timedelta(days=1)} triggered is not known" in note
    assert f"up to {DAYS[5]}" in note
    assert f"shopauto refresh --from {since} --to {DAYS[5]}" in note
    assert note in html.unescape(report.page(found))
    assert untold(campaign()).untold is None, "who signed up is known as of the day"
    lake.delete(CHANGES, DAYS[2])
    assert untold(entered, DAYS[1]).untold.days[-1] == DAYS[2], (
        "nothing is decided on it, and who entered then is not known"
    )


def test_a_range_without_any_day_or_the_wrong_way_round_is_refused_in_words(replay):
    with pytest.raises(ReplayError, match=f"--from {LAST} is after --to {FIRST}"):
        replay(campaign(), start=LAST, end=FIRST)
    with pytest.raises(ReplayError, match="2020-06-10 to 2020-06-12 cannot be replayed"):
        replay(campaign(), start=date(2020, 6, 10), end=date(2020, 6, 12), skip_missing=True)


def test_the_page_stands_alone_holds_both_versions_and_nothing_private(plain):
    page = report.page(plain)
    assert page == report.page(plain)
    drawn = re.findall(r"<svg.*?</svg>", page, re.DOTALL)
    bars = re.findall(r'<ul class="bars".*?</ul>', page, re.DOTALL)
    assert (len(drawn), len(bars)) == (2, 4)
    for plot in (*drawn, *bars):
        ElementTree.fromstring(plot)
    assert "http" not in page, "it needs nothing from elsewhere"
    for private in ("Secret", "@example.com"):
        assert private not in page + json.dumps(plain.as_json())


def test_names_of_bars_are_whole_however_long(plain):
    refusals = tuple(replace(one, reason=f"a reason {'as long as this ' * 6}") for one in plain.outcomes[0].refusals)
    page = report.page(replace(plain, outcomes=(replace(plain.outcomes[0], refusals=refusals),)))
    assert f"<span>{refusals[0].reason}</span>" in page


def test_what_messages_cost_is_left_out_where_no_price_is_set(plain, replay):
    said, cost = "no price is set (`SHOPAUTO_MESSAGE_PRICE`)", "cost of the messages, EUR"
    assert said not in " ".join(words.notes(plain))
    assert "<span>cost, EUR at most</span>" in report.page(plain)
    found = replay(campaign(), settings={"message_price": 0.0}, end=DAYS[1])
    assert found.outcomes[0].message_cents is None
    assert said in " ".join(words.notes(found))
    assert cost not in [figure.label for figure in words.figures(found)]
    assert "EUR at most" not in report.page(found), "there are no offers"
    offers = campaign(steps=[Step(name="first", wait_days=0, offer=Incentive(valid_days=3), **LETTER)])
    page = report.page(replay(offers, settings={"message_price": 0.0}, end=DAYS[1]))
    assert "<b>10.00</b><span>cost of the offers, EUR at most</span>" in page


def test_the_figures_name_every_step_and_reason(plain):
    lines = {figure.label: figure for figure in words.figures(plain)}
    assert lines["messages"].values[0] == "8"
    assert lines["first"].values[0] == "4"
    assert lines["the person was never asked for consent"].values == ("2", "2")
    assert lines["the person is in the holdout of this campaign"].more.startswith("+")
    assert lines["cost of the messages, EUR"].values[0] == "4.00"


def test_messages_are_told_by_the_day_and_over_many_days_by_the_week(plain):
    assert [period.messages[0] for period in words.periods(plain)] == [1, 1, 2, 1, 1, 2]
    weeks = words.periods(replace(plain, days=tuple(days_between(FIRST, FIRST + timedelta(days=20)))))
    assert [period.messages[0] for period in weeks] == [8, 0, 0]


def test_the_pages_plot_has_a_bar_for_each_day_and_over_a_year_for_each_week(plain):
    year = replace(plain, days=tuple(days_between(FIRST, FIRST + timedelta(days=364))))
    by_day, by_week = (
        re.findall(r"<title>([^<]*?), [^<]*?: ([0-9]+)</title>", report.page(one)) for one in (plain, year)
    )
    assert len({day for day, _ in by_day}) == 6
    assert {week for week, _ in by_week} == {f"week from {FIRST}"}
    assert sum(int(count) for _, count in by_week) == sum(int(count) for _, count in by_day) == 8 + 2

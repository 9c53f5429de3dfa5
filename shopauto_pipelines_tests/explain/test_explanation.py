"""Why people got a message or did not: which rule decided, on which values, and on which row of which file."""

from __future__ import annotations

import json
import os
import re
from dataclasses import replace
from datetime import timedelta

import dagster as dg
import pytest

from shopauto_pipelines.campaigns.declaration import load_campaigns
from shopauto_pipelines.campaigns.declaration.trigger import Trigger
from shopauto_pipelines.campaigns.planner import REASONS
from shopauto_pipelines.explain import examples, occasions, page, rules, subjects
from shopauto_pipelines.explain.assets import _sums, decisions
from shopauto_pipelines.explain.case import Case
from shopauto_pipelines.explain.examples import Decision
from shopauto_pipelines.explain.explanation import Asked, Explainer, NothingThere, day_of
from shopauto_pipelines.explain.subjects import find
from shopauto_pipelines.explain.telling import Explanation, as_json
from shopauto_pipelines.features.tables import CUSTOMER_360, DAILY_ACTIVITY
from shopauto_pipelines.platform.clock import FixedClock
from shopauto_pipelines.platform.dagster.resources import LakeResource, SettingsResource
from shopauto_pipelines.platform.lake import Lake
from shopauto_pipelines.platform.settings import Settings
from shopauto_pipelines.profiles.tables import IDENTITIES
from shopauto_pipelines.sources import tables as raw
from shopauto_pipelines_tests.campaigns.conftest import lake_rows
from shopauto_pipelines_tests.explain.conftest import AT, BIRTHDAY, DAY, MODEL, OWN, SECRET, before, noon


@pytest.fixture(scope="module")
def explainer(lake, settings, campaigns, connection) -> Explainer:
    return Explainer(lake, settings, campaigns, DAY, connection, own=OWN)


@pytest.fixture(scope="module")
def explain(explainer, who):
    """``explain("new", "welcome")``: the explanation of the first step that is due."""

    def one(name: str, campaign: str, step: str | None = None) -> Explanation:
        return explainer.explain([Asked(who[name], campaign, step)])[0]

    return one


def lines(told: Explanation, key: str) -> list[str]:
    """What a step says, each part in a line with its mark and aside."""
    parts = (line for part in told.of(key).parts for _, line in part.lines())
    return [f"{part.mark}: {part.text}{f' ({part.aside})' if part.aside else ''}" for part in parts]


def places(told: Explanation, key: str) -> list[tuple[str, int]]:
    """Files and row numbers behind a step and its parts."""
    step = told.of(key)
    below = [row for part in step.parts for _, line in part.lines() for row in line.rows]
    return [(row.file, row.number) for row in (*step.rows, *below)]


def test_a_sent_message_is_explained_down_to_the_rows_of_the_files(explain):
    told = explain("new", "welcome", "hello")
    assert (told.mark, told.state, told.decision, told.reason) == ("yes", "sent", "planned", "due")
    assert told.headline == "Sent by inbox, 2026-07-01 05:00 UTC: the step was due and nothing spoke against it"
    said = lines(told, "outcome")
    assert said[-3:] == [
        "fact: 2026-07-01 05:00 UTC: new → planned",
        "fact: 2026-07-01 05:00 UTC: planned → reserved",
        "fact: 2026-07-01 05:00 UTC: reserved → sent",
    ]
    assert "fact: planned by run run-1" in said
    assert told.of("trigger").text == f"became known to the shop on {DAY}"
    assert places(told, "trigger") == [("customers.csv", 40)]
    assert places(told, "consent") == [("consents.csv", 7)]
    assert [step.mark for step in told.steps if step.key in ("address", "consent", "fitting", "holdout", "caps")] == [
        "yes"
    ] * 5
    assert not any(step.decided and step.mark == "no" for step in told.steps)


def test_a_message_that_the_outbox_held_back_says_so(explain):
    told = explain("buyer", "review")
    assert (told.mark, told.state) == ("no", "suppressed")
    assert told.headline.startswith("Planned, and held back by the outbox: the audience was computed again")
    assert told.of("outbox").mark == "no"
    assert places(told, "trigger") == [("orders.csv", 11), ("order_lines.csv", 21)]


@pytest.mark.parametrize(
    ("name", "campaign", "reason", "key", "said"),
    [
        ("shy", "welcome", "no_consent", "consent", "was never asked for consent to email"),
        ("out", "welcome", "opted_out", "consent", "by unsubscribe"),
        ("picky", "welcome", "opted_out_topic", "consent", "does not want messages about welcome"),
        ("held", "welcome", "campaign_holdout", "holdout", "is held out of welcome"),
        ("full", "welcome", "cap", "caps", "3 messages in the 7 days"),
        ("keen", "review", "not_in_audience", "segments", "is in none of review_candidates"),
        ("new", "newsletter", "day_cap", "caps", "1 planned before this one that day"),
    ],
)
def test_a_refusal_names_the_rule_and_where_it_was_decided(explain, name, campaign, reason, key, said):
    told = explain(name, campaign)
    assert (told.mark, told.decision, told.reason) == ("no", "refused", reason)
    assert REASONS[reason] in told.headline
    decided = [step for step in told.steps if step.decided]
    assert [(step.key, step.mark) for step in decided] == [(key, "no")]
    assert said in decided[0].text


def test_what_comes_after_the_rule_that_decided_was_not_asked(explain):
    asked = {step.key: step.asked for step in explain("shy", "welcome").steps}
    assert [key for key, was in asked.items() if not was] == ["fitting", "holdout", "again", "caps", "scores"]


def test_a_cap_names_the_messages_that_count_with_their_days_campaigns_and_rows(explain):
    told = explain("full", "welcome")
    assert lines(told, "caps") == [f"fact: {before(n)}: spring_sale" for n in (1, 2, 5)]
    assert places(told, "caps") == [("message_events.csv", n) for n in (1, 2, 5)]


def test_a_place_of_the_day_that_another_campaign_took_is_named(explain):
    assert f"fact: {DAY}: welcome, hello: planned first, for its priority is higher" in lines(
        explain("new", "newsletter"), "caps"
    )


def test_an_unsubscribe_is_the_row_that_consent_rests_on(explain):
    assert places(explain("out", "welcome"), "consent") == [("message_events.csv", 8)]


def test_a_topic_that_is_not_wanted_is_the_latest_row_that_says_so(explain):
    assert places(explain("picky", "welcome"), "consent") == [("consents.csv", 7), ("preferences.csv", 61)]


def test_a_segment_that_fails_is_told_part_by_part_with_the_values(explain):
    said = lines(explain("keen", "review"), "segments")
    assert said[0] == "no: review_candidates, which is included: not in it"
    assert "no: recency_days BETWEEN 10 AND 30 (recency_days: 1)" in said
    assert "yes: NOT ticket_open (ticket_open: false)" in said
    assert "yes: review_candidates, which is included: in review_candidates since 2026-06-26" in lines(
        explain("buyer", "review"), "segments"
    )


def test_the_holdout_s_percentage_is_told_and_its_key_is_not(explain, settings):
    told = explain("held", "welcome")
    assert "no: in the holdout of welcome, 5 % of all people" in lines(told, "holdout")
    assert settings.hash_key.hex() not in json.dumps(as_json(told))


def test_a_transactional_campaign_holds_nobody_out(explainer, campaigns, who):
    asked_for = campaigns["welcome"].model_copy(update={"kind": "transactional"})
    person = explainer._people([who["held"]], campaigns)[who["held"]]
    assert rules.holdout(Case(explainer._known(()), asked_for, person, "hello", {}, reached=False)).mark == "yes"


def test_the_score_is_told_with_its_model_and_the_one_feature_that_moves_it(explain):
    said = lines(explain("keen", "review"), "scores")
    assert "fact: churn_probability: 1.0%" in said
    assert any(line.startswith(f"fact: churn: model {MODEL} (ByRecency, trained as of 2026-06-01") for line in said)
    assert "fact: time since the last order: −6.5 points" in said
    assert any(line.startswith("fact: recency_days: 1, the median customer's 7.5 (alone −6.5 points") for line in said)
    assert not any("points" in line and "visits" in line for line in said)
    assert explain("new", "welcome").of("scores").text == "has no score: only who has ordered is scored"


def test_a_model_that_cannot_be_read_is_named_and_all_else_is_told(lake, settings, campaigns, connection, who):
    told = Explainer(lake, settings, campaigns, DAY, connection).explain([Asked(who["keen"], "review")])[0]
    said = " ".join(lines(told, "scores"))
    assert "what moved them cannot be told" in said
    assert "which the playbook does not name for churn" in said
    assert told.reason == "not_in_audience"


def test_the_rows_behind_the_features_are_the_latest_up_to_the_day(explain):
    assert places(explain("keen", "review"), "rows")[:2] == [("orders.csv", 13), ("orders.csv", 12)]
    assert places(explain("buyer", "review"), "rows") == [("orders.csv", 11)]


def test_how_many_raw_rows_there_are_is_said_whether_they_are_all_or_the_latest(
    explain, lake, settings, campaigns, connection, who
):
    assert lines(explain("full", "welcome"), "rows")[2] == "fact: raw/message_events: on 4 days, 4 rows"
    assert lines(explain("buyer", "review"), "rows")[0] == "fact: raw/orders: on 1 day, 1 row"
    # an unsubscribe is in no rollup
    assert lines(explain("out", "welcome"), "rows")[2] == "fact: raw/message_events: on 1 day, 1 row"
    three = Explainer(lake, settings, campaigns, DAY, connection, own=OWN, limit=3)
    (told,) = three.explain([Asked(who["full"], "welcome", "hello")])
    assert lines(told, "rows")[2] == "fact: raw/message_events: on 4 days, the latest 3 rows"
    assert len(told.of("rows").parts[2].rows) == 3


def test_of_who_was_not_reached_it_says_what_the_trigger_looks_at(explainer, who):
    told = explainer.explain([Asked(who["buyer"], "welcome")])
    assert [each.step for each in told] == ["hello", "favourites", "help"]
    assert (told[0].decision, told[0].reason, told[0].mark) == (None, "due", "no")
    assert told[0].headline.endswith("If it had, nothing else would speak against it")
    assert f"fact: hello is due as of {DAY} for what happened from {before(2)} to {DAY}" in lines(told[0], "trigger")
    assert f"fact: known since {before(300)}" in lines(told[0], "trigger")
    ordered_before_the_account = explainer.explain([Asked(who["keen"], "welcome")])
    assert f"fact: known since {before(200)}" in lines(ordered_before_the_account[0], "trigger")


def test_a_message_about_a_cart_that_no_audience_has_is_told_by_the_ledger(lake, settings, connection, who):
    explainer = Explainer(lake, settings, load_campaigns(), DAY, connection, own=OWN)
    told = explainer.explain([Asked(who["buyer"], "abandoned_cart", "reminder", "cart9")])[0]
    assert (told.mark, told.state, told.headline) == ("yes", "planned", "Planned; it waits to be sent")
    assert "fact: decided when it was due, and the day's audience is computed afterwards" in lines(told, "outcome")
    assert "fact: in the cart: 1 × tent" in lines(told, "trigger")
    assert places(told, "trigger") == [("events.csv", 31)]


def test_what_a_cart_got_within_the_day_is_explained_as_of_that_day(lake, settings, connection, who):
    """It is of the day before in the ledger, as it is planned by what was known at its end."""
    name = f"abandoned_cart:reminder:{who['buyer']}:cart8"
    asked = find(connection, lake, load_campaigns(), name)
    assert (asked.day, asked.aside) == (DAY, "")
    explainer = Explainer(lake, settings, load_campaigns(), asked.day, connection, own=OWN)
    told = explainer.explain([asked.asked])[0]
    assert places(told, "trigger") == [("events.csv", 32)]
    assert "fact: due 1 hour after it" in lines(told, "trigger")
    assert not [line for line in lines(told, "outcome") if "in the ledger it is of" in line]
    carts = load_campaigns()["abandoned_cart"]
    assert subjects._decided(lake, carts, "old-shop:7", before(1)) == before(1), "joined with another one on the day"
    over_night = find(connection, lake, load_campaigns(), name.replace("cart8", "cart9"))
    assert (over_night.day, over_night.aside) == (
        DAY,
        "2026-07-01 has not been computed: people are shown as of 2026-06-30.",
    )


def test_of_what_is_planned_and_was_not_sent_it_says_whether_it_may_still_leave(
    lake, settings, campaigns, connection, who
):
    asked = Explainer(lake, settings, campaigns, DAY, connection, own=OWN, clock=FixedClock(AT))
    told = asked.explain([Asked(who["keen"], "newsletter")])[0]
    assert (told.mark, told.decision, told.state) == ("unknown", "planned", None)
    assert [line for line in lines(told, "outbox") if "its window is" in line] == [
        f"yes: its window is open: {DAY} is the newest day with data"
    ]


def test_what_was_put_off_and_sent_later_was_not_sent_as_of_the_day_that_refused_it(explainer, who):
    person = explainer._people([who["new"]], ["welcome"])[who["new"]]
    row = {**person.decided["welcome"][0], "decision": "refused", "reason": "pending"}
    earlier = replace(explainer._known(()), day=before(1))
    told = explainer._explained(Case(earlier, explainer._campaigns["welcome"], person, "hello", row, True))
    pending = REASONS["pending"]
    assert told.headline == f"Not sent as of {before(1)}: {pending}. Planned as of {DAY}, it was sent"
    assert (told.mark, told.state, told.of("outcome").mark) == ("no", None, "no")
    assert f"Planned as of {DAY}, it was sent by" in told.of("outcome").text


def test_a_message_for_a_birthday_is_asked_about_by_its_day_and_tells_no_other(
    lake, settings, campaigns, connection, who
):
    update = {"trigger": Trigger.model_validate({"birthday": {}})}
    wishes = {**campaigns, "welcome": campaigns["welcome"].model_copy(update=update)}
    for text in ("1", f"welcome:hello:{who['new']}:{DAY}"):
        with pytest.raises(NothingThere, match="would tell the birthday, so it is not looked up: name it with --day"):
            find(connection, lake, wishes, text)
        assert find(connection, lake, wishes, text, day=DAY).aside == ""
    explainer = Explainer(lake, settings, wishes, DAY, connection, own=OWN)
    (told,) = explainer.explain([Asked(who["new"], "welcome", "hello", DAY.isoformat())])
    assert told.headline.startswith("Sent by inbox: the step was due")
    assert "2026" not in " ".join([told.of("outcome").text, *lines(told, "outcome")]).replace(DAY.isoformat(), "")
    later = replace(explainer._known(()), day=DAY + timedelta(days=1))
    person = explainer._people([who["new"]], wishes)[who["new"]]
    again = explainer._explained(Case(later, wishes["welcome"], person, "hello", person.decided["welcome"][0], True))
    assert "unknown: in the ledger it is of another day" in lines(again, "outcome")


def test_without_a_forecast_none_is_told(explainer, campaigns, who):
    update = {"trigger": Trigger.model_validate({"next_order": {"days_before": 3}})}
    campaign = campaigns["welcome"].model_copy(update=update)
    person = explainer._people([who["buyer"]], campaigns)[who["buyer"]]
    nothing = {"next_order_on": None, "next_order_from": None, "note": None}
    for score, said in (
        (None, "no next order is expected: only who has ordered is scored"),
        (nothing | {"note": "not enough data"}, "when the next order is expected is not known: not enough data"),
        (nothing | {"next_order_from": DAY}, "next order expected on no day within a year"),
    ):
        scores = {} if score is None else {who["buyer"]: score}
        known = replace(explainer._known(()), scores=scores)
        told = occasions.trigger(Case(known, campaign, person, "hello", {}, False))
        assert said in [part.text for part in told.parts]


def test_what_comes_in_later_changes_nothing(lake, settings, campaigns, who):
    asked = [Asked(who[name], campaign) for name, campaign in (("keen", "review"), ("full", "welcome"))]
    explained = [as_json(each) for each in Explainer(lake, settings, campaigns, DAY, own=OWN).explain(asked)]
    after = DAY + timedelta(days=1)
    mine = {"source": "shop", "source_file": "later.csv", "source_row": 1, "shop_customer_id": who["keen"]}
    for table, more in (
        (raw.ORDERS, {"order_id": "o9", "ordered_at": noon(after)}),
        (raw.EVENTS, {"event_id": "v9", "happened_at": noon(after), "type": "product_view"}),
        (raw.MESSAGE_EVENTS, {"event_id": "e8", "happened_at": noon(after), "type": "sent"}),
        (raw.CONSENTS, {"channel": "email", "state": "opted_out", "changed_at": noon(after)}),
        (DAILY_ACTIVITY, {"orders": 1, "visits": 1, "emails_sent": 1}),
    ):
        names = set(table.schema.names)
        rows = [{**mine, **more}, {**mine, **more, "shop_customer_id": who["full"]}]
        lake.write(table, [after], lake_rows(table, *({k: v for k, v in row.items() if k in names} for row in rows)))
    again = Explainer(lake.session(), settings, campaigns, DAY, own=OWN).explain(asked)
    assert [as_json(each) for each in again] == explained


def test_as_of_a_day_before_the_message_s_nothing_had_been_decided_on_it(lake, settings, connection, campaigns, who):
    earlier = DAY - timedelta(days=1)
    of_people = (CUSTOMER_360, IDENTITIES)
    for table in of_people:
        lake.write(table, [earlier], lake.on(table, DAY).drop("as_of"))
    try:
        found = find(connection, lake, campaigns, "1", day=earlier)
        assert (
            found.aside
            == f"The message is of {DAY}, {earlier} was before it: without --day it is explained as of its day."
        )
        assert find(connection, lake, campaigns, "1", day=DAY).aside == ""
        asked = Explainer(lake, settings, campaigns, earlier, connection, own=OWN)
        assert asked._of_ledger(found.asked) is None
    finally:
        for table in of_people:
            lake.delete(table, earlier)


def test_of_who_was_not_reached_nothing_is_said_to_have_happened_since_the_trigger(explainer, who):
    told = explainer.explain([Asked(who["buyer"], "welcome", "hello")])[0]
    assert "fact: unsubscribing, or a complaint, after the trigger would end it" in lines(told, "fitting")
    assert not [line for line in lines(told, "fitting") if "since" in line]


def test_an_overview_has_a_line_for_every_campaign(explainer, who):
    told = explainer.overview(who["new"])
    assert [(each.campaign, each.step, each.mark, each.reason) for each in told.reached] == [
        ("welcome", "hello", "yes", "due"),
        ("newsletter", "issue", "no", "day_cap"),
    ]
    assert [(each.campaign, each.mark, each.reason) for each in told.others] == [("review", "no", "not_in_audience")]


def test_every_rule_read_anew_is_what_was_recorded(explainer, campaigns, who):
    seen = set()
    for person in explainer._people(who.values(), campaigns).values():
        for name, rows in person.decided.items():
            for row in rows:
                case = Case(explainer._known(()), campaigns[name], person, row["step"], row, reached=True)
                steps = [step for rule in rules.RULES if (step := rule(case))]
                refusing = next((step.key for step in steps if step.mark == "no"), None)
                decided = [step.key for step in steps if step.decided]
                assert not [part.text for step in steps for part in step.parts if "recorded that day" in part.text]
                assert decided == ([] if row["reason"] == "due" else [refusing])
                seen.add(row["reason"])
    assert seen == {
        "due",
        "no_consent",
        "opted_out",
        "opted_out_topic",
        "campaign_holdout",
        "cap",
        "day_cap",
        "not_in_audience",
    }


def test_what_was_recorded_counts_where_the_tables_say_something_else_now(explainer, campaigns, who):
    person = explainer._people([who["new"]], campaigns)[who["new"]]
    row = {**person.decided["welcome"][0], "decision": "refused", "reason": "no_consent"}
    step = rules.consent(Case(explainer._known(()), campaigns["welcome"], person, "hello", row, reached=True))
    assert (step.mark, step.decided) == ("no", True)
    assert step.parts[-1].text.startswith("recorded that day: refused by `no_consent`; read anew it is the other way")
    assert step.text.startswith("read anew: email: opted_in since")


def test_of_who_never_showed_a_sign_of_life_no_days_are_counted(explainer, campaigns, who):
    person = explainer._people([who["keen"]], campaigns)[who["keen"]]
    patient = campaigns["welcome"].model_copy(update={"sunset_days": 30})
    signs = ("last_order_on", "last_click_on", "last_visit_on", "created_on")
    nothing = replace(person, profile={**person.profile, **dict.fromkeys(signs)})

    def told(of):
        (part, *_) = rules.fitting(Case(explainer._known(()), patient, of, "hello", {}, reached=False)).parts
        return part.mark, part.text

    assert told(person) == ("yes", f"last sign of life: {before(1)}, 1 day ago, at most 29 are allowed")
    assert told(nothing) == (
        "yes",
        "last sign of life: none is known, so nothing says how long they have been quiet",
    )


def test_a_step_that_they_had_lately_is_told_with_the_message(explainer, campaigns, who):
    person = explainer._people([who["full"]], campaigns)[who["full"]]
    row = {**person.decided["welcome"][0], "reason": "again"}
    usual = campaigns["welcome"].model_copy(update={"trigger": campaigns["review"].trigger})
    patient = usual.model_copy(update={"again_after_days": 5})
    event = next(event for event in person.events if event.day == before(2))
    mine = replace(event, values={**event.values, "message_id": f"welcome:hello:{who['full']}:earlier"})

    def told(day):
        case = Case(explainer._known(()), patient, replace(person, events=[replace(mine, day=day)]), "hello", row, True)
        return rules.again(case)

    step = told(before(4))
    assert (step.mark, step.decided, [each.number for each in step.rows]) == ("no", True, [2])
    assert step.text == f"had this step on {before(4)}; nobody gets it again within 5 days"
    assert "read anew it is the other way" in told(before(5)).parts[-1].text
    itself = replace(event, values={**event.values, "message_id": f"welcome:hello:{who['full']}:{row['occasion']}"})
    due = Case(explainer._known(()), patient, replace(person, events=[itself]), "hello", {**row, "reason": "due"}, True)
    assert (rules.again(due).mark, rules.again(due).text[:17]) == ("yes", "has not had this "), "the message itself"
    assert rules.again(Case(explainer._known(()), usual, person, "hello", row, True)) is None


def test_of_two_occasions_on_one_day_the_second_is_told_to_come_after_the_first(explainer, campaigns, who):
    person = explainer._people([who["new"]], campaigns)[who["new"]]
    patient = campaigns["welcome"].model_copy(update={"again_after_days": 5})
    first = {**person.decided["welcome"][0], "occasion": "one"}
    second = {**first, "occasion": "two", "decision": "refused", "reason": "again"}
    person = replace(person, decided={**person.decided, "welcome": [second, first]}, events=[])

    def told(row):
        return rules.again(Case(explainer._known(()), patient, person, "hello", row, True))

    assert (told(first).mark, told(second).mark) == ("yes", "no")
    assert told(second).text.startswith("is due this step for one, too, and that comes first")
    assert "read anew it is the other way" not in "".join(part.text for part in told(second).parts)


def test_a_message_for_a_birthday_that_counts_for_the_cap_tells_neither_its_day_nor_its_name(explainer, campaigns, who):
    welcome = campaigns["welcome"]
    birthday = welcome.model_copy(update={"trigger": Trigger.model_validate({"birthday": {}})})
    for name, campaign in (("full", "spring_sale"), ("new", "welcome")):
        asked = "welcome" if name == "full" else "newsletter"
        known = replace(explainer._known(()), campaigns={**campaigns, campaign: birthday})
        person = explainer._people([who[name]], campaigns)[who[name]]
        row = person.decided[asked][0]
        case = Case(known, campaigns[asked], person, row["step"], row, True)
        texts = [part.text for step in (rules.caps(case),) for part in step.parts]
        assert texts
        assert not any(campaign in text for text in texts)
        assert not any(str(before(n)) in text for n in (1, 2, 5) for text in texts)


def test_wishes_for_which_no_hour_is_left_say_so_and_others_do_not_tell_their_day(explainer, campaigns, who):
    birthday = campaigns["welcome"].model_copy(update={"trigger": Trigger.model_validate({"birthday": {}})})
    person = explainer._people([who["new"]], campaigns)[who["new"]]
    planned = person.decided["welcome"][0]
    refused = {**planned, "decision": "refused", "reason": "no_hour", "send_from": None}
    told = [rules.hour(Case(explainer._known(()), birthday, person, "hello", row, True)) for row in (planned, refused)]
    assert [(step.mark, step.decided) for step in told] == [("fact", False), ("no", True)]
    assert told[0].text.startswith("may leave from 10:00 of their clock, 10:00 UTC")
    assert told[1].text == REASONS["no_hour"]


def test_a_message_for_a_birthday_is_no_row_that_is_shown(explainer, campaigns, who):
    welcome = campaigns["welcome"]
    update = {"trigger": Trigger.model_validate({"birthday": {}}), "again_after_days": 9, "exit_on": ("unsubscribed",)}
    birthday = welcome.model_copy(update=update)
    known = replace(explainer._known(()), campaigns={**campaigns, "welcome": birthday})
    person = explainer._people([who["full"]], campaigns)[who["full"]]
    event = next(event for event in person.events if event.day == before(2))
    mine = replace(event, values={**event.values, "campaign": "welcome", "message_id": "welcome:hello:x:earlier"})
    row = {**person.decided["welcome"][0], "reason": "again", "triggered_on": before(9)}
    step = rules.again(Case(known, birthday, replace(person, events=[mine]), "hello", row, True))
    assert (step.mark, step.rows, step.text[:21]) == ("no", (), "had this step lately;")
    left = replace(mine, values={**mine.values, "type": "unsubscribe"})
    case = Case(known, birthday, replace(person, events=[left]), "hello", row, True)
    refused, _text, rows = rules._exit(case, "unsubscribed", before(9))
    assert (refused, rows) == (True, ())


def test_a_message_of_a_step_or_a_variant_that_is_no_more_is_answered(connection, lake, explainer, campaigns, who):
    welcome = campaigns["welcome"]
    renamed = tuple(step.model_copy(update={"name": f"{step.name}_again"}) for step in welcome.steps)
    with pytest.raises(NothingThere, match=r"no step of welcome 'hello'.*hello_again"):
        find(connection, lake, {**campaigns, "welcome": welcome.model_copy(update={"steps": renamed})}, "1")
    person = explainer._people([who["new"]], campaigns)[who["new"]]
    row = {**person.decided["welcome"][0], "variant": "one that was"}
    assert Case(explainer._known(()), welcome, person, "hello", row, True).step.name == "hello"


def test_since_when_somebody_is_in_a_segment_about_birthdays_is_not_told(explainer, campaigns, who):
    person = explainer._people([who["buyer"]], campaigns)[who["buyer"]]
    soon = {"segment": "birthday", "customer_id": who["buyer"], "entered_on": before(3), "through": None}
    person = replace(person, memberships=[*person.memberships, soon])
    audience = campaigns["review"].audience.model_copy(update={"exclude": ("birthday",)})
    leaves_out = campaigns["review"].model_copy(update={"audience": audience})
    case = Case(explainer._known(()), leaves_out, person, "how_was_it", person.decided["review"][0], reached=True)
    step = rules.segments(replace(case, known=explainer._known([case])))
    told = {part.text for part in step.parts}
    assert f"review_candidates, which is included: in review_candidates since {before(4)}" in told
    assert "birthday, which is left out: in birthday, the day is not shown, as it would tell private data" in told


def test_nothing_private_is_in_any_output(explainer, campaigns, who):
    people = [who[name] for name in ("new", "keen")]
    told = explainer.explain([Asked(person, name) for person in people for name in campaigns])
    overview = explainer.overview(who["new"])
    texts = [json.dumps(as_json(each)) for each in (*told, overview)]
    for text in (*texts, page.page(told, "t"), page.markdown(told), page.overview_page(overview, who["new"])):
        assert any(person in text for person in people)
        assert SECRET not in text
        assert str(BIRTHDAY) not in text


def test_messages_are_found_by_number_and_name_and_people_by_any_of_their_ids(connection, lake, campaigns, who):
    def ask(text, **more):
        found = find(connection, lake, campaigns, text, **more)
        return found.customer_id, found.day, found.asked

    key = ("welcome", "hello", DAY.isoformat())
    message = (who["new"], DAY, Asked(who["new"], *key))
    assert ask("1") == message
    assert ask(f"welcome:hello:{who['new']}:{DAY}") == message
    assert ask(f"newsletter:issue:{who['new']}:{DAY}")[2] == Asked(who["new"], "newsletter", "issue", DAY.isoformat())
    assert ask("old-shop:7") == (who["buyer"], DAY, None)
    assert ask(who["buyer"], campaign="review") == (who["buyer"], DAY, Asked(who["buyer"], "review", None))


def test_what_is_not_there_is_answered_with_the_nearest(connection, lake, campaigns, who):
    for arguments, said in (
        ({"text": who["buyer"] + "x"}, f"did you mean {who['buyer']!r}?"),
        ({"text": "77"}, "there is no message 77 (the ledger's numbers go up to 4), and no customer '77'"),
        ({"text": who["new"], "campaign": "welcom"}, "did you mean 'welcome'?"),
        ({"text": who["new"], "campaign": "welcome", "step": "helo"}, "did you mean 'hello'?"),
        ({"text": who["new"], "step": "hello"}, "name it with --campaign"),
        ({"text": f"welcome:hello:{who['new']}:2026-06-29"}, "did you mean '2026-06-30'"),
        ({"text": who["new"], "day": DAY + timedelta(days=3)}, "the nearest computed day is 2026-06-30"),
        ({"text": "1", "step": "hello"}, "leave --step out"),
        ({"text": "1", "campaign": "welcome"}, "message 1 of the ledger is explained without --campaign"),
        ({"text": "77", "campaign": "welcome"}, "there is no customer '77' as of 2026-06-30"),
    ):
        with pytest.raises(NothingThere) as told:
            find(connection, lake, campaigns, **arguments)
        assert said in str(told.value)


def test_before_anything_is_computed_it_says_what_to_run(tmp_path):
    with pytest.raises(NothingThere, match="run `shopauto refresh`"):
        day_of(Lake(tmp_path / "lake"), None)


def test_the_command_shows_it_as_text_as_json_and_as_a_page_that_needs_nothing_else(shopauto, home, who, tmp_path):
    shown = shopauto("explain", "1", "--html", tmp_path / "why.html")
    assert "✓ Sent by inbox, 2026-07-01 05:00 UTC" in shown
    assert "customers.csv, row 40 (source shop)" in shown
    written = (tmp_path / "why.html").read_text(encoding="utf-8")
    assert f"{who['new']} · welcome / hello" in written
    assert not re.search(r"(src|href)=.(?!#)|https?:|@import|url\(", written)
    (told,) = json.loads(shopauto("explain", who["keen"], "--campaign", "review", "--json"))["explanations"]
    assert (told["reason"], told["decision"]) == ("not_in_audience", "refused")
    assert [step["key"] for step in told["steps"] if step["decided"]] == ["segments"]
    (row,) = next(step["rows"] for step in told["steps"] if step["key"] == "consent")
    assert (row["file"], row["number"]) == ("consents.csv", 7)


@pytest.mark.usefixtures("home")
def test_the_terminal_shows_three_rows_and_says_how_many_more_there_are(shopauto, who):
    shown = shopauto("explain", who["full"], "--campaign", "welcome", "--step", "hello")
    below = shown.partition("raw/message_events: on 4 days, 4 rows")[2]
    assert below.count("message_events.csv, row") == 3
    assert "… and 1 more row: --html or --json" in below


@pytest.mark.usefixtures("home")
def test_wrong_arguments_are_answered_in_a_sentence(shopauto, who, tmp_path):
    for arguments, said, code in (
        (("nobody",), "Error: there is no customer 'nobody' as of 2026-06-30", 1),
        ((who["new"], "--campaign", "welcom"), "did you mean 'welcome'?", 1),
        ((who["new"], "--day", "yesterday"), "'yesterday' is not a day", 2),
        ((who["new"], "--day", "2026-07-09"), "the nearest computed day is 2026-06-30", 1),
        ((who["new"], "--html", str(tmp_path)), "is a folder: name a file in it", 2),
    ):
        assert said in shopauto("explain", *arguments, code=code)


def test_what_is_planned_about_carts_is_said_beside_the_sum():
    def decided(campaign, decision, people):
        return Decision(campaign, decision, "due", people, "c1", "step", "occasion")

    of_days = [decided("welcome", "planned", 20), decided("welcome", "refused", 3)]
    assert _sums(of_days) == {"planned": 20, "refused": 3}
    both = _sums([*of_days, decided("abandoned_cart", "planned", 8), decided("abandoned_cart", "refused", 2)])
    assert (both["planned"], both["refused"]) == (28, 5)
    assert both["planned_about_carts"] == (
        "of these 8 are about carts: sent by the job `abandoned_carts`, never by the daily refresh"
    )


def test_the_ui_shows_a_person_for_each_kind_of_decision_of_the_newest_day(home, who):
    settings = SettingsResource()
    resources = {"settings": settings, "lake": LakeResource(settings=settings)}
    result = dg.materialize([decisions], partition_key=str(DAY), resources=resources)
    metadata = result.asset_materializations_for_node("explain__decisions")[-1].metadata
    told = metadata["explained"].value
    for reason in ("no_consent", "opted_out", "campaign_holdout", "cap", "day_cap", "not_in_audience"):
        assert f"Not sent: {REASONS[reason]}" in told
    assert told.count("**decided here**") == told.count("Not sent: ")
    assert f"`{who['keen']}`, **review** / how_was_it" in told
    assert "recency_days: 1" in told
    written = (home / "explanations" / f"decisions-{DAY}.html").read_text(encoding="utf-8")
    assert metadata["page"].path == str(home / "explanations" / f"decisions-{DAY}.html")
    for text in (told, written):
        assert SECRET not in text
        assert str(BIRTHDAY) not in text


def test_the_page_of_a_day_computed_late_stays_and_the_one_written_first_goes(tmp_path, monkeypatch):
    monkeypatch.setattr(examples, "PAGES", 2)
    settings = Settings(home=tmp_path, _env_file=None)
    for written, day in enumerate((before(1), DAY, before(300))):
        os.utime(examples._kept(settings, day, "<p>why</p>"), (written, written))
        kept = {page.name for page in (tmp_path / "explanations").iterdir()}
        assert f"decisions-{day}.html" in kept
    assert kept == {f"decisions-{DAY}.html", f"decisions-{before(300)}.html"}

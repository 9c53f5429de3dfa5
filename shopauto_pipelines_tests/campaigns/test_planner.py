"""Who is planned and who is refused, rule by rule, and what holds for any input."""

import json
import os
from collections import Counter
from dataclasses import replace
from datetime import UTC, date, datetime, time, timedelta
from zoneinfo import ZoneInfo

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from shopauto_pipelines.campaigns.asked import asked
from shopauto_pipelines.campaigns.declaration import Step
from shopauto_pipelines.campaigns.experiments import experiment_key, variant_of
from shopauto_pipelines.campaigns.holdout import GLOBAL, holdout_key, is_held_out
from shopauto_pipelines.campaigns.planner import REASONS, Rules
from shopauto_pipelines.outbox.eligibility import Cap
from shopauto_pipelines_tests.campaigns.conftest import RULES, SCHEMAS, TODAY, declared, inputs

YESTERDAY = TODAY - timedelta(days=1)
ANN = ("ann", True, "en", None, None)
AGREED = ("ann", "email", "opted_in")
SIGNED_UP = ("ann", "2026-06-30", TODAY)


def _reason(decide, campaign=None, rules=RULES, **rows) -> str:
    """The reason of the only decision; what is not said is in favour of sending."""
    rows = {"triggers": [SIGNED_UP], "people": [ANN], "consent": [AGREED]} | rows
    (decision,) = decide(campaign or declared(), inputs(**rows), rules)
    assert decision["decision"] == ("planned" if decision["reason"] == "due" else "refused")
    return decision["reason"]


def test_a_person_who_agreed_is_planned_on_the_day_the_step_is_due(decide):
    (row,) = decide(declared(), inputs(triggers=[SIGNED_UP], people=[ANN], consent=[AGREED]))
    explanation = json.loads(row.pop("explanation"))
    assert row == {
        "step": "first",
        "customer_id": "ann",
        "occasion": "2026-06-30",
        "triggered_on": TODAY,
        "due_on": TODAY,
        "decision": "planned",
        "reason": "due",
        "channel": "email",
        "template": "first",
        "language": "en",
        "variant": None,
        "send_from": datetime(2026, 7, 1, 10),
        "offer": None,
        "details": None,
    }
    assert explanation["trigger"] == "signed_up"
    assert explanation["rule"] == REASONS["due"]


@pytest.mark.parametrize(
    ("days_ago", "steps"),
    [(0, ["first"]), (2, ["first"]), (3, ["second"]), (5, ["second"]), (6, [])],
)
def test_a_step_is_due_after_its_wait_and_for_its_valid_days(decide, days_ago, steps):
    day = TODAY - timedelta(days=days_ago)
    rows = decide(
        declared(valid_days=3), inputs(triggers=[("ann", day.isoformat(), day)], people=[ANN], consent=[AGREED])
    )
    assert [row["step"] for row in rows] == steps


@pytest.mark.parametrize("days_ahead", [1, 30])
def test_a_trigger_of_tomorrow_is_not_seen_today(decide, days_ahead):
    day = TODAY + timedelta(days=days_ahead)
    assert decide(declared(), inputs(triggers=[("ann", day.isoformat(), day)], people=[ANN], consent=[AGREED])) == []


def test_a_step_that_was_sent_for_the_occasion_is_not_due_again(decide):
    sent = ("ann", "sent", "hello", "first", "2026-06-30", TODAY)
    given_rows = {"triggers": [SIGNED_UP], "people": [ANN], "consent": [AGREED]}
    assert decide(declared(), inputs(history=[sent], **given_rows)) == []
    for other in (
        ("ann", "sent", "hello", "first", "2026-05-01", TODAY),
        ("ann", "sent", "hello", "second", "2026-06-30", TODAY),
        ("ann", "sent", "other", "first", "2026-06-30", TODAY),
        ("bob", "sent", "hello", "first", "2026-06-30", TODAY),
        ("ann", "bounce", "hello", "first", "2026-06-30", TODAY),
        ("ann", "sent", "hello", "first", "2026-06-30", TODAY + timedelta(days=1)),
    ):
        assert len(decide(declared(), inputs(history=[other], **given_rows))) == 1


def test_a_step_is_kept_from_those_who_had_it_lately_on_another_occasion_where_the_campaign_says_so(decide):
    def had(days_ago: int, step: str = "first", kind: str = "sent", campaign: str = "hello") -> list[tuple]:
        return [("ann", kind, campaign, step, "2026-03-01", TODAY - timedelta(days=days_ago))]

    usual, patient = (declared(trigger={"ordered": {}}, again_after_days=days) for days in (None, 30))
    assert _reason(decide, usual, history=had(29)) == "due", "every occasion counts"
    assert _reason(decide, declared(), history=had(300)) == "again", "nobody becomes known twice"
    assert _reason(decide, patient, history=had(29)) == "again"
    assert _reason(decide, patient, history=had(29) + had(50)) == "again", "the latest counts"
    assert _reason(decide, patient, history=had(30)) == "due"
    for other in (had(3, "second"), had(3, kind="open"), had(3, campaign="other"), had(-1)):
        assert _reason(decide, patient, history=other) == "due"
    twice = {"triggers": [SIGNED_UP, ("ann", "2026-06-29", YESTERDAY)], "people": [ANN], "consent": [AGREED]}
    roomy = replace(RULES, cap_day_messages=5)
    for campaign, later in ((usual, "due"), (patient, "again"), (declared(), "again")):
        rows = decide(campaign, inputs(**twice), roomy)
        assert {row["occasion"]: row["reason"] for row in rows} == {"2026-06-29": "due", "2026-06-30": later}


def test_nobody_is_written_to_without_an_address(decide):
    assert _reason(decide, people=[("ann", False, "en", None, None)]) == "no_address"
    assert _reason(decide, people=[]) == "no_address"


@pytest.mark.parametrize(
    ("consent", "reason"),
    [
        ([], "no_consent"),
        ([("ann", "sms", "opted_in")], "no_consent"),
        ([("ann", "email", "opted_out")], "opted_out"),
        ([("ann", "email", "pending")], "pending"),
        ([("ann", "email", "a state nobody has heard of")], "no_consent"),
        ([("ann", "email", None)], "no_consent"),
        ([("ann", "email", "opted_in", "news,offers")], "opted_out_topic"),
        ([("ann", "email", "opted_in", "offers")], "due"),
        ([("ann", "email", "opted_out", "news")], "opted_out"),
    ],
)
def test_only_consent_for_the_channel_lets_a_message_through(decide, consent, reason):
    assert _reason(decide, consent=consent) == reason


def test_the_audience_includes_members_of_any_segment_and_excludes_members_of_any(decide):
    campaign = declared(audience={"include": ["vip", "new"], "exclude": ["lapsed", "fans_of"]})

    def reason(*segments: str) -> str:
        return _reason(decide, campaign, membership=[(segment, "ann", YESTERDAY) for segment in segments])

    assert reason() == "not_in_audience"
    assert reason("active") == "not_in_audience"
    assert reason("vip") == reason("new") == reason("new", "vip", "active") == "due"
    assert reason("vip", "lapsed") == "excluded"
    assert reason("vip", "fans_of:garden") == "excluded"


def test_an_order_after_the_day_of_the_trigger_ends_the_journey(decide):
    campaign = declared(exit_on=["ordered"])
    trigger = [("ann", "2026-06-29", YESTERDAY)]

    def reason(ordered: date) -> str:
        return _reason(decide, campaign, triggers=trigger, people=[("ann", True, "en", ordered, None)])

    assert reason(TODAY) == "ordered"
    assert reason(YESTERDAY) == "due", "the order that made the person known does not end the welcome"
    assert reason(TODAY + timedelta(days=1)) == "due", "tomorrow's order is not known today"
    assert _reason(decide, declared(), triggers=trigger, people=[("ann", True, "en", TODAY, None)]) == "due"


def test_leaving_the_segment_ends_the_journey_even_for_those_who_came_back(decide):
    campaign = declared(trigger={"segment_entered": "lapsed"}, exit_on=["left_segment"])
    trigger = [("ann", "2026-06-29", YESTERDAY)]
    assert _reason(decide, campaign, triggers=trigger, membership=[("lapsed", "ann", YESTERDAY)]) == "due"
    assert _reason(decide, campaign, triggers=trigger, membership=[]) == "left_segment"
    assert _reason(decide, campaign, triggers=trigger, membership=[("lapsed", "ann", TODAY)]) == "left_segment"
    assert _reason(decide, campaign, triggers=trigger, membership=[("vip", "ann", YESTERDAY)]) == "left_segment"


@pytest.mark.parametrize("event", ["unsubscribe", "spam_report"])
def test_unsubscribing_after_the_trigger_ends_the_journey_even_for_those_who_agreed_again(decide, event):
    campaign = declared(exit_on=["unsubscribed"])
    assert _reason(decide, campaign, history=[("ann", event, "other", None, None, TODAY)]) == "unsubscribed"
    assert _reason(decide, campaign, history=[("ann", event, "other", None, None, YESTERDAY)]) == "due"


def test_the_holdouts_get_nothing(decide):
    assert _reason(decide, rules=replace(RULES, holdout_percent=100.0)) == "holdout"
    ids = [f"c{n}" for n in range(300)]
    given_rows = inputs(
        triggers=[(i, "2026-06-30", TODAY) for i in ids],
        people=[(i, True, "en", None, None) for i in ids],
        consent=[(i, "email", "opted_in") for i in ids],
    )
    rules = replace(RULES, holdout_percent=20.0)
    reasons = {row["customer_id"]: row["reason"] for row in decide(declared(holdout_percent=30), given_rows, rules)}
    everywhere, here = (holdout_key(rules.hash_key, name) for name in (GLOBAL, "hello"))
    for customer_id, reason in reasons.items():
        if is_held_out(customer_id, everywhere, 20):
            assert reason == "holdout"
        elif is_held_out(customer_id, here, 30):
            assert reason == "campaign_holdout"
        else:
            assert reason == "due"
    assert Counter(reasons.values()).keys() == {"holdout", "campaign_holdout", "due"}
    asked_for = declared(holdout_percent=30, kind="transactional")
    assert {row["reason"] for row in decide(asked_for, given_rows, rules)} == {"due"}


def test_the_cap_counts_what_was_received_in_its_days_from_any_campaign_and_what_is_planned_before(decide):
    def sent(days_ago: int, kind: str = "sent") -> tuple:
        return ("ann", kind, "other", None, None, TODAY - timedelta(days=days_ago))

    assert _reason(decide, history=[sent(0), sent(5)]) == "due"
    assert _reason(decide, history=[sent(0), sent(3), sent(5)]) == "cap"
    assert _reason(decide, history=[sent(0), sent(3), sent(6)]) == "due", "it leaves tomorrow, a week after the first"
    assert _reason(decide, history=[sent(0), sent(3), sent(1, "delivered"), sent(1, "open")]) == "due"
    assert _reason(decide, history=[sent(0), sent(3)], planned=[("ann",)]) == "cap"
    assert _reason(decide, history=[sent(0), sent(3)], planned=[("bob",)]) == "due"
    assert _reason(decide, planned=[("ann",)] * 3) == "cap"


def test_the_days_of_the_cap_are_those_that_the_ledger_counts():
    daily, steps = declared(), [Step(name="reminder", wait_hours=1, subject={"en": "Hi"}, template="first")]
    carts = declared(trigger={"cart_abandoned": {}}, steps=steps)
    last_that_does_not_count = Cap(RULES.cap_messages, RULES.cap_days).on(TODAY)["cap_after"] + timedelta(days=1)
    for campaign, as_of in ((daily, TODAY), (carts, TODAY + timedelta(days=1))):  # both leave tomorrow
        (told,) = asked(campaign, RULES, as_of)["asked"].to_pylist()
        assert told["cap_after"] == last_that_does_not_count


def test_under_the_cap_the_earlier_step_of_a_campaign_goes_first(decide):
    day = TODAY - timedelta(days=3)
    triggers = [("ann", day.isoformat(), day), SIGNED_UP]
    rows = decide(declared(), inputs(triggers=triggers, people=[ANN], consent=[AGREED]), replace(RULES, cap_messages=1))
    assert [(row["step"], row["reason"]) for row in rows] == [("first", "due"), ("second", "cap")]


def test_what_is_refused_takes_no_place_under_the_cap(decide):
    campaign = declared(exit_on=["ordered"])
    triggers = [("ann", "2026-06-28", date(2026, 6, 28)), ("ann", "2026-06-29", YESTERDAY), SIGNED_UP]
    people = [("ann", True, "en", TODAY, None)]
    given_rows = inputs(triggers=triggers, people=people, consent=[AGREED])
    rows = decide(campaign, given_rows, replace(RULES, cap_messages=1))
    assert [row["reason"] for row in rows] == ["ordered", "ordered", "due"]


@pytest.mark.parametrize(
    ("language", "default", "written"),
    [
        ("pt-BR", "en", "pt-BR"),
        ("pt", "en", "pt-BR"),
        ("PT-pt", "en", "pt-BR"),
        ("en-GB", "pt-BR", "en"),
        ("ja", "en", "en"),
        ("ja", "pt-BR", "pt-BR"),
        (None, "pt-BR", "pt-BR"),
        (None, "ja", "en"),
        ("", "en", "en"),
    ],
)
def test_a_person_is_written_to_in_the_nearest_language(decide, language, default, written):
    people = [("ann", True, language, None, None)]
    given_rows = inputs(triggers=[SIGNED_UP], people=people, consent=[AGREED])
    (row,) = decide(declared(), given_rows, replace(RULES, language=default))
    assert row["language"] == written == declared().language("first", language, default)


def test_the_explanation_names_trigger_segments_score_and_rule(decide):
    campaign = declared(trigger={"segment_entered": "lapsed"}, audience={"exclude": ["vip"]})
    (row,) = decide(
        campaign,
        inputs(
            triggers=[("ann", "2026-06-30", TODAY)],
            people=[("ann", True, "en", None, 0.81234567)],
            consent=[AGREED],
            membership=[("lapsed", "ann", TODAY), ("vip", "ann", YESTERDAY), ("gender:female", "ann", YESTERDAY)],
        ),
    )
    assert json.loads(row["explanation"]) == {
        "trigger": "segment_entered:lapsed",
        "triggered_on": "2026-06-30",
        "wait_days": 0,
        "segments": [
            {"segment": "lapsed", "entered_on": "2026-06-30"},
            {"segment": "vip", "entered_on": "2026-06-29"},
        ],
        "churn_probability": 0.812346,
        "hour": 10,
        "reason": "excluded",
        "rule": REASONS["excluded"],
    }


def test_one_message_a_day_is_sent_over_all_campaigns_and_the_reason_says_what_took_its_place(decide):
    two = replace(RULES, cap_day_messages=2)
    assert _reason(decide, planned=[("ann",)]) == "day_cap"
    assert _reason(decide, planned=[("bob",)]) == "due"
    assert _reason(decide, rules=two, planned=[("ann",)]) == "due"
    assert _reason(decide, rules=two, planned=[("ann",)] * 2) == "day_cap"
    assert _reason(decide, history=[("ann", "sent", "other", None, None, TODAY)]) == "due", (
        "that was yesterday's message"
    )


def test_e_mail_and_sms_share_the_place_of_the_day(decide):
    steps = [
        Step(name="mail", wait_days=0, subject={"en": "Hi"}, template="first"),
        Step(name="text", wait_days=0, channel="sms", template="first"),
    ]
    both = {"people": [("ann", True, "en", None, None, True)], "consent": [AGREED, ("ann", "sms", "opted_in")]}
    rows = decide(declared(steps=steps), inputs(triggers=[SIGNED_UP], **both))
    assert {row["step"]: row["reason"] for row in rows} == {"mail": "due", "text": "day_cap"}
    again = [("ann", "sent", "hello", "mail", "2026-06-30", TODAY + timedelta(days=1))]
    (later,) = decide(declared(steps=steps), inputs(triggers=[SIGNED_UP], history=again, **both), as_of=again[0][-1])
    assert (later["step"], later["reason"]) == ("text", "due"), "its turn comes the next day"


def _ann(**known) -> list[tuple]:
    """Ann, of whom the planner knows this too."""
    return [tuple({**dict.fromkeys(SCHEMAS["people"]), "customer_id": "ann", "email_known": True, **known}.values())]


def test_a_ticket_that_is_open_a_condition_and_the_sunset_hold_messages_back(decide):
    assert _reason(decide, people=_ann(ticket_open=True)) == "ticket_open"
    assert _reason(decide, declared(pause_while_ticket_open=False), people=_ann(ticket_open=True)) == "due"
    sunset = declared(sunset_days=30)
    assert _reason(decide, sunset, people=_ann(last_seen_on=TODAY - timedelta(days=30))) == "sunset"
    assert _reason(decide, sunset, people=_ann(last_seen_on=TODAY - timedelta(days=29))) == "due"
    assert _reason(decide, sunset, people=_ann()) == "due", "of whom nobody knows when they were seen last"
    first, second = declared().steps
    chosen = declared(steps=[first.model_copy(update={"when": "orders > 1"}), second])
    assert _reason(decide, chosen, people=_ann(unmet=[])) == "due"
    assert _reason(decide, chosen, people=_ann(unmet=["first"])) == "condition"
    assert _reason(decide, chosen, people=_ann()) == "condition", "what is not known is not met"


def test_asking_for_help_after_the_trigger_ends_a_journey_that_says_so(decide):
    campaign = declared(exit_on=["ticket_opened"])
    trigger = [("ann", "2026-06-29", YESTERDAY)]
    assert _reason(decide, campaign, triggers=trigger, people=_ann(last_ticket_on=TODAY)) == "ticket_opened"
    assert _reason(decide, campaign, triggers=trigger, people=_ann(last_ticket_on=YESTERDAY)) == "due"
    assert _reason(decide, triggers=trigger, people=_ann(last_ticket_on=TODAY)) == "due"


def test_a_transactional_message_asks_for_consent_but_for_no_cap_holdout_ticket_or_sunset(decide):
    campaign = declared(kind="transactional", sunset_days=30)
    everyone_out = replace(RULES, holdout_percent=100.0)
    known = _ann(ticket_open=True, last_seen_on=TODAY - timedelta(days=300))
    assert _reason(decide, campaign, everyone_out, people=known) == "due"
    assert _reason(decide, campaign, consent=[("ann", "email", "opted_out")]) == "opted_out"
    assert _reason(decide, campaign, planned=[("ann",)] * 5) == "due"


@pytest.mark.parametrize(
    ("known", "hour", "leaves"),
    [
        ({}, "best", datetime(2026, 7, 1, 10)),
        ({"best_hour": 18}, "best", datetime(2026, 7, 1, 18)),
        ({"best_hour": 18}, 9, datetime(2026, 7, 1, 9)),
        ({"best_hour": 18, "time_zone": "America/New_York"}, "best", datetime(2026, 7, 1, 22)),
        ({"best_hour": 20, "time_zone": "America/New_York"}, "best", datetime(2026, 7, 1, 0)),
        ({"best_hour": 9, "time_zone": "Asia/Kathmandu"}, "best", datetime(2026, 7, 1, 3, 15)),
        ({"best_hour": 22}, "best", datetime(2026, 7, 1, 20)),
        ({"best_hour": 6}, "best", datetime(2026, 7, 1, 8)),
        ({}, 3, datetime(2026, 7, 1, 8)),
    ],
)
def test_a_message_leaves_at_the_persons_hour_outside_quiet_hours(decide, known, hour, leaves):
    campaign = declared(steps=[step.model_copy(update={"hour": hour}) for step in declared().steps])
    (row,) = decide(campaign, inputs(triggers=[SIGNED_UP], people=_ann(**known), consent=[AGREED]))
    assert row["send_from"] == leaves


WISHES = declared(trigger={"birthday": {"days_before": 1}}, steps=declared().steps[:1], valid_days=1)


@pytest.mark.parametrize(
    ("shop", "theirs", "best", "hour"),
    [
        ("UTC", None, 18, 18),
        ("UTC", None, 22, 20),
        (
            "UTC",
            "Australia/Sydney",
            9,
            10,
        ),  # its 9 o'clock had passed when the day was over: the earliest hour that is left
        ("UTC", "Asia/Kathmandu", 8, 8),
        ("UTC", "Asia/Tokyo", 22, 20),
        ("UTC", "America/New_York", 20, 19),  # its 8 o'clock in the evening comes too late: the latest hour before
        ("America/Los_Angeles", "Asia/Tokyo", 10, 16),
        ("America/Los_Angeles", "Pacific/Auckland", None, 19),
        ("Europe/Bucharest", "America/Los_Angeles", 19, 13),
        ("Pacific/Auckland", "Europe/London", 20, 12),
        ("Pacific/Auckland", "America/Los_Angeles", 10, None),
    ],
)
def test_wishes_leave_on_the_birthday_where_the_person_lives(decide, shop, theirs, best, hour):
    people, rules = _ann(time_zone=theirs, best_hour=best), replace(RULES, timezone=shop)
    (row,) = decide(WISHES, inputs(triggers=[SIGNED_UP], people=people, consent=[AGREED]), rules)
    if hour is None:
        assert (row["reason"], row["send_from"]) == ("no_hour", None)
        return
    shown = row["send_from"].replace(tzinfo=UTC).astimezone(ZoneInfo(theirs or shop)).replace(tzinfo=None)
    assert shown == datetime.combine(TODAY + timedelta(days=1), time(hour))
    assert json.loads(row["explanation"])["hour"] == hour


def test_a_refused_message_has_no_hour(decide):
    (row,) = decide(declared(), inputs(triggers=[SIGNED_UP], people=[ANN]))
    assert (row["reason"], row["send_from"]) == ("no_consent", None)


TESTED = declared(
    experiment={
        "name": "subjects",
        "step": "first",
        "sample_size": 100,
        "variants": {"control": {"weight": 1}, "late": {"weight": 2, "hour": 19, "template": "second"}},
    }
)


def test_everybody_has_a_variant_of_the_step_that_is_tested_whatever_is_decided_on_them(decide):
    ids = [f"c{n}" for n in range(60)]
    long_ago = TODAY - timedelta(days=3)
    rows = decide(
        TESTED,
        inputs(
            triggers=[(who, str(day), day) for who in ids for day in (TODAY, long_ago)],
            people=[(who, True, "en", None, None) for who in ids],
            consent=[(who, "email", "opted_in") for who in ids[::2]],
        ),
        replace(RULES, cap_day_messages=2),
    )
    key = experiment_key(RULES.hash_key, "subjects")
    assert len(rows) == 120
    for row in rows:
        explained = json.loads(row["explanation"])
        if row["step"] == "second":
            assert (row["variant"], "experiment" in explained) == (None, False)
            continue
        assert row["variant"] == variant_of(row["customer_id"], key, {"control": 1, "late": 2})
        assert (explained["experiment"], explained["variant"]) == ("subjects", row["variant"])
        assert row["template"] == {"control": "first", "late": "second"}[row["variant"]]
        if row["decision"] == "planned":
            assert row["send_from"].hour == {"control": 10, "late": 19}[row["variant"]]
    assert {row["reason"] for row in rows} == {"due", "no_consent"}


_PEOPLE = ["a", "b", "c", "d", "e:f", "1"]
_id = st.sampled_from(_PEOPLE)
_day = st.integers(-12, 4).map(lambda n: TODAY + timedelta(days=n))
_worlds = st.fixed_dictionaries(
    {
        "triggers": st.lists(st.tuples(_id, _day), max_size=12, unique=True).map(
            lambda rows: [(who, day.isoformat(), day) for who, day in rows]
        ),
        "people": st.lists(
            st.tuples(
                _id,
                st.booleans() | st.none(),
                st.sampled_from(["en", "pt", None]),
                _day | st.none(),
                st.just(0.5),
                st.none(),
                st.sampled_from(["Asia/Kathmandu", "America/New_York", "Europe/London", None]),
                st.integers(0, 23) | st.none(),
                st.booleans() | st.none(),
            ),
            max_size=6,
            unique_by=lambda row: row[0],
        ),
        "consent": st.lists(
            st.tuples(
                _id,
                st.sampled_from(["email", "sms"]),
                st.sampled_from(["opted_in"] * 3 + ["opted_out", "pending"]),
                st.sampled_from([None, None, "offers", "news,offers"]),
            ),
            max_size=9,
            unique_by=lambda row: row[:2],
        ),
        "membership": st.lists(
            st.tuples(st.sampled_from(["lapsed", "vip", "fans_of:x", "fans_of:y"]), _id, _day),
            max_size=10,
            unique_by=lambda row: row[:2],
        ),
        "history": st.lists(
            st.tuples(
                _id,
                st.sampled_from(["sent", "sent", "open", "unsubscribe"]),
                st.sampled_from(["hello", "other"]),
                st.sampled_from(["first", "second", None]),
                _day.map(date.isoformat),
                _day,
            ),
            max_size=12,
        ),
        "planned": st.lists(st.tuples(_id), max_size=4),
    }
)
_campaigns = st.sampled_from(
    [
        declared(),
        declared(
            exit_on=["ordered", "unsubscribed"],
            holdout_percent=30,
            valid_days=5,
            steps=[
                step.model_copy(update={"hour": hour}) for step, hour in zip(declared().steps, (23, 5), strict=True)
            ],
        ),
        declared(
            trigger={"segment_entered": "fans_of"},
            audience={"include": ["vip", "lapsed"], "exclude": ["fans_of:y"]},
            exit_on=["left_segment"],
        ),
        WISHES,
    ]
)
_rules = st.sampled_from(
    [
        RULES,
        Rules(1, 2, 30.0, "pt-BR", b"j" * 32, timezone="Asia/Tokyo", quiet_from=0, quiet_to=23),
        Rules(2, 9, 10.0, "en", b"k" * 32, cap_day_messages=3, quiet_from=12, quiet_to=12, default_hour=0),
    ]
)

#: ``SHOPAUTO_FUZZ_EXAMPLES`` asks for more.
EXAMPLES = int(os.environ.get("SHOPAUTO_FUZZ_EXAMPLES", "6"))
_often = settings(max_examples=EXAMPLES, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


@_often
@given(world=_worlds, campaign=_campaigns, rules=_rules)
def test_every_step_that_is_due_gets_exactly_one_decision_and_nothing_else_does(decide, world, campaign, rules):
    rows = decide(campaign, inputs(**world), rules)
    sent = {(*row[3:5], row[0]) for row in world["history"] if row[1:3] == ("sent", "hello") and row[5] <= TODAY}
    due = []
    for who, occasion, day in world["triggers"]:
        for step in campaign.steps:
            age = (TODAY - day).days - step.wait_days
            if 0 <= age < campaign.valid_days and (step.name, occasion, who) not in sent:
                due.append((step.name, who, occasion))
    assert sorted((row["step"], row["customer_id"], row["occasion"]) for row in rows) == sorted(due)
    assert all(row["reason"] in REASONS for row in rows)


@_often
@given(world=_worlds, campaign=_campaigns, rules=_rules)
def test_nobody_is_planned_without_consent_and_address_inside_a_holdout_over_a_cap_or_in_quiet_hours(
    decide, world, campaign, rules
):
    planned = [row for row in decide(campaign, inputs(**world), rules) if row["decision"] == "planned"]
    agreed = {
        who
        for who, channel, state, refused in world["consent"]
        if (channel, state) == ("email", "opted_in") and campaign.topic not in (refused or "").split(",")
    }
    reachable = {row[0] for row in world["people"] if row[1]}
    since = TODAY + timedelta(days=1) - timedelta(days=rules.cap_days)  # it leaves tomorrow
    received = Counter(who for who, kind, *_, on in world["history"] if kind == "sent" and since < on <= TODAY)
    received += Counter(who for (who,) in world["planned"])
    for row in planned:
        assert row["customer_id"] in agreed & reachable
        assert not is_held_out(row["customer_id"], holdout_key(rules.hash_key, GLOBAL), rules.holdout_percent)
        assert not is_held_out(row["customer_id"], holdout_key(rules.hash_key, campaign.name), campaign.holdout_percent)
    waiting = Counter(who for (who,) in world["planned"])
    for who, count in Counter(row["customer_id"] for row in planned).items():
        assert received[who] + count <= rules.cap_messages
        assert waiting[who] + count <= rules.cap_day_messages
    zones = {row[0]: row[6] or rules.timezone for row in world["people"]}
    ends = datetime.combine(TODAY + timedelta(days=1), time(), ZoneInfo(rules.timezone)).astimezone(UTC)
    for row in planned:
        at = row["send_from"].replace(tzinfo=UTC)
        assert ends <= at < ends + timedelta(days=1)
        into = (at.astimezone(ZoneInfo(zones[row["customer_id"]])).hour - rules.quiet_from) % 24
        assert into >= (rules.quiet_to - rules.quiet_from) % 24
        if campaign == WISHES:
            assert at.astimezone(ZoneInfo(zones[row["customer_id"]])).date() == TODAY + timedelta(days=1)


@_often
@given(world=_worlds, campaign=_campaigns, rules=_rules, random=st.randoms(use_true_random=False))
def test_the_order_of_the_rows_makes_no_difference(decide, world, campaign, rules, random):
    shuffled = {name: random.sample(rows, len(rows)) for name, rows in world.items()}
    assert decide(campaign, inputs(**world), rules) == decide(campaign, inputs(**shuffled), rules)


@_often
@given(world=_worlds, campaign=_campaigns, rules=_rules)
def test_nothing_that_happens_after_the_day_makes_a_difference(decide, world, campaign, rules):
    known = world | {
        "triggers": [row for row in world["triggers"] if row[2] <= TODAY],
        "membership": [row for row in world["membership"] if row[2] <= TODAY],
        "history": [row for row in world["history"] if row[5] <= TODAY],
        "people": [
            (*row[:3], row[3] if row[3] is not None and row[3] <= TODAY else None, *row[4:]) for row in world["people"]
        ],
    }
    assert decide(campaign, inputs(**world), rules) == decide(campaign, inputs(**known), rules)

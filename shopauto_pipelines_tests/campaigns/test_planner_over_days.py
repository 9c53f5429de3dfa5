"""Campaigns planned one after the other, day after day, with what was sent becoming history: what holds over all of it."""

import os
from collections import Counter
from datetime import date, timedelta

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from shopauto_pipelines.campaigns.planner import Rules
from shopauto_pipelines_tests.campaigns.conftest import TODAY, declared, inputs

#: ``SHOPAUTO_FUZZ_EXAMPLES`` asks for more.
EXAMPLES = int(os.environ.get("SHOPAUTO_FUZZ_EXAMPLES", "2"))
DAYS = [TODAY + timedelta(days=n) for n in range(4)]
RULES = Rules(2, 3, 10.0, "en", b"k" * 32)

#: In the order in which they are planned: the higher priority first.
CAMPAIGNS = [
    declared(name="urgent", priority=9, holdout_percent=20, steps=declared().steps[:1]),
    declared(name="hello", exit_on=["unsubscribed"]),
]

_id = st.sampled_from("abcdef")
_triggers = st.lists(
    st.tuples(_id, st.integers(-4, 4).map(lambda n: TODAY + timedelta(days=n))), min_size=4, max_size=12, unique=True
)
_few = settings(max_examples=EXAMPLES, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])

Sent = tuple[str, str, str, str, str, date]


def _day(decide, triggers, history, day: date, shuffled=lambda rows: rows) -> dict[str, list[dict]]:
    """What each campaign decides on the day; those of higher priority are told to the others."""
    found: dict[str, list[dict]] = {}
    for campaign in CAMPAIGNS:
        planned = [(row["customer_id"],) for rows in found.values() for row in rows if row["decision"] == "planned"]
        given_rows = inputs(
            triggers=shuffled([(who, on.isoformat(), on) for who, on in triggers]),
            people=shuffled([(who, True, "en", None, None) for who in "abcdef"]),
            consent=shuffled([(who, "email", "opted_in") for who in "abcde"]),
            history=shuffled(history),
            planned=shuffled(planned),
        )
        found[campaign.name] = decide(campaign, given_rows, RULES, day)
    return found


def _sent(decided: dict[str, list[dict]], day: date) -> list[Sent]:
    """What is planned leaves the next day."""
    return [
        (row["customer_id"], "sent", name, row["step"], row["occasion"], day + timedelta(days=1))
        for name, rows in decided.items()
        for row in rows
        if row["decision"] == "planned"
    ]


@_few
@given(triggers=_triggers, random=st.randoms(use_true_random=False))
def test_day_by_day_with_restarts_and_all_days_at_once_plan_the_same_and_never_over_a_cap(decide, triggers, random):
    def shuffled(rows: list) -> list:
        return random.sample(rows, len(rows))

    history: list[Sent] = []
    day_by_day = {}
    for day in DAYS:
        day_by_day[day] = _day(decide, triggers, history, day)
        history += _sent(day_by_day[day], day)
    some_day = random.choice(DAYS)
    again = {day: _day(decide, triggers, history, day, shuffled) for day in (some_day, DAYS[-1])}
    assert again == {day: day_by_day[day] for day in again}, "what was sent since makes no past day another"

    received = Counter((who, on) for who, *_, on in history)
    assert all(count <= RULES.cap_day_messages for count in received.values())
    for who in "abcdef":
        for day in DAYS:
            window = sum(received[who, day + timedelta(days=n)] for n in range(RULES.cap_days))
            assert window <= RULES.cap_messages
    keys = Counter(entry[:5] for entry in history)
    assert all(count == 1 for count in keys.values()), "nothing is sent twice"
    assert not {who for who, *_ in history} & {"f"}, "who has not agreed gets nothing"


@_few
@given(triggers=_triggers, lost=st.sets(_id, max_size=2))
def test_what_was_planned_and_did_not_leave_is_planned_again_while_it_is_valid(decide, triggers, lost):
    first = _day(decide, triggers, [], DAYS[0])
    left = [entry for entry in _sent(first, DAYS[0]) if entry[0] not in lost]
    second = _day(decide, triggers, left, DAYS[1])
    for campaign in CAMPAIGNS:
        now = {(row["step"], row["customer_id"], row["occasion"]) for row in second[campaign.name]}
        for row in first[campaign.name]:
            key = (row["step"], row["customer_id"], row["occasion"])
            valid = row["due_on"] + timedelta(days=campaign.valid_days) > DAYS[1]
            sent = row["decision"] == "planned" and row["customer_id"] not in lost
            assert (key in now) == (valid and not sent)

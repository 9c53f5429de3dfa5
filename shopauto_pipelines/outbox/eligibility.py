"""Whether a planned message may still leave: what a reservation asks the database about each, as one part of its statement.

People change between plan and send. Here is every rule that holds at the last moment; the planner's own rules (holdout,
audience, trigger) are the campaigns room's.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import date, timedelta
from typing import Any

import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import ARRAY, distinct_on

from shopauto_pipelines.outbox.consents import said_to_the_shop
from shopauto_pipelines.outbox.hours import day_is_over
from shopauto_pipelines.outbox.schema import ALL_TOPICS, consents, exits, messages, suppressions

#: States that count against the frequency cap: what has left, may have left, or is about to.
_COUNTED = ("reserved", "sent", "unknown")

#: What a person told the shop in so many days before a message's day counts here: the planner may not have known it yet.
_TOLD_DAYS = 7

#: What :func:`verdict` needs to know of a message.
FACTS = (
    *("id", "campaign", "step", "customer_id", "occasion", "other_ids"),
    *("channel", "address_hash", "topic", "exit_on", "triggered_at", "planned_at"),
    *("send_from", "time_zone"),
)


@dataclass(frozen=True)
class Cap:
    """At most ``messages`` to a person in ``days`` days, over all campaigns, the day of the send included.

    ``None``: any number, as of transactional messages, also to who asked for less; of others they get one in
    ``less_often_days``. Of the campaigns ``sharing`` the day, those that are planned together, a person gets at most ``a_day``
    messages of one day (``None``: any number). The planner has seen to it; but where a day is computed again it knows nothing
    of what has left for it already.
    """

    messages: int | None
    days: int
    less_often_days: int = 30
    a_day: int | None = None
    sharing: tuple[str, ...] = ()

    def on(self, as_of: date) -> dict[str, Any]:
        """The parameters of :func:`verdict` for messages of a day: what was sent after which day counts."""
        return {
            "cap": self.messages,
            "cap_after": as_of - timedelta(days=self.days),
            "less_often_after": as_of - timedelta(days=self.less_often_days),
            "told_after": as_of - timedelta(days=_TOLD_DAYS),
            "cap_day": self.a_day,
            "shared_day": as_of,
            "sharing": list(self.sharing),
        }


def verdict(chosen: sa.CTE) -> sa.CTE:
    """``id`` and ``blocked`` of the chosen messages (columns ``FACTS``): why it must not leave, null where it may.

    The reasons, the first that holds: ``no_address``; ``suppressed_…`` with the reason of the suppression; ``opted_out``
    of all topics or of this one, or, where a ``cap`` holds, told to the shop; ``already_sent`` under another id of the person, or
    ``once`` for all on another occasion; ``no_hour``, its day is over; an event that takes it back, as ``ordered``; ``cap``;
    ``day_cap``; ``less_often``. Of several messages to a person the earlier ones leave, as many as the cap allows. The statement
    takes the parameters of :meth:`Cap.on` and of :func:`~.hours.parameters`, and ``once``.

    A person is all their shop ids: whom a message was sent to may have another id by now, where accounts were joined.

    What is known of the people of a batch is read for all at once, and put together by sorting: the planner takes a batch
    for ten rows, and would join two by comparing each with each.
    """
    checked = _checked(chosen)
    after, earlier = sa.bindparam("cap_after", type_=sa.Date), messages.alias("earlier")
    counted = earlier.c.state.in_(_COUNTED)
    other_ids = sa.func.unnest(checked.c.other_ids).label("other_id")
    known_as = sa.select(other_ids, checked.c.customer_id).distinct().cte("known_as")
    ids = sa.union_all(sa.select(checked.c.customer_id), sa.select(known_as.c.other_id))
    people = sa.func.array(ids.scalar_subquery(), type_=ARRAY(sa.Text))
    today = sa.select(known_as.c.customer_id).where(known_as.c.other_id == earlier.c.customer_id).limit(1)
    person = sa.func.coalesce(today.scalar_subquery(), earlier.c.customer_id)
    of_the_day = (earlier.c.as_of == sa.bindparam("shared_day", type_=sa.Date)) & (
        earlier.c.campaign == sa.any_(sa.bindparam("sharing", type_=ARRAY(sa.Text)))
    )
    had = sa.select(sa.null(), person, sa.null(), sa.null(), sa.false(), of_the_day).where(
        # those of later days too: days may be sent in any order
        earlier.c.customer_id == sa.any_(people),
        earlier.c.as_of > after,
        counted,
    )
    both = sa.union_all(sa.select(checked, sa.true().label("of_the_day")), had).cte("both")

    def nth(*counted: sa.ColumnElement[bool]) -> sa.ColumnElement[int]:
        each = sa.func.count().filter(both.c.blocked.is_(None), *counted)
        return each.over(partition_by=both.c.customer_id, order_by=both.c.id.nulls_first())

    cap = sa.bindparam("cap", type_=sa.Integer)
    in_turn = sa.select(both, nth().label("nth"), nth(both.c.of_the_day).label("nth_of_day")).cte("in_turn")
    had_lately = sa.exists().where(
        earlier.c.customer_id == sa.any_(_ids(in_turn)),
        earlier.c.as_of > sa.bindparam("less_often_after", type_=sa.Date),
        counted,
    )
    return (
        sa.select(
            in_turn.c.id,
            sa.case(
                (in_turn.c.blocked.is_not(None), in_turn.c.blocked),
                (in_turn.c.nth > cap, "cap"),
                (in_turn.c.nth_of_day > sa.bindparam("cap_day", type_=sa.Integer), "day_cap"),
                (cap.is_not(None) & in_turn.c.wants_less & ((in_turn.c.nth > 1) | had_lately), "less_often"),
            ).label("blocked"),
        )
        .where(in_turn.c.id.is_not(None))
        .cte("verdict")
        .prefix_with("materialized")  # it is used several times below
    )


def _checked(chosen: sa.CTE) -> sa.CTE:
    """``id``, ``customer_id``, ``other_ids``, ``blocked`` by all but the caps, and whether the person ``wants_less``."""
    same = [
        (of.c.address_hash == chosen.c.address_hash) & (of.c.channel == chosen.c.channel)
        for of in (suppressions, consents)
    ]
    topics = consents.c.topic.in_((ALL_TOPICS, chosen.c.topic))
    another = messages.alias("another")
    already_sent = sa.exists().where(
        another.c.customer_id == sa.any_(_ids(chosen)),
        *(another.c[name] == chosen.c[name] for name in ("campaign", "step")),
        (another.c.occasion == chosen.c.occasion) | sa.bindparam("once", type_=sa.Boolean),
        another.c.state.in_(_COUNTED),
    )
    taken_back = sa.select(sa.func.min(exits.c.event)).where(
        exits.c.customer_id == sa.any_(_ids(chosen)),
        exits.c.event == sa.any_(chosen.c.exit_on),
        exits.c.occasion.in_(("", chosen.c.occasion)),
        exits.c.at >= sa.func.coalesce(chosen.c.triggered_at, chosen.c.planned_at),
    )
    yes, no = (sa.literal(said_to_the_shop(state, "")) + chosen.c.channel for state in ("opted_in", "opted_out"))
    last_told = (
        sa.select(exits.c.event)
        .where(
            exits.c.customer_id == sa.any_(_ids(chosen)),
            exits.c.event.in_((yes, no)),
            exits.c.at > sa.bindparam("told_after", type_=sa.Date),
        )
        .order_by(exits.c.at.desc(), exits.c.event.desc())
        .limit(1)
    )
    told_no = sa.bindparam("cap", type_=sa.Integer).is_not(None) & (last_told.scalar_subquery() == no)
    # a row for what the person said last of each of the two topics, or one without a choice
    said = (
        sa.select(
            chosen.c.id,
            chosen.c.customer_id,
            chosen.c.other_ids,
            chosen.c.address_hash.is_(None).label("nowhere"),
            suppressions.c.reason.label("suppressed"),
            told_no.label("told_no"),
            already_sent.label("already_sent"),
            day_is_over(chosen).label("too_late"),
            taken_back.scalar_subquery().label("taken_back"),
            consents.c.choice,
        )
        .select_from(chosen.outerjoin(suppressions, same[0]).outerjoin(consents, same[1] & topics))
        .ext(distinct_on(chosen.c.id, consents.c.topic))
        .order_by(chosen.c.id, consents.c.topic, consents.c.at.desc(), consents.c.id.desc())
        .cte("said")
    )
    person = (said.c.id, said.c.customer_id, said.c.other_ids)
    opted_out, wants_less = (
        sa.func.coalesce(sa.func.bool_or(said.c.choice == choice), False) for choice in ("opted_out", "less_often")
    )
    blocked = sa.case(
        (said.c.nowhere, "no_address"),
        (said.c.suppressed.is_not(None), sa.literal("suppressed_") + said.c.suppressed),
        (opted_out | said.c.told_no, "opted_out"),
        (said.c.already_sent, "already_sent"),
        (said.c.too_late, "no_hour"),
        else_=said.c.taken_back,
    )
    facts = (said.c[name] for name in ("nowhere", "suppressed", "told_no", "already_sent", "too_late", "taken_back"))
    return (
        sa.select(*person, blocked.label("blocked"), wants_less.label("wants_less"))
        .group_by(*person, *facts)
        .cte("checked")
    )


def _ids(rows: sa.CTE) -> sa.ColumnElement[list[str]]:
    """All shop ids of a row's person."""
    return sa.func.array_append(rows.c.other_ids, rows.c.customer_id)

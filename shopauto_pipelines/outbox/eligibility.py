"""Whether a planned message may still leave: what a reservation asks the database about each, as one part of its statement.

People change between plan and send. Here is every rule that holds at the last moment; the planner's own rules (holdout,
audience, trigger) are the campaigns room's.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import date, timedelta

import sqlalchemy as sa

from shopauto_pipelines.outbox.schema import ALL_TOPICS, consents, exits, messages, suppressions

#: States that count against the frequency cap: what has left, may have left, or is about to.
_COUNTED = ("reserved", "sent", "unknown")

#: What :func:`verdict` needs to know of a message.
FACTS = ("id", "customer_id", "channel", "address_hash", "topic", "exit_on", "triggered_at", "planned_at")


@dataclass(frozen=True)
class Cap:
    """At most ``messages`` to a person in ``days`` days, over all campaigns, the day of the send included.

    Who asked for less gets one in ``less_often_days``.
    """

    messages: int
    days: int
    less_often_days: int = 30


def verdict(chosen: sa.CTE, as_of: date, cap: Cap) -> sa.CTE:
    """``id`` and ``blocked`` of the chosen messages (columns ``FACTS``): why it must not leave, null where it may.

    The reasons, the first that holds: ``no_address``; ``suppressed_…`` with the reason of the suppression; ``opted_out``
    of all topics or of this one; an event that takes it back, as ``ordered``; ``cap``; ``less_often``. Of several
    messages to a person the earlier ones leave, as many as the cap allows.
    """
    at_address = [consents.c.address_hash == chosen.c.address_hash, consents.c.channel == chosen.c.channel]

    def choice(topic: sa.ColumnElement[str] | str) -> sa.ScalarSelect[str]:
        newest_first = consents.c.topic.desc(), consents.c.at.desc(), consents.c.id.desc()
        found = sa.select(consents.c.choice).where(*at_address, consents.c.topic == topic)
        return found.order_by(*newest_first).limit(1).scalar_subquery()

    suppressed = sa.select(suppressions.c.reason).where(
        suppressions.c.address_hash == chosen.c.address_hash, suppressions.c.channel == chosen.c.channel
    )
    taken_back = (
        sa.select(exits.c.event)
        .where(
            exits.c.customer_id == chosen.c.customer_id,
            exits.c.event == sa.any_(chosen.c.exit_on),
            exits.c.at > sa.func.coalesce(chosen.c.triggered_at, chosen.c.planned_at),
        )
        .order_by(exits.c.event)
        .limit(1)
    )
    facts = (
        sa.select(
            chosen.c.id,
            chosen.c.customer_id,
            chosen.c.address_hash,
            suppressed.scalar_subquery().label("suppressed"),
            taken_back.scalar_subquery().label("taken_back"),
            choice(ALL_TOPICS).label("of_all"),
            choice(chosen.c.topic).label("of_topic"),
        )
        .cte("facts")
        .prefix_with("materialized")  # each fact is looked up once, however often it is used below
    )
    checked = sa.select(
        facts.c.id,
        facts.c.customer_id,
        sa.case(
            (facts.c.address_hash.is_(None), "no_address"),
            (facts.c.suppressed.is_not(None), sa.literal("suppressed_") + facts.c.suppressed),
            (sa.or_(facts.c.of_all == "opted_out", facts.c.of_topic == "opted_out"), "opted_out"),
            else_=facts.c.taken_back,
        ).label("blocked"),
        sa.func.coalesce(sa.or_(facts.c.of_all == "less_often", facts.c.of_topic == "less_often"), False).label(
            "wants_less"
        ),
    ).cte("checked")
    earlier = messages.alias("earlier")

    def had(days: int) -> sa.ScalarSelect[int]:
        """Counted messages to the person. Those of later days too: days may be sent in any order."""
        return (
            sa.select(sa.func.count())
            .where(
                earlier.c.customer_id == checked.c.customer_id,
                earlier.c.as_of > as_of - timedelta(days=days),
                earlier.c.state.in_(_COUNTED),
            )
            .scalar_subquery()
        )

    turn = sa.func.row_number().over(
        partition_by=[checked.c.customer_id, checked.c.blocked.is_(None)], order_by=checked.c.id
    )
    return sa.select(
        checked.c.id,
        sa.case(
            (checked.c.blocked.is_not(None), checked.c.blocked),
            (had(cap.days) + turn > cap.messages, "cap"),
            (checked.c.wants_less & (had(cap.less_often_days) + turn > 1), "less_often"),
            else_=None,
        ).label("blocked"),
    ).cte("verdict")

"""Consent in force per person and channel: the table ``profiles/consent``.

A change comes from the shop (``raw/consents``) or from a message (an unsubscribe or a spam report). The latest change of
any of the person's shop ids wins; of changes at one instant the one that allows least. Permission is given for an address: what a
shop id with another one allows counts only where nothing was said for the address in force, and takes no withdrawal back.
``pending`` is a double opt-in that was never confirmed: no permission. No row at all means the person was never asked: no
permission either. Topics that a person does not want (``raw/topic_choices``) stand beside it; again the latest choice of any of
the shop ids counts.
"""

from __future__ import annotations

import ibis
import ibis.expr.types as ir
from ibis import _

#: States from the most to the least that they allow.
STATES = ("opted_in", "pending", "opted_out")

#: Message events that withdraw consent for their channel.
WITHDRAWALS = ("unsubscribe", "spam_report")


#: The field of ``profiles/claims`` that is the address on a channel.
_ADDRESS = {"email": "email", "phone": "sms"}

#: Between the topics of ``refused_topics``.
TOPICS_APART = ","


def consent(
    consents: ir.Table,
    message_events: ir.Table,
    topic_choices: ir.Table,
    claims: ir.Table,
    attributes: ir.Table,
    identities: ir.Table,
) -> ir.Table:
    """The consent of every person with a change in ``consents`` or ``message_events`` (raw tables, and claims, up to the day).

    Columns of ``profiles/consent``. Shop ids are joined as ``identities`` says; one that is not in it is a person of its own.
    A state that is none of ``STATES`` never reads as permission: it counts as ``opted_out``. An unsubscribe that names no
    channel is one from e-mail.
    """
    asked = consents.select(
        "shop_customer_id",
        "channel",
        at="changed_at",
        rank=ibis.cases(*((_.state == state, rank) for rank, state in enumerate(STATES)), else_=len(STATES) - 1),
        source="source",
        wording="wording",
    )
    withdrawn = message_events.filter(_.type.isin(WITHDRAWALS), _.shop_customer_id.notnull()).select(
        "shop_customer_id",
        channel=_.channel.fill_null("email"),
        at="happened_at",
        rank=ibis.literal(len(STATES) - 1, "int8"),
        source="type",
        wording=ibis.null("string"),
    )
    changes = ibis.union(asked, withdrawn).left_join(identities, "shop_customer_id").drop("shop_customer_id_right")
    changes = changes.left_join(_elsewhere(claims, attributes, identities), ["shop_customer_id", "channel"])
    latest = (
        changes.select(
            "channel",
            customer_id=_.customer_id.fill_null(_.shop_customer_id),
            change=ibis.struct(
                {
                    "counts": (_.elsewhere.isnull() | (_["rank"] == len(STATES) - 1)).cast("int8"),
                    "at": _.at,
                    "rank": _["rank"],
                    "source": _.source,
                    "wording": _.wording.fill_null(""),
                }
            ),
        )
        .group_by("customer_id", "channel")
        .agg(change=_.change.max())
    )
    refused = _refused(topic_choices, identities)
    latest = latest.left_join(refused, ["customer_id", "channel"])
    return latest.select(
        "customer_id",
        "channel",
        "refused_topics",
        state=ibis.cases(*((_.change["rank"] == rank, state) for rank, state in enumerate(STATES))),
        source=_.change["source"],
        wording=_.change["wording"].nullif(""),
        at=_.change["at"],
    )


def _elsewhere(claims: ir.Table, attributes: ir.Table, identities: ir.Table) -> ir.Table:
    """Shop ids whose own address on a channel is not that in force: ``shop_customer_id``, ``channel``, ``elsewhere`` (true)."""
    several = identities.group_by("customer_id").agg(ids=_.count()).filter(_.ids > 1)
    joined = identities.semi_join(several, "customer_id").select("shop_customer_id", "customer_id")
    told = claims.filter(_.field.isin([*_ADDRESS]), _.value.notnull()).inner_join(joined, "shop_customer_id")
    theirs = told.group_by("shop_customer_id", "customer_id", "field").agg(
        claim=ibis.struct({"at": _.at, "source": _.source, "value": _.value}).max()
    )
    in_force = attributes.select("customer_id", "field", in_force="value")
    other = theirs.inner_join(in_force, ["customer_id", "field"]).filter(_.claim["value"] != _.in_force)
    channel = ibis.cases(*((_.field == field, channel) for field, channel in _ADDRESS.items()))
    return other.select("shop_customer_id", channel=channel, elsewhere=ibis.literal(True))


def _refused(topic_choices: ir.Table, identities: ir.Table) -> ir.Table:
    """``customer_id``, ``channel``, ``refused_topics`` of people who do not want some."""
    said = topic_choices.left_join(identities, "shop_customer_id").select(
        "channel",
        "topic",
        customer_id=_.customer_id.fill_null(_.shop_customer_id),
        change=ibis.struct({"at": _.changed_at, "refused": (_.state == STATES[-1]).cast("int8")}),
    )
    latest = said.group_by("customer_id", "channel", "topic").agg(change=_.change.max())
    refused = latest.filter(_.change["refused"] == 1).group_by("customer_id", "channel")
    return refused.agg(topics=_.topic.collect()).select(
        "customer_id", "channel", refused_topics=_.topics.sort().join(TOPICS_APART)
    )

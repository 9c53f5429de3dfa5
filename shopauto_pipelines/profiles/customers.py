"""The value in force of every field, and the one row per person made of them."""

from __future__ import annotations

import ibis
import ibis.expr.types as ir
from ibis import _

from shopauto_pipelines.profiles.claims import FROM_COUNTRY

#: Fields of a person, in the order of ``profiles/customers``; those that are stored as dates.
FIELDS = (
    "email",
    "phone",
    "first_name",
    "last_name",
    "gender",
    "birthday",
    "country",
    "city",
    "language",
    "time_zone",
    "created_on",
)
_DATES = ("birthday", "created_on")


def attributes(claims: ir.Table, identities: ir.Table) -> ir.Table:
    """The value in force of each person and field, from usable ``claims`` up to the day. Columns of ``profiles/attributes``.

    Declared beats inferred, inferred from the country beats inferred from the phone; then the latest wins, then source and
    value in alphabetical order, the last one. An empty or unusable newer value does not displace an older usable one.
    Only ``created_on`` is the earliest: the day of the person's first account.
    """
    trust = ibis.cases((_.kind == "declared", 2), (_.source == FROM_COUNTRY, 1), else_=0)
    moment = ibis.ifelse(_.field == "created_on", -_.value.try_cast("date").epoch_seconds(), _.at.epoch_seconds())
    mine = claims.filter(_.value.notnull()).left_join(identities, "shop_customer_id")
    best = (
        mine.select(
            "field",
            customer_id=_.customer_id.fill_null(_.shop_customer_id),
            claim=ibis.struct({"trust": trust, "moment": moment, "at": _.at, "source": _.source, "value": _.value}),
        )
        .group_by("customer_id", "field")
        .agg(claim=_.claim.max())
    )
    return best.select(
        "customer_id",
        "field",
        value=_.claim["value"],
        kind=ibis.ifelse(_.claim["trust"] == 2, "declared", "inferred"),
        source=_.claim["source"],
        at=_.claim["at"],
    )


def customers(attributes: ir.Table, identities: ir.Table, consent: ir.Table) -> ir.Table:
    """One row for each person in ``identities``, with the values and consent in force. Columns of ``profiles/customers``."""
    people = identities.group_by("customer_id").agg(shop_ids=_.count())
    values = attributes.group_by("customer_id").agg(
        **{field: _.value.max(where=_.field == field).cast("date" if field in _DATES else "string") for field in FIELDS}
    )
    states = consent.group_by("customer_id").agg(
        email_consent=_.state.max(where=_.channel == "email"), sms_consent=_.state.max(where=_.channel == "sms")
    )
    rows = people.left_join(values, "customer_id").drop("customer_id_right").left_join(states, "customer_id")
    return rows.select("customer_id", *FIELDS, "shop_ids", "email_consent", "sms_consent")

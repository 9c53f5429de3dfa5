"""At which hour people react: a rollup of the days' hours, and from it the best hour of each person as of a day.

The rollup keeps quarters of an hour in UTC, so that the hour of any time zone can be told from it, also of those that are half
an hour or three quarters apart, and a person who moves takes the past along.
"""

from __future__ import annotations

from datetime import date, timedelta

import ibis
import ibis.expr.types as ir
from ibis import _

from shopauto_pipelines.platform.time_zones import local

#: How far back the best hour looks.
DAYS = 365

#: A person's own signs are weighed against so many of the shop's average customer: few of them prove nothing.
PRIOR = 5


def first_day(as_of: date) -> date:
    """The oldest day that counts towards the best hour as of the day."""
    return as_of - timedelta(days=DAYS - 1)


def daily_hours(orders: ir.Table, events: ir.Table, message_events: ir.Table) -> ir.Table:
    """``features/daily_hours`` from the raw tables of the same days.

    A sign is an order, the beginning of a visit on the day, or a person's opening or clicking in a message; machines' do not
    count. All events of a customer without a session are one visit.
    """
    visits = (
        events.filter(~_.type.isin(["ticket_opened", "ticket_closed"]))
        .group_by("day", "shop_customer_id", "session_id")
        .aggregate(at=_.happened_at.min())
    )
    reactions = message_events.filter(_.type.isin(["open", "click"]) & ~_.is_machine.fill_null(False))
    signs = ibis.union(
        *(
            rows.select("day", "shop_customer_id", at=at.cast("timestamp(6)"))
            for rows, at in ((visits, _.at), (orders, _.ordered_at), (reactions, _.happened_at))
        )
    )
    return (
        signs.filter(_.shop_customer_id.notnull() & _.at.notnull())
        .group_by("day", "shop_customer_id", at=_.at.bucket(minutes=15).cast("timestamp(6)"))
        .aggregate(signs=_.count())
    )


def best_hours(hours: ir.Table, identities: ir.Table, customers: ir.Table, zone: str) -> ir.Table:
    """``customer_id`` and ``best_hour`` of everybody in ``customers``: 0 to 23, by the clock of their time zone, else ``zone``.

    It is the hour with the most signs in ``hours`` (``features/daily_hours`` of the days that count), of which :data:`PRIOR` are
    spread like those of all people, ties: the earliest; so it is the shop's for people who have shown few or none. Null where
    nobody has shown any.
    """
    zones = customers.select("customer_id", zone=_.time_zone.fill_null(zone))
    persons = identities.select("shop_customer_id", "customer_id").inner_join(zones, "customer_id")
    own = (
        hours.inner_join(persons, "shop_customer_id")
        .group_by("customer_id", hour=local(_.at, _.zone).hour().cast("int64"))
        .aggregate(signs=_.signs.sum())
    )
    usual = own.group_by("hour").aggregate(usual=_.signs.sum())
    total = usual.usual.sum().as_scalar()
    first = ibis.struct({"weight": usual.usual, "earliness": -usual.hour}).max().as_scalar()
    weighed = own.left_join(usual, "hour").select(
        "customer_id",
        place=ibis.struct({"weight": _.signs * total + PRIOR * _.usual, "earliness": -_.hour}),
    )
    found = weighed.group_by("customer_id").aggregate(best=_.place.max())
    weight = PRIOR * first["weight"]
    its_own = (_.best["weight"] > weight) | ((_.best["weight"] == weight) & (_.best["earliness"] >= first["earliness"]))
    return (
        customers.select("customer_id")
        .left_join(found, "customer_id")
        .select(
            "customer_id", best_hour=-ibis.ifelse(its_own.fill_null(False), _.best["earliness"], first["earliness"])
        )
    )

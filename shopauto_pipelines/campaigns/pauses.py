"""Carts that were left: every pause of every cart as known at a moment. Whether a step follows is the planner's business."""

from __future__ import annotations

from datetime import datetime, timedelta

import ibis
import ibis.expr.types as ir
from ibis import _

from shopauto_pipelines.platform.time_zones import local

_MICROSECOND = "microsecond"

#: So many days of history are asked, and kept in the database of the collector: of rows that are landed, of carts that rest.
KEPT_DAYS = 60


def pauses(
    events: ir.Table,
    orders: ir.Table,
    identities: ir.Table,
    *,
    until: datetime | ir.TimestampValue,
    longest: timedelta,
    zone: str,
) -> ir.Table:
    """Every pause of a cart as known at ``until`` (UTC, naive): columns of the planner's triggers, ``occasion`` is the cart.

    A pause begins with anything that happens to a cart and ends with the next thing or with the order that takes it; after
    that there are none. The cart is theirs whose id its latest event names, otherwise whoever logged in last with its
    browser; carts of nobody known are left out. ``events`` and ``orders`` are rows of the raw tables; pauses that began
    more than ``longest`` before ``until`` are left out. ``triggered_on`` is a day of the time ``zone``.
    """
    end = ibis.literal(until) if isinstance(until, datetime) else until
    known = events.filter(_.happened_at <= end)
    ordered = orders.filter(_.ordered_at <= end)
    pieces = _.quantity.fill_null(1)
    touched = known.filter(_.cart_id.notnull()).select(
        "cart_id",
        at=_.happened_at.cast("timestamp(6)"),
        taken=ibis.literal(False),
        pieces=ibis.cases((_.type == "add_to_cart", pieces), (_.type == "remove_from_cart", -pieces), else_=0),
    )
    taken = ordered.filter(_.cart_id.notnull()).select(
        "cart_id",
        at=_.ordered_at.cast("timestamp(6)"),
        taken=ibis.literal(True),
        pieces=ibis.literal(0, "int64"),
    )
    oldest = end - ibis.interval(microseconds=longest // timedelta(microseconds=1))
    lately = touched.filter(_.at >= oldest).select("cart_id").distinct()  # the history of no other cart is needed
    cart = {"group_by": "cart_id", "order_by": ["at", "taken", "pieces"]}
    so_far, earlier = ibis.window(**cart, preceding=None, following=0), ibis.window(**cart, preceding=(None, 1))
    told = touched.union(taken).semi_join(lately, "cart_id")
    told = told.mutate(
        lasted=_.at.lead().over(ibis.window(**cart)).delta(_.at, unit=_MICROSECOND),
        over=_.taken.any().over(so_far),
        # at one moment what is taken out comes first: a cart is empty only where nothing was put in again
        emptied=(_.pieces.sum().over(so_far) <= 0) & (_.pieces < 0).any().over(so_far),
    )
    told = told.mutate(before=_.lasted.max().over(earlier).fill_null(0)).filter(~_.over)
    recent = told.filter(_.at >= oldest).inner_join(_owners(known, identities), "cart_id")
    mine = recent.select(
        "customer_id",
        "at",
        "lasted",
        "before",
        occasion=_.cart_id,
        emptied=ibis.ifelse(_.emptied, 0, ibis.null("int64")),
        changed=ibis.null("int64"),
    )
    since = _exits(known, ordered, identities)
    key = ["customer_id", "occasion", "at", "lasted", "before", "emptied", "changed"]
    joined = mine.left_join(since, [mine.customer_id == since.who, mine.at <= since.exit_at])
    ended = joined.group_by(*key).agg(
        **{
            kind: joined.exit_at.delta(joined.at, unit=_MICROSECOND).min(where=joined.kind == kind)
            for kind in ("ordered", "ticket_opened")
        }
    )
    return ended.select(
        "customer_id",
        "occasion",
        "lasted",
        "before",
        "ordered",
        "emptied",
        "ticket_opened",
        "changed",
        triggered_on=local(_.at, zone).date(),
        age=-_.at.delta(end, unit=_MICROSECOND),
        told_at=end.cast("timestamp(6)"),
    )


def _owners(events: ir.Table, identities: ir.Table) -> ir.Table:
    """Whose cart it is: ``cart_id``, ``customer_id``."""

    def newest(rows: ir.Table, key: str, value: str) -> ir.Table:
        told = rows.filter(_[key].notnull() & _[value].notnull())
        latest = ibis.struct({"at": _.happened_at, "value": _[value]}).max()
        return told.group_by(key).agg(latest=latest).select(key, **{value: _.latest["value"]})

    of_carts = events.filter(_.cart_id.notnull())
    logins = newest(events.filter(_.type == "login"), "anonymous_id", "shop_customer_id")
    browsers = newest(of_carts, "cart_id", "anonymous_id").inner_join(logins, "anonymous_id")
    named = newest(of_carts, "cart_id", "shop_customer_id")
    owned = named.union(browsers.anti_join(named, "cart_id").select("cart_id", "shop_customer_id"))
    return owned.left_join(identities, "shop_customer_id").select(
        "cart_id", customer_id=ibis.coalesce(_.customer_id, _.shop_customer_id)
    )


def _exits(events: ir.Table, orders: ir.Table, identities: ir.Table) -> ir.Table:
    """What people did that may end a journey: ``who``, ``exit_at``, ``kind``."""
    tickets = events.filter(_.type == "ticket_opened").select(
        "shop_customer_id", exit_at=_.happened_at.cast("timestamp(6)"), kind=ibis.literal("ticket_opened")
    )
    bought = orders.select("shop_customer_id", exit_at=_.ordered_at.cast("timestamp(6)"), kind=ibis.literal("ordered"))
    known = tickets.union(bought).filter(_.shop_customer_id.notnull()).left_join(identities, "shop_customer_id")
    return known.select("exit_at", "kind", who=ibis.coalesce(_.customer_id, _.shop_customer_id))

"""Daily rollups: what each shop customer, product and cart did on a day, from the raw change logs.

Every function takes raw tables with their ``day`` column, for one day or a range of days, and returns the rollup with a
``day`` column. A day's rows depend on that day's raw rows (and, for categories, on earlier product changes) alone, so a
range in one pass gives the same rows as its days one by one. Rows without a ``shop_customer_id`` are left out. Whatever
looks further back than a day belongs in ``customer_features``.
"""

from __future__ import annotations

from datetime import date

import ibis
import ibis.expr.types as ir
from ibis import _
from ibis.common.deferred import Deferred

from shopauto_pipelines.features import tables

_CART_EVENTS = ("add_to_cart", "remove_from_cart", "checkout_started")
_TICKETS = ("ticket_opened", "ticket_closed")
_BY_CUSTOMER = ("day", "shop_customer_id")
_NO_END = date(9999, 12, 31)


def daily_activity(
    orders: ir.Table, order_lines: ir.Table, refunds: ir.Table, events: ir.Table, message_events: ir.Table
) -> ir.Table:
    """``features/daily_activity`` from the raw tables of the same days.

    A visit is a session with an event on the day; all events of a customer without a session are one visit, whose
    length is not known and counts as zero. Who asks the support does not visit. Items are lines of kind ``product``. Opens
    and clicks by machines are not people's.
    """
    sessions = (
        _known(events)
        .filter(~_.type.isin(_TICKETS))
        .group_by(*_BY_CUSTOMER, "session_id")
        .aggregate(
            page_views=_.count(where=_.type.isin(["page_view", "product_view"])),
            product_views=_.count(where=_.type == "product_view"),
            searches=_.count(where=_.type == "search"),
            seconds=_.happened_at.max().delta(_.happened_at.min(), unit="second"),
        )
    )
    asked = _.happened_at.max(where=_.type == "ticket_opened")
    settled = _.happened_at.max(where=_.type == "ticket_closed")
    person = ~_.is_machine.fill_null(False)
    email, sms = _.channel == "email", _.channel == "sms"
    parts = (
        _summed(
            _known(orders),
            orders=_.count(),
            revenue_cents=_.total_cents.sum(),
            discount_cents=_.discount_cents.sum(),
            coupon_orders=_.coupon_code.count(),
        ),
        _summed(_known(order_lines).filter(_.kind == "product"), items=_.quantity.sum()),
        _summed(_known(refunds), refunds=_.count(), refund_cents=_.amount_cents.sum()),
        _summed(
            sessions,
            visits=_.count(),
            page_views=_.page_views.sum(),
            product_views=_.product_views.sum(),
            searches=_.searches.sum(),
            seconds_on_site=_.seconds.sum(where=_.session_id.notnull()),
        ),
        _summed(
            _known(message_events).filter(_.channel.isin(["email", "sms"])),
            emails_sent=_.count(where=email & (_.type == "sent")),
            opens=_.count(where=email & (_.type == "open") & person),
            machine_opens=_.count(where=email & (_.type == "open") & ~person),
            clicks=_.count(where=email & (_.type == "click") & person),
            sms_sent=_.count(where=sms & (_.type == "sent")),
            sms_clicks=_.count(where=sms & (_.type == "click") & person),
        ),
        _summed(
            _known(events).filter(_.type.isin(_TICKETS)),
            tickets_opened=_.count(where=_.type == "ticket_opened"),
            tickets_closed=_.count(where=_.type == "ticket_closed"),
            tickets_left_open=(asked.notnull() & (settled.isnull() | (asked > settled))).cast("int64"),
        ),
    )
    measures = [column.name for column in tables.DAILY_ACTIVITY.columns[1:]]
    return _side_by_side(parts, _BY_CUSTOMER, measures)


def daily_products(order_lines: ir.Table, events: ir.Table, products: ir.Table) -> ir.Table:
    """``features/daily_products`` from lines and events of the same days and the product log up to the last of them.

    The category is the one of the product's latest change up to the day; null where the product was not known yet.
    """
    keys = (*_BY_CUSTOMER, "product_id")
    bought = _known(order_lines).filter((_.kind == "product") & _.product_id.notnull())
    seen = _known(events).filter(_.type.isin(["product_view", "add_to_cart"]) & _.product_id.notnull())
    parts = (
        _summed(
            bought, keys, orders=_.order_id.nunique(), quantity=_.quantity.sum(), revenue_cents=_.amount_cents.sum()
        ),
        _summed(
            seen, keys, views=_.count(where=_.type == "product_view"), carted=_.count(where=_.type == "add_to_cart")
        ),
    )
    rows = _side_by_side(parts, keys, ["orders", "quantity", "revenue_cents", "views", "carted"])
    known = _categories(products)
    in_force = (rows.product_id == known.of_product) & (rows.day >= known.since) & (rows.day < known.until)
    return rows.left_join(known, in_force).select(rows, "category")


def daily_carts(events: ir.Table, orders: ir.Table) -> ir.Table:
    """``features/daily_carts`` from events and orders of the same days.

    Cart events are ``add_to_cart``, ``remove_from_cart`` and ``checkout_started`` with a cart id. Events of a visitor
    who was not known yet go to whoever ordered the cart on the day, otherwise to the first known id in the alphabet
    seen with it on the day; carts that nobody known touched on the day are left out. Pauses count up to the day's first
    order. Where two come back to a cart at the same time, the pause is that of the first known id in the alphabet.
    """
    direction = ibis.cases((_.type == "add_to_cart", 1), (_.type == "remove_from_cart", -1), else_=0)
    touched = events.filter(_.type.isin(_CART_EVENTS) & _.cart_id.notnull()).select(
        day=_.day,
        cart_id=_.cart_id.cast("string"),
        owner=_.shop_customer_id.cast("string"),
        event_at=_.happened_at.cast("timestamp(6)"),
        items=(direction * _.quantity.fill_null(1)).cast("int64"),
        ordered_at=ibis.null("timestamp(6)"),
        coupon=ibis.null("boolean"),
    )
    ordered = orders.filter(_.cart_id.notnull()).select(
        day=_.day,
        cart_id=_.cart_id.cast("string"),
        owner=_.shop_customer_id.cast("string"),
        event_at=ibis.null("timestamp(6)"),
        items=ibis.null("int64"),
        ordered_at=_.ordered_at.cast("timestamp(6)"),
        coupon=_.coupon_code.notnull().cast("boolean"),
    )
    cart = {"group_by": ["day", "cart_id"]}
    earlier = ibis.window(**cart, order_by=[_.at, _.ordered_at.notnull(), _.owner], preceding=(None, 1))
    steps = touched.union(ordered).mutate(at=ibis.coalesce(_.event_at, _.ordered_at))
    steps = steps.mutate(
        shop_customer_id=ibis.coalesce(
            _.owner, _.owner.min(where=_.ordered_at.notnull()).over(**cart), _.owner.min().over(**cart)
        ),
        pause=ibis.cases(
            (_.ordered_at.count().over(earlier) == 0, _.at.delta(_.event_at.max().over(earlier), unit="second"))
        ),
    )
    return (
        steps.filter(_.shop_customer_id.notnull())
        .group_by("day", "cart_id", "shop_customer_id")
        .aggregate(
            first_at=_.event_at.min(),
            last_at=_.event_at.max(),
            longest_pause_seconds=_.pause.max().fill_null(0),
            items_added=_.items.sum().fill_null(0),
            ordered_at=_.ordered_at.min(),
            coupon=_.coupon.any().fill_null(False),
        )
    )


def daily_messages(message_events: ir.Table) -> ir.Table:
    """``features/daily_messages`` from the raw log of the same days. Opens and clicks by machines are not people's."""
    person = ~_.is_machine.fill_null(False)
    return _summed(
        _known(message_events).filter(_.type.isin(["sent", "open", "click"])),
        (*_BY_CUSTOMER, "channel", "campaign"),
        sent=_.count(where=_.type == "sent"),
        opens=_.count(where=(_.type == "open") & person),
        clicks=_.count(where=(_.type == "click") & person),
    ).filter(_.sent + _.opens + _.clicks > 0)


def daily_forms(form_submissions: ir.Table) -> ir.Table:
    """``features/daily_forms`` from the raw log of the same days."""
    return _summed(_known(form_submissions), (*_BY_CUSTOMER, "form"), submissions=_.count())


def _known(rows: ir.Table) -> ir.Table:
    return rows.filter(_.shop_customer_id.notnull())


def _summed(rows: ir.Table, keys: tuple[str, ...] = _BY_CUSTOMER, **measures: Deferred) -> ir.Table:
    return rows.group_by(*keys).aggregate(**measures)


def _side_by_side(parts: tuple[ir.Table, ...], keys: tuple[str, ...], measures: list[str]) -> ir.Table:
    """The parts' measures in one row per key, zero where a part has nothing to say.

    Joined, not stacked and summed: DuckDB would keep a state for each measure of each key while it sums, and take half as long
    again.
    """
    keyed = [
        part.mutate(*(part[key].cast("date" if key == "day" else "string").name(key) for key in keys)) for part in parts
    ]
    rows = ibis.union(*(part.select(*keys) for part in keyed), distinct=True)
    for number, part in enumerate(keyed):
        rows = rows.left_join(part, list(keys), rname=f"{{name}}_{number}")
    return rows.select(*keys, **{name: rows[name].fill_null(0).cast("int64") for name in measures})


def _categories(products: ir.Table) -> ir.Table:
    """Each product's category with the days it was in force: from ``since`` to before ``until``, which is never null.

    With an ``or`` in the condition engines do not join by the product's id, but compare every row with every product.
    """
    latest = [ibis.desc(name) for name in ("changed_at", "source", "source_file", "source_row")]
    last_of_day = products.filter(ibis.row_number().over(group_by=["product_id", "day"], order_by=latest) == 0)
    return last_of_day.select(
        "category",
        of_product=_.product_id,
        since=_.day,
        until=_.day.lead().over(group_by="product_id", order_by="day").fill_null(_NO_END),
    )

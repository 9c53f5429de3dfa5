"""Features of each person as of a day, from the daily rollups. The rollups are made in ``rollups``.

Definitions that hold throughout:

- The last *n* days are the *n* days that end with the as-of day, that day included.
- A purchase is an *order day*: several orders on one day are one purchase, so an interval is at least one day.
- Sums are of whole numbers (pieces, cents, seconds, weights in millionths); only ratios are floats, rounded to six
  digits. The same input therefore gives the same bytes with any number of threads.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, date, datetime, time, timedelta, tzinfo

import ibis
import ibis.expr.types as ir
from ibis import _
from ibis.common.deferred import Deferred

from shopauto_pipelines.features import tables

#: Days after which a purchase counts half towards the favourites.
HALF_LIFE_DAYS = 180

#: Repeat buyers a first-order month needs to have a median of its own; with fewer, all repeat buyers' median is taken.
MINIMUM_COHORT = 10

#: Abandoned carts bought with a coupon that make a discount seeker, where half of a year's orders used one too.
SEEKER_CARTS = 2

#: Days after which a ticket that nobody closed does not count as open any more.
TICKET_DAYS = 14

#: Weights and logarithms are summed in whole millionths: a purchase loses its last one after about ten years.
_MILLIONTHS = 1_000_000

#: Half-lives of the weighted order days.
_RHYTHMS = (30, 120, 240)

#: Columns that are sums over the last so many days; the column's name ends in the days.
_WINDOWS = {
    "revenue_cents": (30, 90, 365),
    "items": (365,),
    "coupon_orders": (365,),
    "visits": (30, 90, 365),
    "page_views": (90,),
    "product_views": (30, 90),
    "seconds_on_site": (90,),
    "emails_sent": (90,),
    "opens": (90,),
    "machine_opens": (90,),
    "clicks": (90,),
    "sms_sent": (90,),
    "sms_clicks": (90,),
}


#: What is read of the rollup of carts.
_CART_COLUMNS = ("cart_id", "first_at", "last_at", "longest_pause_seconds", "ordered_at", "coupon")


def as_it_is(_name: str, part: ir.Table) -> ir.Table:
    """The part, which is computed with the others in one statement."""
    return part


def customer_features(
    activity: ir.Table,
    products: ir.Table,
    carts: ir.Table,
    identities: ir.Table,
    as_of: date,
    day_end: datetime,
    cart_abandoned_minutes: int = 60,
    keep: Callable[[str, ir.Table], ir.Table] = as_it_is,
) -> ir.Table:
    """One row per person, with the columns of ``features/customer_features``.

    ``activity``, ``products`` and ``carts`` are the rollups ``features/daily_*`` with their ``day`` column; rows after
    ``as_of`` are left out, so the same tables serve several cut-offs. ``identities`` has ``shop_customer_id`` and
    ``customer_id``; a shop id that is missing there is a person of its own. Everybody in ``identities`` and in
    ``activity`` (where everybody of the other rollups is too) gets a row: zeros and nulls where nothing happened.
    ``day_end`` is the end of the ``as_of`` day in UTC, naive: a cart without an order is abandoned where its last event
    is ``cart_abandoned_minutes`` or more before it.

    The mean interval of a person is (last - first order day) / (order days - 1). People with one order day take the
    median of the repeat buyers who first ordered in the same month, or of all repeat buyers where the month has fewer
    than ``MINIMUM_COHORT``; without any repeat buyer they have none.

    ``keep`` gets each part that is joined, with a name for it, and gives a table with its rows.
    """
    persons = identities.select(shop_customer_id=_.shop_customer_id.cast("string"), person=_.customer_id.cast("string"))

    def read(rollup: ir.Table, *columns: str, days: int | None = None) -> ir.Table:
        """Columns of the rollup by person: of all days, or of the last so many."""
        rows = rollup.select("shop_customer_id", "day", *columns).filter(_.day <= as_of)
        return _of_person(rows if days is None else rows.filter(_within(days, as_of)), persons)

    ever, (year, quarter) = _sums(read, activity, as_of)
    parts = {
        "ever": ever,
        "year": year,
        "quarter": quarter,
        "rhythm": _rhythm(read(activity, "orders", "revenue_cents"), as_of),
        "category": _favourite_category(read(products, "orders", "category", "revenue_cents"), as_of),
        "product": _favourite_product(read(products, "orders", "product_id", "quantity"), as_of),
        "carts": _cart_behaviour(read(carts, *_CART_COLUMNS), as_of, day_end, cart_abandoned_minutes),
    }
    parts = {name: keep(f"features_{name}", part) for name, part in parts.items()}
    repeat = parts["rhythm"].filter(_.orders > 1)
    rows = persons.select(customer_id=_.person).union(parts["ever"].select("customer_id"), distinct=True)
    for number, part in enumerate(parts.values()):
        rows = rows.left_join(part, "customer_id", rname=f"{{name}}_{number}")
    rows = rows.left_join(_usual_intervals(repeat), "cohort", rname="{name}_of_all")
    interval = ibis.coalesce(rows.own_interval, rows.usual_interval, repeat.own_interval.median().round(6).as_scalar())
    interval = (rows.orders > 0).ifelse(interval, ibis.null("float64"))
    recency = _days_before(as_of, rows.last_order_on)
    ratios = {
        "recency_days": recency,
        "tenure_days": _days_before(as_of, rows.first_order_on),
        "average_order_cents": _whole(rows.revenue_cents / rows.orders.nullif(0)),
        "mean_interval_days": interval,
        "interval_imputed": interval.notnull().ifelse(rows.orders == 1, ibis.null("boolean")),
        "churn_factor": (recency / interval).round(6),
        "pages_per_visit_90d": (rows.page_views_90d / rows.visits_90d.nullif(0)).round(6),
        "discount_seeker": (rows.carts_recovered_with_coupon_365d >= SEEKER_CARTS)
        & (2 * rows.coupon_orders_365d >= rows.orders_placed_365d),
    }
    columns = {c.name: ratios[c.name] if c.name in ratios else rows[c.name] for c in tables.CUSTOMER_FEATURES.columns}
    for column in tables.CUSTOMER_FEATURES.columns[1:]:
        if column.required:
            columns[column.name] = columns[column.name].fill_null(False if column.type == "boolean" else 0)
    return rows.select(**columns)


def end_of_day(day: date, zone: tzinfo) -> datetime:
    """The midnight that ends ``day`` in the shop's time zone, in UTC, naive."""
    midnight = datetime.combine(day + timedelta(days=1), time(), zone)
    return midnight.astimezone(UTC).replace(tzinfo=None)


def _sums(read: Callable[..., ir.Table], activity: ir.Table, as_of: date) -> tuple[ir.Table, tuple[ir.Table, ir.Table]]:
    """Sums and latest days of everybody in the rollup: of all days, and those of :data:`_WINDOWS`.

    Each is a pass over the days it is about. In one pass, a row of three years ago would carry the sums of the last 90 days
    along: DuckDB keeps a state for every person in each of its threads, several times over where people come again and again,
    and would take twice the time and memory.
    """
    seen = read(
        activity,
        *("revenue_cents", "refund_cents", "visits", "clicks", "sms_clicks"),
        *("tickets_opened", "tickets_closed", "tickets_left_open"),
    )
    ever = seen.group_by("customer_id").aggregate(
        revenue_cents=_.revenue_cents.sum(),
        refund_cents=_.refund_cents.sum(),
        last_visit_on=_.day.max(where=_.visits > 0),
        last_click_on=_.day.max(where=_.clicks + _.sms_clicks > 0),
        last_ticket_on=_.day.max(where=_.tickets_opened > 0),
        ticket_open=_.day.max(where=_within(TICKET_DAYS, as_of) & (_.tickets_left_open > 0))
        == _.day.max(where=_.tickets_opened + _.tickets_closed > 0),
    )
    year = _lately(read, activity, as_of, 365, orders_placed_365d=_.orders.sum())
    return ever, (year, _lately(read, activity, as_of, 90, 30))


def _lately(
    read: Callable[..., ir.Table], activity: ir.Table, as_of: date, *windows: int, **more: Deferred
) -> ir.Table:
    """The sums over ``windows`` in days, the longest first, with ``more`` of the longest.

    The shorter ones are a ``case`` inside the sum: DuckDB takes a third less time for it than for ``filter`` clauses.
    """
    wanted = {f"{name}_{n}d": (name, n) for name, lengths in _WINDOWS.items() for n in lengths if n in windows}
    columns = dict.fromkeys(("orders", *(name for name, _days in wanted.values())))
    return (
        read(activity, *columns, days=windows[0])
        .group_by("customer_id")
        .aggregate(
            **more,
            **{
                column: (_[name] if days == windows[0] else _within(days, as_of).ifelse(_[name], 0)).sum()
                for column, (name, days) in wanted.items()
            },
        )
    )


def _rhythm(activity: ir.Table, as_of: date) -> ir.Table:
    """Order days of everybody with an order: how many, when, of what size, and the intervals of those with two or more."""
    first, last, orders = _.day.min(), _.day.max(), _.count()
    days = activity.filter(_.orders > 0).group_by("customer_id", "day").aggregate(cents=_.revenue_cents.sum())
    days = days.mutate(gap=_.day.delta(_.day.lag().over(group_by="customer_id", order_by="day"), unit="day"))
    mean = last.delta(first, unit="day") / (orders - 1).nullif(0)
    spread = ((_.gap * _.gap).sum() / (orders - 1).nullif(0) - mean * mean).clip(lower=0).sqrt()
    log_cents = (_.cents.clip(lower=1).ln() * _MILLIONTHS).round().cast("int64")
    return days.group_by("customer_id").aggregate(
        first_order_on=first,
        last_order_on=last,
        cohort=first.truncate("M"),
        own_interval=mean.round(6),
        last_interval_days=_.gap.argmax(_.day),
        interval_variation=(spread / mean).round(6),
        typical_order_cents=_whole((log_cents.sum() / orders / _MILLIONTHS).exp()),
        first_order_cents=_.cents.argmin(_.day),
        last_order_cents=_.cents.argmax(_.day),
        orders=orders,
        **{f"orders_{length}d": _within(length, as_of).ifelse(1, 0).sum() for length in (30, 90, 365)},
        **{
            f"orders_weighted_{half_life}d": (_weight(as_of, _.day, half_life).sum() / _MILLIONTHS).round(6)
            for half_life in _RHYTHMS
        },
    )


def _usual_intervals(repeat: ir.Table) -> ir.Table:
    """The median interval of each first-order month that has enough repeat buyers."""
    months = repeat.group_by("cohort").aggregate(buyers=_.count(), usual_interval=_.own_interval.median().round(6))
    return months.filter(_.buyers >= MINIMUM_COHORT)


def _favourite_category(products: ir.Table, as_of: date) -> ir.Table:
    """The category with the largest weighted spend, and own and everybody's mean spend there per order day."""
    spent = (
        products.filter((_.orders > 0) & _.category.notnull())
        .group_by("customer_id", favourite_category=_.category)
        .aggregate(
            weight=(_weight(as_of, _.day) * _.revenue_cents).sum(), cents=_.revenue_cents.sum(), days=_.day.nunique()
        )
    )
    in_category = ibis.window(group_by="favourite_category")
    return spent.select(
        "customer_id",
        "favourite_category",
        favourite_category_order_cents=_whole(_.cents / _.days),
        category_average_order_cents=_whole(_.cents.sum().over(in_category) / _.days.sum().over(in_category)),
        rank=_rank("weight", "favourite_category"),
    ).filter(_.rank == 0)


def _favourite_product(products: ir.Table, as_of: date) -> ir.Table:
    """The product with the most pieces bought, weighted by age."""
    pieces = (
        products.filter(_.orders > 0)
        .group_by("customer_id", favourite_product_id=_.product_id)
        .aggregate(weight=(_weight(as_of, _.day) * _.quantity).sum())
    )
    return pieces.select("customer_id", "favourite_product_id", rank=_rank("weight", "favourite_product_id")).filter(
        _.rank == 0
    )


def _cart_behaviour(carts: ir.Table, as_of: date, day_end: datetime, abandoned_minutes: int) -> ir.Table:
    """Carts started in the last 365 days: how many were abandoned, and then bought with a coupon.

    A cart is abandoned where nothing happened to it for the threshold: between two of its events, between the last one
    and its order, or until the end of the day. Whoever comes back by way of the checkout page had left it all the same.
    It belongs to the person who ordered it, otherwise to the first person in the alphabet seen with it.
    """
    days = carts.group_by("cart_id", "day").aggregate(
        first_at=_.first_at.min(),
        last_at=_.last_at.max(),
        pause=_.longest_pause_seconds.max(),
        ordered_at=_.ordered_at.min(),
        coupon=_.coupon.any(),
        buyer=_.customer_id.min(where=_.ordered_at.notnull()),
        visitor=_.customer_id.min(),
    )
    begins = ibis.least(ibis.coalesce(_.first_at, _.ordered_at), ibis.coalesce(_.ordered_at, _.first_at))
    days = days.mutate(
        away=begins.delta(_.last_at.lag().over(group_by="cart_id", order_by="day"), unit="second"),
        bought_on=ibis.cases((_.ordered_at.notnull(), _.day)).min().over(group_by="cart_id"),
    )
    until_bought = _.bought_on.isnull() | (_.day <= _.bought_on)
    each = days.group_by("cart_id").aggregate(
        customer_id=ibis.coalesce(_.buyer.min(), _.visitor.min()),
        started_on=_.day.min(where=_.first_at.notnull()),
        last_at=_.last_at.max(),
        pause=ibis.greatest(_.pause.max(where=until_bought), _.away.max(where=until_bought).fill_null(0)),
        bought=_.ordered_at.notnull().any(),
        coupon=_.coupon.any(),
    )
    left_at = day_end - timedelta(minutes=abandoned_minutes)
    abandoned = (_.pause >= 60 * abandoned_minutes) | (~_.bought & (_.last_at <= left_at))
    return (
        each.filter(_.started_on > as_of - timedelta(days=365))
        .group_by("customer_id")
        .aggregate(
            carts_started_365d=_.count(),
            carts_abandoned_365d=_.count(where=abandoned),
            carts_recovered_with_coupon_365d=_.count(where=abandoned & _.bought & _.coupon),
        )
    )


def _of_person(rows: ir.Table, persons: ir.Table) -> ir.Table:
    """The rows with ``customer_id``, the person their shop id belongs to."""
    joined = rows.left_join(persons, "shop_customer_id")
    return joined.select(rows, customer_id=ibis.coalesce(persons.person, rows.shop_customer_id.cast("string")))


def _rank(by: str, tie: str) -> Deferred:
    """0 for each person's row with the largest ``by``; among equals for the first ``tie`` in the alphabet."""
    return ibis.row_number().over(group_by="customer_id", order_by=[ibis.desc(by), ibis.asc(tie)])


def _within(days: int, as_of: date) -> Deferred:
    return _.day > as_of - timedelta(days=days)


def _days_before(as_of: date, day: Deferred) -> Deferred:
    return -day.delta(as_of, unit="day")


def _weight(as_of: date, day: Deferred, half_life: int = HALF_LIFE_DAYS) -> Deferred:
    """Weight of a purchase by its age, in whole millionths."""
    return (0.5 ** (_days_before(as_of, day) / half_life) * _MILLIONTHS).round().cast("int64")


def _whole(ratio: Deferred) -> Deferred:
    return ratio.round().cast("int64")

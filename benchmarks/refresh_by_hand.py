"""What a refresh makes of raw rows, as SQL that is written by hand for DuckDB: rollups, features, 360° view, segments.

The tables are those of the lake, value by value; it owes nothing to the project's expressions. Nothing is measured here.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import date, datetime, timedelta
from pathlib import Path

import duckdb
from refresh_segments import CATEGORY, SEGMENTS

#: Columns of the rollups that are sums of counts and cents.
_ACTIVITY = (
    *("orders", "items", "revenue_cents", "discount_cents", "coupon_orders", "refunds", "refund_cents", "visits"),
    *("page_views", "product_views", "searches", "seconds_on_site", "emails_sent", "opens", "machine_opens", "clicks"),
    *("sms_sent", "sms_clicks", "tickets_opened", "tickets_closed", "tickets_left_open"),
)

ROLLUPS = {
    "daily_activity": f"""
        select day, shop_customer_id, {", ".join(f"coalesce(sum({name}), 0)::bigint as {name}" for name in _ACTIVITY)}
        from (
            select day, shop_customer_id, count(*) as orders, sum(total_cents) as revenue_cents,
                   sum(discount_cents) as discount_cents, count(coupon_code) as coupon_orders
            from orders group by all
            union all by name
            select day, shop_customer_id, sum(quantity) as items from order_lines where kind = 'product' group by all
            union all by name
            select day, shop_customer_id, count(*) as refunds, sum(amount_cents) as refund_cents from refunds group by all
            union all by name
            select day, shop_customer_id, count(*) as visits, sum(pages) as page_views, sum(goods) as product_views,
                   sum(searches) as searches, sum(seconds) filter (session_id is not null) as seconds_on_site
            from (select day, shop_customer_id, session_id,
                         count(*) filter (type in ('page_view', 'product_view')) as pages,
                         count(*) filter (type = 'product_view') as goods, count(*) filter (type = 'search') as searches,
                         date_diff('second', min(happened_at), max(happened_at)) as seconds
                  from events where type not in ('ticket_opened', 'ticket_closed') group by all)
            group by day, shop_customer_id
            union all by name
            select day, shop_customer_id,
                   count(*) filter (channel = 'email' and type = 'sent') as emails_sent,
                   count(*) filter (channel = 'email' and type = 'open' and is_machine is not true) as opens,
                   count(*) filter (channel = 'email' and type = 'open' and is_machine) as machine_opens,
                   count(*) filter (channel = 'email' and type = 'click' and is_machine is not true) as clicks,
                   count(*) filter (channel = 'sms' and type = 'sent') as sms_sent,
                   count(*) filter (channel = 'sms' and type = 'click' and is_machine is not true) as sms_clicks
            from message_events where channel in ('email', 'sms') group by all
            union all by name
            select day, shop_customer_id, count(*) filter (type = 'ticket_opened') as tickets_opened,
                   count(*) filter (type = 'ticket_closed') as tickets_closed,
                   (max(happened_at) filter (type = 'ticket_opened')
                        > coalesce(max(happened_at) filter (type = 'ticket_closed'), timestamp '-infinity'))::int
                       as tickets_left_open
            from events where type in ('ticket_opened', 'ticket_closed') group by all)
        where shop_customer_id is not null group by day, shop_customer_id""",
    "daily_products": """
        with counted as (
            select day, shop_customer_id, product_id, coalesce(sum(orders), 0)::bigint as orders,
                   coalesce(sum(quantity), 0)::bigint as quantity, coalesce(sum(revenue_cents), 0)::bigint as revenue_cents,
                   coalesce(sum(views), 0)::bigint as views, coalesce(sum(carted), 0)::bigint as carted
            from (select day, shop_customer_id, product_id, count(distinct order_id) as orders, sum(quantity) as quantity,
                         sum(amount_cents) as revenue_cents
                  from order_lines where kind = 'product' group by all
                  union all by name
                  select day, shop_customer_id, product_id, count(*) filter (type = 'product_view') as views,
                         count(*) filter (type = 'add_to_cart') as carted
                  from events where type in ('product_view', 'add_to_cart') group by all)
            where shop_customer_id is not null and product_id is not null group by all),
        known as (
            select product_id, day, arg_max(category, (changed_at, source, source_file, source_row)) as category
            from products group by all)
        select counted.*, category from counted asof left join known
        on counted.product_id = known.product_id and counted.day >= known.day""",
    "daily_carts": """
        with steps as (
            select day, cart_id, shop_customer_id as owner, happened_at as event_at, happened_at as moment,
                   coalesce(quantity, 1)
                       * case type when 'add_to_cart' then 1 when 'remove_from_cart' then -1 else 0 end as items,
                   null::timestamp as ordered_at, null::boolean as coupon
            from events where type in ('add_to_cart', 'remove_from_cart', 'checkout_started') and cart_id is not null
            union all
            select day, cart_id, shop_customer_id, null, ordered_at, null, ordered_at, coupon_code is not null
            from orders where cart_id is not null),
        owned as (
            select *, coalesce(owner, min(owner) filter (ordered_at is not null) over cart, min(owner) over cart)
                          as shop_customer_id,
                   case when count(ordered_at) over earlier = 0
                        then date_diff('second', max(event_at) over earlier, moment) end as pause
            from steps
            window cart as (partition by day, cart_id),
                   earlier as (partition by day, cart_id order by moment, ordered_at is not null
                               rows between unbounded preceding and 1 preceding))
        select day, cart_id, shop_customer_id, min(event_at) as first_at, max(event_at) as last_at,
               coalesce(max(pause), 0) as longest_pause_seconds, coalesce(sum(items), 0)::bigint as items_added,
               min(ordered_at) as ordered_at, coalesce(bool_or(coupon), false) as coupon
        from owned where shop_customer_id is not null group by all""",
    "daily_messages": """
        select day, shop_customer_id, channel, campaign, count(*) filter (type = 'sent') as sent,
               count(*) filter (type = 'open' and is_machine is not true) as opens,
               count(*) filter (type = 'click' and is_machine is not true) as clicks
        from message_events where shop_customer_id is not null and type in ('sent', 'open', 'click')
        group by all having sent + opens + clicks > 0""",
}

#: The raw tables that are read, each with the columns that are.
RAW = {
    "orders": ("order_id", "ordered_at", "shop_customer_id", "total_cents", "discount_cents", "coupon_code", "cart_id"),
    "order_lines": ("order_id", "shop_customer_id", "product_id", "kind", "quantity", "amount_cents"),
    "refunds": ("shop_customer_id", "amount_cents"),
    "events": ("shop_customer_id", "happened_at", "type", "session_id", "product_id", "cart_id", "quantity"),
    "message_events": ("shop_customer_id", "channel", "campaign", "type", "is_machine"),
    "products": ("product_id", "changed_at", "category", "source", "source_file", "source_row"),
}


@dataclass(frozen=True)
class Given:
    """What is the same for all: the lake, the day, the end of the day (UTC), minutes after which a cart is abandoned.

    ``more`` is a file with the columns of the 360° view that neither the profile nor the features have.
    """

    lake: Path
    day: date
    day_end: datetime
    cart_minutes: int
    more: Path

    def partition(self, table: str, day: date | None = None) -> Path:
        """A state's file."""
        return self.lake / table / f"as_of={day or self.day}" / "data.parquet"


def rollups(con: duckdb.DuckDBPyConnection, given: Given, target: Path | None) -> None:
    """The rollups of all days from the raw tables: a file a day under ``target``, or in the connection without one."""
    for table in RAW:
        read(con, given.lake / "raw" / table, table)
    for name, query in ROLLUPS.items():
        if target is None:
            con.execute(f"create temp table {name} as {query}")
        else:
            con.execute(
                f"copy ({query} order by day) to '{target / name}' (format parquet, compression zstd, partition_by (day))"
            )
            read(con, target / name, name)


def read(con: duckdb.DuckDBPyConnection, folder: Path, name: str) -> None:
    """A table of days in files as a view."""
    con.execute(
        f"create or replace temp view {name} as from read_parquet('{folder}/*/*.parquet', hive_partitioning = true)"
    )


def features_and_segments(con: duckdb.DuckDBPyConnection, given: Given, previous: Path | None, target: Path) -> None:
    """Features, 360° view and membership of the day, from the rollups that the connection knows by name."""
    for name, table in (
        ("identities", "profiles/identities"),
        ("customers", "profiles/customers"),
        ("scores", "predictions/scores"),
    ):
        con.execute(f"create or replace temp view {name} as from '{given.partition(table)}'")
    con.execute(f"create or replace temp view more as from '{given.more}'")
    day = f"date '{given.day}'"
    for name, query in (*_persons(day), ("customer_features", _features(given, day))):
        con.execute(f"create or replace temp table {name} as {query}")
    con.execute(
        "create or replace temp table customer_360 as select c.*, f.* exclude (customer_id), m.* exclude (customer_id) "
        "from customers c left join customer_features f using (customer_id) left join more m using (customer_id)"
    )
    for name in ("customer_features", "customer_360"):
        _write(con, f"from {name} order by customer_id", target / f"{name}.parquet")
    since = (
        f"(select segment, customer_id, entered_on as since from '{previous}')"
        if previous
        else "(select null::varchar as segment, null::varchar as customer_id, null::date as since)"
    )
    _write(
        con,
        f"""select segment, customer_id, coalesce(since, {day}) as entered_on, null::varchar as "through"
            from ({_segments(day)}) left join {since} using (segment, customer_id) order by segment, customer_id""",
        target / "membership.parquet",
    )


def _write(con: duckdb.DuckDBPyConnection, query: str, file: Path) -> None:
    con.execute(f"copy ({query}) to '{file}' (format parquet, compression zstd, row_group_size 131072)")


def _persons(day: str) -> list[tuple[str, str]]:
    """Rows of the rollups by person: what several of the following statements read."""

    def of(rollup: str, where: str, columns: str, key: str) -> str:
        return f"""select coalesce(i.customer_id, r.shop_customer_id) as customer_id, {columns}
                   from {rollup} r left join identities i using (shop_customer_id) where {where} group by {key}"""

    sums = [f"sum(r.{name})::bigint as {name}" for name in ("revenue_cents", "refund_cents")]
    for days, names in {
        30: ("revenue_cents", "visits", "product_views"),
        90: (
            *("revenue_cents", "visits", "page_views", "product_views", "seconds_on_site", "emails_sent", "opens"),
            *("machine_opens", "clicks", "sms_sent", "sms_clicks"),
        ),
        365: ("revenue_cents", "items", "coupon_orders", "visits"),
    }.items():
        sums += [f"sum(case when day > {day} - {days} then r.{n} else 0 end)::bigint as {n}_{days}d" for n in names]
    sums += [
        "max(case when r.visits > 0 then day end) as last_visit_on",
        "max(case when r.clicks + r.sms_clicks > 0 then day end) as last_click_on",
        "max(case when r.tickets_opened > 0 then day end) as last_ticket_on",
        f"max(case when day > {day} - 14 and r.tickets_left_open > 0 then day end)"
        " = max(case when r.tickets_opened + r.tickets_closed > 0 then day end) as ticket_open",
        f"sum(case when day > {day} - 365 then r.orders else 0 end)::bigint as placed_365d",
        f"sum(case when day > {day} - 14 then r.visits else 0 end)::bigint as visited_14d",
        f"sum(case when day > {day} - 180 then r.searches else 0 end)::bigint as searched_180d",
    ]
    here = f"r.category = '{CATEGORY}'"
    return [
        ("sums", of("daily_activity", f"day <= {day}", ", ".join(sums), "1")),
        (
            "order_days",
            of(
                "daily_activity",
                f"day <= {day} and r.orders > 0",
                "day, sum(r.revenue_cents)::bigint as cents, sum(r.coupon_orders)::bigint as coupons",
                "1, 2",
            ),
        ),
        (
            "goods",
            of(
                "daily_products",
                f"day <= {day} and r.orders > 0",
                "day, r.product_id, r.category, "
                "sum(r.revenue_cents)::bigint as cents, sum(r.quantity)::bigint as pieces",
                "1, 2, 3, 4",
            ),
        ),
        (
            "looked",
            of(
                "daily_products",
                f"day > {day} - 90 and day <= {day}",
                f"sum(case when {here} then r.views else 0 end)::bigint as camping_viewed_90d, "
                "sum(r.carted)::bigint as carted_90d",
                "1",
            ),
        ),
        (
            "reached",
            of(
                "daily_messages",
                f"day > {day} - 60 and day <= {day}",
                "sum(r.sent)::bigint as mailed_60d, sum(r.opens)::bigint as opened_60d, "
                f"sum(case when day > {day} - 45 then r.clicks else 0 end)::bigint as clicked_45d",
                "1",
            ),
        ),
    ]


def _features(given: Given, day: str) -> str:
    left_at = given.day_end - timedelta(minutes=given.cart_minutes)
    long = 60 * given.cart_minutes
    weights = ", ".join(
        f"round(sum(round(pow(0.5, ({day} - day) / {n}) * 1e6)::bigint) / 1e6, 6) as orders_weighted_{n}d"
        for n in (30, 120, 240)
    )
    windows = ", ".join(f"count(*) filter (day > {day} - {n}) as orders_{n}d" for n in (30, 90, 365))
    weight = f"round(pow(0.5, ({day} - day) / 180) * 1e6)::bigint"
    zero = ", ".join(
        f"coalesce({name}, 0) as {name}"
        for name in (
            "revenue_cents",
            "revenue_cents_30d",
            "revenue_cents_90d",
            "revenue_cents_365d",
            "refund_cents",
            "items_365d",
            "coupon_orders_365d",
            "visits_30d",
            "visits_90d",
            "visits_365d",
            "page_views_90d",
            "product_views_30d",
            "product_views_90d",
            "seconds_on_site_90d",
            "emails_sent_90d",
            "opens_90d",
            "machine_opens_90d",
            "clicks_90d",
            "sms_sent_90d",
            "sms_clicks_90d",
        )
    )
    return f"""
        with gaps as (
            select *, day - lag(day) over (partition by customer_id order by day) as gap from order_days),
        summed as (
            select customer_id, min(day) as first_order_on, max(day) as last_order_on, count(*) as orders, {windows}, {weights},
                   (max(day) - min(day)) / nullif(count(*) - 1, 0) as mean,
                   sum(gap * gap) / nullif(count(*) - 1, 0) as squares, arg_max(gap, day) as last_interval_days,
                   round(exp(sum(round(ln(greatest(cents, 1)) * 1e6)::bigint) / count(*) / 1e6))::bigint
                       as typical_order_cents,
                   arg_min(cents, day) as first_order_cents, arg_max(cents, day) as last_order_cents
            from gaps group by customer_id),
        rhythm as (
            select *, round(mean, 6) as own_interval, date_trunc('month', first_order_on) as cohort,
                   round(sqrt(greatest(squares - mean * mean, 0)) / mean, 6) as interval_variation
            from summed),
        cohorts as (
            select cohort, round(median(own_interval), 6) as usual from rhythm where orders > 1 group by cohort
            having count(*) >= 10),
        categories as (
            select customer_id, category, sum({weight} * cents) as weight, sum(cents) as cents, count(distinct day) as days
            from goods where category is not null group by all),
        ranked as (
            select customer_id, category as favourite_category, round(cents / days)::bigint as favourite_category_order_cents,
                   round(sum(cents) over c / sum(days) over c)::bigint as category_average_order_cents,
                   row_number() over (partition by customer_id order by weight desc, category) as place
            from categories window c as (partition by category)),
        products as (
            select customer_id, product_id as favourite_product_id,
                   row_number() over (partition by customer_id order by sum({weight} * pieces) desc, product_id) as place
            from goods group by customer_id, product_id),
        cart_days as (
            select cart_id, day, min(first_at) as first_at, max(last_at) as last_at, max(longest_pause_seconds) as pause,
                   min(ordered_at) as ordered_at, bool_or(coupon) as coupon,
                   min(person) filter (ordered_at is not null) as buyer, min(person) as visitor
            from (select c.*, coalesce(i.customer_id, c.shop_customer_id) as person
                  from daily_carts c left join identities i using (shop_customer_id) where day <= {day})
            group by all),
        cart_steps as (
            select *, date_diff('second', lag(last_at) over (partition by cart_id order by day), least(first_at, ordered_at))
                          as away,
                   min(case when ordered_at is not null then day end) over (partition by cart_id) as bought_on
            from cart_days),
        carts as (
            select coalesce(min(buyer), min(visitor)) as customer_id, min(day) filter (first_at is not null) as started_on,
                   greatest(max(pause) filter (bought_on is null or day <= bought_on),
                            max(away) filter (bought_on is null or day <= bought_on), 0) as pause,
                   max(last_at) as last_at, count(ordered_at) > 0 as bought, bool_or(coupon) as coupon
            from cart_steps group by cart_id),
        carted as (
            select customer_id, count(*) as started, count(*) filter (abandoned) as abandoned,
                   count(*) filter (abandoned and bought and coupon) as recovered
            from (select *, pause >= {long} or (not bought and last_at <= timestamp '{left_at}') as abandoned
                  from carts where started_on > {day} - 365)
            group by customer_id),
        everybody as (select customer_id from identities union select customer_id from sums),
        joined as (
            select e.customer_id, s.* exclude (customer_id), r.* exclude (customer_id), k.* exclude (customer_id, place),
                   p.favourite_product_id, c.* exclude (customer_id),
                   coalesce(own_interval, usual, (select round(median(own_interval), 6) from rhythm where orders > 1)) as usually
            from everybody e left join sums s using (customer_id) left join rhythm r using (customer_id)
            left join cohorts using (cohort)
            left join (from ranked where place = 1) k using (customer_id)
            left join (from products where place = 1) p using (customer_id) left join carted c using (customer_id))
        select customer_id, first_order_on, last_order_on, {day} - last_order_on as recency_days,
               {day} - first_order_on as tenure_days, coalesce(orders, 0) as orders,
               {", ".join(f"coalesce(orders_{n}d, 0) as orders_{n}d" for n in (30, 90, 365))},
               orders_weighted_30d, orders_weighted_120d, orders_weighted_240d,
               {zero}, round(revenue_cents / nullif(orders, 0))::bigint as average_order_cents,
               typical_order_cents, first_order_cents, last_order_cents,
               case when orders > 0 then usually end as mean_interval_days,
               case when orders > 0 and usually is not null then orders = 1 end as interval_imputed,
               last_interval_days, interval_variation,
               case when orders > 0 then round(({day} - last_order_on) / usually, 6) end as churn_factor,
               round(page_views_90d / nullif(visits_90d, 0), 6) as pages_per_visit_90d, last_visit_on,
               favourite_category, favourite_product_id, favourite_category_order_cents, category_average_order_cents,
               coalesce(started, 0) as carts_started_365d, coalesce(abandoned, 0) as carts_abandoned_365d,
               coalesce(recovered, 0) as carts_recovered_with_coupon_365d,
               coalesce(recovered >= 2 and 2 * coupon_orders_365d >= placed_365d, false) as discount_seeker,
               last_click_on, last_ticket_on, coalesce(ticket_open, false) as ticket_open
        from joined"""


def _segments(day: str) -> str:
    """``segment`` and ``customer_id`` of all members."""

    def fifth(value: str) -> str:
        smaller = f"rank() over (partition by orders > 0 and {value} is not null order by {value}) - 1"
        everybody = f"count(*) over (partition by orders > 0 and {value} is not null)"
        return f"case when orders > 0 and {value} is not null then 1 + (5 * ({smaller})) // {everybody} end"

    names = ", ".join(
        f"case when ({s.sql}) and {s.each} <> '' then '{s.name}:' || {s.each} end"
        if s.each
        else f"case when {s.sql} then '{s.name}' end"
        for s in SEGMENTS
    )
    here = f"category = '{CATEGORY}'"
    zero = ", ".join(
        f"coalesce({name}, 0) as {name}"
        for name in (
            "visited_14d",
            "searched_180d",
            "order_days",
            "coupon_days",
            "large_days",
            "camping_bought_365d",
            "camping_bought_90d",
            "camping_viewed_90d",
            "carted_90d",
            "mailed_60d",
            "opened_60d",
            "clicked_45d",
        )
    )
    return f"""
        with ordered as (
            select customer_id, count(*) as order_days, count(*) filter (coupons > 0) as coupon_days,
                   count(*) filter (cents >= 10000) as large_days
            from order_days group by customer_id),
        bought as (
            select customer_id, count(*) filter (day > {day} - 365) as camping_bought_365d,
                   count(*) filter (day > {day} - 90) as camping_bought_90d
            from goods where {here} group by customer_id),
        known as (
            select p.*, churn_probability, value_cents_365d, {zero},
                   {fifth("-recency_days")} as rfm_recency, {fifth("orders")} as rfm_frequency,
                   {fifth("(revenue_cents - refund_cents)")} as rfm_monetary,
                   case when revenue_cents_365d > 0 then round(100 * percent_rank() over (
                       partition by revenue_cents_365d > 0 order by revenue_cents_365d), 6) end as revenue_percentile
            from customer_360 p left join scores using (customer_id)
            left join (select customer_id, visited_14d, searched_180d from sums) using (customer_id)
            left join ordered using (customer_id) left join bought using (customer_id)
            left join looked using (customer_id) left join reached using (customer_id))
        select segment, customer_id from (select customer_id, unnest([{names}]) as segment from known)
        where segment is not null"""

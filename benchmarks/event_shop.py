"""A made-up shop with many events, as what a refresh keeps of it: people, scores, identities, daily rollups. For benchmarks.

Everything follows from the numbers of people and days by hashes: the same shop each time. Some people do much, most do little;
one in fifty has a second account, never used on the same day. Nothing is measured here.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import date, timedelta
from pathlib import Path

import duckdb
from measuring import say

from shopauto_pipelines.features import tables as features
from shopauto_pipelines.platform.tables import Table
from shopauto_pipelines.predictions.tables import SCORES
from shopauto_pipelines.profiles.tables import IDENTITIES
from shopauto_pipelines.sources import tables as sources

CATEGORIES, PRODUCTS, CAMPAIGNS = 24, 2_400, 12

#: Sessions and marketing mails of a day, for each person.
SESSIONS, MAILS = 0.02, 0.09

#: A mail's campaign: mostly the newsletter.
_CAMPAIGN = f"format('campaign_{{}}', case when slot % 5 > 0 then 0 else h // 60 % {CAMPAIGNS} end)"

_KINDS = {
    "string": ("varchar", "''"),
    "int64": ("bigint", "0"),
    "float64": ("double", "0"),
    "boolean": ("boolean", "false"),
    "date": ("date", "null"),
    "timestamp(6)": ("timestamp", "null"),
}

#: What is known of person ``n``; ``h`` is a hash of it, and ``r`` a number from 0 to 1 that is high for few.
_PEOPLE = {
    "customer_id": "format('c{:07d}', n)",
    "gender": "case h % 5 when 0 then null when 1 then 'male' when 2 then 'male' else 'female' end",
    "birthday": "date '1950-01-01' + (h // 7 % 18000)::int",
    "country": "['DE', 'FR', 'BR', 'RO', 'RS', 'US', 'GB', 'IT'][1 + least(7, (8 * r)::int)]",
    "city": "format('City {}', h // 11 % 300)",
    "language": "['en', 'pt-BR', 'ro', 'sr-Latn'][1 + h // 13 % 4]",
    "created_on": "date '2023-01-01' + (h // 17 % 1200)::int",
    "shop_ids": "1",
    "email_consent": "case when h // 19 % 3 > 0 then 'opted_in' end",
    "orders": "orders",
    "orders_365d": "least(orders, (orders * (h // 23 % 100) / 60)::int)",
    "orders_90d": "(orders * (h // 23 % 100) / 240)::int",
    "recency_days": "case when orders > 0 then recency end",
    "tenure_days": "case when orders > 0 then recency + h // 29 % 700 end",
    "last_order_on": "case when orders > 0 then day - recency::int end",
    "revenue_cents": "orders * (1500 + h // 31 % 9000)",
    "revenue_cents_365d": "least(orders, (orders * (h // 23 % 100) / 60)::int) * (1500 + h // 31 % 9000)",
    "refund_cents": "case when h // 37 % 20 = 0 then 700 else 0 end",
    "coupon_orders_365d": "h // 41 % 4",
    "churn_factor": "case when orders > 0 then round(recency / (20 + h // 43 % 90), 6) end",
    "favourite_category": "case when orders > 0 then format('Category {}', h // 47 % 24) end",
    "discount_seeker": "h // 53 % 25 = 0",
    "visits_90d": "h // 59 % 12",
}
_SCORES = {
    "customer_id": "format('c{:07d}', n)",
    "churn_probability": "round((h % 1000003) / 1000003.0, 6)",
    "expected_orders_90d": "round((h // 7 % 1000) / 300.0, 6)",
    "next_order_on": "day + (h // 11 % 200)::int",
    "value_cents_365d": "round((h // 13 % 60000)::double, 6)",
}
_ACCOUNTS = {
    "shop_customer_id": "format('c{:07d}', n)",
    "customer_id": "format('c{:07d}', case when n < people then n else (n * 37) % people end)",
    "rule": "'shop_id'",
    "rules_version": "1",
}


@dataclass(frozen=True)
class EventShop:
    """The shop of so many ``people``, in the lake at ``root``: a year of events until ``last``."""

    root: Path
    people: int
    last: date
    days: int = 365

    @property
    def accounts(self) -> int:
        """Shop ids."""
        return round(self.people * 1.02)

    def write(self) -> dict[str, int]:
        """Write all partitions; says how many ``rows`` the rollups have, and for how many ``events`` they stand."""
        con = duckdb.connect(config={"memory_limit": "4GB"})
        person = f"""
            select *, floor(1.0 / (0.02 + 1 - r))::int - (h % 3 = 0)::int as orders, (h // 3 % 500 * r)::int as recency
            from (select range as n, (hash(range) >> 1)::bigint as h, (hash(range, 'r') % 1000003) / 1000003.0 as r,
                         date '{self.last}' as day
                  from range({self.people}))"""
        self._partition(con, features.CUSTOMER_360, self.last, person, _PEOPLE)
        self._partition(con, SCORES, self.last, f"{person} where n % 5 > 1", _SCORES)
        accounts = f"select range as n, {self.people} as people from range({self.accounts})"
        self._partition(con, IDENTITIES, self.last, accounts, _ACCOUNTS)
        total = {"rows": 0, "events": 0}
        with ThreadPoolExecutor(4) as pool:
            for done, found in enumerate(pool.map(lambda day: self._rollups(con.cursor(), day), self._days()), 1):
                total = {name: count + found[name] for name, count in total.items()}
                if done % 73 == 0:
                    say(f"  {done} of {self.days} days")
        return total

    def _days(self) -> Iterator[date]:
        return (self.last - timedelta(days=n) for n in reversed(range(self.days)))

    def _slots(self, con: duckdb.DuckDBPyConnection, day: date) -> None:
        """What happens on a day: its sessions, the goods looked at in them, and its mails."""
        number = day.toordinal()

        def account(salt: str, power: float) -> str:
            """An account: with a power above 1 some have many slots and most have few."""
            share = f"pow((hash(range, {number}, '{salt}') % 1000003) / 1000003.0, {power})"
            return f"(7919 * floor({self.accounts} * {share})::bigint) % {self.accounts}"

        # who has two accounts uses them on different days, so that it does not matter whose days are counted
        second = f"range({self.people}, {self.accounts}) t(m)"
        at_rest = f"select m from {second}" if number % 2 else f"select (m * 37) % {self.people} from {second}"
        con.execute(
            f"""create or replace temp table sessions as
                select * from (
                    select {account("session", 2)} as n, (hash(range, {number}) >> 1)::bigint as h, range as slot
                    from range({round(self.people * SESSIONS)})
                ) where n not in ({at_rest});
                create or replace temp table mails as
                select {account("mail", 1)} as n, (hash(range, {number}, 'm') >> 1)::bigint as h, range as slot
                from range({round(self.people * MAILS)});
                create or replace temp table goods as
                select n, slot, (h // 5 + 97 * item * (1 + h // 7 % 5)) % {PRODUCTS} as product, item, h
                from sessions, range(4) t(item)"""
        )

    def write_raw(self) -> int:
        """Write the raw rows that the rollups of the last day are of; says how many."""
        con, day = duckdb.connect(), self.last
        self._slots(con, day)
        at = f"timestamp '{day} 08:00:00' + to_seconds(h % 40000 + 40 * {{}})"
        who = "format('c{:07d}', n) as shop_customer_id"
        lineage = "'shop' as \"source\", 'events.csv' as source_file, slot as source_row"

        def events(kind: str, rows: str, step: str, product: str = "null::varchar") -> str:
            return f"""select format('{kind}-{{}}-{{}}', slot, {step}) as event_id, {at.format(step)} as happened_at,
                              '{kind}' as type, {who}, format('s{{}}', slot) as session_id, {product} as product_id,
                              null::varchar as cart_id, 1 as quantity, {lineage} from {rows}"""

        good = "format('p{:04d}', product)"
        mail = f"format('{{}}-{{}}', type, slot) as event_id, {at.format(1)} as happened_at, type, {who}, 'email' as channel"
        counts = [
            self._partition(con, table, day, rows)
            for table, rows in {
                sources.EVENTS: " union all ".join(
                    (
                        events("page_view", "sessions, range(h % 9) t(step)", "step"),
                        events("product_view", "goods", "item", good),
                        events("search", "sessions where h % 5 < 3", "1"),
                        events("add_to_cart", "goods where slot % 2 = 0 and item < 2", "item", good),
                        events("ticket_opened", "sessions where h % 70 = 0", "1"),
                    )
                ),
                sources.ORDERS: f"""select format('o{{}}', slot) as order_id, {at.format(9)} as ordered_at, {who},
                        900 + h % 20000 as total_cents, case when slot % 12 = 0 then 'SAVE' end as coupon_code, {lineage}
                    from sessions where slot % 4 = 0""",
                sources.ORDER_LINES: f"""select format('o{{}}', slot) as order_id, item + 1 as line_number,
                        {at.format(9)} as ordered_at, {who}, {good} as product_id, 'product' as kind, 1 + h % 2 as quantity,
                        900 + h % 9000 as amount_cents, {lineage}
                    from goods where slot % 4 = 0 and item < 2""",
                sources.MESSAGE_EVENTS: f"""select {mail}, {_CAMPAIGN} as campaign, false as is_machine, {lineage}
                    from (select *, 'sent' as type from mails union all
                          select *, 'open' from mails where h % 5 = 0 union all
                          select *, 'click' from mails where h % 30 = 0)""",
                sources.FORM_SUBMISSIONS: f"""select format('f{{}}', slot) as submission_id, {at.format(1)} as submitted_at,
                        format('form_{{}}', h // 40 % 3) as form, {who}, {lineage} from sessions where h % 40 = 0""",
            }.items()
        ]
        goods = f"""select {good} as product_id, format('Category {{}}', product % {CATEGORIES}) as category,
                           timestamp '{day}' as changed_at, 'shop' as "source", 'goods.csv' as source_file, product as source_row
                    from range({PRODUCTS}) t(product)"""
        self._partition(con, sources.PRODUCTS, day, goods)
        self._partition(con, sources.REFUNDS, day, f"select * from ({goods}) limit 0", {})
        return sum(counts)

    def _rollups(self, con: duckdb.DuckDBPyConnection, day: date) -> dict[str, int]:
        """The rollups of a day."""
        self._slots(con, day)
        opened, clicked = "(h % 5 = 0)::int", "(h % 30 = 0)::int"
        activity = f"""
            select format('c{{:07d}}', n) as shop_customer_id, * exclude (n) from (
                select n, sum(orders) as orders, sum(items) as items, sum(revenue) as revenue_cents,
                       sum(coupon) as coupon_orders, sum(visits) as visits, sum(pages) as page_views,
                       sum(4 * visits) as product_views, sum(searches) as searches, sum(seconds) as seconds_on_site,
                       sum(sent) as emails_sent, sum(opens) as opens, sum(clicks) as clicks, sum(tickets) as tickets_opened,
                       max(tickets) as tickets_left_open
                from (select n, (slot % 4 = 0)::int as orders, 2 * (1 + h % 2) * (slot % 4 = 0)::int as items,
                             (slot % 4 = 0)::int * (900 + h % 20000) as revenue, (slot % 12 = 0)::int as coupon, 1 as visits,
                             4 + h % 9 as pages, (h % 5 < 3)::int as searches, 40 * greatest(3, h % 9 - 1) as seconds,
                             0 as sent, 0 as opens,
                             0 as clicks, (h % 70 = 0)::int as tickets
                      from sessions
                      union all
                      select n, 0, 0, 0, 0, 0, 0, 0, 0, 1, {opened}, {clicked}, 0 from mails)
                group by n)"""
        products = """
            select format('c{:07d}', n) as shop_customer_id, format('p{:04d}', product) as product_id,
                   format('Category {}', product % 24) as category, * exclude (n, product) from (
                select n, product, sum(bought) as orders, sum(bought * (1 + h % 2)) as quantity,
                       sum(bought * (900 + h % 9000)) as revenue_cents, count(*) as views, sum(carted) as carted
                from (select *, (slot % 4 = 0 and item < 2)::int as bought, (slot % 2 = 0 and item < 2)::int as carted
                      from goods)
                group by n, product)"""
        messages = f"""
            select format('c{{:07d}}', n) as shop_customer_id, 'email' as channel, campaign, sum(1) as sent,
                   sum({opened}) as opens, sum({clicked}) as clicks
            from (select *, {_CAMPAIGN} as campaign from mails)
            group by n, campaign"""
        forms = """
            select format('c{:07d}', n) as shop_customer_id, format('form_{}', h // 40 % 3) as form, count(*) as submissions
            from sessions where h % 40 = 0 group by n, form"""
        rows = 0
        for table, query in {
            features.DAILY_ACTIVITY: activity,
            features.DAILY_PRODUCTS: products,
            features.DAILY_MESSAGES: messages,
            features.DAILY_FORMS: forms,
        }.items():
            rows += self._partition(con, table, day, query)
        sums = con.execute(
            f"""select (select sum(4 + h % 9 + (h % 5 < 3)::int + 2 * (slot % 2 = 0)::int + 3 * (slot % 4 = 0)::int
                                   + (h % 70 = 0)::int + (h % 40 = 0)::int) from sessions)
                     + (select sum(1 + {opened} + {clicked}) from mails)"""
        ).fetchone()
        return {"rows": rows, "events": int(sums[0]) if sums else 0}

    def _partition(
        self,
        con: duckdb.DuckDBPyConnection,
        table: Table,
        day: date,
        rows: str,
        given: Mapping[str, str] | None = None,
    ) -> int:
        """Write a partition as the lake does: sorted by key, in its row groups; columns that are not ``given`` are empty."""
        there = given if given is not None else {name: name for name in con.sql(rows).columns}
        columns = []
        for column in table.columns:
            kind, empty = _KINDS[column.type]
            value = there.get(column.name, empty if column.required else "null")
            columns.append(f'({value})::{kind} as "{column.name}"')
        path = self.root / table.name / f"{table.partition}={day}" / "data.parquet"
        path.parent.mkdir(parents=True)
        count = con.execute(
            f"copy (select {', '.join(columns)} from ({rows}) order by {', '.join(table.key)}) to '{path}' "
            "(format parquet, compression zstd, row_group_size 131072)"
        ).fetchone()
        return int(count[0]) if count else 0

"""A small shop, row by row: raw change logs and rollups built from what a test says, everything else left at a default."""

from datetime import date, datetime, timedelta
from functools import cache
from random import Random

import ibis
import pyarrow as pa
import pytest

from shopauto_pipelines.features import rollups, tables
from shopauto_pipelines.features.customer_features import customer_features
from shopauto_pipelines.profiles import tables as profiles
from shopauto_pipelines.sources import tables as raw

_REQUIRED = {"string": "", "int64": 0, "boolean": False, "float64": 0.0}


_ROLLUPS = (tables.DAILY_ACTIVITY, tables.DAILY_PRODUCTS, tables.DAILY_CARTS)
_LOGS = (raw.ORDERS, raw.ORDER_LINES, raw.REFUNDS, raw.EVENTS, raw.MESSAGE_EVENTS, raw.PRODUCTS)


def _with_day(table) -> pa.Schema:
    return table.arrow_schema.append(pa.field("day", pa.date32()))


def _rollup(table, log) -> ibis.Table:
    """A rollup of the rows that ``log(raw table)`` gives."""
    if table is tables.DAILY_ACTIVITY:
        return rollups.daily_activity(*map(log, _LOGS[:5]))
    if table is tables.DAILY_PRODUCTS:
        return rollups.daily_products(log(raw.ORDER_LINES), log(raw.EVENTS), log(raw.PRODUCTS))
    if table is tables.DAILY_MESSAGES:
        return rollups.daily_messages(log(raw.MESSAGE_EVENTS))
    if table is tables.DAILY_FORMS:
        return rollups.daily_forms(log(raw.FORM_SUBMISSIONS))
    return rollups.daily_carts(log(raw.EVENTS), log(raw.ORDERS))


@cache
def _features(as_of: date, minutes: int, from_raw: bool) -> tuple[str, pa.Schema]:
    """The features' query, over tables it has not seen, and the schema of what it gives: compiled once, run on many rows."""

    def unseen(table) -> ibis.Table:
        return ibis.table(ibis.Schema.from_pyarrow(_with_day(table)), name=table.name)

    expression = customer_features(
        *(_rollup(table, unseen) if from_raw else unseen(table) for table in _ROLLUPS),
        unseen(profiles.IDENTITIES),
        as_of,
        datetime(as_of.year, as_of.month, as_of.day) + timedelta(days=1),
        minutes,
    )
    return ibis.to_sql(expression, dialect="duckdb", pretty=False), expression.schema().to_pyarrow()


class Rows:
    """Rows of several lake tables; ``day`` is the date of the row's time unless given."""

    def __init__(self) -> None:
        self.con = ibis.duckdb.connect()
        self._rows: dict[str, list[dict]] = {}

    def add(self, table, day, **values):
        """One row; required columns that are not given get an empty value."""
        row = {c.name: _REQUIRED.get(c.type) if c.required else None for c in table.columns}
        assert set(values) <= set(row), set(values) - set(row)
        self._rows.setdefault(table.name, []).append({**row, **values, "day": day})

    def rows(self, table, start=date.min, end=date.max) -> pa.Table:
        """The table's rows of some days with their ``day``."""
        rows = [row for row in self._rows.get(table.name, []) if start <= row["day"] <= end]
        return pa.Table.from_pylist(rows, _with_day(table))

    def table(self, table, start=date.min, end=date.max) -> ibis.Table:
        """The same for an expression."""
        return ibis.memtable(self.rows(table, start, end))

    def order(self, order_id, at, who, cents=1000, **more):
        self.add(
            raw.ORDERS, at.date(), order_id=order_id, ordered_at=at, shop_customer_id=who, total_cents=cents, **more
        )

    def line(self, order_id, number, at, who, product, cents=1000, quantity=1, kind="product"):
        self.add(
            raw.ORDER_LINES, at.date(), order_id=order_id, line_number=number, ordered_at=at, shop_customer_id=who,
            product_id=product, kind=kind, quantity=quantity, amount_cents=cents,
        )  # fmt: skip

    def refund(self, refund_id, at, who, cents):
        self.add(
            raw.REFUNDS,
            at.date(),
            refund_id=refund_id,
            refunded_at=at,
            order_id="o",
            shop_customer_id=who,
            amount_cents=cents,
        )

    def event(self, type_, at, who, **more):
        number = len(self._rows.get("raw/events", []))
        self.add(raw.EVENTS, at.date(), event_id=f"e{number}", type=type_, happened_at=at, shop_customer_id=who, **more)

    def message(self, type_, at, who, channel="email", is_machine=None, campaign=None):
        number = len(self._rows.get("raw/message_events", []))
        self.add(
            raw.MESSAGE_EVENTS, at.date(), event_id=f"m{number}", type=type_, happened_at=at, shop_customer_id=who,
            channel=channel, is_machine=is_machine, campaign=campaign,
        )  # fmt: skip

    def form(self, form, at, who):
        number = len(self._rows.get("raw/form_submissions", []))
        self.add(
            raw.FORM_SUBMISSIONS,
            at.date(),
            submission_id=f"f{number}",
            submitted_at=at,
            form=form,
            shop_customer_id=who,
        )

    def product(self, product, at, category, row=1):
        self.add(raw.PRODUCTS, at.date(), product_id=product, changed_at=at, category=category, source_row=row)

    def identity(self, shop_id, person):
        self.add(
            profiles.IDENTITIES,
            date(2020, 1, 1),
            shop_customer_id=shop_id,
            customer_id=person,
            rule="shop_id",
            rules_version=1,
        )

    def bought(self, who, day, cents=1000, orders=1, **more):
        """A row of ``features/daily_activity``."""
        self.add(tables.DAILY_ACTIVITY, day, shop_customer_id=who, orders=orders, revenue_cents=cents, **more)

    def rollup(self, table, start=date.min, end=date.max) -> ibis.Table:
        """A rollup of the raw rows of some days, as the assets compute it."""
        return _rollup(table, lambda of: self.table(of, date.min if of is raw.PRODUCTS else start, end))

    def rolled(self, table) -> list[dict]:
        """Rows of the rollup, sorted by day and key."""
        rows = self.con.to_pyarrow(self.rollup(table)).to_pylist()
        return sorted(rows, key=lambda row: (row["day"], *(row[name] or "" for name in table.key)))

    def features(self, as_of, minutes=60, from_raw=False) -> dict[str, dict]:
        """Features by person, from the rollup rows that were added, or from the raw rows."""
        query, schema = _features(as_of, minutes, from_raw)
        for table in (*(_LOGS if from_raw else _ROLLUPS), profiles.IDENTITIES):
            self.con.con.register(table.name, self.rows(table))
        rows = self.con.con.sql(query).to_arrow_table().cast(schema).to_pylist()
        assert len({row["customer_id"] for row in rows}) == len(rows)
        return {row["customer_id"]: row for row in rows}


@pytest.fixture
def shop() -> Rows:
    """An empty shop."""
    return Rows()


def random_shop(seed: int, people: int = 40, days: int = 450, first: date = date(2025, 1, 1)) -> Rows:
    """A shop with everything that can happen: ties, carts over midnight, unknown visitors, people with two shop ids."""
    random, shop = Random(seed), Rows()
    begin = datetime(first.year, first.month, first.day)

    def moment() -> datetime:
        return begin + timedelta(seconds=random.randrange(days * 86_400))

    goods = [f"p{n}" for n in range(12)]
    for number, product in enumerate(goods):
        shop.product(product, begin + timedelta(days=random.choice([0, 0, 0, 60])), f"c{number % 4}")
        if random.random() < 0.5:
            shop.product(product, moment(), random.choice(["c0", "c3", None]))
    for n in range(people):
        if n % 10:
            shop.identity(f"s{n}", f"s{n - 1}" if n % 7 == 1 and n > 1 else f"s{n}")
    for number in range(people * 5):
        who, at, cart = f"s{int(people * random.random() ** 2)}", moment(), f"k{number}"
        known = random.random()
        steps = [at + timedelta(minutes=random.choice([1, 5, 59, 60, 200, 2000])) for _ in range(random.randrange(4))]
        steps = sorted(steps)
        for step in steps:
            shop.event(
                random.choice(["add_to_cart", "add_to_cart", "remove_from_cart", "checkout_started"]), step,
                who if known < 0.9 else None, cart_id=cart, session_id=f"v{number}", product_id=random.choice(goods),
                quantity=random.choice([None, 1, 2]),
            )  # fmt: skip
        if random.random() < 0.6:
            ordered = (steps[-1] if steps else at) + timedelta(minutes=random.choice([0, 2, 59, 60, 61, 1500]))
            code = random.choice([None, "SAVE"])
            total = random.randrange(0, 9000)
            buyer = who if random.random() < 0.95 else None
            shop.order(
                f"o{number}", ordered, buyer, total, coupon_code=code, discount_cents=random.choice([None, 100]),
                cart_id=cart if random.random() < 0.9 else None,
            )  # fmt: skip
            for line in range(1 + random.randrange(3)):
                shop.line(
                    f"o{number}", line, ordered, buyer, random.choice([*goods, None]), random.choice([0, 500, 700]),
                    1 + random.randrange(3), random.choice(["product", "product", "shipping"]),
                )  # fmt: skip
            if random.random() < 0.1:
                shop.refund(f"r{number}", ordered + timedelta(days=random.randrange(20)), buyer, 50)
    for number in range(people * 10):
        who, at = random.choice([f"s{random.randrange(people)}", None]), moment()
        session = random.choice([f"w{number}", f"w{number}", None])
        for step in range(random.randrange(5)):
            shop.event(
                random.choice(["page_view", "product_view", "product_view", "search"]), at + timedelta(minutes=step), who,
                session_id=session, product_id=random.choice(goods),
            )  # fmt: skip
        for kind in ("sent", "delivered", "open", "open", "click")[: random.randrange(6)]:
            shop.message(
                kind, at, who, random.choice(["email", "email", "sms", None]), random.choice([None, True, False])
            )
    for number in range(people * 3):
        who, at = random.choice([f"s{random.randrange(people)}", None]), moment() + timedelta(microseconds=number)
        shop.event(random.choice(["ticket_opened", "ticket_closed"]), at, who)
    return shop


@pytest.fixture(scope="session")
def busy_shop() -> Rows:
    """One random shop for the tests that only read it."""
    return random_shop(7)


@pytest.fixture(scope="session")
def make_shop():
    """Random shops by seed."""
    return random_shop

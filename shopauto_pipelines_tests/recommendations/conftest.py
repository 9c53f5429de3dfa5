"""A small shop written by hand: what people bought, viewed, searched and sent back, and the room's tables made of it."""

from __future__ import annotations

from datetime import date, datetime, timedelta
from random import Random
from typing import Any

import pyarrow as pa
import pytest

from shopauto_pipelines.platform.lake import Lake
from shopauto_pipelines.platform.tables import Table
from shopauto_pipelines.recommendations import making, tables
from shopauto_pipelines.recommendations.declaration import RecommendationsDeclaration
from shopauto_pipelines.recommendations.inputs import BEHIND

#: The day that most tests ask for.
TODAY = date(2026, 3, 1)

_EMPTY = {"string": "", "int64": 0}


class SmallShop:
    """Rows of the tables the room reads; required columns that are not given are empty."""

    def __init__(self, lake: Lake) -> None:
        self.lake = lake
        self.rows: dict[str, list[dict[str, Any]]] = {name: [] for name in BEHIND}

    def add(self, name: str, day: date, /, **values: object) -> None:
        """One row of an input."""
        columns = BEHIND[name].columns
        row = {
            c.name: _EMPTY.get(c.type, datetime(day.year, day.month, day.day)) if c.required else None for c in columns
        }
        assert set(values) <= set(row)
        self.rows[name].append({**row, **values, "day": day})

    def product(
        self, product_id: str, category: str | None = None, name: str | None = None, since: date = date(2024, 1, 1)
    ):
        """A product of the catalogue; its name is its id unless given."""
        at = datetime(since.year, since.month, since.day)
        self.add(
            "raw_products", since, product_id=product_id, category=category, name=name or product_id, changed_at=at
        )

    def bought(self, who: str, day: date, *products: str, quantity: int = 1) -> None:
        """An order of some products."""
        for product in products:
            self.add("daily_products", day, shop_customer_id=who, product_id=product, orders=1, quantity=quantity,
                     revenue_cents=1000 * quantity)  # fmt: skip

    def viewed(self, who: str, day: date, *products: str) -> None:
        """Product pages seen."""
        for product in products:
            self.add("daily_products", day, shop_customer_id=who, product_id=product, views=1)

    def stock(self, product: str, day: date, quantity: int, warehouse: str = "w") -> None:
        """A change of stock."""
        self.add("stock_levels", day, product_id=product, warehouse=warehouse, quantity=quantity,
                 changed_at=datetime(day.year, day.month, day.day, len(self.rows["stock_levels"]) % 24))  # fmt: skip

    def sent_back(self, who: str, day: date, product: str, quantity: int | None = 1) -> None:
        """A refund of a product."""
        number = f"r{len(self.rows['refunds'])}"
        self.add("refunds", day, refund_id=number, shop_customer_id=who, product_id=product, quantity=quantity)

    def event(self, kind: str, who: str, day: date, url: str | None = None, session: str | None = None) -> None:
        """An event; those of a day follow each other by a second."""
        number = len(self.rows["events"])
        at = datetime(day.year, day.month, day.day) + timedelta(seconds=number)
        self.add("events", day, event_id=f"e{number:06}", type=kind, happened_at=at, shop_customer_id=who, url=url,
                 session_id=session)  # fmt: skip

    def person(self, shop_id: str, customer_id: str) -> None:
        """Whom a shop id belongs to."""
        self.add("identities", date(2024, 1, 1), shop_customer_id=shop_id, customer_id=customer_id)

    def table(self, name: str, until: date = date.max) -> pa.Table:
        """The rows of an input up to a day."""
        schema = BEHIND[name].arrow_schema
        if BEHIND[name].partition == "day":
            schema = schema.append(pa.field("day", pa.date32()))
        return pa.Table.from_pylist([row for row in self.rows[name] if row["day"] <= until], schema)

    def made(self, table: Table, as_of: date = TODAY, **declared: Any) -> pa.Table:
        """A table of the room as of a day, with all it is made of."""
        return self.everything(as_of, wanted=table, **declared)[table.name]

    def everything(
        self, as_of: date = TODAY, until: date = date.max, wanted: Table | None = None, **declared: Any
    ) -> dict[str, pa.Table]:
        """All tables of the room (up to the ``wanted`` one) as of a day, written to the lake; of the rows up to ``until``."""
        said = RecommendationsDeclaration.model_validate(declared)
        given: dict[str, Any] = {
            name: self.table(name, until) for name, of in BEHIND.items() if of.room != "recommendations"
        }
        made = {}
        for table in tables.TABLES:
            short = table.name.removeprefix("recommendations/")
            if table is wanted or wanted is None or short in making.STATEMENTS[wanted.name]().inputs:
                given[short] = making.rows(self.lake, table, as_of, said, **given)
                self.lake.write(table, [as_of], given[short])
                made[table.name] = self.lake.con.to_pyarrow(self.lake.on(table, as_of))
            if table is wanted:
                break
        return made

    def found(self, table: Table, as_of: date = TODAY, **options: Any) -> list[dict[str, Any]]:
        """The same as rows, by key."""
        rows = self.made(table, as_of, **options).to_pylist()
        return sorted(rows, key=lambda row: tuple(str(row[name]).zfill(12) for name in table.key))


@pytest.fixture
def shop(lake) -> SmallShop:
    """An empty shop."""
    return SmallShop(lake)


def random_shop(lake: Lake, seed: int, people: int = 60, days: int = 500) -> SmallShop:
    """A shop with everything that can happen, ending after TODAY."""
    random, shop = Random(seed), SmallShop(lake)
    goods = [f"p{n}" for n in range(30)]
    first = TODAY - timedelta(days=days)

    def some_day() -> date:
        return first + timedelta(days=random.randrange(days + 40))

    for number, product in enumerate(goods):
        shop.product(product, random.choice([f"c{number % 5}", None]), f"{product} thing{number % 7}")
        if random.random() < 0.3:
            shop.stock(product, some_day(), random.randrange(3))
    for number in range(people):
        shop.person(f"s{number}", f"s{number - number % 3 % 2}")
        liked = random.sample(goods[3:], 6)
        for day in sorted({some_day() for _ in range(random.randrange(1, 8))}):
            basket, pieces = random.sample(liked, random.randrange(1, 4)), random.randrange(1, 4)
            if random.random() < 0.2:
                basket += [product for product in ("p1", "p2") if product not in basket]
            shop.bought(f"s{number}", day, *basket, quantity=pieces)
            if random.random() < 0.1:
                shop.sent_back(f"s{number}", day + timedelta(days=5), basket[0], random.choice([pieces, pieces, None]))
        for visit in range(4):
            day = some_day()
            shop.viewed(f"s{number}", day, *{random.choice(goods) for _ in range(3)})
            word = random.choice(["tent", "pram", "drum"])
            shop.event("search", f"s{number}", day, f"/search?q={word}", f"v{number}-{visit}")
            if random.random() < 0.6 and word != "drum":
                shop.event("product_view", f"s{number}", day, "/p", f"v{number}-{visit}")
    # a customer buys a product on a day once, as the rollup has it
    unique = {(r["shop_customer_id"], r["product_id"], r["day"]): r for r in shop.rows["daily_products"]}
    shop.rows["daily_products"] = list(unique.values())
    return shop

"""Whether the orders that a send brings can be filled."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator
from datetime import date, timedelta

import ibis
import ibis.expr.types as ir
import pyarrow.parquet as pq
from ibis import _

from shopauto_pipelines.campaigns.declaration import Campaign
from shopauto_pipelines.campaigns.products import SHOWN, Showcase
from shopauto_pipelines.campaigns.shown import OF_PERSONS, products_of
from shopauto_pipelines.campaigns.tables import audience
from shopauto_pipelines.features.tables import CUSTOMER_FEATURES
from shopauto_pipelines.outbox.gate.verdicts import Finding, usual_of
from shopauto_pipelines.platform.lake import Lake
from shopauto_pipelines.platform.settings import Settings
from shopauto_pipelines.platform.tables import Table
from shopauto_pipelines.recommendations.tables import PRODUCTS, REPLENISHMENT
from shopauto_pipelines.sources import tables as raw

#: Fewest pieces a send must lack before it is stopped for want of stock.
_PIECES = 5


def stock(lake: Lake, settings: Settings, campaign: Campaign, as_of: date, people: int) -> Iterator[Finding]:
    """Whether the orders to be expected can be filled: by the stock of what is shown, and by the warehouse."""
    share = settings.gate_order_percent / 100
    if capacity := settings.warehouse_orders_per_day:
        usual = (
            usual_of(lambda day: lake.rows(raw.ORDERS, day), set(lake.days(raw.ORDERS)), as_of + timedelta(days=1)) or 0
        )
        forecast = usual + share * people
        figures = {"forecast_orders": round(forecast), "capacity": capacity}
        told = f"{forecast:,.0f} orders are to be expected, {usual:,.0f} without this send; the warehouse fills {capacity:,}"
        advice = (
            "" if forecast <= capacity else ". Send to fewer (`audience`, several days), or to all at a quieter time"
        )
        yield Finding("warehouse", forecast <= capacity, told + advice, figures)
    on_hand = _on_hand(lake, as_of)
    if not on_hand:
        return
    short = {
        product: (share * count, on_hand[product])
        for product, count in shown(lake, campaign, as_of).items()
        if product in on_hand and share * count - on_hand[product] >= _PIECES
    }
    if not short:
        yield Finding("stock", True, "what the messages show is in stock for the orders to be expected", {"short": 0})
        return
    listed = sorted(short, key=lambda product: (short[product][1] - short[product][0], product))
    told = "; ".join(f"{p}: {short[p][0]:,.0f} to be expected, {short[p][1]:,} on hand" for p in listed[:5])
    more = f", and {len(listed) - 5:,} more" if len(listed) > 5 else ""
    advice = f"{told}{more}. Show others (`products`), send to fewer, or wait for the goods"
    yield Finding("stock", False, advice, {"short": len(short)})


def _on_hand(lake: Lake, as_of: date) -> dict[str, int]:
    """Pieces on hand of each product whose stock the shop tells."""
    file = lake.path(PRODUCTS, as_of)
    if not file.exists():
        return {}
    rows = pq.read_table(file, columns=["product_id", "stock"], partitioning=None).to_pylist()
    return {row["product_id"]: row["stock"] for row in rows if row["stock"] is not None}


def shown(lake: Lake, campaign: Campaign, as_of: date) -> dict[str, float]:
    """To how many of the planned people each product is shown; one of several in a message counts as its share of them."""
    rows = lake.on(audience(campaign.name), as_of).filter(_.decision == "planned")
    about, among = Counter[str](), Counter[str]()
    for row in lake.con.to_pyarrow(rows.group_by("details").agg(people=_.count())).to_pylist():
        for product in products_of(json.loads(row["details"] or "{}")):
            about[product] += row["people"]
    for choice in {step.products for step in campaign.steps}:
        steps = [step.name for step in campaign.steps if step.products == choice]
        readers = rows.filter(_.step.isin(steps)).select("customer_id")
        if table := OF_PERSONS.get(choice):
            personal = _shown_of(table, lake.on(table, as_of), as_of)
            counted = readers.inner_join(personal, "customer_id").group_by("product_id").agg(people=_.count())
            among.update({row["product_id"]: row["people"] for row in lake.con.to_pyarrow(counted).to_pylist()})
            if choice != "recommended":
                continue
            readers = readers.anti_join(personal, "customer_id")  # of whom too little is known: what sells best
        favourites = lake.on(CUSTOMER_FEATURES, as_of).select("customer_id", "favourite_category")
        counted = readers.left_join(favourites, "customer_id").group_by("favourite_category").agg(people=_.count())
        groups = lake.con.to_pyarrow(counted).to_pylist()
        if groups:
            shelves = Showcase.new(lake, as_of) if choice == "new" else Showcase.read(lake, as_of)
            for row in groups:
                for pick in shelves.of(row["favourite_category"]):
                    among[pick.product_id] += row["people"]
    return {product: about[product] + among[product] / SHOWN for product in {*about, *among}}


def _shown_of(table: Table, personal: ir.Table, as_of: date) -> ir.Table:
    """The rows of a person's products that a message shows, as :mod:`~shopauto_pipelines.campaigns.shown` chooses them."""
    if table is not REPLENISHMENT:
        return personal.filter(_["rank"] <= SHOWN)
    due = personal.filter(_.state != "waiting").mutate(off=_.used_up_on.delta(ibis.literal(as_of), unit="day").abs())
    place = ibis.row_number().over(group_by="customer_id", order_by=["off", "product_id"])
    return due.mutate(place=place).filter(_.place < SHOWN)

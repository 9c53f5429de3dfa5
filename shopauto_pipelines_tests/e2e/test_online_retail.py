"""The real file: half a million invoice lines to messages, with counts checked against plain pandas."""

import json
from datetime import timedelta
from decimal import ROUND_HALF_UP, Decimal
from email import message_from_bytes
from email.utils import parseaddr

import pandas as pd
import pytest

from shopauto_pipelines.campaigns.declaration import load_campaigns
from shopauto_pipelines.campaigns.tables import audience
from shopauto_pipelines.features.tables import CUSTOMER_360, CUSTOMER_FEATURES
from shopauto_pipelines.platform.lake import Lake
from shopauto_pipelines.predictions.tables import MODELS, SCORES
from shopauto_pipelines.profiles.tables import CUSTOMERS, IDENTITIES
from shopauto_pipelines.segments.tables import MEMBERSHIP
from shopauto_pipelines.sources import tables as raw

pytestmark = pytest.mark.slow

NO_GOODS = r"(?:POST|DOT|C2|C3|BANK CHARGES|AMAZONFEE|CRUK|D|M|B|S|ADJUST.*|TEST.*|GIFT.*)"
DAY = pd.Timestamp("2010-11-30")


@pytest.fixture(scope="module")
def lines(shared) -> pd.DataFrame:
    """The file as pandas reads it, with amounts in cents and days in UTC."""
    frame = pd.read_parquet(shared / "data" / "online_retail" / "year_2009_12_to_2010_11.parquet")
    exact = [
        (quantity * Decimal(repr(price)) * 100).quantize(Decimal(1), ROUND_HALF_UP)
        for quantity, price in zip(frame.quantity, frame.price, strict=True)
    ]
    local = frame.invoice_date.dt.tz_localize("Europe/London", ambiguous=False, nonexistent="shift_forward")
    return frame.assign(
        cents=[int(cents) for cents in exact],
        code=frame.stock_code.str.strip().str.upper(),
        day=local.dt.tz_convert("UTC").dt.tz_localize(None).dt.normalize(),
        who=frame.customer_id.astype("Int64").astype("string"),
        first=frame.invoice.str[0],
    )


def test_a_year_of_online_retail_becomes_customers_predictions_segments_and_messages(new_shop, shared, lines):
    shop = new_shop()
    shop.run("load", "online-retail", shared / "data" / "online_retail" / "year_2009_12_to_2010_11.parquet")
    output = shop.run("refresh", timeout=900)
    lake = Lake(shop.home / "lake")
    as_of = DAY.date()

    def on_the_day(table) -> pd.DataFrame:
        return lake.on(table, as_of).to_pandas()

    # What was sold: invoices that are neither cancellations nor adjustments, with at least one line at a price.
    sold = lines[~lines["first"].isin(["C", "A"])]
    sold = sold[sold.invoice.isin(sold[(sold.quantity > 0) & (sold.price > 0)].invoice)]
    goods = sold[(sold.quantity > 0) & ~sold.code.str.fullmatch(NO_GOODS)]
    cancelled = lines[(lines["first"] == "C") & (lines.quantity < 0)]
    orders, refunds = lake.between(raw.ORDERS).to_pandas(), lake.between(raw.REFUNDS).to_pandas()
    assert set(orders.order_id) == set(sold.invoice)
    assert len(orders) == sold.invoice.nunique()
    assert orders.total_cents.sum() == sold.cents.sum()
    assert (len(refunds), refunds.amount_cents.sum()) == (len(cancelled), -cancelled.cents.sum())
    bought = lake.between(raw.ORDER_LINES).to_pandas()
    assert len(bought) == len(sold)
    assert bought[bought.kind == "product"].quantity.sum() == goods.quantity.sum()
    assert lake.days(raw.ORDERS) == [day.date() for day in pd.date_range("2009-12-01", DAY)]

    # Who the customers are, and what is known of each.
    people = lines[lines.who.notna() & (lines["first"] != "A")].who.unique()
    shop_ids = on_the_day(IDENTITIES).set_index("customer_id").shop_customer_id
    assert sorted(shop_ids) == sorted(people)
    assert lake.rows(CUSTOMERS, as_of) == lake.rows(CUSTOMER_360, as_of) == len(people)
    known = sold[sold.who.notna()]
    order_days = known.drop_duplicates(["who", "day"]).groupby("who").day
    expected = pd.DataFrame(
        {
            "orders": order_days.nunique(),
            "orders_90d": order_days.agg(lambda days: (days > DAY - timedelta(days=90)).sum()),
            "first_order_on": order_days.min().dt.date,
            "last_order_on": order_days.max().dt.date,
            "recency_days": (DAY - order_days.max()).dt.days,
            "revenue_cents_365d": known.groupby("who").cents.sum(),
            "revenue_cents_30d": known[known.day > DAY - timedelta(days=30)].groupby("who").cents.sum(),
            "items_365d": goods[goods.who.notna()].groupby("who").quantity.sum(),
            "refund_cents": -cancelled[cancelled.who.notna()].groupby("who").cents.sum(),
        },
        index=pd.Index(sorted(people)),
    )
    sums = [name for name in expected if not name.endswith(("_on", "_days"))]
    expected[sums] = expected[sums].fillna(0).astype(int)
    features = on_the_day(CUSTOMER_FEATURES)
    features = features.set_index(features.customer_id.map(shop_ids)).sort_index()[list(expected)]
    pd.testing.assert_frame_equal(features[sums], expected[sums], check_names=False, check_dtype=False)
    for name in ("first_order_on", "last_order_on", "recency_days"):
        assert features[name].dropna().map(_plain).to_dict() == expected[name].dropna().map(_plain).to_dict(), name

    # What is expected of them, and where they belong.
    scores = on_the_day(SCORES)
    assert len(scores) == (expected.orders > 0).sum()
    assert scores.churn_probability.between(0, 1).all()
    assert (scores.expected_orders_90d >= 0).all()
    models = on_the_day(MODELS)
    assert set(models.target) == {"churn", "orders"}
    assert models.model_id.notna().all(), models.verdict.tolist()
    assert all({"model", "rules"} <= json.loads(metrics).keys() for metrics in models.metrics)
    members = on_the_day(MEMBERSHIP).groupby("segment").customer_id.nunique()
    assert members["lead"] == (expected.orders == 0).sum()
    tenure = (DAY - order_days.min()).dt.days
    assert members["new"] == ((expected.orders == 1) & (tenure.reindex(expected.index) <= 30)).sum()

    # Who was written to.
    planned = 0
    for campaign in load_campaigns():
        decided = on_the_day(audience(campaign))
        assert decided.reason.notna().all()
        planned += (decided.decision == "planned").sum()
    assert len(shop.inbox()) == planned > 0, output
    assert sum(number for _campaign, _day, state, number in shop.ledger() if state == "sent") == planned
    addresses = {parseaddr(message_from_bytes(path.read_bytes())["To"])[1] for path in shop.inbox()}
    assert addresses <= {f"{person}@example.com" for person in people}


def _plain(value: object) -> str:
    return str(int(value)) if isinstance(value, float) else str(value)[:10]

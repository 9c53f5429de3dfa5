"""The real file: half a million invoice lines, to messages, with counts checked against plain pandas."""

import pandas as pd
import pytest

from shopauto_pipelines.platform.lake import Lake
from shopauto_pipelines.predictions.tables import MODELS, SCORES
from shopauto_pipelines.profiles.tables import CUSTOMERS
from shopauto_pipelines.segments.tables import MEMBERSHIP
from shopauto_pipelines.sources import tables as raw

pytestmark = pytest.mark.slow


def test_a_year_of_online_retail_becomes_customers_predictions_segments_and_messages(new_shop, shared):
    path = shared / "data" / "online_retail" / "year_2009_12_to_2010_11.parquet"
    shop = new_shop()
    shop.run("load", "online-retail", path)
    output = shop.run("refresh", timeout=900)

    lines = pd.read_parquet(path)
    lines = lines[lines.invoice.str.match(r"^\d")]
    known = lines[lines.customer_id.notna()]
    bought = known[(known.quantity > 0)]
    lake = Lake(shop.home / "lake")
    orders = lake.between(raw.ORDERS).to_pandas()
    assert set(orders[orders.shop_customer_id.notna()].order_id) <= set(bought.invoice)
    everybody = pd.read_parquet(path).customer_id.dropna().nunique()
    last = lake.days(CUSTOMERS)[-1]
    assert str(last) == "2010-11-30"
    assert lake.rows(CUSTOMERS, last) == everybody
    scores = lake.on(SCORES, last).to_pandas()
    assert len(scores) == orders.shop_customer_id.nunique()
    assert scores.churn_probability.between(0, 1).all()
    models = lake.on(MODELS, last).to_pandas()
    assert models.model_id.notna().all(), output
    assert lake.rows(MEMBERSHIP, last) > everybody
    messages = list((shop.home / "inbox").rglob("*.eml"))
    assert messages
    for message in messages[:50]:
        assert "@example.com" in message.read_text().split("\n\n")[0]

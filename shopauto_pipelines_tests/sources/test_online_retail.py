"""The real file through the shipped mapping, against the same figures from plain pandas."""

from datetime import date
from decimal import ROUND_HALF_UP, Decimal

import pandas as pd
import pytest

from shopauto_pipelines.platform.lake import Lake
from shopauto_pipelines.platform.settings import Settings
from shopauto_pipelines.sources import raw, tables
from shopauto_pipelines.sources.landing import land, landed_days
from shopauto_pipelines.sources.mapping import mapping_named

TODAY = date(2026, 1, 1)
NO_GOODS = r"(?:POST|DOT|C2|C3|BANK CHARGES|AMAZONFEE|CRUK|D|M|B|S|ADJUST.*|TEST.*|GIFT.*)"


def _cents(quantity: int, price: float) -> int:
    return int((quantity * Decimal(repr(price)) * 100).quantize(Decimal(1), ROUND_HALF_UP))


@pytest.fixture(scope="module")
def retail(shared, tmp_path_factory):
    """The landed lake, the report, and the file as pandas sees it, times in UTC."""
    path = shared / "data" / "online_retail" / "year_2009_12_to_2010_11.parquet"
    home = tmp_path_factory.mktemp("retail")
    lake = Lake(home / "lake")
    report = land(lake, mapping_named("online-retail"), path, Settings(home=home, _env_file=None), TODAY)
    frame = pd.read_parquet(path)
    frame["cents"] = [_cents(q, p) for q, p in zip(frame.quantity, frame.price, strict=True)]
    frame["code"] = frame.stock_code.str.strip().str.upper()
    local = frame.invoice_date.dt.tz_localize("Europe/London", ambiguous=False, nonexistent="shift_forward")
    frame["at"] = local.dt.tz_convert("UTC").dt.tz_localize(None)
    sold = frame[~frame.invoice.str[0].isin(["C", "A"])]
    paid = sold[(sold.quantity > 0) & (sold.price > 0)].invoice.unique()
    return lake, report, frame, sold[sold.invoice.isin(paid)]


def _rows(lake: Lake, table) -> pd.DataFrame:
    first, last = landed_days(lake)
    return lake.con.to_pandas(raw.accepted(lake, table, first, last))


pytestmark = pytest.mark.slow


def test_no_row_of_the_real_file_is_lost(retail):
    _, report, frame, _ = retail
    for file in report.files:
        assert file.read == len(frame)
        assert file.read == file.landed + file.quarantined + file.excluded + file.folded
    assert report.reasons == {"is negative": 1}, "a cancellation that charges instead of refunding"


def test_orders_and_lines_are_those_pandas_finds(retail):
    lake, _, _, sold = retail
    orders, lines = _rows(lake, tables.ORDERS), _rows(lake, tables.ORDER_LINES)
    expected = sold.groupby("invoice").agg(total=("cents", "sum"), at=("at", "min"), who=("customer_id", "min"))
    ours = orders.set_index("order_id").sort_index()
    assert list(ours.index) == list(expected.index)
    assert ours.total_cents.tolist() == expected.total.tolist()
    assert ours.ordered_at.astype("datetime64[us]").tolist() == expected["at"].astype("datetime64[us]").tolist()
    assert pd.to_numeric(ours.shop_customer_id).fillna(0).tolist() == expected.who.fillna(0).tolist()
    assert len(lines) == len(sold)
    assert lines.amount_cents.sum() == sold.cents.sum() == orders.total_cents.sum()
    shipping = sold[sold.code.isin(["POST", "DOT", "C2", "C3"]) & (sold.quantity > 0)]
    assert lines[lines.kind == "shipping"].amount_cents.sum() == shipping.cents.sum()
    goods = sold[~sold.code.str.fullmatch(NO_GOODS) & (sold.quantity > 0)]
    assert lines[lines.kind == "product"].amount_cents.sum() == goods.cents.sum()
    assert lines[lines.kind == "product"].quantity.sum() == goods.quantity.sum()


def test_refunds_are_the_cancelled_lines(retail):
    lake, _, frame, _ = retail
    cancelled = frame[frame.invoice.str.startswith("C") & (frame.quantity < 0)]
    refunds = _rows(lake, tables.REFUNDS)
    assert len(refunds) == len(cancelled)
    assert refunds.amount_cents.sum() == -cancelled.cents.sum()
    assert refunds.quantity.sum() == -cancelled.quantity.sum()


def test_customers_consents_and_products_appear_when_first_seen(retail):
    lake, _, frame, _ = retail
    known = frame[frame.customer_id.notna() & ~frame.invoice.str.startswith("A")]
    first_seen = known.groupby(known.customer_id.astype(int).astype(str))["at"].min()
    customers = _rows(lake, tables.CUSTOMERS).set_index("shop_customer_id").sort_index()
    assert customers.index.tolist() == first_seen.index.tolist()
    assert customers.changed_at.astype("datetime64[us]").tolist() == first_seen.astype("datetime64[us]").tolist()
    assert (customers.email == customers.index + "@example.com").all()
    assert set(_rows(lake, tables.CONSENTS).shop_customer_id) == set(customers.index)
    goods = frame[
        ~frame.invoice.str[0].isin(["C", "A"]) & (frame.quantity > 0) & (frame.price > 0) & frame.description.notna()
    ]
    codes = goods[~goods.code.str.fullmatch(NO_GOODS)].code.unique()
    products = _rows(lake, tables.PRODUCTS)
    assert sorted(products.product_id) == sorted(codes)
    assert products.category.notna().mean() > 0.7


def test_every_customer_of_an_order_is_known_when_it_is_placed(retail):
    lake, _, _, sold = retail
    first, last = landed_days(lake)
    refused = lake.con.to_pyarrow(raw.rejected(lake, first, last)).to_pylist()
    assert [row["reason"] for row in refused] == ["is negative"]
    assert len(_rows(lake, tables.ORDERS)) == sold.invoice.nunique()


def test_the_public_csv_gives_the_same_rows(retail, tmp_path):
    _, _, frame, _ = retail
    columns = {
        "invoice": "Invoice",
        "stock_code": "StockCode",
        "description": "Description",
        "quantity": "Quantity",
        "invoice_date": "InvoiceDate",
        "price": "Price",
        "customer_id": "Customer ID",
        "country": "Country",
    }
    public = frame[list(columns)].head(20_000).rename(columns=columns)
    public["Customer ID"] = public["Customer ID"].astype("float64")  # as spreadsheets write it: 13085.0
    public.to_csv(tmp_path / "online_retail_II.csv", index=False)
    frame[list(columns)].head(20_000).to_parquet(tmp_path / "online_retail_II.parquet")
    mapping = mapping_named("online-retail")
    seen = []
    for kind in ("csv", "parquet"):
        other = Lake(tmp_path / kind)
        land(other, mapping, tmp_path / f"online_retail_II.{kind}", Settings(home=tmp_path, _env_file=None), TODAY)
        seen.append([_rows(other, table).drop(columns="source_file") for table in tables.CORE_TABLES[:6]])
    for from_csv, from_parquet, table in zip(*seen, tables.CORE_TABLES[:6], strict=True):
        order = list(table.key)
        pd.testing.assert_frame_equal(
            from_csv.sort_values(order, ignore_index=True), from_parquet.sort_values(order, ignore_index=True)
        )
        assert len(from_csv) > 100

"""Recommendations against what people then bought, on a slice of a real shop."""

from datetime import date

import duckdb
import pyarrow as pa
import pytest

from shopauto_pipelines.recommendations import tables
from shopauto_pipelines_tests.recommendations.conftest import SmallShop

CUT_OFF = date(2010, 7, 31)


@pytest.mark.slow
def test_ten_recommendations_hold_more_of_what_people_then_buy_than_simple_methods(shared, lake):
    file = shared / "data" / "online_retail" / "year_2009_12_to_2010_11.parquet"
    con = duckdb.connect()
    con.execute(
        f"""create table daily as select customer_id::varchar as shop_customer_id, upper(trim(stock_code)) as product_id,
        null::varchar as category, count(distinct invoice) as orders, sum(quantity)::bigint as quantity,
        0::bigint as revenue_cents, 0::bigint as views, invoice_date::date as day
        from '{file}' where customer_id % 3 = 0 and invoice[1] not in ('C', 'A') and quantity > 0 and price > 0
        and regexp_matches(stock_code, '^[0-9]{{5}}') group by all"""
    )
    daily = con.execute("select * from daily").to_arrow_table()

    class Slice(SmallShop):
        """The slice instead of rows written by hand; the catalogue says nothing."""

        def table(self, name: str, until: date = date.max) -> pa.Table:
            return daily if name == "daily_products" else super().table(name, until)

    made = Slice(lake).everything(CUT_OFF, wanted=tables.CUSTOMER_PRODUCTS)
    con.register("ours", made[tables.CUSTOMER_PRODUCTS.name])
    con.execute(
        f"""create table known as select * from daily where day <= '{CUT_OFF}';
        create table later as select distinct shop_customer_id as customer_id, product_id from daily
        where day > '{CUT_OFF}' and day <= date '{CUT_OFF}' + 60
        and shop_customer_id in (select shop_customer_id from known);
        create table top as select product_id, count(distinct shop_customer_id) as buyers from known
        where day > date '{CUT_OFF}' - 90 group by 1;
        create table combined as select customer_id, product_id,
        row_number() over (partition by customer_id order by round(weight, 9) desc, buyers desc, product_id) as rank from (
        select customer_id, product_id, max(weight) as weight from (
        select shop_customer_id as customer_id, product_id, sum(0.5 ** ((date '{CUT_OFF}' - day) / 180)) as weight
        from known group by 1, 2 union all
        select customer_id, product_id, 0 from (select distinct customer_id from later),
        (select product_id from top order by buyers desc, product_id limit 20)) group by 1, 2) left join top using (product_id)"""
    )

    def recall(ranked: str) -> float:
        found = con.execute(
            f"""select avg(hits) from (select count(r.product_id) / count(*) as hits from later
            left join (select * from {ranked} where rank <= 10) as r using (customer_id, product_id) group by customer_id)"""
        ).fetchone()
        return found[0]

    ours, combined = recall("ours"), recall("combined")
    assert combined > 0.15
    assert ours > combined

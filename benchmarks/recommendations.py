"""Recommendations on a time split of a real shop, beside what simple methods reach.

    python benchmarks/recommendations.py [FILE] [--source NAME] [--cut-off DAY] [--days N] [--tune] [--quick]

Reads one file of invoice lines through a shipped mapping (by default the first year of UCI Online Retail II). Everything up to
the cut-off is known; what people buy in the days after it is not. For everybody who bought before and after, ten products are
recommended, and *recall@10* is the share of the products they then bought that are among the ten, averaged over the people.
A product bought before counts as any other: shops want to know what people will buy.

Beside ours:

- *global top*: the ten products most people bought in the last 90 days, the same for everybody (or ever, where that is better);
- *personal top*: what the person bought most, each purchase counting half after 180 days;
- *combined*: personal top, ties (the products of one basket) in the order of the global top, which also fills it up. Usually
  the winner.

``--tune`` prints the same for three earlier cut-offs, on which the weights of the ranking were chosen; the last one, which is
reported, was never looked at for that. Peak memory is that of the whole process. Ends with one line of JSON.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from dataclasses import dataclass
from datetime import date, timedelta
from pathlib import Path
from typing import Any

import pyarrow as pa
from measuring import peak_mib, say

from shopauto_pipelines.features import rollups
from shopauto_pipelines.platform.lake import Lake
from shopauto_pipelines.platform.settings import PROJECT_ROOT, Settings
from shopauto_pipelines.profiles.tables import IDENTITIES
from shopauto_pipelines.recommendations import making, tables
from shopauto_pipelines.recommendations.declaration import RecommendationsDeclaration
from shopauto_pipelines.sources import raw
from shopauto_pipelines.sources import tables as sources
from shopauto_pipelines.sources.landing import land, landed_days
from shopauto_pipelines.sources.mapping import mapping_named

FILE = PROJECT_ROOT.parent / "shared" / "data" / "online_retail" / "year_2009_12_to_2010_11.parquet"

#: Cut-offs that weights may be chosen on, and the one that is reported: the last day that is known.
EARLIER, REPORTED = (date(2010, 4, 30), date(2010, 6, 14), date(2010, 7, 31)), date(2010, 9, 30)

SHOWN = 10


def main() -> None:
    """Run the benchmark and print its figures."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("file", nargs="?", type=Path, default=FILE, help="file of invoice lines")
    parser.add_argument("--source", default="online-retail", help="mapping that reads it")
    parser.add_argument("--cut-off", type=date.fromisoformat, default=REPORTED, help="last day that is known")
    parser.add_argument("--days", type=int, default=60, help="days after the cut-off that are predicted")
    parser.add_argument("--tune", action="store_true", help="the earlier cut-offs, too")
    parser.add_argument("--quick", action="store_true", help="a quarter of the people")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="shopauto-benchmark-") as folder:
        shop = Shop.read(Path(folder), options.file, options.source, quick=options.quick)
        for cut_off in (*(EARLIER if options.tune else ()), options.cut_off):
            figures = measure(shop, cut_off, options.days)
    figures["peak_mib"] = round(peak_mib())
    print(json.dumps(figures))


@dataclass(frozen=True)
class Shop:
    """A shop's bought and viewed products, its catalogue and refunds, in one connection."""

    lake: Lake
    rows: dict[str, pa.Table]

    @classmethod
    def read(cls, home: Path, file: Path, source: str, *, quick: bool = False) -> Shop:
        """Land ``file`` and roll it up, as the assets do."""
        lake = Lake(home / "lake")
        say(f"reading {file.name}")
        land(lake, mapping_named(source), file, Settings(home=home, _env_file=None), date.max)
        days = landed_days(lake)
        if days is None:
            sys.exit(f"{file} holds no rows that {source} can read")

        def log(table: Any) -> Any:
            return raw.accepted(lake, table, *days)

        say("rolling up")
        daily = rollups.daily_products(log(sources.ORDER_LINES), log(sources.EVENTS), log(sources.PRODUCTS))
        if quick:
            daily = daily.filter(daily.shop_customer_id.hash() % 4 == 0)
        rows = {"daily_products": daily, "raw_products": log(sources.PRODUCTS), "refunds": log(sources.REFUNDS)}
        held = {name: lake.con.to_pyarrow(expression) for name, expression in rows.items()}
        held["identities"] = IDENTITIES.arrow_schema.empty_table()
        held["stock_levels"] = sources.STOCK_LEVELS.arrow_schema.append(pa.field("day", pa.date32())).empty_table()
        return cls(lake, held)


def measure(shop: Shop, cut_off: date, days: int) -> dict[str, Any]:
    """Recall@10 of ours and of the simple methods after one cut-off, printed as a table."""
    con = shop.lake.con.con
    con.register("daily", shop.rows["daily_products"])
    con.execute(f"create or replace temp table known as select * from daily where orders > 0 and day <= '{cut_off}'")
    con.execute(
        f"""create or replace temp table later as
        select distinct shop_customer_id as customer_id, product_id from daily
        where orders > 0 and day > '{cut_off}' and day <= '{cut_off + timedelta(days=days)}'
        and shop_customer_id in (select shop_customer_id from known)"""
    )
    people, bought = con.execute("select count(distinct customer_id), count(*) from later").fetchone()
    say(f"{cut_off}: {people:,} people buy {bought:,} products within {days} days")
    started = time.perf_counter()
    ours(shop, cut_off)
    seconds = time.perf_counter() - started
    recalls = {"recall_at_10": _recall(con, "select customer_id, product_id, rank from ours")}
    recalls["global_top"] = max(_recall(con, _everybody(since)) for since in (cut_off - timedelta(days=90), date.min))
    personal = f"""select shop_customer_id as customer_id, product_id, row_number() over (
        partition by shop_customer_id
        order by round(sum(0.5 ** ((date '{cut_off}' - day) / 180)), 9) desc, product_id) as rank
        from known group by shop_customer_id, product_id"""
    recalls["personal_top"] = _recall(con, personal)
    recalls["combined"] = _recall(con, _combined(cut_off))
    print(f"\n{'recall@10 after ' + str(cut_off):32}")
    for name, value in recalls.items():
        print(f"  {'ours' if name == 'recall_at_10' else name.replace('_', ' '):30}{value:.4f}")
    figures = {"cut_off": str(cut_off), "days": days, "people": people, **recalls}
    figures["beats_all"] = recalls["recall_at_10"] >= max(recalls.values())
    return figures | {"seconds": round(seconds, 2)}


def _combined(cut_off: date) -> str:
    """Personal top with ties, such as a first basket's products, in the order of the global top, which also fills up."""
    return f"""with top as (select product_id, count(distinct shop_customer_id) as buyers from known
        where day > '{cut_off - timedelta(days=90)}' group by 1),
        own as (select shop_customer_id as customer_id, product_id, sum(0.5 ** ((date '{cut_off}' - day) / 180)) as weight
        from known group by 1, 2),
        every as (select customer_id, product_id, 0 as weight from (select distinct customer_id from later),
        (select product_id from top order by buyers desc, product_id limit {SHOWN + SHOWN})),
        offered as (select customer_id, product_id, max(weight) as weight from (from own union all from every) group by 1, 2)
        select customer_id, product_id, row_number() over (
        partition by customer_id order by round(weight, 9) desc, buyers desc nulls last, product_id) as rank
        from offered left join top using (product_id)"""


def ours(shop: Shop, cut_off: date) -> None:
    """The temporary table ``ours`` with the first ten of ``recommendations/customer_products``."""
    con, declared = shop.lake.con.con, RecommendationsDeclaration.model_validate({})
    given: dict[str, Any] = dict(shop.rows)
    for table in (tables.PRODUCTS, tables.COMPLEMENTS, tables.RELATED_PRODUCTS, tables.CUSTOMER_PRODUCTS):
        made = making.rows(shop.lake, table, cut_off, declared, **given)
        given[table.name.removeprefix("recommendations/")] = made
    con.execute(f'create or replace temp table ours as select * from "{made.op().name}" where rank <= {SHOWN}')


def _everybody(since: date) -> str:
    """The products most people bought since a day, for everybody."""
    return f"""select customer_id, product_id, rank from (select distinct customer_id from later),
        (select product_id, row_number() over (order by count(distinct shop_customer_id) desc, product_id) as rank
        from known where day > '{since}' group by 1 order by rank limit {SHOWN})"""


def _recall(con: Any, ranked: str) -> float:
    """Mean share of what people bought that is among their first ten of ``ranked``: customer_id, product_id, rank."""
    found = con.execute(
        f"""select avg(hits) from (select customer_id, count(r.product_id) / count(*) as hits
        from later left join (select * from ({ranked}) where rank <= {SHOWN}) as r using (customer_id, product_id)
        group by 1)"""
    ).fetchone()
    return round(found[0], 4)


if __name__ == "__main__":
    main()

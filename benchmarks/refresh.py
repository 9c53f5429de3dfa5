"""One daily refresh, as a user runs it, beside a plain DuckDB scan of the columns it reads.

    python benchmarks/refresh.py [--customers N] [--months N] [--quick]

Generates a shop of N customers, loads it, runs ``shopauto refresh`` for its last day in a process of its own, and then, on
the same files in the same run, sums the columns that refresh reads with hand-written DuckDB SQL. Reports seconds, peak memory
and the ratio of the two; ends with one line of JSON.
"""

from __future__ import annotations

import argparse
import json
import resource
import tempfile
import time
from pathlib import Path

import duckdb
from measuring import shopauto

#: Columns of the lake that a refresh of one day reads over the whole history.
SCANNED = {
    "profiles/claims": ["shop_customer_id", "field", "value", "kind", "at"],
    "raw/consents": ["shop_customer_id", "channel", "state", "changed_at"],
    "features/daily_activity": [
        *("shop_customer_id", "orders", "items", "revenue_cents", "coupon_orders", "refund_cents", "visits"),
        *("page_views", "product_views", "seconds_on_site", "emails_sent", "opens", "machine_opens", "clicks"),
    ],
    "features/daily_products": ["shop_customer_id", "product_id", "category", "orders", "quantity", "revenue_cents"],
    "features/daily_carts": ["cart_id", "shop_customer_id", "last_at", "ordered_at", "coupon"],
}


def main() -> None:
    """Run the benchmark and print its figures."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--customers", type=int, default=100_000)
    parser.add_argument("--months", type=int, default=18)
    parser.add_argument("--quick", action="store_true", help="3,000 customers")
    options = parser.parse_args()
    customers = 3_000 if options.quick else options.customers

    with tempfile.TemporaryDirectory(prefix="shopauto-benchmark-") as folder:
        home = Path(folder) / "home"
        shop = Path(folder) / "shop"
        size = ("--customers", customers, "--months", options.months)
        timings = {
            "generate_seconds": shopauto(home, f"sample of {customers:,} customers", "sample", shop, *size),
            "load_seconds": shopauto(home, "load", "load", "sample", shop),
            "first_refresh_seconds": shopauto(home, "first refresh: history, training, one day", "refresh"),
        }
        before = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss
        timings["refresh_seconds"] = shopauto(home, "refresh of one day", "refresh")
        peak = max(before, resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss) / 1024**2
        scan = min(_scan(home / "lake") for _ in range(3))

    figures = {
        "customers": customers,
        **{name: round(seconds, 2) for name, seconds in timings.items()},
        "scan_seconds": round(scan, 3),
        "refresh_over_scan": round(timings["refresh_seconds"] / scan, 1),
        "peak_memory_gib": round(peak, 2),
    }
    width = max(map(len, figures))
    for name, value in figures.items():
        print(f"{name:{width}}  {value}")
    print(json.dumps(figures))


def _scan(lake: Path) -> float:
    started = time.perf_counter()
    connection = duckdb.connect()
    for table, columns in SCANNED.items():
        sums = ", ".join(f'bit_xor(hash("{column}"))' for column in columns)
        connection.execute(f"select {sums} from read_parquet('{lake}/{table}/*/data.parquet')").fetchall()
    return time.perf_counter() - started


if __name__ == "__main__":
    main()

"""A small shop for the tests: its mapping, files and loads."""

import textwrap
from datetime import date
from pathlib import Path

from shopauto_pipelines.platform.lake import Lake
from shopauto_pipelines.platform.settings import Settings
from shopauto_pipelines.sources.landing import LandingReport, land, landing_root, manifests
from shopauto_pipelines.sources.mapping import SourceMapping, mapping_named

TODAY = date(2026, 1, 31)

ORDERS = """
    orders:
      files: orders*.csv
      columns:
        order_id: order_id
        ordered_at: ordered_at
        shop_customer_id: customer
        email: email
        total_cents: cents(total)
"""
CUSTOMERS = """
    customers:
      files: customers*.csv
      columns: {shop_customer_id: id, changed_at: changed_at, created_at: created_at, email: email}
"""
LINES = """
    order_lines:
      files: lines*.csv
      columns:
        order_id: order_id
        line_number: line
        ordered_at: ordered_at
        kind: kind
        quantity: quantity
        amount_cents: cents(amount)
"""
ORDERS_HEADER = "order_id,ordered_at,customer,email,total\n"


def declare(folder: Path, *tables: str, head: str = "timezone: UTC") -> SourceMapping:
    """Write a playbook with the source ``shop`` and read it."""
    text = f"type: shopauto_pipelines.sources.component.MappedSource\nattributes:\n  name: shop\n  {head}\n  tables:\n"
    file = folder / "playbook" / "shop" / "defs.yaml"
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(
        text + "".join(textwrap.indent(textwrap.dedent(table).strip("\n"), "    ") + "\n" for table in tables)
    )
    return mapping_named("shop", folder / "playbook")


def put(folder: Path, **files: str | bytes) -> Path:
    """Write ``orders="…"`` as ``orders.csv``; returns the folder."""
    (folder / "files").mkdir(exist_ok=True)
    for name, content in files.items():
        data = content if isinstance(content, bytes) else content.encode()
        (folder / "files" / f"{name}.csv").write_bytes(data)
    return folder / "files"


def load(lake: Lake, settings: Settings, mapping: SourceMapping, path: Path, today: date = TODAY) -> LandingReport:
    """Land, and check that no row was lost."""
    report = land(lake, mapping, path, settings, today)
    for file in report.files:
        assert file.read == file.landed + file.quarantined + file.excluded + file.folded
    return report


def landed(lake: Lake, table: str = "orders") -> list[dict]:
    """All landed rows of a table, by file and row."""
    return _rows(lake, table, ".parquet")


def refused(lake: Lake, table: str = "orders") -> list[dict]:
    """All rows of a table that landing quarantined."""
    return _rows(lake, table, ".quarantine.parquet")


def _rows(lake: Lake, table: str, suffix: str) -> list[dict]:
    rows = []
    for manifest in manifests(lake):
        for file in manifest.files.values():
            if file.table == table:
                path = landing_root(lake) / manifest.source / file.landing
                rows += lake.con.read_parquet(str(path.with_suffix(suffix))).to_pyarrow().to_pylist()
    return sorted(rows, key=lambda row: (row["source_file"], row["source_row"]))


def an_order_a_day(lake, settings, folder, days):
    """A function that loads a shop of one customer and one order a day, with ``late`` rows of orders besides."""
    mapping = declare(folder, CUSTOMERS, ORDERS)
    rows = [f"{day.day},{day},c1,,1\n" for day in days]

    def load_with(*late: str):
        orders = ORDERS_HEADER + "".join([*rows, *(f"{row}\n" for row in late)])
        customers = "id,changed_at,created_at,email\nc1,2026-01-05,,\n"
        return load(lake, settings, mapping, put(folder, orders=orders, customers=customers))

    return load_with

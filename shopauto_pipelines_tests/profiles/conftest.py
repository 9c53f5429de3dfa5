"""Raw rows for the room's tests: ``put`` writes a day's rows of a raw table into a lake in a temporary folder."""

from collections.abc import Callable, Sequence
from datetime import date, datetime
from typing import Any

import pyarrow as pa
import pytest

from shopauto_pipelines.platform.lake import Lake
from shopauto_pipelines.platform.tables import Table
from shopauto_pipelines.profiles import claims as claiming
from shopauto_pipelines.profiles import consent as consenting
from shopauto_pipelines.profiles import customers as people
from shopauto_pipelines.profiles import identity, tables
from shopauto_pipelines.sources import tables as raw

DAY = date(2025, 3, 1)
NOON = datetime(2025, 3, 1, 12)


class Shop:
    """A lake with the raw tables, and the room's tables computed from it."""

    def __init__(self, lake: Lake) -> None:
        self.lake = lake

    def put(self, table: Table, rows: Sequence[dict[str, Any]], day: date = DAY) -> None:
        """Write the rows of a day; what a row leaves out is filled in where the table requires it."""
        at = raw.TIME_COLUMN[table.name]
        usual = {at: datetime(day.year, day.month, day.day, 12), "source": "shop", "source_file": "f.csv"}
        if table is raw.ORDERS:
            usual |= {"total_cents": 1000}
        whole = [
            usual | {"source_row": n, "order_id": f"o{n}", "event_id": f"e{n}"} | row for n, row in enumerate(rows, 1)
        ]
        self.lake.write(table, [day], pa.Table.from_pylist(whole, schema=table.arrow_schema))

    def clean(self, as_of: date = DAY, country: str = "GB", timezone: str = "UTC") -> None:
        """The claims of every day up to ``as_of`` that has raw rows."""
        lake = self.lake
        for day in sorted({*lake.days(raw.CUSTOMERS), *lake.days(raw.ORDERS)}):
            if day <= as_of:
                made = claiming.claims(
                    lake.between(raw.CUSTOMERS, day, day), lake.between(raw.ORDERS, day, day), country, timezone
                )
                lake.write(tables.CLAIMS, [day], made)

    def compute(self, as_of: date = DAY) -> None:
        """The claims, then the tables as of the day."""
        lake = self.lake
        self.clean(as_of)
        said = lake.between(tables.CLAIMS, end=as_of)
        customers, orders = lake.between(raw.CUSTOMERS, end=as_of), lake.between(raw.ORDERS, end=as_of)
        lake.write(tables.IDENTITIES, [as_of], identity.identities(customers, orders, said))
        persons = lake.on(tables.IDENTITIES, as_of)
        lake.write(tables.ATTRIBUTES, [as_of], people.attributes(said, persons))
        consents, events = lake.between(raw.CONSENTS, end=as_of), lake.between(raw.MESSAGE_EVENTS, end=as_of)
        lake.write(tables.CONSENT, [as_of], consenting.consent(consents, events, persons))
        rows = people.customers(lake.on(tables.ATTRIBUTES, as_of), persons, lake.on(tables.CONSENT, as_of))
        lake.write(tables.CUSTOMERS, [as_of], rows)

    def rows(self, table: Table, day: date = DAY) -> list[dict[str, Any]]:
        """The rows of a partition, in the order they are stored."""
        return self.lake.on(table, day).drop(table.partition).order_by(list(table.key)).to_pyarrow().to_pylist()

    def claimed(self, field: str, kind: str = "declared", day: date = DAY) -> list[tuple[str, Any, Any]]:
        """``(shop customer, value, problem)`` of a field's claims."""
        found = [row for row in self.rows(tables.CLAIMS, day) if (row["field"], row["kind"]) == (field, kind)]
        return [(row["shop_customer_id"], row["value"], row["problem"]) for row in found]

    def persons(self, day: date = DAY) -> dict[str, str]:
        """Person by shop customer."""
        return {row["shop_customer_id"]: row["customer_id"] for row in self.rows(tables.IDENTITIES, day)}

    def bytes(self, day: date = DAY) -> dict[str, bytes]:
        """The files of the room's tables."""
        return {table.name: self.lake.path(table, day).read_bytes() for table in tables.TABLES}


@pytest.fixture
def new_shop(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Shop]:
    """Makes shops, each with a lake of its own."""
    return lambda threads=2: Shop(Lake(tmp_path_factory.mktemp("lake"), threads=threads))


@pytest.fixture
def shop(new_shop: Callable[..., Shop]) -> Shop:
    """An empty shop."""
    return new_shop()

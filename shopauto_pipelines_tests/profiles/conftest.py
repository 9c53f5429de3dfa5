"""Raw rows for the room's tests: ``put`` writes a day's rows of a raw table into a lake in a temporary folder."""

from collections.abc import Callable, Sequence
from datetime import date, datetime
from functools import cache
from typing import Any

import pyarrow as pa
import pytest

from shopauto_pipelines.platform import prepared
from shopauto_pipelines.platform.lake import Lake
from shopauto_pipelines.platform.prepared import compiled, unseen
from shopauto_pipelines.platform.tables import Table
from shopauto_pipelines.profiles import claims as claiming
from shopauto_pipelines.profiles import consent as consenting
from shopauto_pipelines.profiles import customers as people
from shopauto_pipelines.profiles import identity, tables
from shopauto_pipelines.sources import tables as raw

DAY = date(2025, 3, 1)
NOON = datetime(2025, 3, 1, 12)


@cache
def _attributes() -> str:
    """Statements are compiled once and run on many shops: on a few rows the compilation is what takes time."""
    said = unseen(tables.CLAIMS, tables.CLAIMS.name, partitions=True)
    return compiled(people.attributes(said, unseen(tables.IDENTITIES, tables.IDENTITIES.name)))


@cache
def _consent() -> str:
    logs = (raw.CONSENTS, raw.MESSAGE_EVENTS, raw.TOPIC_CHOICES, tables.CLAIMS)
    given = (unseen(table, table.name, partitions=True) for table in logs)
    return compiled(consenting.consent(*given, *(unseen(t, t.name) for t in (tables.ATTRIBUTES, tables.IDENTITIES))))


@cache
def _customers() -> str:
    return compiled(
        people.customers(*(unseen(t, t.name) for t in (tables.ATTRIBUTES, tables.IDENTITIES, tables.CONSENT)))
    )


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
        if table is raw.FORM_SUBMISSIONS:
            usual |= {"form": "guide"}
        whole = [
            usual | {"source_row": n, "order_id": f"o{n}", "event_id": f"e{n}", "submission_id": f"s{n}"} | row
            for n, row in enumerate(rows, 1)
        ]
        self.lake.write(table, [day], pa.Table.from_pylist(whole, schema=table.arrow_schema))

    def clean(self, as_of: date = DAY, country: str = "GB", timezone: str = "UTC") -> None:
        """The claims of every day up to ``as_of`` that has raw rows."""
        lake = self.lake
        for day in sorted({*lake.days(raw.CUSTOMERS), *lake.days(raw.ORDERS)}):
            if day <= as_of:
                given = (lake.between(table, day, day) for table in (raw.CUSTOMERS, raw.ORDERS))
                lake.write(tables.CLAIMS, [day], claiming.claims(*given, country, timezone))

    def compute(self, as_of: date = DAY) -> None:
        """The claims, then the tables as of the day."""
        lake = self.lake
        self.clean(as_of)
        logs = (raw.CUSTOMERS, raw.ORDERS, raw.CONSENTS, raw.MESSAGE_EVENTS, raw.TOPIC_CHOICES, tables.CLAIMS)
        given = {table.name: lake.between(table, end=as_of) for table in logs}
        persons = identity.identities(*(given[table.name] for table in (raw.CUSTOMERS, raw.ORDERS, tables.CLAIMS)))
        forms = lake.between(raw.FORM_SUBMISSIONS, end=as_of)
        lake.write(tables.IDENTITIES, [as_of], identity.with_forms(persons, forms, given[tables.CLAIMS.name]))
        given[tables.IDENTITIES.name] = lake.on(tables.IDENTITIES, as_of)
        for table, statement in (
            (tables.ATTRIBUTES, _attributes()),
            (tables.CONSENT, _consent()),
            (tables.CUSTOMERS, _customers()),
        ):
            lake.write(table, [as_of], prepared.run(lake, statement, given))
            given[table.name] = lake.on(table, as_of)

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

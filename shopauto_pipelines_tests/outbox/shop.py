"""A small lake with customers and an audience: what a dispatcher reads. Also a dispatcher to be run as a process."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping, Sequence
from datetime import date
from pathlib import Path

import pyarrow as pa

from shopauto_pipelines.campaigns.declaration import Campaign, load_campaigns
from shopauto_pipelines.campaigns.tables import audience
from shopauto_pipelines.features import tables as features
from shopauto_pipelines.outbox.dispatch import dispatch
from shopauto_pipelines.platform.clock import FixedClock
from shopauto_pipelines.platform.lake import Lake
from shopauto_pipelines.platform.settings import Settings
from shopauto_pipelines.platform.tables import Table
from shopauto_pipelines.profiles import tables as profiles
from shopauto_pipelines.sources import tables as raw
from shopauto_pipelines_tests.outbox.conftest import AT, DAY


def campaign() -> Campaign:
    """The welcome campaign of the playbook."""
    return load_campaigns()["welcome"]


def repeated() -> Campaign:
    """The same, for every occasion: nobody is welcomed twice."""
    return campaign().model_copy(update={"trigger": load_campaigns()["newsletter"].trigger})


def fill(lake: Lake, table: Table, day: date, rows: list[dict]) -> None:
    """Write rows; columns that are not named are null, numbers and flags that must be there zero."""
    zero = {"int64": 0, "boolean": False}
    blank = {column.name: zero.get(column.type) if column.required else None for column in table.columns}
    lake.write(table, [day], pa.Table.from_pylist([blank | row for row in rows], schema=table.arrow_schema))


def write_people(lake: Lake, shop_ids: Mapping[str, Sequence[str]], day: date = DAY) -> None:
    """Customers with their shop ids, each with an address."""
    known = [
        {"customer_id": n, "email": f"{n}@example.com", "first_name": f"Ana{n}", "shop_ids": len(shop_ids[n])}
        for n in sorted(shop_ids)
    ]
    fill(lake, profiles.CUSTOMERS, day, known)
    ids = [{"shop_customer_id": each, "customer_id": n, "rule": "email"} for n in shop_ids for each in shop_ids[n]]
    fill(lake, profiles.IDENTITIES, day, ids)


def write_shop(lake: Lake, people: int, refused: int = 0, day: date = DAY) -> None:
    """``people`` customers to be welcomed, and ``refused`` more who did not agree."""
    ids = [f"c{n:06}" for n in range(people + refused)]
    fill(lake, raw.ORDERS, day, [])
    fill(lake, features.DAILY_PRODUCTS, day, [])
    fill(lake, raw.PRODUCTS, day, [])
    fill(lake, features.CUSTOMER_FEATURES, day, [{"customer_id": n} for n in ids])
    write_people(lake, {n: [n] for n in ids}, day)
    fill(
        lake,
        audience("welcome"),
        day,
        [
            {
                "step": "hello",
                "customer_id": n,
                "occasion": str(day),
                "triggered_on": day,
                "due_on": day,
                "decision": "planned" if count < people else "refused",
                "reason": "due" if count < people else "no_consent",
                "channel": "email",
                "template": "hello",
                "language": "en",
                "explanation": json.dumps({"trigger": "signed_up"}),
            }
            for count, n in enumerate(ids)
        ],
    )


def main() -> None:
    """Dispatch the day with the settings given as JSON; used by the tests that kill a dispatcher."""
    from shopauto_pipelines.platform.postgres import engine

    settings = Settings(_env_file=None, **json.loads(sys.argv[1]))
    database = Settings(_env_file=None, home=Path(sys.argv[2]))
    dispatch(engine(database), Lake(settings.lake_path, 1), settings, campaign(), DAY, clock=FixedClock(AT))


if __name__ == "__main__":
    main()

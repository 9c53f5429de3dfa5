"""The lake → ``people``, ``people_ids`` and ``categories``: what an answer in milliseconds rests on.

A day is published in one transaction: readers see the day before, or this one, whole, and never wait. Before it is committed
it is compared with features and segments once more (:func:`leaks`), by other means than those it was made with. Who is
offered what is not decided here.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from datetime import date, datetime, timedelta
from typing import Any, NamedTuple

import ibis
import ibis.expr.types as ir
import pyarrow as pa
import sqlalchemy as sa
from ibis import _

from shopauto_pipelines.campaigns.holdout import GLOBAL, held_out, holdout_key, is_held_out
from shopauto_pipelines.campaigns.offers import ONSITE
from shopauto_pipelines.campaigns.products import latest
from shopauto_pipelines.features.tables import CUSTOMER_360, CUSTOMER_FEATURES, DAILY_PRODUCTS
from shopauto_pipelines.outbox import links
from shopauto_pipelines.platform.errors import ShopAutoError
from shopauto_pipelines.platform.lake import Lake
from shopauto_pipelines.platform.postgres import SCHEMA
from shopauto_pipelines.platform.settings import Settings
from shopauto_pipelines.profiles.tables import IDENTITIES
from shopauto_pipelines.realtime import schema
from shopauto_pipelines.segments.membership import members
from shopauto_pipelines.segments.tables import MEMBERSHIP
from shopauto_pipelines.sources.tables import PRODUCTS

#: The segment that the on-site offer is for, and those that it must never reach.
LAPSED = "lapsed"
ACTIVE = ("active", "new")

#: What must have been computed for a day before it can be served.
SOURCES = (CUSTOMER_360, MEMBERSHIP, IDENTITIES)

#: Days of sales that weigh the products of a category.
SALES_DAYS = 365

#: Answers are counted for so long.
_DECISIONS_KEPT = timedelta(days=90)


class LeakError(ShopAutoError):
    """People who must not be reached would be; nothing was published. The text has numbers only."""


class Published(NamedTuple):
    """What is served, and how many rows of it are new or have changed, or are gone."""

    day: date
    people: int
    ids: int
    lapsed: int
    held_out: int
    discount_seekers: int
    changed: int
    removed: int


def newest_day(lake: Lake) -> date | None:
    """The newest day of which everything that is served has been computed."""
    return max(set.intersection(*(set(lake.days(table)) for table in SOURCES)), default=None)


def served_day(connection: sa.Connection) -> date | None:
    """The day that is served now; ``None`` before the first one."""
    return connection.execute(sa.select(sa.func.max(schema.people.c.as_of))).scalar()


def publish(engine: sa.Engine, lake: Lake, settings: Settings, day: date, *, at: datetime) -> Published:
    """Serve the people as of ``day`` from now on; answers that were counted long before ``at`` are forgotten.

    Raises :class:`~shopauto_pipelines.platform.lake.MissingPartition` where the day has not been computed and
    :class:`LeakError` where what would be served is not what features and segments say.
    """
    ids = lake.on(IDENTITIES, day).select("shop_customer_id", "customer_id")
    sold = lake.between(DAILY_PRODUCTS, day - timedelta(days=SALES_DAYS - 1), day)
    goods = categories(lake.between(PRODUCTS, end=day), sold)
    with engine.begin() as connection:
        connection.execute(sa.select(sa.func.pg_advisory_xact_lock(sa.func.hashtext("shopauto.publish"))))
        changes = [
            _replace(connection, schema.people, _people(lake, settings, day)),
            _replace(connection, schema.people_ids, _rows(lake, ids)),
            _replace(connection, schema.categories, _rows(lake, goods)),
        ]
        if wrong := {what: n for what, n in leaks(connection, lake, settings).items() if n}:
            found = ", ".join(f"{n:,} {what}" for what, n in wrong.items())
            raise LeakError(f"people as of {day} are not published, the day before is served on: {found}")
        connection.execute(sa.delete(schema.decisions).where(schema.decisions.c.at < at - _DECISIONS_KEPT))
        counts = _counts(connection)
    return Published(day, *counts, changed=sum(c for c, _ in changes), removed=sum(r for _, r in changes))


def leaks(connection: sa.Connection, lake: Lake, settings: Settings) -> dict[str, int]:
    """How many of those who are served as lapsed must not be reached, by kind; all zero where all is well.

    Counted anew for the served day, from features and membership and the plain form of the holdout's hash: an error in
    what was published shows. Raises :class:`~shopauto_pipelines.platform.lake.MissingPartition`.
    """
    table = schema.people
    rows = connection.execute(
        sa.select(table.c.customer_id, table.c.held_out, table.c.discount_seeker, table.c.as_of).where(table.c.lapsed)
    ).all()
    kinds = ("not in the segment", "active", "bought since", "discount seekers", "in a holdout", "of another day")
    found = dict.fromkeys(kinds, 0)
    if not rows:
        return found
    day = max(row.as_of for row in rows)
    served = ibis.memtable(
        pa.table(
            {
                "customer_id": [row.customer_id for row in rows],
                "seeks": [row.discount_seeker for row in rows],
            }
        )
    )
    membership = lake.on(MEMBERSHIP, day)
    features = lake.on(CUSTOMER_FEATURES, day)
    # one who is later than their own rhythm is not active, whatever the segments have been declared to be
    rhythm = ibis.coalesce(_.churn_factor, _.recency_days / float(settings.horizon_days))
    in_rhythm = features.filter(rhythm <= 1).select("customer_id")
    active = ibis.union(members(membership, *ACTIVE).select("customer_id"), in_rhythm, distinct=True)
    asked = {
        "not in the segment": served.anti_join(members(membership, LAPSED), "customer_id"),
        "active": served.semi_join(active, "customer_id"),
        "bought since": served.anti_join(features.filter(_.last_order_on <= day), "customer_id"),
        "discount seekers": served.filter(~_.seeks).semi_join(features.filter(_.discount_seeker), "customer_id"),
    }
    for kind, people in asked.items():
        found[kind] = int(lake.con.to_pyarrow(people.count()).as_py())
    holdouts = _holdouts(settings)
    found["in a holdout"] = sum(
        not row.held_out and any(is_held_out(row.customer_id, key, percent) for key, percent in holdouts)
        for row in rows
    )
    found["of another day"] = sum(row.as_of != day for row in rows)
    return found


def people(customers: ir.Table, membership: ir.Table, settings: Settings) -> ir.Table:
    """Rows of ``people`` but for the day, and with the address in clear, out of a day of the lake's tables.

    ``customers`` are rows of ``features/customer_360``, ``membership`` those of ``segments/membership``.
    """
    lapsed = members(membership, LAPSED).select(member="customer_id").distinct()
    held = [held_out(_.customer_id, key, percent) for key, percent in _holdouts(settings)]
    return customers.left_join(lapsed, _.customer_id == lapsed.member).select(
        "customer_id",
        "email",
        "discount_seeker",
        "last_order_on",
        "churn_factor",
        "favourite_category",
        "favourite_category_order_cents",
        "category_average_order_cents",
        lapsed=_.member.notnull(),
        held_out=ibis.or_(*held),
    )


def categories(products: ir.Table, sold: ir.Table) -> ir.Table:
    """Rows of ``categories``: what a basket of each category is worth and costs, as nobody knows what will be in it.

    Every product of ``raw/products`` that has a price counts once, and once more for every piece in ``sold``, rows of
    ``features/daily_products``.
    """
    pieces = sold.group_by("product_id").agg(pieces=_.quantity.sum())
    priced = latest(products).filter(_.category.notnull() & _.price_cents.notnull())
    weighed = priced.left_join(pieces, "product_id").select(
        "category", "price_cents", "cost_cents", weight=1 + _.pieces.fill_null(0)
    )
    known = _.cost_cents.notnull()
    return weighed.group_by("category").agg(
        priced_cents=(_.price_cents * _.weight).sum(where=known).fill_null(0),
        cost_cents=(_.cost_cents * _.weight).sum(where=known).fill_null(0),
        unknown_cents=(_.price_cents * _.weight).sum(where=~known).fill_null(0),
    )


def _people(lake: Lake, settings: Settings, day: date) -> Iterator[dict[str, Any]]:
    """Rows of ``people``, with a keyed hash for the address."""
    for row in _rows(lake, people(lake.on(CUSTOMER_360, day), lake.on(MEMBERSHIP, day), settings)):
        row["address_hash"] = links.address_hash(settings.hash_key, "email", row.pop("email"))
        row["as_of"] = day
        yield row


def _rows(lake: Lake, rows: ir.Table) -> Iterator[dict[str, Any]]:
    for batch in lake.con.to_pyarrow_batches(rows):
        yield from batch.to_pylist()


def _replace(connection: sa.Connection, table: sa.Table, rows: Iterable[dict[str, Any]]) -> tuple[int, int]:
    """Make ``table`` consist of ``rows``; returns how many were new or different, and how many are gone.

    Rows that stay as they are are not touched, and nobody who reads waits.
    """
    staged, names = f"staged_{table.name}", [column.name for column in table.columns]
    (key,) = (column.name for column in table.primary_key)
    columns = ", ".join(names)
    connection.execute(sa.text(f"create temporary table {staged} (like {SCHEMA}.{table.name}) on commit drop"))
    driver = connection.connection.driver_connection
    assert driver is not None
    with driver.cursor() as cursor, cursor.copy(f"copy {staged} ({columns}) from stdin") as copy:
        for row in rows:
            copy.write_row([row[name] for name in names])
    changed = connection.execute(
        sa.text(
            f"insert into {SCHEMA}.{table.name} as served ({columns}) select {columns} from {staged} "
            f"on conflict ({key}) do update set ({columns}) = row({', '.join(f'excluded.{name}' for name in names)}) "
            f"where served is distinct from excluded"
        )
    )
    connection.execute(sa.text(f"analyze {staged}"))
    gone = connection.execute(
        sa.text(
            f"delete from {SCHEMA}.{table.name} served "
            f"where not exists (select from {staged} where {staged}.{key} = served.{key})"
        )
    )
    connection.execute(sa.text(f"analyze {SCHEMA}.{table.name}"))
    return changed.rowcount, gone.rowcount


def _counts(connection: sa.Connection) -> tuple[int, int, int, int, int]:
    """Of the fields of :class:`Published` those from ``people`` to ``discount_seekers``."""
    c = schema.people.c
    lapsed = c.lapsed
    row = connection.execute(
        sa.select(
            sa.func.count(),
            sa.select(sa.func.count()).select_from(schema.people_ids).scalar_subquery(),
            sa.func.count().filter(lapsed),
            sa.func.count().filter(lapsed, c.held_out),
            sa.func.count().filter(lapsed, c.discount_seeker),
        )
    ).one()
    return row[0], row[1], row[2], row[3], row[4]


def _holdouts(settings: Settings) -> list[tuple[str, float]]:
    """Key and share of the holdouts that the on-site offer keeps."""
    return [
        (holdout_key(settings.hash_key, GLOBAL), settings.holdout_percent),
        (holdout_key(settings.hash_key, ONSITE), settings.onsite_holdout_percent),
    ]

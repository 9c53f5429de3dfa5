"""The sample shop: invents a shop whose customers have real habits, and writes its export as CSV files.

Every customer has an own purchase rhythm (gamma distributed intervals), drops out at some purchase, loves some
categories, follows a season, hunts for discounts or not, and answers to mail or not. Those habits drive orders, visits,
carts and clicks, so the predictions have something to find. What was drawn for each customer is written to ``truth/``,
beside the orders of the 90 days after the end: nothing but tests may read it.

How purchases come about (a renewal process with drop-out, after Schmittlein, Morrison & Colombo 1987 and Platzer &
Reutterer 2016): time runs faster in a customer's season and slower outside it; in that operational time intervals are
``gamma(k, mean / k)``; after each purchase the customer leaves for good with an own probability. A mail adds an order,
with an own probability per mail, while the customer has not left. So the probability of no order in the next 90 days
has a closed form, which the truth file holds.

People are drawn in blocks of ``BLOCK`` customers, each block from its own spawned seed, one block in memory at a time.
The block is a fixed constant, so one (customers, months, end, seed) means one set of bytes.

The modules, in the order they build on each other: ``lists`` (words), ``files`` (CSV), ``shop`` (calendar, catalogue),
``people``, ``rhythm`` (own purchases), ``mail``, ``orders`` (baskets), ``visits`` (events, carts), ``truth``. How the
files become raw tables is declared in ``defs/sources/sample``.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import date
from pathlib import Path

import numpy as np

from shopauto_pipelines.sources.sample.files import FILES, Writer, writers
from shopauto_pipelines.sources.sample.mail import draw_mail
from shopauto_pipelines.sources.sample.orders import draw_orders, future_rows, line_rows, order_rows, refund_rows
from shopauto_pipelines.sources.sample.people import draw_people, draw_records
from shopauto_pipelines.sources.sample.rhythm import draw_rhythm
from shopauto_pipelines.sources.sample.shop import Counters, Shop
from shopauto_pipelines.sources.sample.truth import truth_rows
from shopauto_pipelines.sources.sample.visits import draw_visits, event_rows

Progress = Callable[[str, int, int], None]


BLOCK = 10_000


@dataclass(frozen=True)
class Summary:
    """What ``generate`` wrote: where, the first and last day, rows per file, and bytes of all files together."""

    path: Path
    start: date
    end: date
    rows: dict[str, int]
    bytes: int


def generate(
    out: Path,
    customers: int = 3000,
    months: int = 18,
    end: date = date(2026, 6, 30),
    seed: int = 7,
    progress: Progress | None = None,
) -> Summary:
    """Write the files of ``FILES`` below ``out``: ``months`` months of a shop with ``customers`` people, up to ``end``.

    The same arguments give the same bytes. About 3 % of the people have a second account, and one guest in 25 customers
    never has any. Files are replaced only when all are complete. ``progress`` is called after each block as
    ``progress("customers", done, customers)``. Raises ``ValueError`` where ``customers`` or ``months`` is below 1.
    """
    if customers < 1 or months < 1:
        raise ValueError(f"a sample shop needs at least 1 customer and 1 month, not {customers} and {months}")
    shop = Shop.of(customers, months, end, seed)
    counters = Counters()
    with writers(out) as write:
        write("products.csv", shop.catalogue.rows(shop))
        for number, first in enumerate(range(0, customers, BLOCK)):
            count = min(BLOCK, customers - first)
            rng = np.random.default_rng(np.random.SeedSequence(seed, spawn_key=(1, number)))
            _block(rng, shop, first, count, counters, write)
            if progress:
                progress("customers", first + count, customers)
        rows = write.rows
    return Summary(out, shop.start, end, rows, sum((out / name).stat().st_size for name in FILES))


def _block(rng: np.random.Generator, shop: Shop, first: int, count: int, counters: Counters, write: Writer) -> None:
    """Draws the people ``first`` … ``first + count`` and writes everything about them."""
    people = draw_people(rng, shop, first, count)
    ids, records = draw_records(rng, shop, people, counters)
    rhythm = draw_rhythm(rng, shop, people)
    mail = draw_mail(rng, shop, people, rhythm, ids, counters)
    orders = draw_orders(rng, shop, people, rhythm, mail)
    visits, cart = draw_visits(rng, shop, people, rhythm, mail, orders, counters)
    numbers = counters.take("order", orders.past) + np.arange(len(orders.person))
    account = ids.account_at(orders.person, orders.seconds, ~orders.by_guest)
    write("customers.csv", records)
    write("consents.csv", mail.consents)
    write("orders.csv", order_rows(orders, numbers, account, ids, cart))
    write("order_lines.csv", line_rows(shop, orders, numbers, account))
    write("refunds.csv", refund_rows(rng, shop, people, orders, numbers, account, counters))
    write("events.csv", event_rows(rng, shop, people, visits, ids, counters))
    write("message_events.csv", mail.events)
    write("truth/customers.csv", truth_rows(shop, people, rhythm, mail, ids))
    write("truth/future_orders.csv", future_rows(orders, ids))

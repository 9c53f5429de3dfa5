"""What visitors do in the sample shop: sessions before and without orders, carts, and their events."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pyarrow as pa

from shopauto_pipelines.sources.sample.files import Bools, Ints, numbered, position, times
from shopauto_pipelines.sources.sample.lists import COUNTRIES
from shopauto_pipelines.sources.sample.mail import Mail
from shopauto_pipelines.sources.sample.orders import Orders, pick
from shopauto_pipelines.sources.sample.people import Ids, People
from shopauto_pipelines.sources.sample.rhythm import Rhythm
from shopauto_pipelines.sources.sample.shop import CATEGORIES, DAY, HOUR_CLOCKS, Catalogue, Counters, Shop


@dataclass
class Visits:
    """Sessions being collected. ``ends`` means that ``seconds`` is the end of the session, else its start."""

    person: list[Ints] = field(default_factory=list)
    seconds: list[Ints] = field(default_factory=list)
    ends: list[Bools] = field(default_factory=list)
    checkout: list[Bools] = field(default_factory=list)
    cart: list[Ints] = field(default_factory=list)  # 0: none
    unknown: list[Bools] = field(default_factory=list)  # not logged in
    items: list[tuple[Ints, Ints, Ints, Ints]] = field(default_factory=list)  # session, product, added, removed
    stranger: list[Ints] = field(
        default_factory=list
    )  # number of a visitor who never tells who it is; −1: a known person
    count: int = 0

    def add(
        self,
        person: Ints,
        seconds: Ints,
        *,
        ends: bool,
        checkout: Bools,
        cart: Ints,
        unknown: Bools,
        stranger: Ints | None = None,
    ) -> Ints:
        """Adds sessions; returns their numbers."""
        self.person.append(person)
        self.seconds.append(seconds)
        self.ends.append(np.full(len(person), ends))
        self.checkout.append(checkout)
        self.cart.append(cart)
        self.unknown.append(unknown)
        self.stranger.append(np.full(len(person), -1) if stranger is None else stranger)
        self.count += len(person)
        return np.arange(self.count - len(person), self.count)


def draw_visits(
    rng: np.random.Generator,
    shop: Shop,
    people: People,
    rhythm: Rhythm,
    mail: Mail,
    orders: Orders,
    counters: Counters,
) -> tuple[Visits, Ints]:
    """All sessions up to the end, and the cart of every order (0 where the visit was not tracked)."""
    visits = Visits()
    n = len(orders.person)
    cart = np.where(orders.tracked, counters.take("cart", n) + np.arange(n), 0)
    goods = orders.product >= 0

    def with_lines(chosen: Bools, session: Ints) -> None:
        at = np.full(n, -1)
        at[chosen] = session
        line = np.flatnonzero(goods & chosen[orders.line_order])
        visits.items.append(
            (at[orders.line_order[line]], orders.product[line], orders.quantity[line], np.zeros(len(line), np.int64))
        )

    direct = orders.tracked & ~orders.recovered
    session = visits.add(
        orders.person[direct], orders.seconds[direct] - rng.integers(20, 60, int(direct.sum())), ends=True,
        checkout=np.ones(int(direct.sum()), bool), cart=cart[direct], unknown=orders.by_guest[direct],
    )  # fmt: skip
    with_lines(direct, session)
    _put_back(rng, shop, people, visits, session[rng.random(len(session)) < 0.1])

    later = orders.tracked & orders.recovered
    count = int(later.sum())
    left = orders.seconds[later] - (rng.uniform(0.25, 4.0, count) * DAY).astype(np.int64)
    session = visits.add(
        orders.person[later],
        left,
        ends=False,
        checkout=rng.random(count) < 0.35,
        cart=cart[later],
        unknown=np.zeros(count, bool),
    )
    with_lines(later, session)
    visits.add(
        orders.person[later],
        orders.seconds[later] - rng.integers(20, 60, count),
        ends=True,
        checkout=np.ones(count, bool),
        cart=cart[later],
        unknown=np.zeros(count, bool),
    )

    who, when = _browsing(rng, shop, people, rhythm, mail, orders)
    inside = (when >= np.maximum(shop.opens, people.signup[who])) & (when < shop.closes) & ~people.guest[who]
    who, when = who[inside], when[inside]
    abandons = rng.random(len(who)) < np.where(people.seeker[who], 0.5, 0.4)
    carts = np.where(abandons, counters.take("cart", len(who)) + np.arange(len(who)), 0)
    session = visits.add(
        who, when, ends=False, checkout=abandons & (rng.random(len(who)) < 0.3), cart=carts,
        unknown=~abandons & (rng.random(len(who)) < 0.07),
    )  # fmt: skip
    _look(rng, shop, people, visits, session, abandons)
    _strangers(rng, shop, people, visits, counters)
    return visits, cart


def _browsing(
    rng: np.random.Generator, shop: Shop, people: People, rhythm: Rhythm, mail: Mail, orders: Orders
) -> tuple[Ints, Ints]:
    """Visits that end without an order: before an order, after a click, now and then, and the curious who never buy."""
    before = rng.random(len(orders.person)) < 0.24
    who = [orders.person[before], mail.click_person]
    when = [
        orders.seconds[before] - (rng.uniform(0.3, 9.0, int(before.sum())) * DAY).astype(np.int64),
        mail.click_seconds + 8,
    ]
    begin, left = np.maximum(people.signup, shop.opens), np.minimum(rhythm.left_at, shop.closes)
    left = np.maximum(np.where(people.buyer, left, begin), begin)
    for start, stop, per_day in (
        (begin, left, 0.3 / people.interval),
        (left, np.full(len(people), shop.closes), np.full(len(people), 0.0016)),
        (begin, np.minimum(begin + 20 * DAY, shop.closes), np.where(people.buyer, 0.01, 0.09)),
    ):
        length = np.maximum(stop - start, 0)
        visits = rng.poisson(length / DAY * per_day)
        person = np.repeat(np.arange(len(people)), visits)
        who.append(person)
        when.append(
            _daytime(
                rng, start[person] + (rng.random(len(person)) * length[person]).astype(np.int64), people.country[person]
            )
        )
    return np.concatenate(who), np.concatenate(when)


def _daytime(rng: np.random.Generator, seconds: Ints, country: Ints) -> Ints:
    """The same days, at hours people visit."""
    second = np.empty(len(seconds))
    draw = rng.random(len(seconds))
    for c, (quantiles, hours) in enumerate(HOUR_CLOCKS):
        at = country == c
        second[at] = np.interp(draw[at], quantiles, hours) * 3600
    return seconds // DAY * DAY + np.minimum(second, DAY - 1).astype(np.int64)


def _look(rng: np.random.Generator, shop: Shop, people: People, visits: Visits, session: Ints, abandons: Bools) -> None:
    """Products looked at in browsing sessions; where a cart is left behind, the first ones were put in."""
    looks = np.minimum(rng.poisson(0.75, len(session)), 5) + abandons
    row = np.repeat(np.arange(len(session)), looks)
    person, seconds = visits.person[-1][row], visits.seconds[-1][row]
    added = abandons[row] & (position(row) < 1 + (rng.random(len(session)) < 0.35)[row])
    visits.items.append(
        (session[row], pick(rng, shop, people, person, seconds), added.astype(np.int64), np.zeros(len(row), np.int64))
    )


def _put_back(rng: np.random.Generator, shop: Shop, people: People, visits: Visits, session: Ints) -> None:
    """One more product that goes into the cart and out again."""
    row = session - (visits.count - len(visits.person[-1]))
    product = pick(rng, shop, people, visits.person[-1][row], visits.seconds[-1][row])
    visits.items.append((session, product, np.ones(len(session), np.int64), np.ones(len(session), np.int64)))


def _strangers(rng: np.random.Generator, shop: Shop, people: People, visits: Visits, counters: Counters) -> None:
    """Visitors who never tell who they are; some leave a cart behind."""
    count = int(len(people) * 1.1)
    who = np.repeat(np.arange(count), 1 + rng.poisson(0.3, count))
    n = len(who)
    first = rng.integers(shop.opens, shop.closes, count)[who]
    when = first + (rng.random(n) * (position(who) > 0) * 15 * DAY).astype(np.int64)
    leaves = rng.random(n) < 0.12
    session = visits.add(
        np.full(n, -1),
        _daytime(rng, when, rng.integers(0, len(COUNTRIES), count)[who]),
        ends=False,
        checkout=np.zeros(n, bool),
        cart=np.where(leaves, counters.take("cart", n) + np.arange(n), 0),
        unknown=np.ones(n, bool),
        stranger=who,
    )
    row = np.repeat(np.arange(n), np.minimum(rng.poisson(0.9, n), 5) + leaves)
    product = pick(rng, shop, people, rng.integers(0, len(people), len(row)), when[row])
    added = (leaves[row] & (position(row) == 0)).astype(np.int64)
    visits.items.append((session[row], product, added, np.zeros(len(row), np.int64)))


_KINDS = ("page_view", "search", "product_view", "add_to_cart", "remove_from_cart", "checkout_started")
_PAGE, _SEARCH, _VIEW, _ADD, _REMOVE, _CHECKOUT = range(len(_KINDS))


@dataclass
class _Stream:
    """Events, those of a session together and in their order."""

    kind: Ints  # index in ``_KINDS``
    session: Ints
    product: Ints  # −1: none
    quantity: Ints

    def take(self, rows: Ints) -> _Stream:
        """The chosen events."""
        return _Stream(self.kind[rows], self.session[rows], self.product[rows], self.quantity[rows])


def _stream(rng: np.random.Generator, visits: Visits) -> _Stream:
    """A session opens a page, may search, looks at its products one by one, and may go to the checkout."""
    session, item, added, removed = (np.concatenate([part[i] for part in visits.items]) for i in range(4))
    by_session = np.argsort(session, kind="stable")
    session, item, added, removed = (column[by_session] for column in (session, item, added, removed))
    place = position(session) * 10
    shown = np.full(visits.count, -1)
    shown[session[place == 0]] = item[place == 0]
    everyone = np.arange(visits.count)
    searches = np.flatnonzero((shown >= 0) & (rng.random(visits.count) < 0.17))
    leaves = np.flatnonzero(np.concatenate(visits.checkout))
    adds, removes = np.flatnonzero(added), np.flatnonzero(removed)
    none = np.zeros(visits.count, np.int64)
    parts = (  # session, product, quantity, place within the session; in the order of ``_KINDS``
        (everyone, shown, none, none - 2),
        (searches, shown[searches], none[searches], none[searches] - 1),
        (session, item, np.zeros(len(item), np.int64), place),
        (session[adds], item[adds], added[adds], place[adds] + 1),
        (session[removes], item[removes], removed[removes], place[removes] + 2),
        (leaves, shown[leaves], none[leaves], none[leaves] + 1000),
    )
    kind = np.repeat(np.arange(len(parts)), [len(part[0]) for part in parts])
    session, product, quantity, rank = (np.concatenate([part[i] for part in parts]) for i in range(4))
    return _Stream(kind, session, product, quantity).take(np.lexsort((rank, session)))


def _event_times(rng: np.random.Generator, visits: Visits, stream: _Stream) -> Ints:
    """Seconds of each event: some time apart, from the session's start or up to its end."""
    gap = rng.integers(6, 75, len(stream.kind))
    starts = np.flatnonzero(stream.kind == _PAGE)  # every session opens with a page
    gap[starts] = 0
    run = np.cumsum(gap)
    run -= run[starts][stream.session]
    length = run[np.append(starts[1:], len(run)) - 1]
    begins = np.concatenate(visits.seconds) - np.where(np.concatenate(visits.ends), length, 0)
    return begins[stream.session] + run


def event_rows(
    rng: np.random.Generator, shop: Shop, people: People, visits: Visits, ids: Ids, counters: Counters
) -> dict[str, Any]:
    """The rows of events.csv: the events of all sessions in time order, cut to the exported days."""
    stream = _stream(rng, visits)
    at = _event_times(rng, visits, stream)
    keep = np.flatnonzero((at >= shop.opens) & (at < shop.closes))
    keep = keep[np.argsort(at[keep], kind="stable")]
    stream, at = stream.take(keep), at[keep]
    kind, session = stream.kind, stream.session
    _, appears, place = np.unique(session, return_index=True, return_inverse=True)
    visit = np.argsort(np.argsort(appears))[place]
    person, cart = np.concatenate(visits.person)[session], np.concatenate(visits.cart)[session]
    hidden = np.concatenate(visits.unknown)[session] | (at < people.signup[person])
    tied = np.zeros(len(kind), bool)  # the first checkout tells whose browser it is
    checkouts = np.flatnonzero(~hidden & (kind == _CHECKOUT))
    tied[checkouts[np.unique(person[checkouts], return_index=True)[1]]] = True
    stranger = np.concatenate(visits.stranger)[session]
    browser = np.where(stranger < 0, person, len(people) + stranger)
    first_browser = counters.take("browser", len(people) + int(np.concatenate(visits.stranger).max(initial=0)) + 1)
    on_product = (kind >= _VIEW) & (kind <= _REMOVE)
    in_cart = (kind == _ADD) | (kind == _REMOVE)
    return {
        "event_id": numbered("e", counters.take("event", len(kind)) + np.arange(len(kind))),
        "happened_at": times(at),
        "type": pa.array(_KINDS).take(pa.array(kind)),
        "shop_customer_id": ids.account_at(np.maximum(person, 0), at, ~hidden),
        "anonymous_id": numbered("a", first_browser + browser, hidden | tied),
        "session_id": numbered("s", counters.take("session", len(appears)) + visit),
        "cart_id": numbered("k", cart, (cart > 0) & (in_cart | (kind == _CHECKOUT))),
        "product_id": pa.array(shop.catalogue.ids).take(pa.array(stream.product, mask=~on_product)),
        "quantity": pa.array(stream.quantity, mask=~in_cart),
        "url": _urls(shop.catalogue, kind, stream.product),
    }


def _urls(catalogue: Catalogue, kind: Ints, product: Ints) -> pa.Array:
    """The page of each event; putting things into the cart opens none."""
    width = len(catalogue.ids)
    pages = [
        *(f"/c/{CATEGORIES[c].replace(' ', '-')}" for c in catalogue.category), "/",
        *(f"/search?q={word}" for word in catalogue.word), "/search",
        *(f"/p/{product_id}" for product_id in catalogue.ids), "/",
        "/checkout",
    ]  # fmt: skip
    page = kind * (width + 1) + np.where(product < 0, width, product)
    page = np.where(kind == _CHECKOUT, len(pages) - 1, page)
    return pa.array(pages).take(pa.array(page, mask=(kind == _ADD) | (kind == _REMOVE)))

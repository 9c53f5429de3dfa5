"""What messages show beside their words: products by the step's choice, what the trigger is about, the cart, the offer.

Best sellers and new products are shared: readers who are shown the same get the same list, so their messages share a draft.
What was chosen for one person is worded at once, and fills holes of a draft.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import date
from functools import cached_property
from typing import Any, NamedTuple

from shopauto_pipelines.campaigns.content import DETAILS, Renderer
from shopauto_pipelines.campaigns.declaration import Campaign
from shopauto_pipelines.campaigns.drafts import Shown
from shopauto_pipelines.campaigns.products import SHOWN, Pick, Product, Shelf, Showcase, products
from shopauto_pipelines.features.tables import CUSTOMER_FEATURES
from shopauto_pipelines.platform.lake import Lake
from shopauto_pipelines.platform.lookup import Lookup
from shopauto_pipelines.platform.tables import Table
from shopauto_pipelines.recommendations.tables import CUSTOMER_COMPLEMENTS, CUSTOMER_PRODUCTS, REPLENISHMENT

#: The table behind each choice of products that are a person's own.
OF_PERSONS = {"recommended": CUSTOMER_PRODUCTS, "complements": CUSTOMER_COMPLEMENTS, "replenishment": REPLENISHMENT}


def reads(campaign: Campaign) -> tuple[Table, ...]:
    """The tables of recommendations that the campaign's messages show products of."""
    if campaign.is_realtime:
        return ()
    return tuple(dict.fromkeys(OF_PERSONS[step.products] for step in campaign.steps if step.products in OF_PERSONS))


#: Triggers that tell no more than who and when.
_SILENT = ("broadcast", "signed_up", "segment_entered", "birthday", "ticket_opened")

#: Most products whose names are kept.
_MOST_WARES = 200_000


class Reader(NamedTuple):
    """Who reads a message, in which language, its explanation as JSON, and the step."""

    customer_id: str
    language: str
    explained: str
    step: str


def showing(campaign: Campaign, lake: Lake, day: date, renderer: Renderer) -> Showing:
    """What the campaign's messages show, out of the lake as of the day."""
    return Showing(campaign, lake, day, renderer)


class Showing:
    """What the messages of a campaign show. Tables are opened when a step first asks for them."""

    def __init__(self, campaign: Campaign, lake: Lake, day: date, renderer: Renderer) -> None:
        self._campaign, self._lake, self._day, self._renderer = campaign, lake, day, renderer
        self._wares: dict[str, Product | None] = {}
        self._lookups: dict[str, Lookup] = {}
        self._shelves: dict[tuple[Shelf, str], Shown] = {}
        self._choice_of = {step.name: step.products for step in campaign.steps}
        self._choices: Mapping[str, _Choice] = {
            "best_sellers": lambda readers, told: self._from_shelf(readers, self._best_sellers),
            "new": lambda readers, told: self._from_shelf(readers, self._new),
            "recommended": self._recommended,
            "complements": self._complements,
            "replenishment": self._replenishment,
        }
        # what is not read need not be parsed: a newsletter tells nobody more than the others
        self._telling = (
            campaign.is_realtime
            or campaign.experiment is not None
            or any(step.offer for step in campaign.steps)
            or campaign.trigger.kind not in _SILENT
        )

    def of(self, readers: Sequence[Reader]) -> list[Shown]:
        """What each is shown."""
        told: list[Mapping[str, Any]] = [json.loads(r.explained) if self._telling else {} for r in readers]
        if self._campaign.is_realtime:
            return self._carts(readers, told)
        picked: list[Sequence[Pick]] = [()] * len(readers)
        by_choice: dict[str, list[int]] = {}
        for place, reader in enumerate(readers):
            by_choice.setdefault(self._choice_of[reader.step], []).append(place)
        for choice, places in by_choice.items():
            found = self._choices[choice]([readers[place] for place in places], [told[place] for place in places])
            for place, picks in zip(places, found, strict=True):
                picked[place] = picks
        if not self._telling:
            return [self._alone(picks, reader.language) for reader, picks in zip(readers, picked, strict=True)]
        abouts = self._abouts(told)
        return [
            self._shown(reader, explanation, picks, about)
            for reader, explanation, picks, about in zip(readers, told, picked, abouts, strict=True)
        ]

    def _shown(self, reader: Reader, told: Mapping[str, Any], picks: Sequence[Pick], about: Sequence[Pick]) -> Shown:
        language, goods = reader.language, self._renderer.goods
        listed = {pick.product_id for pick in about}
        if listed and any(pick.product_id in listed for pick in picks):
            picks = [pick for pick in picks if pick.product_id not in listed]
        return self._alone(picks, language)._replace(
            offer=self._renderer.offer(told.get("offer"), language),
            about=goods(about, language) if about else (),
            details=self._renderer.details(told.get("details"), language),
            variant=told.get("variant"),
        )

    def _alone(self, picks: Sequence[Pick], language: str) -> Shown:
        """What is shown of products and nothing else; the same for all who are shown a shelf."""
        if not isinstance(picks, Shelf):
            return Shown(self._renderer.goods(picks[:SHOWN], language) if picks else ())
        if (picks, language) not in self._shelves:
            self._shelves[picks, language] = Shown(list(self._renderer.goods(picks, language)))
        return self._shelves[picks, language]

    def _carts(self, readers: Sequence[Reader], told: Sequence[Mapping[str, Any]]) -> list[Shown]:
        carts: list[dict[str, int]] = [explanation.get("cart", {}) for explanation in told]
        wares = self._named(ware for cart in carts for ware in cart)
        return [
            Shown(
                cart=self._renderer.cart(cart, wares, reader.language),
                offer=self._renderer.offer(explanation.get("offer"), reader.language),
                variant=explanation.get("variant"),
            )
            for reader, cart, explanation in zip(readers, carts, told, strict=True)
        ]

    def _abouts(self, told: Sequence[Mapping[str, Any]]) -> list[list[Pick]]:
        """The products that each trigger is about."""
        details = [explanation.get("details") or {} for explanation in told]
        ids = [products_of(each) for each in details]
        wares = self._named(product_id for each in ids for product_id in each)
        return [
            _known(_pick(wares, ware, "used_up" if on else None, bought_on=on) for ware in listed)
            for listed, on in zip(ids, (each.get("last_bought_on") for each in details), strict=True)
        ]

    def _from_shelf(self, readers: Sequence[Reader], showcase: Showcase) -> list[Sequence[Pick]]:
        known = self._favourites.rows(reader.customer_id for reader in readers)
        favourites = (known.get(reader.customer_id, {}).get("favourite_category") for reader in readers)
        return [showcase.of(favourite) for favourite in favourites]

    def _recommended(self, readers: Sequence[Reader], told: object) -> list[Sequence[Pick]]:
        """What is recommended to each; to those of whom the shop knows too little what sells best."""
        found = self._personal(readers, CUSTOMER_PRODUCTS, "because_product_id", lambda row: row["reason"])
        without = [place for place, picks in enumerate(found) if not picks]
        shelves = self._from_shelf([readers[place] for place in without], self._best_sellers) if without else ()
        for place, shelf in zip(without, shelves, strict=True):
            found[place] = shelf
        return found

    def _complements(self, readers: Sequence[Reader], told: object) -> list[Sequence[Pick]]:
        """What goes with each one's latest purchase."""
        return self._personal(readers, CUSTOMER_COMPLEMENTS, "bought_product_id", lambda row: "bought_together")

    def _replenishment(self, readers: Sequence[Reader], told: object) -> list[Sequence[Pick]]:
        """What each has used up about now, the nearest to the day in front."""
        rows = self._lookup(REPLENISHMENT).every(reader.customer_id for reader in readers)
        due = [
            sorted(
                (row for row in rows.get(reader.customer_id, ()) if row["state"] != "waiting"),
                key=lambda row: (abs(row["used_up_on"] - self._day), row["product_id"]),
            )[: 2 * SHOWN]
            for reader in readers
        ]
        wares = self._named(row["product_id"] for each in due for row in each)
        return [
            _known(_pick(wares, row["product_id"], "used_up", bought_on=str(row["last_bought_on"])) for row in each)
            for each in due
        ]

    def _personal(
        self, readers: Sequence[Reader], table: Table, because: str, reason: Callable[[Mapping[str, Any]], str]
    ) -> list[Sequence[Pick]]:
        """The best rows of each in a table of recommendations; twice as many as are shown, as some may be shown already."""
        rows = self._lookup(table).every(reader.customer_id for reader in readers)
        best = [rows.get(reader.customer_id, ())[: 2 * SHOWN] for reader in readers]
        wares = self._named(row[column] for each in best for row in each for column in ("product_id", because))
        return [
            _known(_pick(wares, row["product_id"], reason(row), because=row[because]) for row in each) for each in best
        ]

    def _named(self, ids: Iterable[str | None]) -> dict[str, Product]:
        """The products of the ids that are known and have a name."""
        wanted = {product_id for product_id in ids if product_id}
        missing = wanted - self._wares.keys()
        if missing:
            if len(self._wares) > _MOST_WARES:
                self._wares.clear()
                missing = wanted
            self._wares |= dict.fromkeys(missing) | products(self._lake, self._day, missing)
        return {product_id: ware for product_id in wanted if (ware := self._wares[product_id]) and ware.name}

    def _lookup(self, table: Table) -> Lookup:
        if table.name not in self._lookups:
            self._lookups[table.name] = Lookup(self._lake, table, self._day)
        return self._lookups[table.name]

    @cached_property
    def _favourites(self) -> Lookup:
        return Lookup(self._lake, CUSTOMER_FEATURES, self._day)

    @cached_property
    def _best_sellers(self) -> Showcase:
        return Showcase.read(self._lake, self._day)

    @cached_property
    def _new(self) -> Showcase:
        return Showcase.new(self._lake, self._day)


def products_of(details: Mapping[str, Any]) -> list[str]:
    """The products that a trigger's details name."""
    return [details[name] for name, kind in DETAILS.items() if kind == "product" and details.get(name)]


#: Makes products for readers, each with what its explanation tells.
_Choice = Callable[[Sequence[Reader], Sequence[Mapping[str, Any]]], list[Sequence[Pick]]]


def _pick(
    wares: Mapping[str, Product],
    product_id: str,
    reason: str | None,
    *,
    because: str | None = None,
    bought_on: str | None = None,
) -> Pick | None:
    ware = wares.get(product_id)
    if ware is None or ware.name is None:
        return None
    other = wares.get(because) if because else None
    return Pick(product_id, ware.name, ware.category, ware.price_cents, reason, other and other.name, bought_on)


def _known(picks: Iterable[Pick | None]) -> list[Pick]:
    return [pick for pick in picks if pick]

"""What messages show beside their words: the best sellers of the reader's favourite category, or the cart and the offer."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from datetime import date
from typing import Any, NamedTuple

from shopauto_pipelines.campaigns.content import Renderer
from shopauto_pipelines.campaigns.declaration import Campaign
from shopauto_pipelines.campaigns.products import Product, Showcase, products
from shopauto_pipelines.features.tables import CUSTOMER_FEATURES
from shopauto_pipelines.platform.lake import Lake
from shopauto_pipelines.platform.lookup import Lookup


class Reader(NamedTuple):
    """Who reads a message, in which language, and its explanation as JSON."""

    customer_id: str
    language: str
    explained: str


class Shown(NamedTuple):
    """What a message shows; the last arguments of :meth:`~.drafts.Drafts.draft`."""

    products: Sequence[Mapping[str, Any]] = ()
    cart: Sequence[Mapping[str, Any]] = ()
    offer: Mapping[str, Any] | None = None


class BestSellers:
    """For campaigns that are sent by the day. Readers who are shown the same products get the same list."""

    def __init__(self, lake: Lake, day: date) -> None:
        self._favourites = Lookup(lake, CUSTOMER_FEATURES, day)
        self._showcase = Showcase.read(lake, day)

    def of(self, readers: Sequence[Reader]) -> list[Shown]:
        """What each is shown."""
        known = self._favourites.rows(reader.customer_id for reader in readers)
        favourites = (known.get(reader.customer_id, {}).get("favourite_category") for reader in readers)
        return [Shown(self._showcase.of(favourite)) for favourite in favourites]


class LeftCarts:
    """For campaigns about carts: what was left, as the explanation tells it, and the offer that was granted."""

    def __init__(self, lake: Lake, day: date, renderer: Renderer) -> None:
        self._lake, self._day, self._renderer = lake, day, renderer
        self._wares: dict[str, Product | None] = {}

    def of(self, readers: Sequence[Reader]) -> list[Shown]:
        """What each is shown."""
        told = [json.loads(reader.explained) for reader in readers]
        carts: list[dict[str, int]] = [explanation.get("cart", {}) for explanation in told]
        missing = {ware for cart in carts for ware in cart if ware not in self._wares}
        self._wares |= dict.fromkeys(missing) | products(self._lake, self._day, missing)
        wares = {ware: known for cart in carts for ware in cart if (known := self._wares[ware])}
        return [
            Shown(
                cart=self._renderer.cart(cart, wares, reader.language),
                offer=self._renderer.offer(explanation.get("offer"), reader.language),
            )
            for reader, cart, explanation in zip(readers, carts, told, strict=True)
        ]


def showing(campaign: Campaign, lake: Lake, day: date, renderer: Renderer) -> BestSellers | LeftCarts:
    """What the campaign's messages show, out of the lake as of the day."""
    return LeftCarts(lake, day, renderer) if campaign.is_realtime else BestSellers(lake, day)

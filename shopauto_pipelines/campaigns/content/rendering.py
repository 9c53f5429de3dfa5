"""Renders the messages of a campaign: what is known of a person, products, a cart, an offer, as a language writes it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from shopauto_pipelines.campaigns.content.fault import ContentError
from shopauto_pipelines.campaigns.content.languages import day_in_words, percentage, price
from shopauto_pipelines.campaigns.content.message import Message, Rendered
from shopauto_pipelines.campaigns.content.templates import fill, plain
from shopauto_pipelines.campaigns.content.words import read_words, shared_words
from shopauto_pipelines.campaigns.drafts import Own
from shopauto_pipelines.campaigns.products import Pick, Product

if TYPE_CHECKING:
    from shopauto_pipelines.campaigns.declaration import Campaign
    from shopauto_pipelines.platform.settings import Settings

#: What triggers may tell beside who and when, and what it is: ``product`` (an id) is shown as ``about``.
DETAILS = {
    "product_id": "product",
    "last_bought_on": "day",
    "used_up_on": "day",
    "expected_on": "day",
    "category": "text",
}


#: Why a product is shown: the texts ``reason_<…>`` that every language has to have.
REASONS = ("bought_before", "viewed", "bought_together", "popular_in_category", "popular", "used_up")


#: Most products of a cart that a template is given.
_MOST_PRODUCTS = 6


#: Most reasons whose words are kept.
_MOST_REASONS = 65_536


NO_DETAILS: Mapping[str, Any] = dict.fromkeys(DETAILS)


class Renderer:
    """Renders the messages of one campaign; templates are compiled once and kept."""

    def __init__(self, campaign: Campaign, settings: Settings) -> None:
        self._campaign = campaign
        self._currency = settings.currency
        self._product_url = settings.product_url
        self._shop = {
            "name": settings.shop_name,
            "url": settings.shop_url,
            "cart_url": settings.cart_url or f"{settings.shop_url.rstrip('/')}/cart",
            "postal_address": settings.postal_address or f"{settings.shop_name}, postal address not set",
        }
        self._messages: dict[tuple[str, str | None], Message] = {}
        self._reasons: dict[str, Mapping[str, str]] = {}
        self._reasoned: dict[tuple[str | None, ...], str | None] = {}

    def render(
        self,
        step: str,
        language: str,
        person: Mapping[str, object],
        links: Mapping[str, str],
        products: Sequence[Mapping[str, Any]] = (),
        cart: Sequence[Mapping[str, Any]] = (),
        offer: Mapping[str, Any] | None = None,
        about: Sequence[Mapping[str, Any]] = (),
        details: Mapping[str, Any] | None = None,
        variant: str | None = None,
    ) -> Rendered:
        """The message of ``step`` (in the ``variant`` of an experiment) in ``language``, one of the step's languages.

        ``person`` is a row of ``profiles/customers``; ``links`` holds ``unsubscribe`` and ``preferences``; the others are as
        :meth:`goods`, :meth:`cart`, :meth:`offer` and :meth:`details` word them. Raises :class:`ContentError`.
        """
        message = self._messages.get((step, variant))
        if message is None:
            message = Message(self._campaign.folder, self._campaign.step(step, variant))
            self._messages[step, variant] = message
        context = {
            "person": person,
            "shop": self._shop,
            "links": links,
            "products": products,
            "cart": cart,
            "offer": offer,
            "about": about,
            "details": details or NO_DETAILS,
        }
        return message.render(language, context)

    def goods(self, picks: Iterable[Pick], language: str) -> Own:
        """Products as ``language`` writes them: ``name``, ``category``, ``price``, ``url``, ``reason``."""
        return Own(
            {
                "name": pick.name,
                "category": pick.category,
                "price": price(pick.price_cents, self._currency, language),
                "url": self._page_of(pick.product_id),
                "reason": self._reason(pick, language),
            }
            for pick in picks
        )

    def details(self, told: Mapping[str, Any] | None, language: str) -> dict[str, Any] | None:
        """What the trigger tells, days as ``language`` writes them; ``None`` where it tells nothing."""
        if not told:
            return None
        return {
            name: day_in_words(told[name], language) if kind == "day" and told.get(name) else told.get(name)
            for name, kind in DETAILS.items()
        }

    def _page_of(self, product_id: str) -> str:
        if not self._product_url:
            return self._shop["url"]
        return self._product_url.replace("{product_id}", quote(product_id, safe=""))

    def _reason(self, pick: Pick, language: str) -> str | None:
        """Why the product is shown, in a few words; none where the shop has no words for it, or they would not be true."""
        if pick.reason is None:
            return None
        key = (language, pick.reason, pick.because, pick.category, pick.last_bought_on)
        if key not in self._reasoned:
            if language not in self._reasons:
                self._reasons[language] = read_words(shared_words(self._campaign.folder, language))
            words = self._reasons[language].get(f"reason_{pick.reason}")
            if len(self._reasoned) >= _MOST_REASONS:
                self._reasoned.clear()
            self._reasoned[key] = _reasoned(words, pick, language) if words else None
        return self._reasoned[key]

    def cart(self, contents: Mapping[str, int], wares: Mapping[str, Product], language: str) -> list[dict[str, Any]]:
        """What is in a cart as ``language`` writes it, what is worth most first; nameless products are left out.

        At most six: a template that shows five can say that there are more, and large carts share their drafts. Ties: by name,
        then by product id.
        """
        known = [
            (-(wares[ware].price_cents or 0) * pieces, name, ware)
            for ware, pieces in contents.items()
            if pieces > 0 and ware in wares and (name := wares[ware].name)
        ]
        return [
            {
                "name": name,
                "pieces": contents[ware],
                "label": name if contents[ware] == 1 else f"{contents[ware]:,} × {name}",
                "category": wares[ware].category,
                "price": price(wares[ware].price_cents, self._currency, language),
            }
            for _worth, name, ware in sorted(known)[:_MOST_PRODUCTS]
        ]

    def offer(self, granted: Mapping[str, Any] | None, language: str) -> dict[str, Any] | None:
        """The offer of a message's explanation as ``language`` writes it; ``None`` where none was granted."""
        if not granted or not granted.get("code"):
            return None
        percent = granted["percent"] and percentage(granted["percent"], language)
        shown = {"kind": granted["kind"], "percent": percent, "code": granted["code"]}
        return shown | {"expires_on": day_in_words(granted["expires_on"], language)}


def _reasoned(words: str, pick: Pick, language: str) -> str | None:
    """The words filled in; none where they name something that is not known of the product."""
    known = {
        "because": pick.because,
        "category": pick.category,
        "last_bought_on": day_in_words(pick.last_bought_on, language) if pick.last_bought_on else None,
    }
    try:
        filled = fill(plain(words), {name: value for name, value in known.items() if value is not None}, "")
    except ContentError:
        return None
    return " ".join(filled.split())

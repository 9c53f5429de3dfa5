"""Messages as a person who does not exist would get them."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from typing import TYPE_CHECKING

from shopauto_pipelines.campaigns.content.message import Rendered
from shopauto_pipelines.campaigns.content.rendering import Renderer
from shopauto_pipelines.campaigns.drafts import Shown
from shopauto_pipelines.campaigns.products import Pick, Product

if TYPE_CHECKING:
    from shopauto_pipelines.campaigns.declaration import Campaign, Step
    from shopauto_pipelines.platform.settings import Settings

#: A person, goods and links that do not exist, for checks and previews.
EXAMPLE_PERSON = {"first_name": "Alex", "last_name": "Example", "gender": None, "city": "Exampletown", "country": "GB"}


EXAMPLE_LINKS = {"unsubscribe": "https://shop.example/unsubscribe", "preferences": "https://shop.example/preferences"}


EXAMPLE_OFFER = {"kind": "percent", "percent": 10, "code": "ABCD-EFGH-IJKL", "expires_on": "2030-01-01"}


#: Triggers that are about products.
_ABOUT_PRODUCTS = ("ordered", "browsed", "used_up")


#: The reason that an example gives for a choice of products.
_EXAMPLE_REASONS = {"recommended": "popular_in_category", "complements": "bought_together", "replenishment": "used_up"}


def previews(
    campaign: Campaign, settings: Settings, languages: Collection[str] = ()
) -> dict[tuple[str, str], Rendered]:
    """Every message as a person who does not exist would get it, by step and language, the MJML compiled.

    Without ``languages`` in all of them. The variants of an experiment come after their step, as ``<step> (<variant>)``.
    Raises :class:`ContentError` where one cannot be rendered.
    """
    renderer = Renderer(campaign, settings)
    found: dict[tuple[str, str], Rendered] = {}
    for step in campaign.steps:
        for variant in (None, *_others(campaign, step.name)):
            shown_step = campaign.step(step.name, variant)
            name = f"{step.name} ({variant})" if variant else step.name
            for language in [known for known in shown_step.languages if not languages or known in languages]:
                shown = example(renderer, campaign, shown_step, language)._replace(variant=variant)
                found[name, language] = renderer.render(step.name, language, EXAMPLE_PERSON, EXAMPLE_LINKS, *shown)
    return found


def example(renderer: Renderer, campaign: Campaign, step: Step, language: str) -> Shown:
    """What a message shows to a person who does not exist."""
    reason = _EXAMPLE_REASONS.get(step.products)
    picks = [
        Pick(str(n), f"Example product {n}", "Examples", 1900 + 750 * n, reason, "Example product 4", "2029-12-01")
        for n in (1, 2, 3)
    ]
    fixed = {"kind": step.offer.kind, "percent": None} if step.offer and step.offer.kind else {}
    offer = renderer.offer(EXAMPLE_OFFER | fixed if step.offer else None, language)
    if campaign.is_realtime:
        wares = {pick.product_id: Product(pick.name, pick.category, pick.price_cents, None) for pick in picks}
        return Shown(cart=renderer.cart(dict.fromkeys(wares, 1), wares, language), offer=offer)
    kind = campaign.trigger.kind
    told = {"last_bought_on": "2029-12-01", "used_up_on": "2030-01-08", "expected_on": "2030-01-05"}
    bought = picks[0]._replace(name="Example product 4", reason="used_up" if kind == "used_up" else None)
    about = renderer.goods([bought], language) if kind in _ABOUT_PRODUCTS else ()
    return Shown(renderer.goods(picks, language), (), offer, about, renderer.details(told, language))


def _others(campaign: Campaign, step: str) -> Iterator[str]:
    """The variants of a step's experiment but for the step as it is."""
    if campaign.experiment and campaign.experiment.step == step:
        yield from campaign.experiment.others

"""What each reader is shown: products by the step's choice, what set the message off, and how many drafts that takes."""

from __future__ import annotations

import json
from datetime import date, datetime, timedelta

import pytest

from shopauto_pipelines.campaigns.content import EXAMPLE_LINKS, Renderer
from shopauto_pipelines.campaigns.drafts import Drafts
from shopauto_pipelines.campaigns.shown import Reader, showing
from shopauto_pipelines.features.tables import CUSTOMER_FEATURES, DAILY_PRODUCTS
from shopauto_pipelines.platform.lake import Lake
from shopauto_pipelines.recommendations.tables import CUSTOMER_COMPLEMENTS, CUSTOMER_PRODUCTS, REPLENISHMENT
from shopauto_pipelines.sources.tables import PRODUCTS
from shopauto_pipelines_tests.campaigns.conftest import declared, lake_rows

DAY = date(2026, 6, 30)
WARES = {
    "tent": ("Tent", "camping", 19900),
    "pegs": ("Pegs", "camping", 900),
    "gas": ("Gas & fuel", "camping", 1250),
    "mug": ("Mug", "kitchen", 700),
    "lamp": ("Lamp", "light", 4400),
    "nameless": (None, "light", 100),
}


@pytest.fixture(scope="module")
def lake(tmp_path_factory) -> Lake:
    """A shop of two people who are known well, and of whoever else is asked for."""
    made = Lake(tmp_path_factory.mktemp("lake"), threads=1)

    def listed(product_id: str, on: datetime) -> dict:
        name, category, price = WARES[product_id]
        return {"product_id": product_id, "changed_at": on, "name": name, "category": category, "price_cents": price}

    old = datetime(2025, 1, 1)
    made.write(PRODUCTS, [old.date()], lake_rows(PRODUCTS, *(listed(ware, old) for ware in WARES if ware != "lamp")))
    made.write(
        PRODUCTS,
        [DAY],
        lake_rows(PRODUCTS, listed("lamp", datetime(2026, 6, 30)), listed("mug", datetime(2026, 6, 30))),
    )
    sold = [
        {"shop_customer_id": "a", "product_id": ware, "orders": n, "quantity": n} for n, ware in enumerate(WARES, 1)
    ]
    made.write(DAILY_PRODUCTS, [DAY], lake_rows(DAILY_PRODUCTS, *sold))
    made.write(
        CUSTOMER_FEATURES,
        [DAY],
        lake_rows(
            CUSTOMER_FEATURES, *({"customer_id": who, "favourite_category": "camping"} for who in ("ann", "bob"))
        ),
    )
    best = {"customer_id": "ann", "score": 1.0, "why": ""}
    made.write(
        CUSTOMER_PRODUCTS,
        [DAY],
        lake_rows(
            CUSTOMER_PRODUCTS,
            {**best, "rank": 1, "product_id": "gas", "reason": "bought_before"},
            {**best, "rank": 2, "product_id": "nameless", "reason": "viewed"},
            {**best, "rank": 3, "product_id": "pegs", "reason": "bought_together", "because_product_id": "tent"},
            {**best, "rank": 4, "product_id": "mug", "reason": "popular_in_category"},
        ),
    )
    made.write(
        CUSTOMER_COMPLEMENTS,
        [DAY],
        lake_rows(
            CUSTOMER_COMPLEMENTS,
            {"customer_id": "ann", "rank": 1, "product_id": "pegs", "bought_product_id": "tent", "bought_on": DAY},
        ),
    )
    worn = {"customer_id": "ann", "last_bought_on": date(2026, 6, 3), "due_on": DAY, "state": "due"}
    made.write(
        REPLENISHMENT,
        [DAY],
        lake_rows(
            REPLENISHMENT,
            {**worn, "product_id": "gas", "used_up_on": DAY},
            {**worn, "product_id": "mug", "used_up_on": DAY - timedelta(days=9), "state": "overdue"},
            {**worn, "product_id": "pegs", "used_up_on": DAY, "state": "waiting"},
        ),
    )
    return made


@pytest.fixture
def show(lake, settings, shipped):
    """``show("recommended", "ann", details={…})``: what the reader of a step that chooses so is shown."""

    def run(choice: str, *who: str, language: str = "en", trigger: str = "used_up", **told: object):
        step = {"name": "only", "wait_days": 0, "subject": "Hi", "template": "letter", "products": choice}
        campaign = declared(trigger={trigger: {}}, steps=[step])
        campaign._folder = shipped["welcome"].folder
        renderer = Renderer(
            campaign, settings.model_copy(update={"product_url": "https://shop.example/p/{product_id}"})
        )
        readers = [Reader(customer, language, json.dumps(told), "only") for customer in who]
        return showing(campaign, lake, DAY, renderer).of(readers)

    return run


def _names(shown) -> list[str]:
    return [product["name"] for product in shown.products]


@pytest.mark.parametrize(
    ("choice", "known", "unknown"),
    [
        ("recommended", ["Gas & fuel", "Pegs", "Mug"], ["Lamp", "Mug", "Gas & fuel"]),
        ("complements", ["Pegs"], []),
        ("replenishment", ["Gas & fuel", "Mug"], []),
        ("new", ["Lamp"], ["Lamp"]),
        ("best_sellers", ["Gas & fuel", "Pegs", "Tent"], ["Lamp", "Mug", "Gas & fuel"]),
    ],
)
def test_a_step_s_choice_decides_and_only_recommendations_fall_back_to_what_sells_best(show, choice, known, unknown):
    ann, nobody = show(choice, "ann", "nobody")
    assert (_names(ann), _names(nobody)) == (known, unknown)


@pytest.mark.parametrize(
    ("language", "reasons"),
    [
        ("en", ["You have bought it before", "Goes with Tent", "Popular in kitchen"]),
        ("pt-BR", ["Você já comprou", "Combina com Tent", "Popular em kitchen"]),
    ],
)
def test_products_come_with_their_page_price_and_reason_in_the_reader_s_language(show, language, reasons):
    (ann,) = show("recommended", "ann", language=language)
    assert [product["reason"] for product in ann.products] == reasons
    assert ann.products[0]["url"] == "https://shop.example/p/gas"
    assert ann.products[0]["price"].replace("\xa0", " ") in ("€12.50", "€ 12,50")


def test_what_set_the_message_off_is_shown_once_with_its_days_as_the_language_writes_them(show):
    details = {"product_id": "gas", "last_bought_on": "2026-06-03", "used_up_on": "2026-06-30"}
    for language, written in (("en", "June 3, 2026"), ("ro", "3 iunie 2026"), ("sr-Latn", "3. 6. 2026.")):
        (ann,) = show("replenishment", "ann", language=language, details=details)
        assert [product["name"] for product in ann.about] == ["Gas & fuel"]
        assert written in ann.about[0]["reason"]
        assert ann.details["last_bought_on"] == written
        assert ann.details["expected_on"] is None
        assert _names(ann) == ["Mug"]


def test_products_of_one_s_own_fill_holes_and_shared_ones_keep_their_list(show, settings, shipped):
    renderer, rendered = Renderer(shipped["next_order"], settings), []

    def render(*message):
        rendered.append(message)
        return renderer.render(*message)

    drafts, step = Drafts(render), shipped["next_order"].steps[0].name
    (ann,) = show("recommended", "ann")
    for n in range(50):
        own = type(ann.products)({**product, "name": f"{product['name']} <{n}>"} for product in ann.products)
        message = (step, "en", {"first_name": f"Ann{n}"}, EXAMPLE_LINKS, *ann._replace(products=own))
        draft, values = drafts.draft(*message)
        truth = renderer.render(*message)
        assert draft.fill(values) == (truth.subject, truth.html, truth.text)
    assert len(rendered) < 10
    one, other = show("best_sellers", "ann", "bob")
    assert one.products is other.products

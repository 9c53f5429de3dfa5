"""Previews: what a person would get and why, before anything is sent; and what the UI shows of a campaign."""

from __future__ import annotations

import base64
import re
from datetime import date, datetime
from xml.etree import ElementTree

import pytest

from shopauto_pipelines.campaigns import audience as logic
from shopauto_pipelines.campaigns import previews, tables
from shopauto_pipelines.campaigns.declaration import Experiment, load_campaigns
from shopauto_pipelines.features.tables import CUSTOMER_360, CUSTOMER_FEATURES, DAILY_PRODUCTS
from shopauto_pipelines.platform.lake import Lake, LakeTable
from shopauto_pipelines.platform.settings import Settings, load_settings
from shopauto_pipelines.predictions.tables import SCORES
from shopauto_pipelines.profiles.tables import CONSENT, CUSTOMERS, IDENTITIES
from shopauto_pipelines.recommendations.tables import CUSTOMER_PRODUCTS
from shopauto_pipelines.segments.tables import MEMBERSHIP
from shopauto_pipelines.sources.tables import MESSAGE_EVENTS, PRODUCTS
from shopauto_pipelines_tests.campaigns.conftest import lake_rows

DAY = date(2026, 6, 30)


@pytest.fixture(scope="module")
def settings(tmp_path_factory) -> Settings:
    """A shop without a holdout of all campaigns; with its key none of the people below is held out of the campaign."""
    return Settings(home=tmp_path_factory.mktemp("home"), holdout_percent=0.0, secret_key="k", _env_file=None)


@pytest.fixture(scope="module")
def lake(tmp_path_factory, shipped, settings) -> Lake:
    """A day of a shop: ``new`` signed up on it, ``shy`` too but was never asked, ``old`` came long ago."""
    lake = Lake(tmp_path_factory.mktemp("lake"), threads=1)
    people = {
        "new": {"email": "new@example.com", "language": "pt-BR", "created_on": DAY, "first_name": "Nia"},
        "shy": {"email": "shy@example.com", "created_on": DAY},
        "old": {"email": "old@example.com", "created_on": date(2024, 1, 1), "language": "ro"},
    }
    rows = [{"customer_id": who, **known} for who, known in people.items()]
    agreed = [{"customer_id": who, "channel": "email", "state": "opted_in"} for who in ("new", "old")]
    for table, given in {
        CUSTOMER_360: rows,
        CUSTOMERS: rows,
        SCORES: [],
        CONSENT: [{**row, "at": datetime(2025, 1, 1)} for row in agreed],
        IDENTITIES: [{"customer_id": who, "shop_customer_id": f"shop-{who}"} for who in people],
        MESSAGE_EVENTS: [],
        MEMBERSHIP: [],
        CUSTOMER_PRODUCTS: [],
        CUSTOMER_FEATURES: [],
        DAILY_PRODUCTS: [{"shop_customer_id": "x", "product_id": "tent", "orders": 1, "quantity": 1}],
        PRODUCTS: [{"product_id": "tent", "name": "Tent", "price_cents": 9900, "changed_at": datetime(2026, 6, 30)}],
    }.items():
        columns = {column.name for column in table.columns}
        known = [{name: value for name, value in row.items() if name in columns} for row in given]
        lake.write(table, [DAY], lake_rows(table, *known))
    sources = logic.Sources({table.name: LakeTable(lake, table) for table in logic.reads(shipped["welcome"])})
    lake.write(tables.audience("welcome"), [DAY], logic.audience(shipped["welcome"], sources, settings, DAY))
    return lake


@pytest.fixture
def see(lake, settings, shipped):
    campaign = shipped["welcome"].model_copy(update={"holdout_percent": 0.0})
    campaign._folder = shipped["welcome"].folder

    def run(who: str, *steps: str, language: str | None = None) -> dict[str, previews.Preview]:
        found = previews.of_person(lake, settings, campaign, who, DAY, steps, language)
        return {preview.step: preview for preview in found}

    return run


def test_a_person_s_preview_is_their_message_with_what_was_decided_and_why(see):
    hello = see("new", "hello")["hello"]
    assert (hello.language, hello.decision, hello.reason) == ("pt-BR", "planned", "due")
    assert "Nia" in hello.rendered.text
    assert hello.why.startswith(f"As of {DAY}: the step is due")
    assert hello.explanation["trigger"] == "signed_up"


def test_who_would_not_get_it_is_told_the_rule(see):
    assert see("shy", "hello")["hello"].why == f"As of {DAY}: the person was never asked for consent"


def test_of_a_person_the_trigger_has_not_reached_it_says_what_would_be(see):
    found = see("old")
    assert [(preview.decision, preview.reason) for preview in found.values()] == [(None, "due")] * 3
    assert found["hello"].why == (
        f"The trigger signed_up has not made this step due as of {DAY}. "
        "Were the step due: the step is due and nothing speaks against it"
    )
    assert "Tent: 99,00" in found["favourites"].rendered.text.replace("\xa0", " ")
    assert see("old", "hello", language="en")["hello"].rendered.subject == "Welcome to Sample Shop"


def test_a_variant_is_shown_with_its_own_offer(lake, settings, shipped):
    variants = {
        "control": {"weight": 1},
        "gift": {"weight": 1000, "offer": {"kind": "free_shipping", "valid_days": 3}},
    }
    words = Experiment(name="gifts", step="hello", sample_size=10, variants=variants)
    campaign = shipped["welcome"].model_copy(update={"experiment": words, "holdout_percent": 0.0})
    keyed = Settings(home=settings.home, holdout_percent=0.0, secret_key="k", _env_file=None)
    (found,) = previews.of_person(lake, keyed, campaign, "old", DAY, ["hello"])
    assert found.explanation["variant"] == "gift"
    offer = found.explanation["offer"]
    assert (offer["kind"], offer["expires_on"]) == ("free_shipping", "2026-07-04")


def test_whose_variant_is_declared_no_more_is_shown_the_step_as_it_is(lake, settings, shipped):
    variants = {"control": {}, "late": {"hour": 19}}
    words = Experiment(name="hours", step="hello", sample_size=10, variants=variants)
    campaign = shipped["welcome"].model_copy(update={"experiment": words})
    told = {"step": "hello", "customer_id": "old", "decision": "planned", "explanation": '{"variant": "gone"}'}
    lake.write(tables.audience("welcome"), [DAY], lake_rows(tables.audience("welcome"), told))
    try:
        (found,) = previews.of_person(lake, settings, campaign, "old", DAY, ["hello"])
    finally:
        lake.delete(tables.audience("welcome"), DAY)
    assert found.rendered.subject == "Bun venit la Sample Shop"


def test_whoever_is_supposed_to_have_entered_a_segment_has_not_left_it(lake, settings, shipped):
    campaign = shipped["vip"].model_copy(update={"holdout_percent": 0.0})
    assert "left_segment" in campaign.exit_on
    found = previews.of_person(lake, settings, campaign, "old", DAY)
    assert {preview.reason for preview in found} == {"due"}


def test_a_campaign_that_has_never_been_planned_is_shown_to_a_real_person_all_the_same(lake, settings, shipped):
    day = previews.newest_day(lake)
    assert previews.somebody(lake, shipped["celebration"], day) == "new"
    (found,) = previews.of_person(lake, settings, shipped["celebration"], "new", day)
    assert "Nia" in found.rendered.text
    assert (found.decision, found.why.split(".")[0]) == (
        None,
        f"campaigns/celebration/audience has not been computed for {DAY}",
    )


def test_people_are_found_by_their_id_and_by_the_shop_s(lake, shipped):
    assert previews.person_of(lake, DAY, "shop-old") == previews.person_of(lake, DAY, "old") == "old"
    assert previews.person_of(lake, DAY, "nobody") is None
    assert previews.somebody(lake, shipped["welcome"], DAY) == "new"


def test_the_ui_shows_a_picture_of_every_step_that_any_browser_can_draw(settings, shipped):
    shown = previews.kept(shipped["welcome"], settings)
    pictures = re.findall(r"!\[(\w+)\]\(data:image/svg\+xml;base64,([^)]+)\)", shown.markdown)
    assert [name for name, _ in pictures] == [step.name for step in shipped["welcome"].steps]
    for _, picture in pictures:
        svg = ElementTree.fromstring(base64.b64decode(picture))
        words = " ".join(svg.itertext())
        assert "Alex" in words
        assert "prefers-color-scheme: dark" in words
    page = shown.page.read_text(encoding="utf-8")
    assert all(f"<i>{language}</i>" in page for language in ("en", "pt-BR", "sr-Latn", "ro"))


def test_pictures_are_made_anew_where_a_word_has_changed_and_kept_where_nothing_has(playbook, settings):
    campaign = load_campaigns(playbook)["welcome"]
    first = previews.kept(campaign, settings)
    made_at = first.page.stat().st_mtime_ns
    assert previews.kept(campaign, settings) == first
    assert first.page.stat().st_mtime_ns == made_at
    texts = playbook / "campaigns/welcome/texts/en.yaml"
    texts.write_text(texts.read_text(encoding="utf-8").replace("Good to have you here", "How good"), encoding="utf-8")
    assert "How good" in previews.kept(load_campaigns(playbook)["welcome"], settings).markdown


def test_the_command_shows_an_example_where_no_day_is_computed_and_names_the_nearest_where_it_is_misspelt(
    shopauto, tmp_path
):
    said = shopauto("preview", "welcome", "--step", "hello", "--language", "ro", "--out", tmp_path / "here")
    assert "No day has been computed yet" in said
    assert "Bună, Alex!" in said
    assert "favourites" not in said
    assert (tmp_path / "here/welcome-preview.html").is_file()
    assert "did you mean 'welcome'?" in shopauto("preview", "welcom", code=1)
    assert "did you mean 'hello'?" in shopauto("preview", "welcome", "--step", "helo", code=1)
    assert "run `shopauto refresh` first" in shopauto("preview", "welcome", "--customer", "c1", code=1)
    assert not load_settings().lake_path.exists(), "looking makes no lake"

"""The pages behind a message's links on a phone, in a real browser that runs no script."""

from __future__ import annotations

from pathlib import Path

import pytest

from shopauto_pipelines.outbox import preference_page
from shopauto_pipelines.platform import postgres
from shopauto_pipelines.realtime.collector.service import app
from shopauto_pipelines_tests.realtime.collecting import served
from shopauto_pipelines_tests.realtime.conftest import plan, token_of

CHROMIUM = Path("/usr/bin/chromium")

pytestmark = [
    pytest.mark.slow,
    pytest.mark.browser,
    pytest.mark.skipif(not CHROMIUM.exists(), reason="needs Chromium"),
]


@pytest.fixture
def url(engine, settings, monkeypatch):
    """The collector, served on a free port."""
    monkeypatch.setattr(postgres, "engine", lambda _: engine)
    monkeypatch.setattr(preference_page, "topics", lambda: ("news", "offers"))
    with served(app(settings)) as url:
        yield url


def test_preferences_are_chosen_with_a_thumb_and_without_a_script(engine, settings, url):
    from playwright.sync_api import sync_playwright

    plan(engine, settings, 1, "planned", language="pt-BR")
    token = token_of(engine, settings)
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        phone = browser.new_context(viewport={"width": 390, "height": 844}, has_touch=True, java_script_enabled=False)
        page = phone.new_page()
        page.goto(f"{url}/p/{token}")
        for picked in page.locator("label.pick").all():
            assert picked.bounding_box()["height"] >= 40
            assert picked.bounding_box()["x"] + picked.bounding_box()["width"] <= 390
        page.get_by_label("Ofertas").uncheck()
        page.get_by_label("Menos vezes").check()
        page.get_by_role("button", name="Salvar").tap()
        assert page.get_by_role("status").inner_text() == "Salvo. Já está valendo."
        page.goto(f"{url}/p/{token}")
        assert not page.get_by_label("Ofertas").is_checked()
        assert page.get_by_label("Novidades e ideias").is_checked()
        assert page.get_by_label("Menos vezes").is_checked()

        page.goto(f"{url}/u/{token}")
        page.get_by_role("button").tap()
        page.get_by_role("heading", name="Inscrição cancelada").wait_for()
        page.get_by_role("link").tap()
        page.get_by_role("heading", name="Suas preferências").wait_for()
        assert not page.get_by_label("E-mail").is_checked()
        browser.close()

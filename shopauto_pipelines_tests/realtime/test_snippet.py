"""The script for the shop's pages, in a real browser, on a page of another origin than the collector's."""

from __future__ import annotations

import threading
import time
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
import sqlalchemy as sa

from shopauto_pipelines.platform import postgres
from shopauto_pipelines.platform.settings import Settings
from shopauto_pipelines.realtime.collector.service import app
from shopauto_pipelines_tests.realtime.collecting import query, rows, served

CHROMIUM = Path("/usr/bin/chromium")

pytestmark = [
    pytest.mark.slow,
    pytest.mark.browser,
    pytest.mark.skipif(not CHROMIUM.exists(), reason="needs Chromium"),
]

PAGE = """<!doctype html><title>Shop</title>
<script>window.shopauto = window.shopauto || function () {{ (shopauto.q = shopauto.q || []).push(arguments) }};
shopauto('product_view', {{product_id: 'P1'}})</script>
<script src="{url}/shopauto.js" async {more}></script>"""


@pytest.fixture
def collector(engine, tmp_path, monkeypatch):
    """The collector, served on a free port."""
    monkeypatch.setattr(postgres, "engine", lambda _: engine)
    settings = Settings(home=tmp_path / "home", _env_file=None)
    with served(app(settings)) as url:
        yield url


@pytest.fixture
def shop(collector, tmp_path):
    """Address of a shop with three pages."""
    folder = tmp_path / "shop"
    folder.mkdir()
    for name, more in (("usual", ""), ("asks", 'data-consent="required"')):
        (folder / f"{name}.html").write_text(PAGE.format(url=collector, more=more))
    (folder / "other.html").write_text("<!doctype html><title>Other</title>")

    class Quiet(SimpleHTTPRequestHandler):
        def log_message(self, *_):
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory=folder))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://localhost:{server.server_port}"
    server.shutdown()


@pytest.fixture(scope="module")
def chromium():
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield browser
        browser.close()


@pytest.fixture
def page(chromium):
    context = chromium.new_context()
    page = context.new_page()
    page.on("pageerror", lambda error: pytest.fail(str(error)))
    yield page
    context.close()


def stored(engine, wanted: int) -> list[dict]:
    """The events, once there are so many."""
    deadline = time.monotonic() + 15
    while len(found := rows(engine)) < wanted and time.monotonic() < deadline:
        time.sleep(0.05)
    assert len(found) == wanted
    return found


def loaded(page, address: str) -> None:
    page.goto(address)
    page.wait_for_function("window.shopauto && !window.shopauto.q")


def test_what_a_visitor_does_is_stored_also_when_the_page_is_left_at_once(engine, shop, page):
    loaded(page, f"{shop}/usual.html")
    page.evaluate("shopauto('add_to_cart', {product_id: 'P1', quantity: 2})")
    page.goto(f"{shop}/other.html")
    found = {event["type"]: event for event in stored(engine, 3)}
    assert set(found) == {"page_view", "product_view", "add_to_cart"}
    assert len({event["anonymous_id"] for event in found.values()}) == 1
    assert len({event["session_id"] for event in found.values()}) == 1
    assert (found["add_to_cart"]["quantity"], found["product_view"]["product_id"]) == (2, "P1")
    assert found["page_view"]["url"] == f"{shop}/usual.html"
    assert query(engine, "select cart_id from carts") == [(found["add_to_cart"]["cart_id"],)]

    # the same visitor comes again, with the same cart; after an order it is another one
    loaded(page, f"{shop}/usual.html")
    page.evaluate("shopauto('add_to_cart', {product_id: 'P2', quantity: 1}); shopauto('ordered')")
    page.evaluate("shopauto('add_to_cart', {product_id: 'P3', quantity: 1})")
    again = stored(engine, 7)
    assert len({event["anonymous_id"] for event in again}) == 1
    assert query(engine, "select count(*) from carts") == [(2,)]


def test_nothing_is_kept_or_sent_before_the_visitor_says_yes(engine, shop, page):
    loaded(page, f"{shop}/asks.html")
    page.evaluate("shopauto('add_to_cart', {product_id: 'P1', quantity: 1})")
    page.wait_for_timeout(1500)
    assert page.evaluate("localStorage.length + sessionStorage.length") == 0
    assert page.context.cookies() == []
    assert rows(engine) == []
    page.evaluate("shopauto('consent', true)")
    assert {event["type"] for event in stored(engine, 3)} == {"page_view", "product_view", "add_to_cart"}
    page.evaluate("shopauto('consent', false)")
    assert page.evaluate("localStorage.length + sessionStorage.length") == 0


def test_who_says_no_while_an_answer_is_under_way_keeps_nothing(engine, shop, page):
    loaded(page, f"{shop}/asks.html")
    page.evaluate("""() => {
        const real = window.fetch
        window.fetch = (...given) => real(...given).then(answer => new Promise(done => setTimeout(done, 700, answer)))
    }""")
    page.evaluate("shopauto('add_to_cart', {product_id: 'P1', quantity: 1}); shopauto('consent', true)")
    stored(engine, 3)
    page.evaluate("shopauto('consent', false)")
    page.wait_for_timeout(1000)
    assert page.evaluate("localStorage.length + sessionStorage.length") == 0


def test_what_could_not_be_stored_waits_for_the_next_page(engine, shop, page, monkeypatch):
    gone = sa.create_engine("postgresql+psycopg://nobody@127.0.0.1:1/none", connect_args={"connect_timeout": 1})
    monkeypatch.setattr(postgres, "engine", lambda _: gone)
    with page.expect_response("**/events") as answer:
        loaded(page, f"{shop}/usual.html")
    assert answer.value.status == 503
    monkeypatch.setattr(postgres, "engine", lambda _: engine)
    assert len(page.evaluate("JSON.parse(sessionStorage.getItem('shopauto.queue'))")) == 2
    assert {event["type"] for event in stored(engine, 2)} == {"page_view", "product_view"}


def test_a_visitor_whose_clock_is_three_hours_fast_is_heard_all_the_same(engine, shop, page):
    page.add_init_script(
        "(function () { var now = Date.now; Date.now = function () { return now() + 3 * 3600e3; }; })()"
    )
    loaded(page, f"{shop}/usual.html")
    assert {event["type"] for event in stored(engine, 2)} == {"page_view", "product_view"}
    assert query(engine, "select bool_and(abs(extract(epoch from received_at - at)) < 30) from collected") == [(True,)]


def test_the_page_to_try_it_with_takes_a_cart_to_an_order(engine, collector, page):
    page.set_viewport_size({"width": 375, "height": 740})
    page.goto(f"{collector}/demo")
    assert page.evaluate("document.documentElement.scrollWidth") <= 375
    page.get_by_role("button", name="Add to cart").first.click()
    page.get_by_label("Or an e-mail address").fill("ana@example.com")
    page.get_by_role("button", name="Log in").click()
    page.get_by_role("button", name="Buy").click()
    page.get_by_text("Nothing is in it.").wait_for()
    stored(engine, 4)
    [order] = rows(engine, "raw/orders")
    assert order["total_cents"] == 1690
    assert query(engine, "select cart_id, ordered_at is not null from carts") == [(order["cart_id"], True)]
    assert query(engine, "select count(*) from visitors where address_hash is not null") == [(1,)]

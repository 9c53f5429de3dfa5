"""What the collector takes from a shop's pages and servers: what is stored, what follows, what is refused and why."""

from __future__ import annotations

import hashlib
import hmac
import json
import time
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta

import pytest
import sqlalchemy as sa

from shopauto_pipelines.outbox import links
from shopauto_pipelines.platform import postgres
from shopauto_pipelines.platform.settings import Settings
from shopauto_pipelines_tests.outbox.conftest import AT
from shopauto_pipelines_tests.realtime.collecting import IDENTITY, bearer, collecting, event, query, rows

LIVE = {
    "live": True,
    "sendgrid_api_key": "SG.x",
    "from_email": "shop@linen-shop.org",
    "postal_address": "1 Mill Lane",
    "shop_url": "https://linen.test",
    "base_url": "https://mail.linen.test",
    "secret_key": "a-secret-key",
}


@pytest.fixture
def shop(engine, monkeypatch, tmp_path):
    with collecting(engine, monkeypatch, tmp_path) as client:
        yield client


def signed(customer: str, secret: str = IDENTITY) -> dict[str, str]:
    """As a shop's page does it, written apart from the code."""
    signature = hmac.new(secret.encode(), customer.encode(), hashlib.sha256).hexdigest()
    return {"shop_customer_id": customer, "signature": signature}


def answer(stored=0, repeated=0, **refused):
    return {
        "stored": stored,
        "repeated": repeated,
        "refused": [{"index": int(index[1:]), "reason": reason} for index, reason in refused.items()],
    }


def reason_of(told) -> str:
    assert told.status_code == 422, told.text
    [refused] = told.json()["refused"]
    return refused["reason"]


def test_an_event_is_a_row_and_a_cart_once_it_is_answered(engine, shop):
    told = shop.post("/events", json=event(quantity=2))
    assert (told.status_code, told.json()) == (200, answer(stored=1))
    assert rows(engine) == [event(quantity=2, happened_at="2026-01-04T05:00:00.000000")]
    assert query(engine, "select cart_id, anonymous_id, last_at from carts") == [("cart", "browser", AT)]


def test_what_a_beacon_sends_as_plain_text_is_read_as_json(engine, shop):
    told = shop.post("/events", content=json.dumps([event()]), headers={"Content-Type": "text/plain;charset=UTF-8"})
    assert told.json() == answer(stored=1)


def test_an_event_without_a_time_has_happened_now(engine, shop):
    shop.post("/events", json=event(happened_at=None))
    assert query(engine, "select at from collected") == [(AT,)]


def test_what_comes_twice_is_stored_once_in_one_request_and_in_two(engine, shop):
    assert shop.post("/events", json=[event(1), event(1), event(2)]).json() == answer(stored=2, repeated=1)
    assert shop.post("/events", json=[event(2), event(3)]).json() == answer(stored=1, repeated=1)
    assert len(rows(engine)) == 3


def test_a_bad_event_spoils_no_other_and_the_answer_says_which_and_why(engine, shop):
    told = shop.post("/events", json=[event(1), event(2, quantity=-1), "no event", event(3)])
    assert (told.status_code, told.json()) == (
        200,
        answer(
            stored=2,
            _1="quantity: Input should be greater than or equal to 0",
            _2="Input should be a valid dictionary",
        ),
    )


@pytest.mark.parametrize(
    ("wrong", "reason"),
    [
        ({"event_id": None}, "event_id: Field required"),
        ({"event_id": ""}, "event_id: Field required"),
        ({"event_id": "a:b"}, "event_id: String should match pattern '^[A-Za-z0-9_.-]{1,128}$'"),
        ({"type": "bought"}, "type: Input should be 'page_view', 'search', "),
        ({"cart_id": "a b"}, "cart_id: String should match"),
        ({"colour": "red"}, "colour: Extra inputs are not permitted"),
        ({"url": "a\0b"}, "url: String should match"),
        ({"quantity": "2"}, "quantity: Input should be a valid integer"),
        ({"quantity": 100_001}, "quantity: Input should be less than or equal to"),
        ({"happened_at": "yesterday"}, "happened_at: Input should be a valid datetime"),
        ({"happened_at": (AT + timedelta(minutes=6)).isoformat()}, "the time is more than 5 minutes ahead"),
        ({"happened_at": (AT - timedelta(days=41)).isoformat()}, "the time is more than 40 days ago"),
        ({"happened_at": "0001-01-01T00:00:00+12:00"}, "the time is outside the calendar"),
        ({"email": "ana@example.com"}, "email: only of a login"),
        ({"type": "login", "anonymous_id": None}, "a login needs anonymous_id"),
        ({"type": "login"}, "a login needs anonymous_id, and shop_customer_id or email"),
        ({"type": "login", "email": "not one"}, "email: not an e-mail address"),
        ({"type": "ticket_opened"}, "type: ticket_opened is for the shop's servers"),
    ],
)
def test_a_wrong_event_is_refused_with_its_reason_and_leaves_nothing(engine, shop, wrong, reason):
    assert reason_of(shop.post("/events", json=event(**wrong))).startswith(reason)
    assert query(engine, "select count(*) from collected") == [(0,)]
    assert query(engine, "select count(*) from visitors") == [(0,)]


@pytest.mark.parametrize(
    ("body", "status", "reason"),
    [
        (b"{", 400, "not JSON"),
        (b"\xff", 400, "not JSON"),
        (b"", 400, "not JSON"),
        (b"[" * 100_000, 400, "not JSON"),
        (b'"\\ud800"', 400, "not JSON"),
        (b"[" + b"1," * 1000 + b"1]", 413, "more than 1000 entries"),
        (b" " * (2048 * 1024 + 1), 413, "more than 2097152 bytes"),
    ],
    ids=[
        "cut short",
        "not utf-8",
        "empty",
        "nested",
        "half a character",
        "many entries",
        "large",
    ],  # else the body: too long
)
def test_a_body_that_cannot_be_read_is_refused_as_a_whole(engine, shop, body, status, reason):
    told = shop.post("/events", content=body)
    assert (told.status_code, told.json()) == (status, {"refused": reason})


def test_a_compressed_body_is_refused(shop):
    told = shop.post("/events", content=b"\x1f\x8b", headers={"Content-Encoding": "gzip"})
    assert (told.status_code, told.json()) == (415, {"refused": "compressed bodies are not read"})


def test_a_login_says_whose_browser_it_is_and_keeps_no_address(engine, shop, tmp_path):
    settings = Settings(home=tmp_path, _env_file=None)
    login = {"type": "login", "cart_id": None, "product_id": None, "quantity": None}
    shop.post("/events", json=event(1, **login, **signed("c1")))
    shop.post("/events", json=event(2, **login, anonymous_id="other", email=" Ana@Example.com "))
    assert query(engine, "select anonymous_id, shop_customer_id, address_hash from visitors order by 1") == [
        ("browser", "c1", None),
        ("other", None, links.address_hash(settings.hash_key, "email", "ana@example.com")),
    ]
    assert "xample" not in json.dumps(rows(engine))
    assert [row.get("shop_customer_id") for row in rows(engine)] == ["c1", None]


@pytest.mark.parametrize(
    ("said", "reason"),
    [
        ({"shop_customer_id": "c1"}, "signature: is missing"),
        ({**signed("c2"), "shop_customer_id": "c1"}, "signature: is not that of shop_customer_id"),
        (signed("c1", "another secret"), "signature: is not that of shop_customer_id"),
        ({"shop_customer_id": "c1", "signature": "é" * 64}, "signature: String should match"),
    ],
)
def test_a_browser_names_a_customer_only_with_the_shops_signature(engine, shop, said, reason):
    assert reason_of(shop.post("/events", json=event(**said))).startswith(reason)
    form = {"submission_id": "f", "form": "news", **said}
    assert reason_of(shop.post("/forms", json=form)).startswith(reason)
    assert query(engine, "select count(*) from collected") == [(0,)]


def test_in_live_mode_no_browser_is_believed_where_there_is_no_secret(engine, monkeypatch, tmp_path):
    with collecting(engine, monkeypatch, tmp_path, **LIVE, identity_secret=None) as shop:
        assert "SHOPAUTO_IDENTITY_SECRET is not set" in reason_of(
            shop.post("/events", json=event(shop_customer_id="c1"))
        )
        assert shop.post("/events", json=event()).json() == answer(stored=1)
        assert shop.post("/events", json=event(2, shop_customer_id="c1"), headers=bearer()).json() == answer(stored=1)


def test_a_server_names_customers_and_tickets_without_a_signature(engine, shop):
    ticket = {"event_id": "t", "type": "ticket_opened", "happened_at": AT.isoformat(), "shop_customer_id": "c1"}
    told = shop.post("/events", json=[event(shop_customer_id="c1"), ticket], headers=bearer())
    assert told.json() == answer(stored=2)
    assert query(engine, "select customer_id, event, occasion, at from exits") == [("c1", "ticket_opened", "", AT)]


@pytest.mark.parametrize("path", ["/orders", "/tickets"])
def test_orders_and_tickets_are_for_servers(engine, monkeypatch, tmp_path, path):
    body = {"/orders": {"order_id": "o", "total_cents": 1}, "/tickets": {"ticket_id": "t", "shop_customer_id": "c"}}[
        path
    ]
    with collecting(engine, monkeypatch, tmp_path / "keyed") as shop:
        assert shop.post(path, json=body).status_code == 401
        assert shop.post(path, json=body, headers=bearer("wrong")).status_code == 401
        assert shop.post(path, json=body, headers={"Authorization": "Bearer ü".encode()}).status_code == 401
        assert query(engine, "select count(*) from collected") == [(0,)]
        assert shop.post(path, json=body, headers=bearer()).json() == answer(stored=1)
    with collecting(engine, monkeypatch, tmp_path / "live", **LIVE, collector_key=None) as shop:
        told = shop.post(path, json=body, headers=bearer())
        assert (told.status_code, told.json()) == (503, {"refused": "SHOPAUTO_COLLECTOR_KEY is not set"})
    with collecting(engine, monkeypatch, tmp_path / "local", collector_key=None) as shop:
        assert shop.post(path, json=body).json() == answer(repeated=1)


ORDER = {
    "order_id": "o1",
    "ordered_at": AT.isoformat(),
    "email": " Ana@Example.com",
    "currency": "EUR",
    "total_cents": 2180,
    "cart_id": "cart",
    "lines": [
        {"product_id": "P1", "quantity": 1, "unit_price_cents": 1690, "amount_cents": 1690},
        {"kind": "shipping", "quantity": 1, "amount_cents": 490},
    ],
}
GUEST = "guest:" + hashlib.sha256(b"ana@example.com").hexdigest()[:16]


def test_an_order_takes_its_cart_and_ends_what_its_customer_gets(engine, shop):
    shop.post("/events", json=event(happened_at=(AT - timedelta(minutes=9)).isoformat()))
    assert shop.post("/orders", json=ORDER, headers=bearer()).json() == answer(stored=1)
    assert query(engine, "select cart_id, ordered_at from carts") == [("cart", AT)]
    assert (GUEST, "ordered", "", AT) in query(engine, "select customer_id, event, occasion, at from exits")
    [order] = rows(engine, "raw/orders")
    assert (order["shop_customer_id"], order["email"]) == (GUEST, "Ana@Example.com")
    shared = {"order_id": "o1", "ordered_at": "2026-01-04T05:00:00.000000", "shop_customer_id": GUEST}
    assert rows(engine, "raw/order_lines") == [
        {"line_number": 1, "kind": "product", **ORDER["lines"][0], **shared},
        {"line_number": 2, **ORDER["lines"][1], **shared},
    ]


def test_an_order_that_comes_again_is_one_order(engine, shop):
    shop.post("/orders", json=ORDER, headers=bearer())
    before = query(engine, "select * from collected order by id")
    assert shop.post("/orders", json=[ORDER, ORDER], headers=bearer()).json() == answer(repeated=2)
    assert query(engine, "select * from collected order by id") == before


def test_an_order_with_a_line_twice_is_refused(engine, shop):
    twice = {**ORDER, "lines": [{**line, "line_number": 1} for line in ORDER["lines"]]}
    told = shop.post("/orders", json=twice, headers=bearer())
    assert reason_of(told) == "lines: a line_number is there twice"
    assert query(engine, "select count(*) from collected") == [(0,)]


@pytest.mark.parametrize(
    ("name", "beginning"), [("event_id", "ticket."), ("cart_id", "woo-"), ("anonymous_id", "woo-")]
)
def test_a_browser_takes_no_id_that_is_made_of_a_tickets_or_an_orders(engine, shop, name, beginning):
    reason = f"{name}: what begins with {beginning} is for the shop's servers, with SHOPAUTO_COLLECTOR_KEY"
    taken = {name: f"{beginning}77"}
    assert reason_of(shop.post("/events", json=event(**taken))) == reason
    if name == "anonymous_id":
        assert reason_of(shop.post("/forms", json=FORM | taken)) == reason
    ticket = {"ticket_id": "77", "opened_at": AT.isoformat(), "shop_customer_id": "c1"}
    assert shop.post("/tickets", json=ticket, headers=bearer()).json() == answer(stored=1)
    assert [row["type"] for row in rows(engine)] == ["ticket_opened"]
    assert query(engine, "select customer_id, event from exits") == [("c1", "ticket_opened")]
    assert shop.post("/events", json=event(**taken), headers=bearer()).status_code == 200


def test_a_ticket_is_an_event_and_ends_what_its_writer_gets_once(engine, shop, monkeypatch, tmp_path):
    ticket = {"ticket_id": "77", "opened_at": AT.isoformat(), "email": "ana@example.com"}
    assert shop.post("/tickets", json=ticket, headers=bearer()).json() == answer(stored=1)
    assert shop.post("/tickets", json=ticket, headers=bearer()).json() == answer(repeated=1)
    timeless = {"ticket_id": "77", "email": "ana@example.com"}
    with collecting(engine, monkeypatch, tmp_path / "later", AT + timedelta(hours=1)) as later:
        assert later.post("/tickets", json=timeless, headers=bearer()).json() == answer(repeated=1)
    assert query(engine, "select customer_id, event, occasion, at from exits") == [(GUEST, "ticket_opened", "", AT)]
    assert [(row["event_id"], row["type"]) for row in rows(engine)] == [("ticket.77", "ticket_opened")]
    settled = ticket | {"closed_at": (AT + timedelta(hours=2)).isoformat()}
    with collecting(engine, monkeypatch, tmp_path / "settled", AT + timedelta(hours=3)) as later:
        assert later.post("/tickets", json=settled, headers=bearer()).json() == answer(stored=1)
    assert [(row["event_id"], row["type"]) for row in rows(engine)][1:] == [("ticket.77.closed", "ticket_closed")]
    assert query(engine, "select count(*) from exits") == [(1,)], "what is settled ends nothing"
    assert reason_of(shop.post("/tickets", json={"ticket_id": "78"}, headers=bearer())).startswith(
        "shop_customer_id or email"
    )


FORM = {
    "submission_id": "f1",
    "submitted_at": AT.isoformat(),
    "form": "newsletter",
    "email": "ana@example.com",
    "anonymous_id": "browser",
    "fields": {"size": "double", "colours": ["white", 3]},
    "consent": {"channel": "email", "wording": "Yes, send me news."},
}


def test_a_form_with_a_ticked_box_is_a_consent_of_whoever_has_the_address(engine, shop):
    assert shop.post("/forms", json=FORM).json() == answer(stored=1)
    at = "2026-01-04T05:00:00.000000"
    assert rows(engine, "raw/form_submissions") == [
        {
            "submission_id": "f1",
            "submitted_at": at,
            "form": "newsletter",
            "shop_customer_id": GUEST,
            "email": "ana@example.com",
            "fields": '{"size":"double","colours":["white",3]}',
        }
    ]
    consent = {"shop_customer_id": GUEST, "channel": "email", "state": "opted_in", "wording": "Yes, send me news."}
    assert rows(engine, "raw/consents") == [consent | {"changed_at": at}]
    assert rows(engine, "raw/customers") == [{"shop_customer_id": GUEST, "email": "ana@example.com", "changed_at": at}]
    assert query(engine, "select anonymous_id, address_hash is not null from visitors") == [("browser", True)]


def test_a_form_without_a_ticked_box_makes_nobody_a_customer(engine, shop):
    shop.post("/forms", json={name: value for name, value in FORM.items() if name != "consent"})
    assert rows(engine, "raw/consents") == rows(engine, "raw/customers") == []


def test_with_double_opt_in_only_a_server_says_that_consent_is_given(engine, monkeypatch, tmp_path):
    confirmed = {**FORM, "submission_id": "f2", "consent": {**FORM["consent"], "state": "opted_in"}}
    confirmed["submitted_at"] = (AT + timedelta(minutes=1)).isoformat()
    with collecting(engine, monkeypatch, tmp_path, form_double_opt_in=True) as shop:
        shop.post("/forms", json=FORM)
        assert reason_of(shop.post("/forms", json=confirmed)) == "consent.state: only the shop's servers may say it"
        shop.post("/forms", json=confirmed, headers=bearer())
    assert [row["state"] for row in rows(engine, "raw/consents")] == ["pending", "opted_in"]


@pytest.mark.parametrize(
    ("wrong", "reason"),
    [
        ({"consent": {"channel": "fax", "wording": "x"}}, "consent.channel: Input should be"),
        ({"consent": {"channel": "email"}}, "consent.wording: Field required"),
        ({"email": ""}, "consent: of whom is missing"),
        ({"fields": {"text": "x" * 10_000}}, "fields: more than 10000 characters"),
        ({"fields": ["a"]}, "fields: Input should be a valid dictionary"),
    ],
)
def test_a_wrong_form_is_refused_and_leaves_nothing(engine, shop, wrong, reason):
    assert reason_of(shop.post("/forms", json=FORM | wrong)).startswith(reason)
    assert query(engine, "select count(*) from collected") == [(0,)]


def test_pages_of_other_origins_may_send_events_and_ask_nothing_else(shop):
    asked = {"Origin": "https://linen.test", "Access-Control-Request-Method": "POST"}
    allowed = shop.options("/events", headers=asked)
    assert (allowed.status_code, allowed.headers["Access-Control-Allow-Origin"]) == (204, "*")
    assert shop.post("/events", json=event()).headers["Access-Control-Allow-Origin"] == "*"
    assert "Access-Control-Allow-Origin" not in shop.post("/orders", json={}).headers
    assert shop.options("/orders", headers=asked).status_code == 405


def test_who_sends_too_fast_is_told_when_to_come_again_and_servers_are_not(engine, monkeypatch, tmp_path):
    with collecting(engine, monkeypatch, tmp_path, collector_events_per_second=1) as shop:
        assert shop.post("/events", json=[event(n) for n in range(9)]).status_code == 200
        told = shop.post("/events", json=[event(n) for n in range(9, 19)])
        assert (told.status_code, told.json()) == (429, {"refused": "more than 1 events a second"})
        assert 1 <= int(told.headers["Retry-After"]) <= 10
        assert len(rows(engine)) == 9
        many = [event(n) for n in range(9, 19)]
        assert shop.post("/events", json=many, headers=bearer()).json() == answer(stored=10)


def test_where_it_cannot_be_stored_the_answer_is_503_and_names_nobody(engine, shop, monkeypatch, caplog):
    gone = sa.create_engine("postgresql+psycopg://nobody@127.0.0.1:1/none", connect_args={"connect_timeout": 1})
    monkeypatch.setattr(postgres, "engine", lambda _: gone)
    told = shop.post("/forms", json=FORM)
    assert (told.status_code, "Retry-After" in told.headers) == (503, True)
    assert "example.com" not in told.text + caplog.text
    monkeypatch.setattr(postgres, "engine", lambda _: engine)
    assert shop.post("/forms", json=FORM).json() == answer(stored=1)


def test_nothing_that_names_a_person_is_logged(engine, shop, caplog):
    caplog.set_level("INFO")
    shop.post("/forms", json=FORM)
    shop.post("/forms", json=FORM | {"consent": 5})
    shop.post("/orders", json=ORDER, headers=bearer())
    shop.post("/events", json=event(type="login", email="ana@example.com", shop_customer_id="c1"))
    assert "xample" not in caplog.text
    assert "refused 1" in caplog.text


def test_the_interface_is_described_for_programs_and_people(shop):
    told = shop.get("/openapi.json").json()
    assert {"/events", "/orders", "/tickets", "/forms", "/offer", "/webhooks/shopify"} <= set(told["paths"])
    page = shop.get("/docs")
    assert page.status_code == 200
    assert "default-src 'none'" in page.headers["Content-Security-Policy"]
    for path in told["paths"]:
        assert path in page.text
    script = shop.get("/shopauto.js")
    assert script.headers["Content-Type"].startswith("text/javascript")
    assert shop.get("/shopauto.js", headers={"If-None-Match": script.headers["ETag"]}).status_code == 304


def test_there_is_no_demo_in_live_mode(engine, monkeypatch, tmp_path, shop):
    assert shop.get("/demo").status_code == 200
    with collecting(engine, monkeypatch, tmp_path / "live", **LIVE) as live:
        assert live.get("/demo").status_code == live.get("/demo.js").status_code == 404
        assert live.get("/docs").status_code == 200


def test_a_burst_is_held_within_its_memory_and_the_rest_is_told_to_come_again(engine, monkeypatch, tmp_path):
    """Nothing can be stored for a while: what fits waits, the rest is put off, and all of it is stored in the end."""
    lists = [[event(n * 300 + i, url="https://linen.test/" + "x" * 3000) for i in range(300)] for n in range(8)]
    with collecting(engine, monkeypatch, tmp_path, collector_queue_mib=32) as shop, ThreadPoolExecutor(8) as pool:
        with engine.begin() as connection:
            connection.exec_driver_sql("lock table shopauto.collected in exclusive mode")
            under_way = [pool.submit(shop.post, "/events", json=each, headers=bearer()) for each in lists]
            deadline = time.monotonic() + 10
            while not any(one.done() for one in under_way) and time.monotonic() < deadline:
                time.sleep(0.05)
        told = [one.result() for one in under_way]
        assert {one.status_code for one in told} == {200, 429}
        late = [each for each, one in zip(lists, told, strict=True) if one.status_code == 429]
        assert all(shop.post("/events", json=each, headers=bearer()).status_code == 200 for each in late)
    assert query(engine, "select count(*) from collected") == [(2400,)]

"""Anything at every address of the collector: no answer is an error of ours, and nothing is lost that was said to be stored.

What is sent comes from the collector's own description (schemathesis: what fits it, and what does not), from raw bytes, and
from genuine deliveries that are bent. ``SHOPAUTO_FUZZ_EXAMPLES`` asks for more of each.
"""

from __future__ import annotations

import base64
import copy
import hashlib
import hmac
import json
import os
import random
from datetime import UTC, datetime
from typing import Any
from urllib.parse import quote

import pytest
from hypothesis import HealthCheck, Phase, given, seed, settings
from hypothesis import strategies as st

from shopauto_pipelines.realtime.collector.openapi import document
from shopauto_pipelines_tests.realtime.collecting import bearer, collecting, query
from shopauto_pipelines_tests.realtime.test_webhooks import CHECKOUT, ORDER

EXAMPLES = int(os.environ.get("SHOPAUTO_FUZZ_EXAMPLES", "4"))
NOW = datetime(2026, 11, 22, 7, tzinfo=UTC)
SECRET = "hush"
TIMES = ("happened_at", "ordered_at", "opened_at", "submitted_at")
IDS = {"/events": "event_id", "/orders": "order_id", "/tickets": "ticket_id", "/forms": "submission_id"}

pytestmark = pytest.mark.slow


def fuzz(times: int = 1):
    """A property that is tried ``EXAMPLES`` times so often, always the same ones."""
    quiet = settings(
        max_examples=EXAMPLES * times,
        deadline=None,
        database=None,
        phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )
    return lambda property: seed(4)(quiet(property))


@pytest.fixture
def shop(engine, monkeypatch, tmp_path, provider):
    secrets = dict.fromkeys(("shopify_webhook_secret", "woocommerce_webhook_secret", "twilio_auth_token"), SECRET)
    secrets |= {"sendgrid_webhook_key": provider.public_key}
    with collecting(engine, monkeypatch, tmp_path, NOW, identity_secret=None, **secrets) as client:
        yield client


def _keys(path: str, entry: dict[str, Any]) -> list[str]:
    """What an entry is kept as; a ticket as that it was opened, or settled, or both."""
    key = str(entry[IDS[path]]).strip()
    if path != "/tickets":
        return [key]
    settled = [f"ticket.{key}.closed"] if entry.get("closed_at") is not None else []
    return [*settled, f"ticket.{key}"] if entry.get("opened_at") is not None or not settled else settled


class Told:
    """Sends, and keeps what was said to be stored."""

    def __init__(self, client) -> None:
        self.client, self.stored, self.answers = client, set[tuple[str, str]](), 0

    def send(self, method: str, path: str, **how: Any) -> Any:
        answer = self.client.request(method, path, **how)
        self.answers += 1
        assert answer.status_code < 500, (path, how, answer.text)
        return answer

    def entries(self, path: str, body: Any, **how: Any) -> Any:
        """Send entries: each is stored, was there before, or is refused with its reason."""
        answer = self.send("POST", path, content=json.dumps(body).encode(), **how)
        if answer.status_code in (200, 422):
            given, told = body if isinstance(body, list) else [body], answer.json()
            refused = {one["index"] for one in told["refused"]}
            assert all(one["reason"] for one in told["refused"])
            assert told["stored"] + told["repeated"] + len(refused) == len(given)
            self.stored |= {
                (path, key) for n, entry in enumerate(given) if n not in refused for key in _keys(path, entry)
            }
        return answer

    def nothing_is_lost(self, engine) -> None:
        names = {
            "/events": "raw/events",
            "/orders": "raw/orders",
            "/tickets": "raw/events",
            "/forms": "raw/form_submissions",
        }
        expected = {(names[path], key) for path, key in self.stored}
        kept = {
            *query(
                engine,
                "select raw_table, key from collected where raw_table = any ('{raw/events,raw/orders,raw/form_submissions}')",
            )
        }
        assert kept == expected


def test_what_fits_the_description_and_what_does_not_is_answered_as_described(engine, shop):
    import schemathesis

    told = Told(shop)
    for found in schemathesis.openapi.from_dict(document()).get_all_operations():
        operation = found.ok()
        for mode in schemathesis.GenerationMode:
            # an address without parameters has nothing that could be wrong
            if mode is schemathesis.GenerationMode.POSITIVE or operation.body or operation.query:
                _answered_as_described(told, operation, operation.as_strategy(generation_mode=mode))
    assert told.answers >= 2 * EXAMPLES * 8
    assert len(told.stored) > EXAMPLES
    told.nothing_is_lost(engine)


def _answered_as_described(told: Told, operation: Any, cases: Any) -> None:
    @fuzz()
    @given(case=cases, key=st.booleans(), in_time=st.booleans())
    def answered(case, key, in_time):
        how = case.as_transport_kwargs(base_url="http://testserver")
        headers = {name: value for name, value in dict(how["headers"]).items() if _sendable(name, value)}
        if key or operation.path not in IDS:
            headers.pop("Authorization", None)
        headers |= bearer() if key else {}
        if operation.path in IDS and not isinstance(case.body, bytes):
            body = _now(copy.deepcopy(case.body)) if in_time else case.body
            answer = told.entries(operation.path, body, headers=headers)
        else:
            body = {"json": how["json"]} if "json" in how else {}
            if isinstance(raw := how.get("data", case.body), (bytes, str)):
                body = {"content": raw}
            elif isinstance(raw, dict):
                body = {"data": raw}
            params = {str(name): _short(value) for name, value in (case.query or {}).items()}
            path = quote(case.formatted_path, safe="/%")
            answer = told.send(operation.method, path, params=params, headers=headers, follow_redirects=False, **body)
        described = document()["paths"][operation.path][operation.method.lower()]["responses"]
        assert str(answer.status_code) in {*described, "405"}, (operation.path, answer.status_code, answer.text)

    answered()


def _sendable(name: str, value: str) -> bool:
    return name.isascii() and name.isidentifier() and value.isprintable() and value.isascii()


def _short(value: Any) -> str:
    return str(value).encode(errors="replace").decode()[:300]


def _now(body: Any) -> Any:
    """The entries without their times: they happen now and are not refused for them."""
    for entry in body if isinstance(body, list) else [body]:
        if isinstance(entry, dict):
            for name in TIMES:
                entry.pop(name, None)
    return body


def test_raw_bytes_are_answered_at_every_address(shop):
    told = Told(shop)
    paths = [
        *(path for path, methods in document()["paths"].items() if "post" in methods),
        "/webhooks/twilio",
        "/webhooks/twilio/7",
    ]
    good = json.dumps([CHECKOUT, ORDER, {"event_id": "e", "type": "page_view", "anonymous_id": "b"}]).encode()

    @fuzz(6)
    @given(path=st.sampled_from(paths), body=st.binary(max_size=300) | _bent(good), headers=_headers())
    def answered(path, body, headers):
        told.send("POST", path, content=body, headers=headers)

    @fuzz(3)
    @given(
        method=st.sampled_from(["GET", "POST", "PUT", "OPTIONS", "HEAD"]),
        path=st.sampled_from(["/u/", "/p/", "/offer", "/x"]),
        text=st.text(max_size=60),
    )
    def asked(method, path, text):
        told.send(
            method,
            path + text.encode(errors="replace").hex() if path.endswith("/") else path,
            params={"anonymous_id": text.encode(errors="replace").decode()},
        )

    answered()
    asked()
    assert told.answers == 9 * EXAMPLES


def _headers():
    kinds = ["application/json", "text/plain", "application/x-www-form-urlencoded", "x"]
    return st.fixed_dictionaries(
        {"Content-Type": st.sampled_from(kinds)},
        optional={"Authorization": st.sampled_from([b"Bearer a-servers-key", b"Bearer", b"\xff", b"Basic eDp5"])},
    )


@st.composite
def _bent(draw, good: bytes) -> bytes:
    """JSON with some bytes changed, cut or doubled."""
    made = random.Random(draw(st.integers(0, 2**32)))
    body = bytearray(good)
    for _ in range(made.randint(0, 4)):
        at = made.randrange(len(body))
        body[at : at + made.choice([0, 1, 1, 20])] = made.choice(
            [b"", b"\0", b"\xff", b'"', b"9" * 30, b"{", b"null", b"\\ud800"]
        )
    return bytes(body)


_ANYTHING = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**70), 2**70)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(max_size=20)
    | st.sampled_from(
        [
            "2026-11-22T06:00:00",
            "9999-12-31T23:59:59+00:00",
            "1e400",
            "-5.005",
            "\0",
            "checkout-draft",
            "processing",
            "paid",
        ]
    ),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=5,
)


@st.composite
def _delivery(draw, told: dict[str, Any]) -> dict[str, Any]:
    """A genuine delivery with some of its values, at any depth, replaced by anything, or gone."""
    bent = copy.deepcopy(told)
    for _ in range(draw(st.integers(0, 4))):
        part: Any = bent
        while True:
            keys = list(part) if isinstance(part, dict) else list(range(len(part)))
            if not keys:
                break
            key = draw(st.sampled_from(keys))
            if isinstance(part[key], (dict, list)) and part[key] and draw(st.booleans()):
                part = part[key]
                continue
            if draw(st.integers(0, 3)):
                part[key] = draw(_ANYTHING)
            else:
                del part[key]
            break
    return bent


WOO = {
    "id": 81,
    "status": "processing",
    "currency": "USD",
    "total": "32.00",
    "discount_total": "0.00",
    "shipping_total": "4.00",
    "customer_id": 0,
    "billing": {"first_name": "Ab", "email": "ab@example.com", "country": "US", "city": "LA", "phone": ""},
    "date_created_gmt": "2026-11-22T05:50:29",
    "date_modified_gmt": "2026-11-22T05:51:16",
    "date_paid_gmt": "2026-11-22T05:51:16",
    "meta_data": [{"id": 1, "key": "_shopauto_anonymous_id", "value": "b-7"}],
    "line_items": [{"product_id": 21, "quantity": 2, "total": "28.00", "total_tax": "0.00"}],
    "shipping_lines": [{"total": "4.00", "total_tax": "0.00"}],
    "coupon_lines": [{"code": "SPRING"}],
    "refunds": [{"id": 84, "reason": "", "total": "-1.00"}],
}


def test_bent_deliveries_that_are_genuine_are_taken_or_left_and_never_an_error(engine, shop):
    told = Told(shop)
    refund = {
        "id": 88,
        "order_id": 5512,
        "created_at": "2026-11-22T06:30:00Z",
        "refund_line_items": [{"id": 1, "quantity": 1, "subtotal": "1.00"}],
        "transactions": [{"kind": "refund", "amount": "2.00"}],
    }
    customer = {
        "id": 207,
        "email": "jon@example.com",
        "updated_at": "2026-11-22T06:00:00Z",
        "billing": {},
        "date_modified_gmt": "2026-11-22T05:51:16",
        "email_marketing_consent": {"state": "subscribed", "consent_updated_at": "2026-11-22T06:00:00Z"},
    }
    subjects = [
        ("shopify", "orders/paid", ORDER),
        ("shopify", "checkouts/update", CHECKOUT),
        ("shopify", "refunds/create", refund),
        ("shopify", "customers/update", customer),
        ("woocommerce", "order.updated", WOO),
        ("woocommerce", "order.updated", WOO | {"status": "checkout-draft", "date_paid_gmt": None}),
        ("woocommerce", "customer.updated", customer),
    ]
    new = sum(_bend(told, *subject) for subject in subjects)
    assert query(engine, "select count(*) from collected") == [(new,)]
    assert new > 5


def _bend(told: Told, name: str, topic: str, genuine: dict[str, Any]) -> int:
    """Deliver it in many forms; returns how many rows were new."""
    kind, sign = {"shopify": ("X-Shopify", "Hmac-Sha256"), "woocommerce": ("X-WC-Webhook", "Signature")}[name]
    new = []

    @fuzz(4)
    @given(delivery=_delivery(genuine))
    def answered(delivery):
        body = json.dumps(delivery).encode()
        signature = base64.b64encode(hmac.new(SECRET.encode(), body, hashlib.sha256).digest()).decode()
        headers = {f"{kind}-Topic": topic, f"{kind}-{sign}": signature}
        answer = told.send("POST", f"/webhooks/{name}", content=body, headers=headers)
        assert answer.status_code == 200, answer.text
        new.append(answer.json()["new"])

    answered()
    return sum(new)

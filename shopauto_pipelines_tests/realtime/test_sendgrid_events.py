"""Is a request SendGrid's, and what does it say: no database, no HTTP."""

from __future__ import annotations

import base64
import json
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from shopauto_pipelines.outbox import links
from shopauto_pipelines.outbox.channels.sendgrid import CORRELATION
from shopauto_pipelines.realtime.collector.sendgrid_events import (
    SIGNATURE_HEADER,
    TIMESTAMP_HEADER,
    Verifier,
    WebhookKeyError,
    parse,
)
from shopauto_pipelines_tests.outbox.conftest import AT
from shopauto_pipelines_tests.realtime.conftest import event

KEY = b"key"


@pytest.fixture(scope="module")
def example(shared):
    """The published example: body, headers, key and a time at which it is fresh."""
    found = json.loads((shared / "contracts" / "sendgrid" / "signed_event_webhook.json").read_text())
    headers = {SIGNATURE_HEADER: found["signature"], TIMESTAMP_HEADER: found["timestamp"]}
    fresh = datetime.fromtimestamp(int(found["timestamp"]), UTC)
    return found["raw_body"].encode(), headers, Verifier(found["public_key"], timedelta(hours=1)), fresh


def test_the_published_example_verifies(example):
    body, headers, verifier, fresh = example
    assert verifier.refusal(body, headers, fresh) is None


def test_every_single_byte_that_changes_makes_it_fail(example):
    body, headers, verifier, fresh = example
    for place in range(len(body)):
        for flip in (1, 0x20, 0x80):
            changed = body[:place] + bytes([body[place] ^ flip]) + body[place + 1 :]
            assert verifier.refusal(changed, headers, fresh), (place, flip)
    for name in headers:
        for place in range(len(headers[name])):
            for other in "A9+/=- é\n":
                value = headers[name][:place] + other + headers[name][place + 1 :]
                if value != headers[name]:
                    assert verifier.refusal(body, headers | {name: value}, fresh), (name, place, other)
    assert verifier.refusal(body + b"\n", headers, fresh)
    assert verifier.refusal(body[:-1], headers, fresh)


def test_no_other_text_stands_for_the_same_signature(example):
    body, headers, verifier, fresh = example
    signature = headers[SIGNATURE_HEADER]
    twins = [signature[:-2] + letter + "=" for letter in "NOP"]  # the bits that base64 leaves over
    assert {base64.b64decode(twin) for twin in twins} == {base64.b64decode(signature)}
    for other in [*twins, signature + "=", signature + "\n", "!" + signature, signature.rstrip("=")]:
        assert verifier.refusal(body, headers | {SIGNATURE_HEADER: other}, fresh)


@pytest.mark.parametrize("signature", ["", "x", "%%%", "====", "AAAA", "é", "MEUCIGHQ"])
def test_a_signature_that_is_none_is_refused_without_an_exception(example, signature):
    body, headers, verifier, fresh = example
    assert verifier.refusal(body, headers | {SIGNATURE_HEADER: signature}, fresh)


def test_a_request_is_good_for_the_window_and_from_no_clock_that_is_far_ahead(example):
    body, headers, verifier, fresh = example
    refused = {s: verifier.refusal(body, headers, fresh + timedelta(seconds=s)) for s in (-301, -300, 0, 3600, 3601)}
    assert {s for s, why in refused.items() if why} == {-301, 3601}


@pytest.mark.parametrize("key", ["x", "AAAA", "MFkwEwYH", "é"])
def test_a_key_that_is_none_says_which_setting_and_where_to_get_it(key):
    with pytest.raises(WebhookKeyError, match=r"SHOPAUTO_SENDGRID_WEBHOOK_KEY.*Signature Verification"):
        Verifier(key, timedelta(hours=1))


def parsed(*events):
    return parse(json.dumps(events).encode(), KEY)


def test_an_event_is_read_without_the_address_in_it():
    (read,) = parsed(event(1, "open", sg_machine_open=True)).events
    assert (read.message_id, read.type, read.at, read.is_machine) == (1, "open", AT, True)
    assert read.address_hash == links.address_hash(KEY, "email", "c000000@example.com")
    assert read.provider_id == "batch1"
    assert "example.com" not in repr(read)


@pytest.mark.parametrize(
    ("given", "reason"),
    [
        (event(1, "bounce", type="bounce", status="5.1.1", reason="550 <c000000@example.com> unknown"), "5.1.1"),
        (event(1, "bounce", type="blocked", status="5.7.1", reason="c000000@example.com"), "blocked 5.7.1"),
        (event(1, "bounce", status="c000000@example.com"), None),
        (event(1, "dropped", reason="Bounced Address"), "bounced_before"),
        (event(1, "dropped", reason="c000000@example.com is bad"), "other"),
        (event(1, "delivered", response="250 c000000@example.com ok"), None),
    ],
)
def test_a_reason_is_made_of_codes_and_known_words_only(given, reason):
    assert [read.reason for read in parsed(given).events] == [reason]


def test_what_is_not_of_ours_or_of_no_use_is_counted():
    foreign = {name: value for name, value in event(1).items() if name != CORRELATION}
    read = parsed(event(1), foreign, event(2, "group_resubscribe"), event(3, sg_event_id="\0"), 7, None, [])
    assert [e.message_id for e in read.events] == [1]
    assert read.left_out == {"not_ours": 1, "ignored": 1, "unreadable": 4}


@pytest.mark.parametrize(
    "wrong",
    [
        {CORRELATION: "0"},
        {CORRELATION: "9" * 19},
        {CORRELATION: "1; drop table"},
        {CORRELATION: [1]},
        {"sg_event_id": None},
        {"sg_event_id": "x" * 201},
        {"timestamp": None},
        {"timestamp": True},
        {"timestamp": -1},
        {"timestamp": 10**17},
        {"timestamp": "soon"},
    ],
)
def test_an_event_that_cannot_be_read_spoils_no_other(wrong):
    read = parsed(event(1) | wrong, event(2))
    assert [e.message_id for e in read.events] == [2]
    assert sum(read.left_out.values()) == 1


@pytest.mark.parametrize("body", [b"", b"{}", b"null", b"[", b"\xff", b"[" * 100_000, b"[" + b"9" * 5000 + b"]"])
def test_what_is_no_list_of_events_is_a_value_error(body):
    with pytest.raises(ValueError):  # noqa: PT011  (the JSON reader words it)
        parse(body, KEY)


_VALUES = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20) | st.lists(st.integers())


@hypothesis_settings(max_examples=200, deadline=None)
@given(st.lists(st.dictionaries(st.sampled_from(sorted(event(1))) | st.text(max_size=5), _VALUES)))
def test_no_event_whatever_it_holds_raises(events):
    events = [event(n + 1) | changed for n, changed in enumerate(events)]
    read = parsed(*events)
    assert len(read.events) + sum(read.left_out.values()) == len(events)


def test_an_address_that_is_no_text_is_no_address():
    (read,) = parse(json.dumps([event(1, email="\ud800")]).encode(), KEY).events
    assert read.address_hash is None

"""Marketing consent, newsletters, what became of them, and the visits and orders they cause."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from shopauto_pipelines.sources.sample.files import Bools, Floats, Ints, join, numbered, times
from shopauto_pipelines.sources.sample.lists import WORDINGS
from shopauto_pipelines.sources.sample.people import Ids, People
from shopauto_pipelines.sources.sample.rhythm import Rhythm
from shopauto_pipelines.sources.sample.shop import DAY, NEVER, Counters, Shop


@dataclass
class Mail:
    """Marketing consent, what became of the messages, and the orders and visits they caused."""

    consents: dict[str, Any]  # rows of consents.csv
    events: dict[str, Any]  # rows of message_events.csv
    click_person: Ints
    click_seconds: Ints
    order_person: Ints
    order_seconds: Ints
    per_mail: Floats  # probability that one mail causes an order, while the person has not left
    subscribed: Bools  # at the end


def draw_mail(
    rng: np.random.Generator, shop: Shop, people: People, rhythm: Rhythm, ids: Ids, counters: Counters
) -> Mail:
    """Sends every newsletter to its subscribers and draws what they do with it."""
    consent = _draw_consent(rng, shop, people, ids)
    log = _Log()
    bounced = _newsletters(rng, shop, people, rhythm, consent, log)
    _texts(rng, shop, people, consent, log)
    lands = np.where(people.reachable, 1 - _SOFT_BOUNCE, 0.0)
    return Mail(
        consents=_consent_rows(shop, consent.changes, ids),
        events=_message_rows(shop, log.entries, ids, people, counters),
        click_person=_together(log.click_person),
        click_seconds=_together(log.click_seconds),
        order_person=_together(log.order_person),
        order_seconds=_together(log.order_seconds),
        per_mail=lands * _opens(people) * _clicks(people) * _BUYS,
        subscribed=(consent.opted < shop.closes) & (consent.out >= shop.closes) & ~bounced,
    )


_SOFT_BOUNCE = 0.004
_BUYS = 0.32  # of the clicks of a customer who has not left


def _opens(people: People) -> Floats:
    """Probability that a delivered mail is opened."""
    return 0.08 + 0.8 * people.response


def _clicks(people: People) -> Floats:
    """Probability that an opened mail is clicked."""
    return 0.03 + 0.6 * people.response


@dataclass
class _Consent:
    """Seconds at which the e-mail consent began and ended, and every change as the shop recorded it."""

    asked: Ints
    opted: Ints
    out: Ints
    texting: Bools
    changes: list[tuple[Ints, str, str, str, Ints]]  # persons, channel, state, wording, seconds of every person


def _draw_consent(rng: np.random.Generator, shop: Shop, people: People, ids: Ids) -> _Consent:
    """Single and double opt-in, some never confirmed, many never given; who was there before is taken over."""
    n = len(people)
    draw = rng.random(n)
    single, double = ~people.guest & (draw < 0.34), ~people.guest & (draw >= 0.34) & (draw < 0.64)
    pending = ~people.guest & (draw >= 0.64) & (draw < 0.72)
    known = people.signup < shop.opens
    asked = np.maximum(people.signup, shop.opens)
    confirmed = asked + rng.integers(60, 3 * 3600, n)
    opted = np.where(single, asked, np.where(double, np.where(known, asked, confirmed), NEVER))
    leave = asked + (rng.random(n) * (shop.closes - asked)).astype(np.int64)
    leave = np.where((opted < NEVER) & (rng.random(n) < 0.04) & (leave > opted + DAY), leave, NEVER)
    texting = ~people.guest & (rng.random(n) < 0.08) & ids.has_phone
    changes = [
        (np.flatnonzero((single | double) & known), "email", "opted_in", "import", asked),
        (np.flatnonzero(single & ~known), "email", "opted_in", "signup", asked),
        (np.flatnonzero((double & ~known) | pending), "email", "pending", "signup", asked),
        (np.flatnonzero(double & ~known), "email", "opted_in", "double", confirmed),
        (np.flatnonzero(leave < NEVER), "email", "opted_out", "account", leave),
        (np.flatnonzero(texting), "sms", "opted_in", "sms", asked + 5),
    ]
    return _Consent(asked, opted, leave.copy(), texting, changes)


@dataclass
class _Log:
    """What happened to messages: (persons, seconds, type, channel, mailing, by a machine), clicks and orders."""

    entries: list[tuple[Ints, Ints, str, str, int, bool]] = field(default_factory=list)
    click_person: list[Ints] = field(default_factory=list)
    click_seconds: list[Ints] = field(default_factory=list)
    order_person: list[Ints] = field(default_factory=list)
    order_seconds: list[Ints] = field(default_factory=list)


def _newsletters(
    rng: np.random.Generator, shop: Shop, people: People, rhythm: Rhythm, consent: _Consent, log: _Log
) -> Bools:
    """Every mailing in turn, ends consent where people unsubscribe; returns whose address bounced for good."""
    opens, clicks, bounced = _opens(people), _clicks(people), np.zeros(len(people), bool)
    for m, (sent_at, _) in enumerate(shop.mailings):
        who = np.flatnonzero((consent.opted < sent_at) & (consent.out > sent_at) & ~bounced)
        n = len(who)
        sent = sent_at + rng.integers(0, 900, n)
        lands = people.reachable[who] & (rng.random(n) >= _SOFT_BOUNCE)
        delivered = sent + rng.integers(2, 60, n)
        opened = lands & (rng.random(n) < opens[who])
        gone = rhythm.left_at[who] <= sent_at
        clicked = opened & (rng.random(n) < clicks[who] * np.where(gone, 0.3, 1.0))
        open_at = delivered + (60 + rng.exponential(5 * 3600, n)).astype(np.int64)
        click_at = open_at + rng.integers(5, 120, n)
        order_at = click_at + (np.minimum(rng.exponential(0.8, n), 3.5) * DAY).astype(np.int64) + 400
        stays = (rhythm.bought_from[who] < click_at) & (rhythm.left_at[who] > order_at)
        orders = clicked & stays & (rng.random(n) < _BUYS)
        log.order_person.append(who[orders])
        log.order_seconds.append(order_at[orders])
        if sent_at >= shop.closes:  # of what comes after the end, only the orders are told
            continue
        log.click_person.append(who[clicked])
        log.click_seconds.append(click_at[clicked])
        bounced[who[~people.reachable[who]]] = True
        proxy = lands & people.machine[who] & (rng.random(n) < 0.85)
        bored = opened & (rng.random(n) < 0.012 * (1.3 - people.response[who]))
        angry = lands & ~bored & (rng.random(n) < 0.0006)
        for chosen, when, kind, machine in (
            (np.ones(n, bool), sent, "sent", False),
            (lands, delivered, "delivered", False),
            (~lands, delivered, "bounce", False),
            (opened, open_at, "open", False),
            (proxy, delivered + rng.integers(1, 40, n), "open", True),
            (clicked, click_at, "click", False),
            (bored, open_at + 15, "unsubscribe", False),
            (angry, open_at + 15, "spam_report", False),
        ):
            log.entries.append((who[chosen], when[chosen], kind, "email", m, machine))
        ends = bored | angry
        consent.out[who[ends]] = np.minimum(consent.out[who[ends]], open_at[ends] + 15)
        told = bored & (rng.random(n) < 0.5)  # the shop's own record of the consent follows only half of the time
        recorded = np.full(len(people), NEVER)
        recorded[who[told]] = open_at[told] + 16
        consent.changes.append((who[told], "email", "opted_out", "unsubscribe", recorded))
    return bounced


def _texts(rng: np.random.Generator, shop: Shop, people: People, consent: _Consent, log: _Log) -> None:
    """A text message with each sale, to those who asked for it."""
    for m, (sent_at, name) in enumerate(shop.mailings):
        if sent_at >= shop.closes or name.startswith("newsletter"):
            continue
        who = np.flatnonzero(consent.texting & (consent.asked < sent_at))
        sent = np.full(len(who), sent_at + 3 * 3600)
        hit = rng.random(len(who)) < 0.04 + 0.3 * people.response[who]
        log.entries += [
            (who, sent, "sent", "sms", m, False),
            (who, sent + 4, "delivered", "sms", m, False),
            (who[hit], sent[hit] + 900, "click", "sms", m, False),
        ]
        log.click_person.append(who[hit])
        log.click_seconds.append(sent[hit] + 900)


def _together(parts: list[Ints]) -> Ints:
    return np.concatenate([*parts, np.empty(0, np.int64)])


def _consent_rows(shop: Shop, parts: list[tuple[Ints, str, str, str, Ints]], ids: Ids) -> dict[str, Any]:
    person = np.concatenate([who for who, *_ in parts])
    at = np.concatenate([when[who] for who, *_, when in parts])
    part = np.repeat(np.arange(len(parts)), [len(who) for who, *_ in parts])
    keep = np.flatnonzero(at < shop.closes)
    keep = keep[np.lexsort((part[keep], person[keep], at[keep]))]
    columns = [pa.array([p[i] for p in parts]) for i in (1, 2)]
    wording = pa.array([WORDINGS[p[3]] for p in parts])
    return {
        "shop_customer_id": ids.shop.take(pa.array(person[keep])),
        "channel": columns[0].take(pa.array(part[keep])),
        "state": columns[1].take(pa.array(part[keep])),
        "wording": wording.take(pa.array(part[keep])),
        "changed_at": times(at[keep]),
    }


def _message_rows(
    shop: Shop,
    entries: list[tuple[Ints, Ints, str, str, int, bool]],
    ids: Ids,
    people: People,
    counters: Counters,
) -> dict[str, Any]:
    """The rows of message_events.csv; a message is named after its channel, mailing and recipient."""
    person, at = _together([entry[0] for entry in entries]), _together([entry[1] for entry in entries])
    part = np.repeat(np.arange(len(entries)), [len(entry[0]) for entry in entries])
    keep = np.flatnonzero(at < shop.closes)
    keep = keep[np.lexsort((part[keep], person[keep], at[keep]))]
    person, at, index = person[keep], at[keep], pa.array(part[keep], pa.int64())
    names = [name for _, name in shop.mailings]

    def column(values: Iterable[str | None]) -> pa.Array:
        return pa.array(values, pa.string()).take(index)

    return {
        "event_id": numbered("n", counters.take("message event", len(keep)) + np.arange(len(keep))),
        "happened_at": times(at),
        "type": column(kind for _, _, kind, _, _, _ in entries),
        "message_id": join(
            column(f"{'m' if channel == 'email' else 't'}{m:02d}-" for _, _, _, channel, m, _ in entries),
            pc.cast(pa.array(people.number[person]), pa.string()),
        ),
        "shop_customer_id": ids.shop.take(pa.array(person)),
        "channel": column(channel for _, _, _, channel, _, _ in entries),
        "campaign": column(names[m] for _, _, _, _, m, _ in entries),
        "is_machine": column(str(machine).lower() if kind == "open" else None for _, _, kind, _, _, machine in entries),
    }

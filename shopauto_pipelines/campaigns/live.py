"""Carts that were left just now: who of their owners gets which step, by the planner that also decides the day's campaigns.

What is known of a person is what the lake knew at the end of the newest computed day; the cart itself is known to the
second. Reads the lake and decides. Neither finding the carts nor sending belongs here.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, date, datetime, timedelta
from functools import cache, partial
from typing import Any, NamedTuple

import ibis
import pyarrow as pa
from ibis import _

from shopauto_pipelines.campaigns import offers
from shopauto_pipelines.campaigns.asked import asked
from shopauto_pipelines.campaigns.audience import rules_for_carts, with_scores
from shopauto_pipelines.campaigns.declaration import Campaign
from shopauto_pipelines.campaigns.grants import Grants
from shopauto_pipelines.campaigns.planner import SCHEMAS
from shopauto_pipelines.campaigns.planning import given_name, nothing, statement
from shopauto_pipelines.campaigns.products import Product, of_wanted, products
from shopauto_pipelines.features.tables import CUSTOMER_360
from shopauto_pipelines.platform import prepared
from shopauto_pipelines.platform.lake import Lake
from shopauto_pipelines.platform.prepared import Prepared, Rows
from shopauto_pipelines.platform.settings import Settings
from shopauto_pipelines.predictions.tables import SCORES
from shopauto_pipelines.profiles.tables import IDENTITIES
from shopauto_pipelines.segments.tables import MEMBERSHIP


class CartTrigger(NamedTuple):
    """A cart to which nothing has happened for a step's wait, and whose it is.

    ``triggered_at`` is when something last happened to it (with a time zone), ``contents`` are pieces by product.
    """

    customer_id: str
    occasion: str
    triggered_at: datetime
    waited: timedelta
    contents: Mapping[str, int]
    ordered: bool = False
    changed: bool = False


def realtime(campaigns: Iterable[Campaign]) -> list[Campaign]:
    """Those of the campaigns that send by the hour, as long as they are enabled."""
    return [campaign for campaign in campaigns if campaign.is_realtime and campaign.enabled]


def cart_waits(campaigns: Iterable[Campaign], settings: Settings) -> list[timedelta]:
    """How long carts are left before a step is due, of all campaigns, the shortest first."""
    return sorted(
        {wait.after for campaign in realtime(campaigns) for wait in campaign.waits(_threshold(settings)).values()}
    )


def longest_valid(campaigns: Iterable[Campaign]) -> timedelta:
    """The longest time that a step of any cart campaign may still be sent, from when it is due; zero where there is none."""
    return max((timedelta(hours=campaign.valid_hours) for campaign in realtime(campaigns)), default=timedelta())


def decide(
    campaign: Campaign,
    triggers: Sequence[CartTrigger],
    lake: Lake,
    settings: Settings,
    *,
    profile_day: date,
    now: datetime,
    offered: Iterable[Mapping[str, Any]],
) -> list[dict[str, Any]]:
    """The planner's decision on every step that is due ``now`` for one of the ``triggers``.

    Columns of ``campaigns/<name>/audience``, and ``triggered_at``, and ``offer``: what the step brings, with the columns of
    ``shopauto.offers``, or null. The explanation also tells the ``cart`` (pieces by product) and the decision on the
    ``offer``. People are known as of ``profile_day``. ``offered`` are rows of ``shopauto.offers`` that these people were granted
    before. Raises :class:`~shopauto_pipelines.platform.lake.MissingPartition` where a table of the profile day is missing.
    """
    if not triggers:
        return []
    carts = _newest(triggers, _owners(triggers, lake, profile_day))
    people = _people({cart.customer_id for cart in carts.values()}, lake, profile_day)
    rows = _planned(campaign, carts, people.values(), lake, settings, profile_day, now)
    with_offer = [row for row in rows if row["decision"] == "planned" and campaign.step(row["step"]).offer]
    wares = products(lake, profile_day, {ware for row in with_offer for ware in carts[_key(row)].contents})
    grants = Grants(campaign.name, offered, settings, now)
    rules = offers.OfferRules.of(settings)
    today = now.astimezone(settings.zone).date()
    for row in rows:
        cart = carts[_key(row)]
        why = json.loads(row["explanation"]) | {"cart": dict(sorted(cart.contents.items()))}
        incentive = campaign.step(row["step"]).offer
        row["offer"] = None
        if incentive and row["decision"] == "planned":
            person, lines = people[cart.customer_id], _lines(cart, wares)
            why["offer"], row["offer"] = grants.grant(
                cart.customer_id,
                cart.occasion,
                incentive.valid_days,
                partial(_decided, person["churn_factor"], person["discount_seeker"], lines, rules),
            )
        told = json.dumps(why, ensure_ascii=False)
        row |= {"explanation": told, "triggered_at": cart.triggered_at, "due_on": today}
    return rows


def _decided(
    churn_factor: float | None,
    discount_seeker: bool,
    lines: Sequence[offers.Line],
    rules: offers.OfferRules,
    granted: int,
) -> offers.Offer:
    return offers.decide(churn_factor, discount_seeker, lines, granted, rules)


def _lines(cart: CartTrigger, wares: Mapping[str, Product]) -> list[offers.Line]:
    """What is in the cart, as offers see it."""
    return [
        offers.Line(pieces, ware.price_cents, ware.cost_cents) if (ware := wares.get(product_id)) else offers.UNKNOWN
        for product_id, pieces in sorted(cart.contents.items())
        if pieces > 0
    ]


def prepare() -> None:
    """Compile what :func:`decide` will run, whatever the campaigns and settings: the first decisions need not wait for it."""
    for compiled in (_ownership, _knowledge, of_wanted, _consent, _membership, partial(statement, of_carts=True)):
        compiled()


_Key = tuple[str, str]


def _key(row: Mapping[str, Any]) -> _Key:
    return row["customer_id"], row["occasion"]


def _newest(triggers: Sequence[CartTrigger], owners: Mapping[str, str]) -> dict[_Key, CartTrigger]:
    """The triggers by person and cart, in order; of several for one the newest, and of these the longest wait."""
    newest: dict[_Key, CartTrigger] = {}
    for trigger in sorted(triggers, key=lambda each: (each.occasion, each.triggered_at, each.waited, each.customer_id)):
        owner = owners.get(trigger.customer_id, trigger.customer_id)
        newest[owner, trigger.occasion] = trigger._replace(customer_id=owner)
    return newest


_ASKED = pa.schema({"id": pa.string()})

#: What the lake knows of a cart's owner, as the planner and the offers ask for it.
_PERSON = ibis.schema(
    {
        **SCHEMAS["people"],
        "email_consent": "string",
        "sms_consent": "string",
        "churn_factor": "float64",
        "discount_seeker": "boolean",
    }
)


def _asked(ids: Iterable[str]) -> pa.Table:
    return pa.table({"id": sorted(set(ids))}, schema=_ASKED)


def _owners(triggers: Iterable[CartTrigger], lake: Lake, day: date) -> dict[str, str]:
    """Which person each trigger's id belongs to, of those that the day knows."""
    given = {"live_asked": _asked(each.customer_id for each in triggers), "live_identities": lake.on(IDENTITIES, day)}
    rows = prepared.run(lake, _ownership(), given).to_pylist()
    return {row["shop_customer_id"]: row["customer_id"] for row in rows}


@cache
def _ownership() -> str:
    """The statement of :func:`_owners`."""
    asked = ibis.table(ibis.schema(_ASKED), name="live_asked")
    identities = prepared.unseen(IDENTITIES, "live_identities")
    found = identities.semi_join(asked, identities.shop_customer_id == asked.id)
    return prepared.compiled(found.select("shop_customer_id", "customer_id"))


def _people(ids: Iterable[str], lake: Lake, day: date) -> dict[str, dict[str, Any]]:
    """What the day knows of people, by id."""
    given = {
        "live_asked": _asked(ids),
        "live_customer_360": lake.on(CUSTOMER_360, day),
        "live_scores": lake.on(SCORES, day),
    }
    return {row["customer_id"]: row for row in prepared.run(lake, _knowledge(), given).to_pylist()}


@cache
def _knowledge() -> str:
    """The statement of :func:`_people`. Both tables are reduced before they are joined: they hold everybody."""
    asked = ibis.table(ibis.schema(_ASKED), name="live_asked").rename(customer_id="id")
    customers = prepared.unseen(CUSTOMER_360, "live_customer_360").semi_join(asked, "customer_id")
    scores = prepared.unseen(SCORES, "live_scores").semi_join(asked, "customer_id")
    people = with_scores(customers, scores, "email_consent", "sms_consent", "churn_factor", "discount_seeker")
    return prepared.compiled(people.select(*_PERSON))


#: Every day that the lake knows is past when a cart is decided, so the plan need not name a day, and is the same on all.
_LATER = date.max


@cache
def _consent() -> Prepared:
    """The planner's input ``consent``, out of what is known of people."""
    people = ibis.table(_PERSON, name=given_name("people"))
    said = (
        people.select(
            "customer_id",
            channel=ibis.literal(channel),
            state=_[f"{channel}_consent"],
            refused_topics=ibis.null("string"),  # a reservation asks what people chose, to the second
        )
        for channel in ("email", "sms")
    )
    return Prepared.of(ibis.union(*said).filter(_.state.notnull()), {})


@cache
def _membership() -> Prepared:
    """The planner's input ``membership``, of these people."""
    people = ibis.table(_PERSON, name=given_name("people"))
    return Prepared.of(prepared.unseen(MEMBERSHIP, "live_membership").semi_join(people, "customer_id"), {})


def _planned(
    campaign: Campaign,
    carts: Mapping[_Key, CartTrigger],
    people: Iterable[Mapping[str, Any]],
    lake: Lake,
    settings: Settings,
    profile_day: date,
    now: datetime,
) -> list[dict[str, Any]]:
    """The planner's rows for the carts, in order of their key.

    What was sent before, and who has asked for help, is not asked here: the ledger takes a step once, and a reservation
    counts what has left and looks for what takes a message back.
    """
    told = [
        {
            "customer_id": cart.customer_id,
            "occasion": cart.occasion,
            "triggered_on": cart.triggered_at.astimezone(settings.zone).date(),
            "told_at": now.astimezone(UTC).replace(tzinfo=None),
            "age": (now - cart.triggered_at) // timedelta(microseconds=1),
            "before": 0,  # what an earlier pause has sent the ledger knows
            "ordered": 0 if cart.ordered else None,
            "emptied": None if any(pieces > 0 for pieces in cart.contents.values()) else 0,
            "changed": 0 if cart.changed else None,
        }
        for cart in carts.values()
    ]
    inputs: dict[str, Rows] = {
        "triggers": pa.Table.from_pylist(told, SCHEMAS["carts"].to_pyarrow()),
        "people": pa.Table.from_pylist(list(people), _PERSON.to_pyarrow()),
        "consent": _consent(),
        "membership": _membership(),
        "received": nothing("received"),
        "planned": nothing("planned"),
        **asked(campaign, rules_for_carts(settings), _LATER, campaign.waits(_threshold(settings)), now),
    }
    given = {"live_membership": lake.on(MEMBERSHIP, profile_day)}
    given |= {given_name(name): rows for name, rows in inputs.items()}
    rows = prepared.run(lake, statement(of_carts=True).statement, given).to_pylist()
    return sorted(rows, key=lambda row: (row["step"], row["customer_id"], row["occasion"]))


def _threshold(settings: Settings) -> timedelta:
    return timedelta(minutes=settings.cart_abandoned_minutes)

"""What a decision rests on beside the rules: the offer, the scores with what moved them, the person's raw rows, the versions."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from datetime import date
from importlib.metadata import PackageNotFoundError, version
from typing import Any

from shopauto_pipelines.campaigns.costs import cost_cents, order_probability
from shopauto_pipelines.campaigns.declaration import Campaign
from shopauto_pipelines.campaigns.offers import FREE_SHIPPING, NONE, REASONS, TIERS, OfferRules, Tier, least_order_cents
from shopauto_pipelines.explain import raw_rows
from shopauto_pipelines.explain.case import Case
from shopauto_pipelines.explain.moved import Feature, Group, Moved
from shopauto_pipelines.explain.telling import Part, Step, counted, shown
from shopauto_pipelines.predictions.store import code_version
from shopauto_pipelines.segments.declaration import SEPARATOR, SegmentDeclaration
from shopauto_pipelines.segments.why import with_referred
from shopauto_pipelines.sources.tables import EVENTS, MESSAGE_EVENTS, ORDERS

#: Scores that can be moved, in words, and the format of value and change.
_SCORES = {
    "churn_probability": ("probability of no order within the horizon", "{:.1%}", "{:+.1f} points"),
    "expected_orders_90d": ("expected order days within 90 days", "{:.2f}", "{:+.2f}"),
    "value_cents_365d": ("expected order totals of a year, minor units", "{:,.0f}", "{:+,.0f}"),
    "next_order_on": ("days until the next order, the median", "{:.0f} days", "{:+.0f} days"),
}

#: The score that is a date.
_NEXT = "next_order_on"

#: Changes smaller than this share of the largest are not listed.
_SMALL = 0.02

#: Scores that differ by less are the same: how they were rounded.
_SAME = 2e-6

#: Features that are days ago, whatever their name says.
_DAYS_AGO = frozenset(("last_visit_on", "last_click_on"))


def offer(case: Case) -> Step | None:
    """What the step's offer was decided by; none where it brings none."""
    if case.step.offer is None:
        return None
    profile, rules = case.person.profile, OfferRules.of(case.known.settings)
    said = json.loads(case.row.get("offer") or "null") or case.explanation.get("offer")
    parts = [
        Part(
            f"churn factor: {shown(profile['churn_factor'])}",
            aside="how often their usual time between orders has passed",
        ),
        Part(f"waits for coupons: {shown(profile['discount_seeker'])}"),
        Part(f"a typical order of theirs: {_cents(profile['typical_order_cents'])}", aside="minor units"),
        Part(
            f"an offer must leave a margin of {rules.margin_percent:g} %",
            aside=f"goods of unknown cost: {rules.cost_percent:g} % of the price; shipping: {_cents(rules.shipping_cents)}",
        ),
    ]
    tiers = [Tier(FREE_SHIPPING)] if case.step.offer.kind else list(TIERS[1:])
    for tier in tiers:
        least = least_order_cents(tier, rules)
        parts.append(
            Part(f"{tier}: " + (f"for typical orders from {_cents(least)} on" if least is not None else "never"))
        )
    parts.append(
        Part(
            f"at most {counted(rules.cap, 'offer')} to a person in {rules.cap_days} days",
            aside="asked once more when the code is made",
        )
    )
    if said is None:
        why = (
            "nothing is planned, so no offer was decided"
            if case.row.get("decision") != "planned"
            else "decided when it is sent"
        )
        return Step("offer", "Offer", "fact", why, tuple(parts))
    tier = Tier(said["kind"], said.get("percent"))
    text = (
        f"{tier}: {said.get('why') or REASONS.get(said['reason'], said['reason'])}"
        if said["kind"] == NONE
        else str(said.get("why") or tier)
    )
    if said["kind"] != NONE:
        parts.append(_cost(case, tier, rules))
    if "expires_on" in said:
        parts.append(Part(f"the code holds until {said['expires_on']}"))
    return Step("offer", "Offer", "no" if said["kind"] == NONE else "yes", f"{text} ({said['reason']})", tuple(parts))


def _cost(case: Case, tier: Tier, rules: OfferRules) -> Part:
    """What the offer costs the shop, and how likely it is to be used."""
    assert case.step.offer
    scored = case.known.scores.get(case.person.customer_id, {})
    order, churn = case.person.profile["typical_order_cents"], scored.get("churn_probability")
    days, horizon = case.step.offer.valid_days, case.known.settings.horizon_days
    chance = order_probability(churn, days, horizon)
    by = f"an order in its {days} days: {chance:.1%}" if churn is not None else "no score tells how likely"
    return Part(f"it costs {_cents(cost_cents(tier, order, rules))} once it is used", aside=f"minor units; {by}")


def scores(case: Case, asked: frozenset[str]) -> Step:
    """The person's scores with their models, and the features that moved them; ``asked``: scores that the campaign rests on."""
    known, who = case.known, case.person.customer_id
    row = known.scores.get(who)
    title = "Scores"
    if row is None:
        return Step("scores", title, "fact", "has no score: only who has ordered is scored", asked=bool(asked))
    there = [name for name in _SCORES if row[name] is not None]
    late = [_NEXT] if row[_NEXT] is None and row["next_order_from"] else []  # the median lies beyond a year
    parts = [_score(name, row) for name in (*there, *late)]
    if row["note"]:
        parts.append(Part(f"note: {row['note']}", "unknown"))
    parts += [_model(case, target) for target in known.cards]
    told = known.moved.get(who)
    wanted = [name for name in _SCORES if name == "churn_probability" or name in asked]
    if told is None:
        parts.append(Part(f"what moved them cannot be told: {known.unmoved or 'no model is in force'}", "unknown"))
    else:
        parts += [part for name in wanted if (part := _moved(name, row, told, case.day))]
    text = f"the campaign rests on {', '.join(sorted(asked))}" if asked else "the campaign does not rest on them"
    return Step("scores", title, "fact", text, tuple(parts), asked=bool(asked))


def _score(name: str, row: Mapping[str, Any]) -> Part:
    """A score in words; the next order's date with its interval."""
    if name != _NEXT:
        return Part(f"{name}: {_SCORES[name][1].format(row[name])}")
    late = "later than a year"
    between = f"between {row['next_order_from'] or late} and {row['next_order_to'] or late} in four of five cases"
    return Part(f"{name}: {row[name] or late}", aside=between)


def _model(case: Case, target: str) -> Part:
    card = case.known.cards[target]
    code = str(card.made_by.get("code", "not known"))
    same = "as it is now" if code == code_version() else f"now it is {code_version()}"
    made = str(card.made_by.get("class", "")).rpartition(".")[2]
    tested = {True: "passed its back-test", False: "failed its back-test", None: "was not tested"}[card.passed]
    return Part(
        f"{target}: model {card.model_id}",
        aside=f"{made}, trained as of {card.trained_as_of}, {tested}; code {code}, {same}",
    )


def _moved(score: str, row: Mapping[str, Any], told: Moved, day: date) -> Part | None:
    value, again = row[score], told.scores.get(score)
    value = (value - day).days if isinstance(value, date) else value
    if value is None or again is None:
        return None
    words, form, _unit = _SCORES[score]
    groups = told.largest(score)
    least = _SMALL * abs(groups[0].changes[score]) if groups else 0.0
    parts = [_group(group, score, least) for group in groups if abs(group.changes[score]) >= least]
    aside = (
        "the score minus what the model says with the median customer's values in place of theirs, the rest as it is"
    )
    if abs(value - again) > _SAME * max(1.0, abs(value)):
        parts.append(
            Part(f"scored anew it is {form.format(again)}: features or model are not those of then", "unknown")
        )
    if not groups:
        return Part(
            f"what moved {score} ({words}): nothing sets them apart from the median customer", parts=tuple(parts)
        )
    return Part(f"what moved {score} ({words})", aside=aside, parts=tuple(parts))


def _group(group: Group, score: str, least: float) -> Part:
    features = sorted(group.features, key=lambda each: -abs(each.changes.get(score, 0.0)))
    inside = [
        Part(_feature(each), aside=f"alone {_signed(score, each.changes[score])}")
        for each in features
        if abs(each.changes.get(score, 0.0)) >= max(least, 1e-9)
    ]
    change = group.changes[score]
    return Part(f"{group.name}: {_signed(score, change)}", parts=tuple(inside), change=change)


def _signed(score: str, change: float) -> str:
    """A change in words; of a probability in percentage points."""
    scaled = 100 * change if score == "churn_probability" else change
    return _SCORES[score][2].format(scaled).replace("-", "\N{MINUS SIGN}")


def _feature(feature: Feature) -> str:
    is_day = feature.name in _DAYS_AGO

    def told(value: float | None) -> str:
        if value is None:
            return "never" if is_day else "not known"
        return f"{counted(round(value), 'day')} ago" if is_day else shown(round(value, 2))

    return f"{feature.name}: {told(feature.value)}, the median customer's {told(feature.median)}"


def files(case: Case) -> Step:
    """The latest rows behind the person's features, as of the day."""
    lake, person, limit = case.known.lake, case.person, case.known.limit
    kinds = ((ORDERS, "ordered"), (EVENTS, "acted"), (MESSAGE_EVENTS, "heard"))
    parts = []
    for table, did in kinds:
        days = [day for day in person.days[did] if day <= case.day]
        found = raw_rows.rows(
            lake,
            table,
            days[: limit + 1],
            person.ids,
            lambda row: not case.known.tells_birthday(row.get("campaign")),
            limit=limit + 1,
        )
        kept = found[:limit]
        latest = "the latest " if len(found) > limit or len(days) > limit else ""
        more = f", {latest}{counted(len(kept), 'row')}" if kept else ""
        parts.append(
            Part(f"{table.name}: on {counted(len(days), 'day')}{more}" if days else f"{table.name}: none", rows=kept)
        )
    ids = ", ".join(sorted(person.ids))
    return Step("rows", "Raw rows", "fact", f"ids of the shop: {ids}", tuple(parts))


def versions(case: Case, segments: tuple[SegmentDeclaration, ...]) -> Step:
    """What computed it: package, code of the models, and digests of the declarations as they stand now."""
    resting = with_referred(segments, [name.partition(SEPARATOR)[0] for name in case.campaign.segments])
    parts = [
        Part(f"shopauto-pipelines {package_version()}"),
        Part(f"code that makes models: {code_version()}"),
        *(Part(f"model of {target}: {card.model_id}") for target, card in case.known.cards.items()),
        Part(f"declaration of {case.campaign.name}: {digest(case.campaign)}", aside="its folder, as it stands now"),
    ]
    if resting:
        text = json.dumps([segment.model_dump(mode="json") for segment in resting], sort_keys=True)
        names = ", ".join(segment.name for segment in resting)
        parts.append(Part(f"declaration of its segments: {_digest(text.encode())}", aside=names))
    return Step("versions", "Versions", "fact", f"as of {case.day}", tuple(parts))


def package_version() -> str:
    """The version that is installed."""
    try:
        return version("shopauto-pipelines")
    except PackageNotFoundError:
        return "not installed"


def digest(campaign: Campaign) -> str:
    """Digest of a campaign's declaration with its templates and texts: another one when any of them changes."""
    folder = campaign.folder
    texts = [
        f"{file.relative_to(folder)}\0".encode() + file.read_bytes()
        for file in sorted(folder.rglob("*"))
        if file.is_file()
    ]
    return _digest(b"\0".join(texts))


def _digest(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()[:10]


def _cents(cents: int | None) -> str:
    return "not known" if cents is None else f"{cents:,}"


def scores_asked(campaign: Campaign, step: str, segments: tuple[SegmentDeclaration, ...]) -> frozenset[str]:
    """Columns of ``predictions/scores`` that decide whether somebody gets the step."""
    columns = {"next_order_on"} if campaign.trigger.next_order else set()
    of_step = campaign.step(step)
    columns |= of_step.condition.columns if of_step.condition else set()
    for segment in with_referred(segments, [name.partition(SEPARATOR)[0] for name in campaign.segments]):
        columns |= segment.columns
    return frozenset(columns & {*_SCORES, "next_order_from", "next_order_to"})

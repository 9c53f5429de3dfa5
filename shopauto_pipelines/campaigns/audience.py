"""Reads from the lake what the planner needs as of a day, and lets it decide. The decisions themselves are the planner's."""

from __future__ import annotations

from collections import Counter
from collections.abc import Hashable, Iterator, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from datetime import UTC, date, datetime, timedelta
from itertools import islice
from typing import Any

import ibis
import ibis.expr.types as ir
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from ibis import _

from shopauto_pipelines.campaigns import tables, triggers
from shopauto_pipelines.campaigns.asked import asked, drawn_for
from shopauto_pipelines.campaigns.daily_offers import offered
from shopauto_pipelines.campaigns.declaration import Campaign, Wait
from shopauto_pipelines.campaigns.holdout import GLOBAL, holdout_key, is_held_out
from shopauto_pipelines.campaigns.offers import OfferRules
from shopauto_pipelines.campaigns.pauses import KEPT_DAYS, pauses
from shopauto_pipelines.campaigns.planner import SCHEMAS, Rules
from shopauto_pipelines.campaigns.planning import given_name, noted, nothing, planned_rows, told
from shopauto_pipelines.campaigns.shared import shared, span, stamps, stamps_between
from shopauto_pipelines.features.tables import CUSTOMER_360
from shopauto_pipelines.platform.lake import Lake, LakeTable
from shopauto_pipelines.platform.lookup import Lookup
from shopauto_pipelines.platform.prepared import Prepared, Rows, kept, unseen
from shopauto_pipelines.platform.settings import Settings
from shopauto_pipelines.platform.tables import Table
from shopauto_pipelines.predictions.tables import SCORES
from shopauto_pipelines.profiles.tables import CONSENT, IDENTITIES
from shopauto_pipelines.segments.events import Day
from shopauto_pipelines.segments.people import COLUMNS
from shopauto_pipelines.segments.people import people as columns_of
from shopauto_pipelines.segments.predicate import parse
from shopauto_pipelines.segments.prepared import getvariable
from shopauto_pipelines.segments.tables import MEMBERSHIP
from shopauto_pipelines.sources.tables import EVENTS, MESSAGE_EVENTS, ORDERS

#: What every campaign reads.
_ALWAYS = (CUSTOMER_360, SCORES, CONSENT, IDENTITIES, MESSAGE_EVENTS)


@dataclass(frozen=True)
class Sources:
    """The lake's tables behind an audience by name, those that the campaign :func:`reads`.

    ``before`` are the audiences of campaigns that are planned first.
    """

    tables: Mapping[str, LakeTable]
    before: tuple[LakeTable, ...] = ()

    def __getitem__(self, table: Table) -> LakeTable:
        """The table of the lake."""
        return self.tables[table.name]


def reads(campaign: Campaign) -> tuple[Table, ...]:
    """The tables that decide who gets the campaign. What it does not ask for it does not read."""
    of_trigger = (EVENTS, ORDERS) if campaign.is_realtime else triggers.reads(campaign)
    members = (MEMBERSHIP,) if campaign.segments else ()
    return tuple(dict.fromkeys((*_ALWAYS, *members, *of_trigger)))


def reads_earlier(campaign: Campaign) -> tuple[Table, ...]:
    """Those of them that hold states, and are read as of earlier days, too."""
    return () if campaign.is_realtime else triggers.reads_earlier(campaign)


@dataclass(frozen=True)
class Virtual:
    """Messages that nobody sent, and that count as if they had been: a history of what would have happened.

    Tables on the lake's connection. ``messages``: columns of the planner's ``history``. ``real``: ``campaign``, ``until``: what
    these campaigns really sent counts up to and with that day only. ``planned``: ``customer_id``, once for each message of
    campaigns that are planned first on the day.
    """

    messages: ir.Table
    real: ir.Table
    planned: ir.Table


def audience(
    campaign: Campaign, sources: Sources, settings: Settings, as_of: date, triggered: pa.Table | None = None
) -> ir.Table:
    """The rows of ``campaigns/<name>/audience`` as of the day; ``triggered``: as if these, and nobody else, had been.

    Raises :class:`~shopauto_pipelines.platform.lake.MissingPartition` where a table of the day has not been computed.
    """
    decided = decisions(campaign, sources, settings, as_of, triggered)
    if campaign.is_realtime or not campaign.brings_offers:
        return decided
    people = sources[CUSTOMER_360]
    return offered(people.lake, campaign, decided, people.on(as_of), OfferRules.of(settings))


def decisions(
    campaign: Campaign,
    sources: Sources,
    settings: Settings,
    as_of: date,
    triggered: pa.Table | None = None,
    virtual: Virtual | None = None,
) -> ir.Table:
    """:func:`audience` without its offers; ``virtual``: as if these messages had been sent."""
    lake = sources[CUSTOMER_360].lake
    lake.engine.variable(_AS_OF, as_of)
    rules = rules_for_carts(settings) if campaign.is_realtime else rules_of(settings)
    others: dict[str, Rows] = {}
    if campaign.is_realtime:
        known, others = _of_carts(campaign, sources, settings, rules, as_of)
    elif triggered is not None:
        known = {**asked(campaign, rules, as_of), "triggers": triggered}
    else:
        reached, others = triggers.triggered(campaign, sources.tables, as_of)
        known = {**asked(campaign, rules, as_of), "triggers": reached}
    of_day = _OfDay(sources, rules, as_of, known["asked"])
    days = max(campaign.history_days, rules.cap_days)
    if virtual is None:
        others |= of_day.happened(span(days))
    else:
        others |= of_day.happened(days) | {_VIRTUAL: virtual.messages, _REAL: virtual.real}
    if sources.before:
        others["before"] = lake.together([other.table for other in sources.before], as_of)
    others |= {"customer_360": sources[CUSTOMER_360].on(as_of), "scores": sources[SCORES].on(as_of)}
    conditions = tuple((step.name, step.when) for step in campaign.steps if step.when)
    known |= {
        "people": _facts(conditions) if conditions else of_day.people(),
        "consent": of_day.consent(),
        "membership": sources[MEMBERSHIP].on(as_of) if campaign.segments else nothing("membership"),
        "history": _history(virtual is not None, campaign.name if campaign.is_realtime else None),
    }
    if campaign.is_realtime:
        known |= {"received": told("received"), "planned": nothing("planned")}
    elif virtual is not None:
        known |= {"received": told("received"), "planned": virtual.planned}
    else:
        known |= {
            "received": of_day.received(span(max(campaign.lookback_days, rules.cap_days))),
            "planned": _planned() if sources.before else nothing("planned"),
        }
    if not campaign.is_realtime:
        known |= {"sent": told("sent"), "hours": of_day.hours()}
    lake.engine.variable(_SINCE, as_of - timedelta(days=days))
    return planned_rows(lake, f"planned_{campaign.name}", known, others, campaign.is_realtime)


@dataclass(frozen=True)
class _OfDay:
    """What the planner is told of a day and is the same for all campaigns by the same ``rules``."""

    sources: Sources
    rules: Rules
    as_of: date
    asked: Rows

    def people(self) -> ir.Table:
        """Everybody, without what steps ask of them."""
        given = {"customer_360": self._on(CUSTOMER_360), "scores": self._on(SCORES)}
        return self._shared(("people", self._stamps(CUSTOMER_360, SCORES)), _facts(()), given)

    def consent(self) -> ir.Table:
        """What people said to messages."""
        given = {"all_consent": self._on(CONSENT)}
        return self._shared(("consent", self._stamps(CONSENT)), _consent(), given)

    def hours(self) -> ir.Table:
        """When messages leave that are wanted at an hour."""
        rules = self.rules
        what = "hours", self._stamps(CUSTOMER_360, SCORES), rules.timezone, rules.quiet_from, rules.quiet_to
        return self._shared(what, told("hours"), {given_name("people"): self.people(), given_name("asked"): self.asked})

    def received(self, days: int) -> ir.Table:
        """What people were sent, and when they unsubscribed."""
        what = "received", self.rules.cap_days, *self._happened_in(days)
        given = {**self.happened(days), given_name("history"): _history(False, None), given_name("asked"): self.asked}
        return self._shared(what, told("received"), given, since=self._first(days))

    def happened(self, days: int) -> dict[str, Rows]:
        """What happened to messages in so many days."""
        events = self.sources[MESSAGE_EVENTS].between(self._first(days), self.as_of)
        return {"message_events": events, "identities": self._on(IDENTITIES)}

    @property
    def _lake(self) -> Lake:
        return self.sources[CUSTOMER_360].lake

    def _first(self, days: int) -> date:
        return self.as_of - timedelta(days=days)

    def _happened_in(self, days: int) -> tuple[Hashable, ...]:
        written = stamps_between(self._lake, MESSAGE_EVENTS, self._first(days), self.as_of)
        return days, self._stamps(IDENTITIES), written

    def _on(self, table: Table) -> ir.Table:
        return self.sources[table].on(self.as_of)

    def _stamps(self, *of: Table) -> Hashable:
        return stamps(self._lake, self.as_of, *of)

    def _shared(
        self, what: Hashable, statement: Prepared, given: Mapping[str, Rows], since: date | None = None
    ) -> ir.Table:
        def make(name: str) -> ir.Table:
            if since:
                self._lake.engine.variable(_SINCE, since)
            return noted(self._lake, name, statement, given)

        return shared(self._lake, self.as_of, what, make)


#: Variables of statements: the day, the first one of which the history is looked at, and the moment carts are known at.
_AS_OF, _SINCE, _UNTIL = "audience_as_of", "audience_since", "audience_until"


@kept
def _facts(conditions: tuple[tuple[str, str], ...]) -> Prepared:
    """:func:`facts` of steps with these conditions."""
    people, scores = unseen(CUSTOMER_360, "customer_360"), unseen(SCORES, "scores")
    rows = facts(dict(conditions), people, scores, getvariable(_AS_OF))
    return Prepared.of(rows, {"customer_360": CUSTOMER_360, "scores": SCORES})


@kept
def _consent() -> Prepared:
    rows = unseen(CONSENT, "all_consent").select(*SCHEMAS["consent"])
    return Prepared.of(rows, {"all_consent": CONSENT})


@kept
def _planned() -> Prepared:
    """Who gets a message of the audiences ``before``: ``customer_id``, once per message."""
    audiences = unseen(tables.audience("before"), "before")
    return Prepared.of(audiences.filter(_.decision == "planned").select("customer_id"), {})


#: The tables of :class:`Virtual` as statements know them.
_VIRTUAL, _REAL = "virtual_messages", "really_sent_until"


@kept
def _history(virtual: bool, of_carts: str | None) -> Prepared:
    """:func:`history`, or :func:`with_virtual`, from a day on; ``of_carts`` names the campaign about carts it is asked for.

    What that one sent on the day itself is no reason to plan less of it.
    """
    events = unseen(MESSAGE_EVENTS, "message_events", partitions=True).filter(_.day >= getvariable(_SINCE))
    people = unseen(IDENTITIES, "identities")
    rows = history(events, people)
    if virtual:
        messages = ibis.table(SCHEMAS["history"], name=_VIRTUAL)
        rows = with_virtual(rows, messages, ibis.table({"campaign": "string", "until": "date"}, name=_REAL), people)
    if of_carts is not None:
        rows = rows.filter((_.on < getvariable(_AS_OF)) | (_.campaign != of_carts))
    return Prepared.of(rows, {"message_events": MESSAGE_EVENTS, "identities": IDENTITIES})


def _of_carts(
    campaign: Campaign, sources: Sources, settings: Settings, rules: Rules, as_of: date
) -> tuple[dict[str, Rows], dict[str, Rows]]:
    """Whose carts made a step due on the day, whatever has become of it: the messages themselves left within seconds.

    And what is asked of the planner; beside it what the names in statements stand for.
    """
    begins, ends = settings.midnight(as_of), settings.midnight(as_of + timedelta(days=1))
    day = ends.astimezone(UTC) - begins.astimezone(UTC)
    waits = campaign.waits(timedelta(minutes=settings.cart_abandoned_minutes))
    first = as_of - timedelta(days=KEPT_DAYS)
    given: dict[str, Rows] = {
        "events": sources[EVENTS].between(first, as_of),
        "orders": sources[ORDERS].between(first, as_of),
        "identities": sources[IDENTITIES].on(as_of),
    }
    until = ends.astimezone(UTC).replace(tzinfo=None) - timedelta(microseconds=1)
    sources[EVENTS].lake.engine.variable(_UNTIL, until)
    longest = (max(wait.after for wait in waits.values()) + day) // timedelta(microseconds=1)
    of_day = {step: Wait(wait.after, day if wait.valid else wait.valid, wait.valid) for step, wait in waits.items()}
    left = _pauses(longest, settings.timezone, campaign.enabled)
    return {"triggers": left, **asked(campaign, rules, as_of, of_day)}, given


@kept
def _pauses(longest: int, zone: str, enabled: bool) -> Prepared:
    behind = {"events": EVENTS, "orders": ORDERS, "identities": IDENTITIES}
    rows = {name: unseen(table, name, partitions=table is not IDENTITIES) for name, table in behind.items()}
    left = pauses(**rows, until=_moment(_UNTIL), longest=timedelta(microseconds=longest), zone=zone)
    return Prepared.of(left if enabled else left.filter(ibis.literal(False)), behind)


@ibis.udf.scalar.builtin(name="getvariable")
def _moment(variable: str) -> datetime:  # type: ignore[empty-body]
    """A variable of the connection that is a time."""


def rules_of(settings: Settings) -> Rules:
    """The planner's rules out of the settings of the same names."""
    return Rules(**{field.name: getattr(settings, field.name) for field in fields(Rules)})


def rules_for_carts(settings: Settings) -> Rules:
    """:func:`rules_of` what is decided at the moment it is due: with live mode off the inbox gets it at any hour."""
    rules = rules_of(settings)
    return rules if settings.live else replace(rules, quiet_from=0, quiet_to=0)


def facts(conditions: Mapping[str, str], people: ir.Table, scores: ir.Table, as_of: Day) -> ir.Table:
    """What the planner is told of people, and in ``unmet`` the steps whose condition (``conditions``) they do not meet."""
    known = with_scores(people, scores)
    if not conditions:
        return known
    parsed = {step: parse(text, COLUMNS) for step, text in conditions.items()}
    rows = columns_of(people, scores, as_of, frozenset().union(*(one.columns for one in parsed.values())))
    never = ibis.null("string")
    steps = [ibis.ifelse(one.apply(rows, as_of), never, ibis.literal(step)) for step, one in parsed.items()]
    judged = rows.select("customer_id", unmet=ibis.array(steps))
    return known.drop("unmet").left_join(judged, "customer_id").drop("customer_id_right")


def with_scores(people: ir.Table, scores: ir.Table, *others: str) -> ir.Table:
    """What the planner knows of a person, columns of ``people`` in :class:`~.planner.Inputs`, and ``others``."""
    churn = scores.select("customer_id", "churn_probability")
    return people.left_join(churn, "customer_id").select(
        "customer_id",
        "language",
        "time_zone",
        "best_hour",
        "last_order_on",
        "churn_probability",
        "ticket_open",
        "last_ticket_on",
        email_known=_.email.notnull(),
        phone_known=_.phone.notnull(),
        last_seen_on=ibis.greatest(_.last_order_on, _.last_click_on, _.last_visit_on, _.created_on),
        unmet=ibis.null("array<string>"),
        **{name: _[name] for name in others},
    )


def history(message_events: ir.Table, identities: ir.Table) -> ir.Table:
    """What became of messages, by person: ``customer_id``, ``type``, ``campaign``, ``step``, ``occasion``, ``on``.

    Our own messages are called ``<campaign>:<step>:<customer>:<occasion>``; the customer's id may hold colons. Others have
    no step. The person is the one that the recipient's id belongs to today, whoever it was when the message left.
    """
    events = message_events.filter(_.shop_customer_id.notnull()).left_join(identities, "shop_customer_id")
    parts = _.message_id.split(":")
    own = _.message_id.startswith(_.campaign + ":") & (parts.length() >= 4)
    return events.select(
        "type",
        "campaign",
        customer_id=ibis.coalesce(_.customer_id, _.shop_customer_id),
        step=ibis.ifelse(own, parts[1], ibis.null("string")),
        occasion=ibis.ifelse(own, parts[parts.length() - 1], ibis.null("string")),
        on=_.day,
    )


def with_virtual(happened: ir.Table, messages: ir.Table, real: ir.Table, identities: ir.Table) -> ir.Table:
    """:func:`history` with ``messages`` and ``real`` of :class:`Virtual`. What people did, unsubscribing above all, stays."""
    kept = happened.left_join(real, "campaign").drop("campaign_right")
    kept = kept.filter((_.type != "sent") | _.until.isnull() | (_.on <= _.until)).drop("until")
    people = identities.select("shop_customer_id", person="customer_id")
    theirs = messages.left_join(people, messages.customer_id == people.shop_customer_id)
    theirs = theirs.mutate(customer_id=ibis.coalesce(_.person, _.customer_id))
    return kept.select(*SCHEMAS["history"]).union(theirs.select(*SCHEMAS["history"]))


@dataclass(frozen=True)
class Count:
    """How many people of a step met with a decision, and why."""

    step: str
    decision: str
    reason: str
    people: int


def counts(lake: Lake, table: Table, as_of: date) -> list[Count]:
    """Decisions of an audience as of the day by step and reason; raises ``MissingPartition``."""
    found: Counter[tuple[str, str, str]] = Counter()
    for batch in written(lake, table, as_of, _COUNTED):
        of_batch = pa.Table.from_batches([batch]).group_by(_COUNTED).aggregate([([], "count_all")])
        for *what, people in zip(*(of_batch[name].to_pylist() for name in (*_COUNTED, "count_all")), strict=True):
            found[tuple(what)] += people
    return [Count(*what, people) for what, people in sorted(found.items())]


_COUNTED = ["step", "decision", "reason"]


def written(lake: Lake, table: Table, as_of: date, columns: Sequence[str]) -> Iterator[pa.RecordBatch]:
    """The rows of an audience as they lie in the lake, in batches; raises ``MissingPartition``.

    Read from the file and not by the engine: a day's audiences are looked at again and again, and mostly they are small.
    Columns that an earlier version did not write are null.
    """
    if lake.rows(table, as_of):
        file, fields = pq.ParquetFile(lake.path(table, as_of)), {field.name: field for field in table.arrow_schema}
        there = [name for name in columns if name in file.schema_arrow.names]
        for batch in file.iter_batches(columns=there):
            for name in columns:
                if name not in there:
                    batch = batch.append_column(name, pa.nulls(batch.num_rows, fields[name].type))
            yield batch.select([*columns])


def planned(lake: Lake, table: Table, as_of: date, columns: Sequence[str]) -> Iterator[dict[str, Any]]:
    """The planned rows among those :func:`written`."""
    for batch in written(lake, table, as_of, ["decision", *columns]):
        yield from batch.filter(pc.equal(batch["decision"], "planned")).select([*columns]).to_pylist()


def leaks(campaign: Campaign, lake: Lake, settings: Settings, as_of: date) -> dict[str, int]:
    """How many of the messages planned as of the day go to people who must be left alone; all zero where all is well.

    Counted anew from the written audience, consent and the plain form of the hash: an error in the planner shows. Of an
    experiment also those are counted who are planned for a variant that they were not drawn for.
    """
    everywhere = holdout_key(settings.hash_key, GLOBAL)
    here = holdout_key(settings.hash_key, campaign.name)
    everybody = settings.holdout_percent if campaign.kind == "marketing" else 0.0
    wrong = {"without consent": 0, "holdout": 0, "campaign_holdout": 0}
    wrong |= {"another variant": 0} if campaign.experiment else {}
    said = Lookup(lake, CONSENT, as_of)
    rows = planned(lake, tables.audience(campaign.name), as_of, ["customer_id", "channel", "step", "variant"])
    while chunk := [*islice(rows, _CHUNK)]:
        agreed = {
            (who, one["channel"])
            for who, choices in said.every(row["customer_id"] for row in chunk).items()
            for one in choices
            if one["state"] == "opted_in"
        }
        for row in chunk:
            who = row["customer_id"]
            wrong["without consent"] += (who, row["channel"]) not in agreed
            wrong["holdout"] += is_held_out(who, everywhere, everybody)
            wrong["campaign_holdout"] += is_held_out(who, here, campaign.held_out_percent)
            if campaign.experiment:
                drawn = drawn_for(campaign, row["step"], who, settings.hash_key)
                wrong["another variant"] += row["variant"] != drawn
    return wrong


#: So many planned rows are checked together.
_CHUNK = 10_000

"""The ledger that is only thought of: what the planner decided on each day of a replay, and what counts as sent by then.

Temporary tables of the lake's connection, on disk where they do not fit into memory; they end with it. The real ledger is
the outbox's.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import astuple
from datetime import date, timedelta
from typing import Any

import ibis
import ibis.expr.types as ir
import pyarrow as pa
from ibis import _

from shopauto_pipelines.campaigns.asked import leaving_day
from shopauto_pipelines.campaigns.audience import Virtual, history
from shopauto_pipelines.campaigns.daily_offers import Place, grant, places, with_offers
from shopauto_pipelines.campaigns.declaration import Campaign
from shopauto_pipelines.campaigns.grants import Grants
from shopauto_pipelines.campaigns.offers import OfferRules
from shopauto_pipelines.campaigns.tables import audience
from shopauto_pipelines.features.tables import CUSTOMER_360
from shopauto_pipelines.platform.lake import Lake
from shopauto_pipelines.platform.prepared import Prepared, kept, run, unseen
from shopauto_pipelines.platform.settings import Settings
from shopauto_pipelines.profiles.tables import IDENTITIES
from shopauto_pipelines.sources.tables import MESSAGE_EVENTS

#: A decision: of which day and campaign, columns of its audience, and the day on which the message counts as sent.
_DECISIONS = (
    "day date, campaign varchar, step varchar, customer_id varchar, occasion varchar, decision varchar, reason varchar, "
    "channel varchar, variant varchar, sent_on date"
)

#: An offer that was granted, for so many days; null in ``typical_order_cents``: the person has no order.
_OFFERS = pa.schema(
    [
        ("day", pa.date32()),
        *((name, pa.string()) for name in ("campaign", "step", "customer_id", "occasion", "kind")),
        *((name, pa.int64()) for name in ("percent", "valid_days", "typical_order_cents")),
    ]
)

_UNTIL = pa.schema([("campaign", pa.string()), ("until", pa.date32())])
_NOBODY = pa.schema([("customer_id", pa.string())]).empty_table()


class VirtualLedger:
    """Decisions and offers of one replay. ``name`` tells its tables from those of another one on the same connection."""

    def __init__(self, lake: Lake, name: str, settings: Settings) -> None:
        self.lake, self.decisions, self.offers, self.sent = lake, f"{name}_decisions", f"{name}_offers", f"{name}_sent"
        self.name, self._settings = name, settings
        #: Up to when what a campaign that is replayed really sent counts.
        self.begun: dict[str, date] = {}
        self._granted: dict[str, list[dict[str, Any]]] = defaultdict(list)
        self._con = lake.con.con
        self._con.execute(f"create or replace temp table {self.decisions} ({_DECISIONS})")
        self._put(self.offers, _OFFERS.empty_table())
        self._con.execute(
            f"create or replace temp view {self.sent} as select customer_id, 'sent' as type, campaign, step, occasion, "
            f"sent_on as \"on\" from {self.decisions} where decision = 'planned'"
        )
        self._planned = self._put(f"{name}_planned", _NOBODY)
        # what they hold changes by the day, what they are does not: it is not asked for again
        self._messages, self._real = lake.con.table(self.sent), self._put(f"{name}_real", _UNTIL.empty_table())

    def known(self, until: Mapping[str, date], planned: ir.Table) -> Virtual:
        """The planner's history, until it is asked for anew; ``until``: up to when what a campaign really sent counts."""
        columns = [pa.array(list(until), pa.string()), pa.array(list(until.values()), pa.date32())]
        self._fill(f"{self.name}_real", pa.Table.from_arrays(columns, schema=_UNTIL))
        return Virtual(self._messages, self._real, planned)

    def planned_on(self, day: date, campaigns: Iterable[str]) -> ir.Table:
        """Who gets a message of the ``campaigns`` here, planned as of ``day``, once for each: ``customer_id``."""
        self._con.execute(
            f"create or replace temp table {self.name}_planned as select customer_id from {self.decisions} "
            "where day = $day and decision = 'planned' and campaign in (select unnest($campaigns::varchar[]))",
            {"day": day, "campaigns": list(campaigns)},
        )
        return self._planned

    def really_sent_for(self, day: date, campaigns: Sequence[str]) -> ir.Table:
        """:meth:`planned_on` of what really went out: messages of our own that left after ``day``."""
        on = day + timedelta(days=1)
        if not (campaigns and self.lake.has(MESSAGE_EVENTS, on) and self.lake.rows(MESSAGE_EVENTS, on)):
            self._fill(f"{self.name}_planned", _NOBODY)
            return self._planned
        given = {
            "message_events": self.lake.between(MESSAGE_EVENTS, on, on),
            "identities": self.lake.on(IDENTITIES, day),
            "before": pa.table({"campaign": pa.array(campaigns, pa.string())}),
        }
        return _really_sent().rows(self.lake, f"{self.name}_planned", given)

    def note(self, campaign: Campaign, day: date, rows: ir.Table) -> None:
        """Put a day's decisions, a table of the connection, into the ledger: what is planned counts as sent from here on.

        It counts on the shop's day on which it leaves, where the outbox lands what was sent.
        """
        of_shop = f"timezone('{self._settings.timezone}', timezone('UTC', send_from))::date"
        on = of_shop if campaign.is_realtime else f"date '{leaving_day(campaign, day)}'"
        self._con.execute(
            f"insert into {self.decisions} select date '{day}', '{campaign.name}', step, customer_id, occasion, decision, "
            f"reason, channel, variant, case when decision = 'planned' then {on} end from \"{rows.op().name}\""
        )
        if campaign.brings_offers and not campaign.is_realtime:
            self._grant(campaign, day, rows)

    def _grant(self, campaign: Campaign, day: date, rows: ir.Table) -> None:
        """The offers of a day's messages, by the rules of the real ones, of which those granted here count for the cap."""
        rules = OfferRules.of(self._settings)
        people, identities = self.lake.on(CUSTOMER_360, day), self.lake.on(IDENTITIES, day)
        given = {"decided": rows, "customer_360": people, "identities": identities}
        statement = _offering(places(campaign), astuple(rules)).statement
        asked = run(self.lake, statement, given).to_pylist()
        now = self._settings.midnight(day + timedelta(days=1))
        ids = {each: row["customer_id"] for row in asked for each in (row["customer_id"], *(row["other_ids"] or ()))}
        had = [offer | {"customer_id": who} for each, who in ids.items() for offer in self._granted.get(each, ())]
        grants = Grants(campaign.name, had, self._settings, now)
        known, new = {offer["code"] for offer in had}, []
        for row in asked:
            _told, offer = grant(campaign, row, grants, rules)
            if offer is None or offer["code"] in known:
                continue
            known.add(offer["code"])
            self._granted[row["customer_id"]].append(offer)
            incentive = campaign.step(row["step"], row["variant"]).offer
            assert incentive is not None
            of_row = {name: row[name] for name in ("step", "customer_id", "occasion", "typical_order_cents")}
            of_offer = {"kind": offer["kind"], "percent": offer["percent"], "valid_days": incentive.valid_days}
            new.append({"day": day, "campaign": campaign.name, **of_row, **of_offer})
        if new:
            self._fill(self.offers, pa.Table.from_pylist(new, _OFFERS), how="insert into {}")

    def _put(self, name: str, rows: pa.Table) -> ir.Table:
        self._fill(name, rows)
        return self.lake.con.table(name)

    def _fill(self, name: str, rows: pa.Table, how: str = "create or replace temp table {} as") -> None:
        given = f"{name}_given"
        self._con.register(given, rows)
        self._con.execute(f"{how.format(name)} select * from {given}")
        self._con.unregister(given)


@kept
def _offering(asked: tuple[Place, ...], rules: tuple[Any, ...]) -> Prepared:
    """The offers that a day's messages ask for, with the other shop ids of each person."""
    people, identities = unseen(CUSTOMER_360, "customer_360"), unseen(IDENTITIES, "identities")
    others = identities.filter(_.shop_customer_id != _.customer_id)
    others = others.group_by(person=_.customer_id).agg(other_ids=_.shop_customer_id.collect())
    decided = unseen(audience("decided"), "decided")
    brought = with_offers(asked, decided, people, OfferRules(*rules))
    columns = ("step", "customer_id", "occasion", "variant", "offer")
    typical = people.select("customer_id", "typical_order_cents")
    known = brought.filter(_.offer.notnull()).select(*columns).left_join(typical, "customer_id")
    known = known.drop("customer_id_right").left_join(others, known.customer_id == others.person).drop("person")
    return Prepared.of(known.order_by("step", "customer_id", "occasion"), {})


@kept
def _really_sent() -> Prepared:
    events = unseen(MESSAGE_EVENTS, "message_events", partitions=True)
    before = ibis.table({"campaign": "string"}, name="before")
    sent = history(events, unseen(IDENTITIES, "identities")).filter((_.type == "sent") & _.step.notnull())
    return Prepared.of(sent.semi_join(before, "campaign").select("customer_id"), {})

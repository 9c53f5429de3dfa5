"""Reads what came of a replay off its ledger, and off what the lake knows of the days after. Nothing is written to the lake."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import date, timedelta
from typing import Any, TypeVar

from shopauto_pipelines.features.tables import DAILY_ACTIVITY
from shopauto_pipelines.platform.lake import Lake
from shopauto_pipelines.platform.prepared import compiled
from shopauto_pipelines.platform.settings import Settings
from shopauto_pipelines.profiles.tables import IDENTITIES
from shopauto_pipelines.replay import result
from shopauto_pipelines.replay.ledger import VirtualLedger
from shopauto_pipelines.segments.tables import MEMBERSHIP
from shopauto_pipelines.sources.tables import MESSAGE_EVENTS

#: Most messages that are named of those that only the one version plans, and of those that only the other does.
NAMED = 500

#: What became of each message that was ever due: one row per step, person and occasion.
_UNITS = """
select step, customer_id, occasion, bool_or(decision = 'planned') as planned,
  min(day) filter (decision = 'planned') as day, min(sent_on) as sent_on,
  arg_max(reason, day) as reason, min(day) filter (reason in {held}) as held_day,
  list(distinct reason) filter (decision = 'refused') as refusals
from {decisions} where campaign = $campaign group by all
"""

_BY_DAY = "select day, step, count(*) as messages from {units} where planned group by all order by all"

_STEPS = """
select step, count(*) as messages, count(distinct customer_id) as people from {units} where planned group by all order by step
"""

_REFUSALS = """
with never as (
  select reason, count(*) as messages, count(distinct customer_id) as people from {units} where not planned group by all
),
late as (
  select reason, count(*) as put_off from (select unnest(refusals) as reason from {units} where planned) group by all
)
select reason, coalesce(messages, 0) as messages, coalesce(people, 0) as people, coalesce(put_off, 0) as put_off
from never full join late using (reason) order by messages desc, put_off desc, reason
"""

_CAPPED = """
select count(*) as met, count(*) filter (planned) as later from {units} where list_has_any(refusals, $caps::varchar[])
"""

_REALLY_SENT = """
select count(*) as messages from {units} where planned and concat_ws(':', $campaign, step, customer_id, occasion) in (
  select message_id from {events} where type = 'sent')
"""

#: Each message with those of other campaigns that left within the cap's days of it, earlier or later.
_OVERLAPS = """
with really as (
  select coalesce(i.customer_id, e.shop_customer_id) as customer_id, coalesce(e.campaign, '') as campaign, e.day as "on"
  from {events} e left join {identities} i using (shop_customer_id) left join {begun} b on b.campaign = e.campaign
  where e.type = 'sent' and e.campaign is distinct from $campaign and (b.until is null or e.day <= b.until)
), others as (
  select * from really union all select coalesce(i.customer_id, s.customer_id), s.campaign, s."on"
  from {sent} s left join {identities} i on i.shop_customer_id = s.customer_id where s.campaign <> $campaign
), mine as (
  select u.step, u.customer_id, u.occasion, u.sent_on, coalesce(i.customer_id, u.customer_id) as person
  from {units} u left join {identities} i on i.shop_customer_id = u.customer_id where u.planned
), near as (
  select u.step, u.customer_id, u.occasion, o.campaign, bool_or(o."on" = u.sent_on) as same
  from mine u join others o on o.customer_id = u.person and abs(date_diff('day', o."on", u.sent_on)) < $days
  group by all
), each as (
  select step, customer_id, occasion, bool_or(same) as same from near group by all
)
select null as campaign, count(*) filter (same) as same_day, count(*) as within_cap_days from each
union all
(select campaign, count(*) filter (same), count(*) from near group by campaign order by 3 desc, 1)
"""

#: What people did, whoever they are today: a row per person and day with an order.
_ORDERED = """
select coalesce(i.customer_id, a.shop_customer_id) as person, a.day, sum(a.orders)::bigint as orders,
  sum(a.revenue_cents)::bigint as revenue_cents
from {activity} a left join {identities} i using (shop_customer_id) where a.orders > 0 group by all
"""

_OFFERS = """
with used as (
  select o.*, (select revenue_cents from {ordered} d
    where d.person = coalesce(i.customer_id, o.customer_id) and d.day > o.day and d.day <= o.day + 1 + o.valid_days::int
    order by d.day limit 1) as paid
  from {offers} o left join {identities} i on i.shop_customer_id = o.customer_id where o.campaign = $campaign
), cost as (
  select *,
    case when kind = 'percent' then (coalesce(typical_order_cents, 0) * percent + 99) // 100 else $shipping end as typically,
    case when paid is null then 0 when kind = 'percent' then (paid * percent + 99) // 100 else $shipping end as anyway
  from used
)
select kind, percent, count(*) as offers, sum(typically)::bigint as at_most_cents, count(paid) as ordered_anyway,
  sum(anyway)::bigint as anyway_cents, count(*) filter (paid is null and day + 1 + valid_days::int > $known_until) as open
from cost group by all order by kind, percent
"""

_REACH = """
with reached as (
  select m.segment, count(distinct u.customer_id) as people
  from {units} u join {membership} m on m.customer_id = u.customer_id and m.as_of = u.day where u.planned group by all
)
select segment, people, members from reached
join (select segment, count(distinct customer_id) as members from {membership} group by all) using (segment)
order by people desc, segment
"""

_AFTERMATH = """
with units as (
  select case when planned then 'planned' else 'held' end as arm, step, customer_id, occasion, coalesce(day, held_day) as begins
  from {units} where planned or held_day is not null
), each as (
  select arm, step, customer_id, occasion, begins from units
  union all select arm, null, customer_id, null, min(begins) from units group by all
), known as (
  select e.*, coalesce(i.customer_id, e.customer_id) as person, e.begins + $within <= $known_until as is_over
  from each e left join {identities} i on i.shop_customer_id = e.customer_id
), followed as (
  select k.arm, k.step, k.customer_id, k.occasion, k.is_over, coalesce(sum(d.orders), 0)::bigint as orders,
    coalesce(sum(d.revenue_cents), 0)::bigint as revenue_cents
  from known k left join {ordered} d on d.person = k.person and d.day > k.begins and d.day <= k.begins + $within and k.is_over
  group by all
)
select arm as "group", step, count(*) filter (is_over) as count, count(*) filter (orders > 0) as ordered,
  sum(orders)::bigint as orders, sum(revenue_cents)::bigint as revenue_cents, count(*) filter (not is_over) as recent
from followed group by arm, step order by step nulls first, arm desc
"""

_BOTH = """
select coalesce(a.customer_id, b.customer_id) as customer_id, coalesce(a.step, b.step) as step,
  coalesce(a.occasion, b.occasion) as occasion, coalesce(a.planned, false) as in_a, coalesce(b.planned, false) as in_b,
  coalesce(a.day, b.day) as day, a.reason as reason_a, b.reason as reason_b
from {a} a full join {b} b using (step, customer_id, occasion) where a.planned or b.planned
"""

_PEOPLE_OF_BOTH = """
select count(*) filter (a and b) as both, count(*) filter (a and not b) as only_a, count(*) filter (b and not a) as only_b
from (select customer_id, bool_or(in_a) as a, bool_or(in_b) as b from ({both}) group by all)
"""

_MESSAGES_OF_BOTH = """
select count(*) filter (in_a and in_b) as both, count(*) filter (in_a and not in_b) as only_a,
  count(*) filter (in_b and not in_a) as only_b from ({both})
"""

_NAMED = """
select case when in_a then $a else $b end as version, customer_id, step, occasion, day,
  case when in_a then reason_b else reason_a end as instead
from ({both}) where in_a <> in_b
qualify row_number() over (partition by in_a order by day, step, customer_id, occasion) <= {named}
order by day, step, customer_id, occasion
"""

_T = TypeVar("_T")


@dataclass(frozen=True)
class Reader:
    """Reads one ledger after its ``days``: of the ``campaign`` alone, also where others were replayed with it.

    ``within_days``: so many days after a message it is read what people did.
    """

    ledger: VirtualLedger
    campaign: str
    days: Sequence[date]
    settings: Settings
    within_days: int

    def outcome(self, version: str) -> result.Outcome:
        """All there is to say of the ``version``."""
        self._make(self.units, _UNITS.format(held=result.HELD, decisions=self.ledger.decisions), campaign=self.campaign)
        self._make(self._ordered, _ORDERED.format(activity=self._activity(), identities=self._identities()))
        every = f"select count(*) as messages, count(distinct customer_id) as people from {self.units} where planned"
        (counted,) = self._rows(every)
        names = {"units": self.units, "identities": self._identities(), "ordered": self._ordered}
        campaign = {"campaign": self.campaign}
        events = self._events()
        self._make_begun()
        around = {"events": events, "begun": self._begun, "sent": self.ledger.sent}
        (sent,) = self._rows(_REALLY_SENT.format(units=self.units, events=events), **campaign)
        (capped,) = self._rows(_CAPPED.format(units=self.units), caps=list(result.CAPS))
        overlaps = self._rows(_OVERLAPS.format(**names, **around), days=self.settings.cap_days, **campaign)
        offers = self._rows(
            _OFFERS.format(**names, offers=self.ledger.offers),
            shipping=self.settings.offer_shipping_cents,
            known_until=self.known_until,
            **campaign,
        )
        window = {"within": self.within_days, "known_until": self.known_until}
        members = compiled(self.lake.between(MEMBERSHIP, self.days[0], self.days[-1]))
        reach = _REACH.format(units=self.units, membership=f"({members})")
        price = self.settings.message_price
        return result.Outcome(
            version=version,
            by_day=_of(result.OfDay, self._rows(_BY_DAY.format(units=self.units))),
            steps=_of(result.OfStep, self._rows(_STEPS.format(units=self.units))),
            messages=counted["messages"],
            people=counted["people"],
            really_sent=sent["messages"],
            refusals=_of(result.Refusal, self._rows(_REFUSALS.format(units=self.units))),
            capped=result.Capped(**capped),
            overlaps=_of(result.Overlap, overlaps),
            offers=_of(result.OfferCost, offers),
            message_cents=round(counted["messages"] * price * 100) if price else None,
            reach=_of(result.Reach, self._rows(reach)),
            aftermath=_of(result.Aftermath, self._rows(_AFTERMATH.format(**names), **window)),
        )

    @property
    def lake(self) -> Lake:
        """The lake."""
        return self.ledger.lake

    @property
    def units(self) -> str:
        """The table of what became of each message, once :meth:`outcome` has been asked for."""
        return f"{self.ledger.name}_units"

    @property
    def known_until(self) -> date:
        """The last day of which is known what people did."""
        return max(self.lake.days(DAILY_ACTIVITY), default=self.days[-1])

    @property
    def _ordered(self) -> str:
        return f"{self.ledger.name}_ordered"

    @property
    def _begun(self) -> str:
        return f"{self.ledger.name}_begun"

    def _activity(self) -> str:
        """The rollups of the days after the first message, as long as an offer may hold."""
        last = self.days[-1] + timedelta(days=max(self.within_days, _LONGEST_OFFER))
        return f"({compiled(self.lake.between(DAILY_ACTIVITY, self.days[0], last))})"

    def _identities(self) -> str:
        """Who is who as of the newest day."""
        return f"({compiled(self.lake.on(IDENTITIES, max(self.lake.days(IDENTITIES))))})"

    def _events(self) -> str:
        """What became of real messages within the cap's days of the replay."""
        around = timedelta(days=self.settings.cap_days)
        return f"({compiled(self.lake.between(MESSAGE_EVENTS, self.days[0] - around, self.days[-1] + around))})"

    def _make_begun(self) -> None:
        """Up to when what a replayed campaign really sent counts."""
        rows = ", ".join(f"('{name}', date '{until}')" for name, until in self.ledger.begun.items())
        self._make(self._begun, f"select * from (values {rows}) t(campaign, until)")

    def _make(self, name: str, statement: str, **given: Any) -> None:
        self.lake.con.con.execute(f"create or replace temp table {name} as {statement}", given)

    def _rows(self, statement: str, **given: Any) -> list[dict[str, Any]]:
        return self.lake.con.con.execute(statement, given).to_arrow_table().to_pylist()


#: Days after the one it is decided on that an offer may hold at most.
_LONGEST_OFFER = 91


def difference(a: Reader, b: Reader, names: tuple[str, str], *, secret: bool) -> result.Difference:
    """What differs between two versions, after :meth:`Reader.outcome` of both; where it is ``secret`` no message is named."""
    both = _BOTH.format(a=a.units, b=b.units)
    (people,) = a._rows(_PEOPLE_OF_BOTH.format(both=both))
    (messages,) = a._rows(_MESSAGES_OF_BOTH.format(both=both))
    named = [] if secret else a._rows(_NAMED.format(both=both, named=NAMED), a=names[0], b=names[1])
    return result.Difference(
        people_in_both=people["both"],
        people_only={names[0]: people["only_a"], names[1]: people["only_b"]},
        messages_in_both=messages["both"],
        messages_only={names[0]: messages["only_a"], names[1]: messages["only_b"]},
        named=None if secret else _of(result.OnlyOne, named),
    )


def _of(kind: type[_T], rows: Sequence[Mapping[str, Any]]) -> tuple[_T, ...]:
    return tuple(kind(**row) for row in rows)

"""Who was assigned to what, and what they did afterwards: statements over audiences and rollups, compiled once per process.

- **Assignment.** The audience says it before anything is sent: ``campaign_holdout``, ``holdout``, or a reason that the planner
  asks for only after these two: ``due``, but ``cap`` as well. Whoever was to get a message counts, whatever became of it
  (intention to treat): leaving out those over the cap would compare people who differ in more than the campaign.
- **Of each occasion, not across them.** What the planner asks for before the holdouts (consent, exits) it asks for anew on every
  occasion, of both sides. Messages make some unsubscribe, who then have no more occasions; the held out have no such cause. So
  those who stay differ a little the longer a campaign of many occasions runs.
- **Only once it was live.** An audience of the past says whom a campaign would have reached. Days before it sent anything at all
  compare people of whom nobody got anything, so they are left out.
- **Once per occasion.** A person is assigned on the first day of an occasion. Later steps do not count again: who is still
  there for them depends on what the earlier ones did. Whose first day lies before those that count is left out: the held out
  stand in the audience as long as a step is valid, the others only until their message has left, so at the edge of what is
  read only the former would seem to begin.
- **What follows** counts from the day after the assignment, for the same number of days for everybody; those whose days are not
  over yet are left out. Nothing after the day is used.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import date
from typing import Any

import ibis
import ibis.expr.types as ir
import pyarrow as pa
from ibis import _
from ibis.common.deferred import Deferred

from shopauto_pipelines.campaigns.audience import history
from shopauto_pipelines.campaigns.declaration import Campaign
from shopauto_pipelines.campaigns.planner import REASONS
from shopauto_pipelines.features.tables import DAILY_ACTIVITY
from shopauto_pipelines.insights.effects import Group
from shopauto_pipelines.insights.tables import ASSIGNMENTS
from shopauto_pipelines.platform.lake import Lake
from shopauto_pipelines.platform.prepared import Prepared, kept, unseen
from shopauto_pipelines.profiles.tables import IDENTITIES
from shopauto_pipelines.sources.tables import MESSAGE_EVENTS

#: What is measured of an occasion: 0 or 1, or minor units.
METRICS = ("ordered", "clicked", "revenue")

#: The comparison of all holdouts; no experiment can be called so. Its arms: the campaign, and each holdout.
HOLDOUTS = "*"
CAMPAIGN, CAMPAIGN_HOLDOUT, GLOBAL_HOLDOUT = "campaign", "campaign_holdout", "global_holdout"

#: Arms of those who got nothing, by their reason in the audience.
HELD = {"campaign_holdout": CAMPAIGN_HOLDOUT, "holdout": GLOBAL_HOLDOUT}

_REASONS = list(REASONS)

#: Reasons of those who were to get a message: the planner asks for them after the holdouts.
TREATED = tuple(_REASONS[1 + max(map(_REASONS.index, HELD)) :])

_ARM = ["campaign", "comparison", "arm"]
_UNIT = [*_ARM, "person", "occasion"]
_EPOCH = date(1970, 1, 1)

#: What is read of each audience.
_READ = dict.fromkeys(("customer_id", "occasion", "step", "reason", "variant", "explanation"), "string") | {
    "as_of": "date"
}
_DECLARED = {"campaign": "string", "comparison": "string", "step": "string"} | {
    name: "int64" for name in ("within", "wait", "since", "until")
}
_UNITS = dict.fromkeys(_UNIT, "string") | dict.fromkeys(("day", *METRICS), "int64")
_ENDS = {"campaign": "string", "comparison": "string", "ends": "int64"}


@dataclass(frozen=True)
class Known:
    """Tables on the lake's connection, with what is known as of the day.

    ``assignments``: ``insights/assignments`` with ``as_of``, from as many days before the first that counts on as the campaigns
    look back, so that nobody seems to begin on it; ``activity``: ``features/daily_activity``; ``identities`` of the
    day; ``message_events``: ``raw/message_events``.
    """

    assignments: ir.Table
    activity: ir.Table
    identities: ir.Table
    message_events: ir.Table


def assignments(lake: Lake, audiences: Mapping[str, ir.Table]) -> ir.Table:
    """The rows of ``insights/assignments``, with ``as_of``, out of ``audiences`` by campaign, on the lake's connection.

    They are put below each other as text: to compile a union of so many takes longer than all that comes after it.
    """
    columns = {"campaign": "string", **_READ}
    parts = [f"select {', '.join(f'cast(null as {kind}) as {name}' for name, kind in columns.items())} where false"]
    for campaign, rows in audiences.items():
        parts.append(f"select '{campaign}', {', '.join(_READ)} from {rows.op().name}")
    lake.con.raw_sql(f"create or replace temp view insights_audiences as {' union all '.join(parts)}")
    return _assignments().rows(lake, "insights_assignments", {"audiences": lake.con.table("insights_audiences")})


@dataclass(frozen=True)
class Followed:
    """The people of a day's comparisons, on the lake's connection until others are asked for; ``None``: nobody yet."""

    lake: Lake
    units: ir.Table | None

    @classmethod
    def of(
        cls, lake: Lake, campaigns: Iterable[Campaign], known: Known, as_of: date, within_days: int, since: date
    ) -> Followed:
        """Assign people, from ``since`` on, and look at what they did; in the holdouts' comparisons for ``within_days``."""
        days = {"since": _days(since), "until": _days(as_of)}
        declared = [row | days for campaign in campaigns for row in _declared(campaign, within_days)]
        given = {
            "assignments": known.assignments,
            "declared": _arrow(declared, _DECLARED),
            "activity": known.activity,
            "identities": known.identities,
            "message_events": known.message_events,
        }
        assigned = _assigned().rows(lake, "insights_assigned", given)
        if not lake.con.to_pyarrow(assigned.count()).as_py():
            return cls(lake, None)
        return cls(lake, _what_followed().rows(lake, "insights_units", {**given, "assigned": assigned}))

    def arrivals(self) -> dict[tuple[str, str], dict[date, int]]:
        """People of each variant of each experiment, by the day of their first assignment: by campaign and variant."""
        if self.units is None:
            return {}
        rows = _arrivals().rows(self.lake, "insights_arrivals", {"units": self.units}).to_pyarrow().to_pylist()
        found: dict[tuple[str, str], dict[date, int]] = {}
        for row in sorted(rows, key=lambda row: row["day"]):
            came = date.fromordinal(_EPOCH.toordinal() + row["day"])
            found.setdefault((row["campaign"], row["arm"]), {})[came] = row["people"]
        return found

    def groups(self, ends: Mapping[tuple[str, str], date]) -> dict[tuple[str, str, str, str], Group]:
        """The sums of each group, by campaign, comparison, arm and metric.

        ``ends``: the last day from which a campaign's comparison takes people; where none is said, all count.
        """
        if self.units is None:
            return {}
        late = [
            {"campaign": campaign, "comparison": comparison, "ends": _days(day)}
            for (campaign, comparison), day in ends.items()
        ]
        given = {"units": self.units, "ends": _arrow(late, _ENDS)}
        found = _sums().rows(self.lake, "insights_sums", given).to_pyarrow().to_pylist()
        return {
            (row["campaign"], row["comparison"], row["arm"], metric): Group(
                # sums are wider than 64 bits in the engine
                **{name: int(row[name]) for name in ("people", "m", "mm")},
                **{name: int(row[f"{metric}_{name}"]) for name in ("active", "y", "my", "yy")},
            )
            for row in found
            for metric in METRICS
        }


def _declared(campaign: Campaign, within_days: int) -> list[dict[str, Any]]:
    """A campaign's comparisons. ``wait``: days until what follows begins; a message about a cart leaves on the day itself."""
    same: dict[str, Any] = {"campaign": campaign.name, "wait": 0 if campaign.is_realtime else 1}
    told = [same | {"comparison": HOLDOUTS, "step": "", "within": within_days}]
    if experiment := campaign.experiment:
        of = {"comparison": experiment.name, "step": experiment.step, "within": experiment.within_days}
        told.append(same | of)
    return told


@kept
def _assignments() -> Prepared:
    audiences = ibis.table({"campaign": "string", **_READ}, name="audiences")
    own = ["campaign", "customer_id", "occasion", "as_of"]
    arms = ibis.cases(*((_.reason == reason, name) for reason, name in HELD.items()), else_=CAMPAIGN)
    holdouts = audiences.filter(_.reason.isin([*HELD, *TREATED])).select(
        *own, step=ibis.literal(""), comparison=ibis.literal(HOLDOUTS), arm=arms
    )
    drawn = audiences.filter(_.reason.isin(TREATED) & _.variant.notnull())
    variants = drawn.select(
        *own, "step", comparison=_.explanation.cast("json")["experiment"].unwrap_as("string"), arm="variant"
    )
    told = holdouts.union(variants.filter(_.comparison.notnull()))
    return Prepared.of(told.group_by(*own, "step", "comparison").agg(arm=_.arm.min()), {})


@kept
def _assigned() -> Prepared:
    """``_UNIT`` and the ``day`` (a number) of each person's first assignment on an occasion, where its days are over.

    Days before the campaign sent its first message are left out: what is planned as of a day leaves on the one after.
    With what is declared of the comparison, and ``who``: the person that the id belongs to today.
    """
    told, declared = unseen(ASSIGNMENTS, "assignments", partitions=True), ibis.table(_DECLARED, name="declared")
    ids = unseen(IDENTITIES, "identities").select(person="shop_customer_id", now="customer_id")
    events = unseen(MESSAGE_EVENTS, "message_events", partitions=True)
    own = events.filter((_.type == "sent") & _.message_id.startswith(_.campaign + ":"))
    live = own.group_by("campaign").agg(live=_number(_.day).min())
    came = ibis.struct({"day": _number(_.as_of), "arm": _.arm})
    first = (
        told.inner_join(declared, ["campaign", "comparison", "step"])
        .group_by(
            "campaign", "comparison", "within", "wait", "since", "until", "step", "occasion", person=_.customer_id
        )
        .agg(came=came.min())
        .mutate(arm=_.came["arm"], day=_.came["day"])
    )
    counts = (_.day >= _.since) & (_.day + _.within <= _.until) & (_.day + _.wait >= _.live)
    over = first.inner_join(live, "campaign").filter(counts).left_join(ids, "person")
    return Prepared.of(over.select(*_UNIT, "step", "day", "within", "wait", who=ibis.coalesce(_.now, _.person)), {})


@kept
def _what_followed() -> Prepared:
    """``_UNITS``: the assignments with what followed."""
    kinds = dict.fromkeys((*_UNIT, "step", "who"), "string") | dict.fromkeys(("day", "within", "wait"), "int64")
    assigned, identities = ibis.table(kinds, name="assigned"), unseen(IDENTITIES, "identities")
    activity = unseen(DAILY_ACTIVITY, "activity", partitions=True).filter(_.orders > 0)
    buying = activity.left_join(identities, "shop_customer_id").select(
        "revenue_cents", who=ibis.coalesce(_.customer_id, _.shop_customer_id), bought=_number(_.day)
    )
    bought = assigned.inner_join(buying, "who").filter(_.bought.between(_.day + _.wait, _.day + _.within))
    bought = bought.group_by(_UNIT).agg(revenue=_.revenue_cents.sum())
    events = unseen(MESSAGE_EVENTS, "message_events", partitions=True)
    by_people = events.filter((_.type == "click") & ~_.is_machine.fill_null(False))
    clicks = history(by_people, identities).select(
        "campaign", "step", "occasion", who="customer_id", clicked_on=_number(_.on)
    )
    clicked = assigned.inner_join(clicks, ["campaign", "step", "occasion", "who"])
    clicked = clicked.filter(_.clicked_on.between(_.day, _.day + _.within)).select(*_UNIT).distinct()
    told = assigned.left_join(bought, _UNIT, rname="{name}_bought").left_join(
        clicked.mutate(clicked=ibis.literal(True)), _UNIT, rname="{name}_clicked"
    )
    return Prepared.of(
        told.select(
            *_UNIT,
            "day",
            ordered=_.revenue.notnull().cast("int64"),
            clicked=_.clicked.fill_null(False).cast("int64"),
            revenue=_.revenue.fill_null(0).cast("int64"),
        ),
        {},
    )


@kept
def _arrivals() -> Prepared:
    units = ibis.table(_UNITS, name="units").filter(_.comparison != HOLDOUTS)
    came = units.group_by(*_ARM, "person").agg(day=_.day.min())
    return Prepared.of(came.group_by("campaign", "arm", "day").agg(people=_.count()), {})


@kept
def _sums() -> Prepared:
    """The sums that make a :class:`~.effects.Group`."""
    units, ends = ibis.table(_UNITS, name="units"), ibis.table(_ENDS, name="ends")
    counted = units.left_join(ends, ["campaign", "comparison"]).filter(_.ends.isnull() | (_.day <= _.ends))
    people = counted.group_by(*_ARM, "person").agg(m=_.count(), **{name: _[name].sum() for name in METRICS})
    m, wide = _.m, "decimal(38, 0)"  # squares of amounts do not fit into 64 bits once they are summed
    sums = {"people": _.count(), "m": m.sum(), "mm": (m * m).sum()}
    for name in METRICS:
        y = _[name].cast(wide)
        sums |= {
            f"{name}_active": (_[name] > 0).sum(),
            f"{name}_y": _[name].sum(),
            f"{name}_my": (m.cast(wide) * y).sum(),
            f"{name}_yy": (y * y).sum(),
        }
    return Prepared.of(people.group_by(*_ARM).agg(**sums), {})


def _arrow(rows: list[dict[str, Any]], kinds: Mapping[str, str]) -> pa.Table:
    return pa.Table.from_pylist(rows, schema=ibis.schema(kinds).to_pyarrow())


def _days(day: date) -> int:
    return (day - _EPOCH).days


def _number(day: ir.DateValue | Deferred) -> Any:
    """A day as a number, to count with."""
    return day.delta(ibis.literal(_EPOCH), unit="day")

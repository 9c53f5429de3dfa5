"""Who was triggered when, as of a day: rows ``customer_id``, ``occasion``, ``triggered_on``, one per occasion.

An occasion is what a message is about; nobody gets a step twice for the same one. Whether anybody gets it at all is the
planner's business.
"""

from __future__ import annotations

from datetime import date, timedelta

import ibis
import ibis.expr.types as ir
from ibis import _

from shopauto_pipelines.campaigns.declaration import Broadcast, Campaign
from shopauto_pipelines.segments.membership import members


def triggered(campaign: Campaign, people: ir.Table, changes: ir.Table, as_of: date) -> ir.Table:
    """Everyone whose trigger lies so few days back that a step may be due on ``as_of``.

    ``people`` is ``features/customer_360`` as of the day, ``changes`` holds ``segments/changes`` with ``as_of``. Columns:
    ``customer_id``, ``occasion`` (the day of the trigger, ISO), ``triggered_on``.
    """
    start = as_of - timedelta(days=campaign.lookback_days)
    trigger = campaign.trigger
    if trigger.segment_entered:
        rows = segment_entered(changes, trigger.segment_entered)
    elif trigger.broadcast:
        rows = broadcast(people, trigger.broadcast, start, as_of)
    else:
        rows = signed_up(people)
    recent = rows.filter(_.triggered_on.between(ibis.literal(start), ibis.literal(as_of)))
    return recent.mutate(occasion=_.triggered_on.strftime("%Y-%m-%d")).distinct()


def signed_up(people: ir.Table) -> ir.Table:
    """The day a person's first account was created; of the first order where no account is known."""
    first_seen = ibis.coalesce(people.created_on, people.first_order_on)
    return people.select("customer_id", triggered_on=first_seen).filter(_.triggered_on.notnull())


def segment_entered(changes: ir.Table, segment: str) -> ir.Table:
    """Every entry into the segment. A person may enter again, which is another occasion."""
    entries = members(changes, segment).filter(_.change == "entered")
    return entries.select("customer_id", triggered_on="entered_on")


def broadcast(people: ir.Table, schedule: Broadcast, start: date, end: date) -> ir.Table:
    """Every person known, for each day of the broadcast."""
    days = schedule.days(start, end)
    if not days:
        return people.filter(ibis.literal(False)).select("customer_id", triggered_on=ibis.null("date"))
    return ibis.union(*(people.select("customer_id", triggered_on=ibis.literal(day)) for day in days))

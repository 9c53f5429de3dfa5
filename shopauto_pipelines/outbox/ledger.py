"""The ledger: one row per message in PostgreSQL, and the only code that changes it.

States: ``planned → reserved → sent | failed | unknown``; ``planned → suppressed``; ``reserved → planned`` where nothing
left; ``unknown → sent | failed`` once it is known; ``failed → planned`` by an operator. A trigger refuses every other
change and writes ``message_history``. Times come from the caller's clock. Rendering and sending do not belong here,
nor what people chose (``consents``) and what operators switched (``controls``): a reservation obeys both.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Iterator, Mapping, Sequence
from datetime import date, datetime
from functools import cache
from typing import Any, NamedTuple

import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import ARRAY, insert

from shopauto_pipelines.outbox import controls
from shopauto_pipelines.outbox.eligibility import FACTS, Cap, verdict
from shopauto_pipelines.outbox.hours import Hours, has_come, parameters
from shopauto_pipelines.outbox.schema import as_json, given, messages, open_messages, provider_events, recordset

#: What a later day brings along when it takes a message over that an earlier day left planned.
_TAKEN_OVER = (
    "channel",
    "as_of",
    "language",
    "template",
    "address_hash",
    "topic",
    "triggered_at",
    "exit_on",
    "explanation",
    "send_from",
    "time_zone",
    "other_ids",
)

#: What a message says, as the last fields of a :class:`Message`; before it stands where the message is on its way.
_SAYS = (
    messages.c.channel,
    messages.c.topic,
    messages.c.language,
    messages.c.template,
    messages.c.address_hash,
    sa.cast(messages.c.explanation, sa.Text),
)
_KEY = (messages.c.campaign, messages.c.step, messages.c.customer_id, messages.c.occasion)
_MESSAGE = (
    messages.c.id,
    *_KEY,
    messages.c.state,
    messages.c.reason,
    messages.c.via,
    messages.c.as_of,
    messages.c.changed_at,
    *_SAYS,
)

#: The columns an outcome changes.
_OUTCOME = ("state", "reason", "provider_id")

_WHEN = sa.DateTime(timezone=True)


class MessageKey(NamedTuple):
    """What makes a message the same message."""

    campaign: str
    step: str
    customer_id: str
    occasion: str


class Message(NamedTuple):
    """A message of the ledger, as a dispatcher or a page needs it."""

    id: int
    key: MessageKey
    state: str
    reason: str | None
    via: str | None
    as_of: date
    changed_at: datetime
    channel: str
    topic: str
    language: str
    template: str
    address_hash: bytes | None
    explained: str

    @property
    def explanation(self) -> dict[str, Any]:
        """Why this person was chosen; read from its JSON at every use, as few messages are ever asked."""
        return json.loads(self.explained)


class Settled(NamedTuple):
    """The outcome of a reserved message. ``planned`` puts it back: surely nothing left."""

    message_id: int
    state: str
    reason: str | None = None
    provider_id: str | None = None


class Reserved(NamedTuple):
    """What a reservation took, how many planned messages it looked at, and why it took nothing where it was stopped."""

    messages: list[Message]
    looked_at: int
    stopped: str | None


class Rates(NamedTuple):
    """Messages of a campaign that were sent, and how many of these the provider says were received, or refused."""

    sent: int
    delivered: int
    bounced: int
    complained: int


def plan(connection: sa.Connection, rows: Sequence[Mapping[str, Any]], *, run_id: str | None, at: datetime) -> int:
    """Add planned messages; returns how many are new to their day.

    A message the ledger knows already is left as it is, except where it is still planned, by an earlier day or by this one:
    then the rows' day takes it over, with all it says. ``rows`` have the columns campaign, step, customer_id, occasion,
    channel, as_of, language, template, explanation and address_hash
    (:func:`~shopauto_pipelines.outbox.links.address_hash`; null where the person has no address), and may have topic,
    triggered_at, exit_on, send_from, time_zone and other_ids.
    """
    if not rows:
        return 0
    rows_by_key = {tuple(row[name] for name in MessageKey._fields): row for row in rows}
    names = (*MessageKey._fields, *_TAKEN_OVER)
    told = given(list(rows_by_key.values()), *(messages.c[name] for name in names))
    meant = {name: told.c[name] for name in names} | {
        "topic": sa.func.coalesce(told.c.topic, "news"),
        **{name: sa.func.coalesce(told.c[name], sa.cast([], ARRAY(sa.Text))) for name in ("exit_on", "other_ids")},
    }
    if any(row.get("other_ids") for row in rows):
        _withdraw_earlier_names(connection, told, at)
    written = {**meant, "run_id": sa.literal(run_id, sa.Text), "changed_at": sa.literal(at, _WHEN)}
    added = connection.execute(
        insert(messages)
        .from_select([*written, "planned_at"], sa.select(*written.values(), sa.literal(at, _WHEN)))
        .on_conflict_do_nothing(),
        execution_options={"preserve_rowcount": True},
    )
    if added.rowcount == len(rows_by_key):
        return added.rowcount
    says_else = (messages.c[name].is_distinct_from(meant[name]) for name in _TAKEN_OVER)
    left_over = (
        sa.select(
            messages.c.id,
            (messages.c.as_of < told.c.as_of).label("is_older"),
            *(meant[name].label(name) for name in _TAKEN_OVER),
        )
        .where(
            *(messages.c[name] == told.c[name] for name in MessageKey._fields),
            messages.c.state == "planned",
            messages.c.as_of <= told.c.as_of,
            sa.or_(*says_else),  # the runs of every hour plan the same again
        )
        .order_by(messages.c.id)
        .with_for_update(of=messages, key_share=True)
        .cte("left_over")
    )
    taken_over = connection.execute(
        sa.update(messages)
        .where(messages.c.id == left_over.c.id)
        .values(
            **{name: left_over.c[name] for name in _TAKEN_OVER},
            reason=sa.case((left_over.c.is_older, "taken_over"), else_=messages.c.reason),
            run_id=run_id,
            changed_at=at,
        )
        .returning(left_over.c.is_older)
    )
    return added.rowcount + sum(taken_over.scalars())


def _withdraw_earlier_names(connection: sa.Connection, told: sa.TableValuedAlias, at: datetime) -> None:
    """Withdraw what waits for the people of ``told`` under another id of theirs, and is told again under the one of today."""
    chosen = (
        sa.select(messages.c.id)
        .where(
            *(messages.c[name] == told.c[name] for name in MessageKey._fields if name != "customer_id"),
            messages.c.customer_id == sa.any_(told.c.other_ids),
            messages.c.state == "planned",
        )
        .order_by(messages.c.id)
        .with_for_update(of=messages, key_share=True)
        .cte("chosen")
    )
    connection.execute(
        sa.update(messages)
        .where(messages.c.id == chosen.c.id)
        .values(state="suppressed", reason="withdrawn", settled_at=at, changed_at=at)
    )


def newest_id(connection: sa.Connection) -> int:
    """Number of the newest message; 0 where there is none."""
    return connection.execute(sa.select(sa.func.coalesce(sa.func.max(messages.c.id), 0))).scalar_one()


def planned_keys(
    connection: sa.Connection, campaign: str, as_of: date, newest: int
) -> Iterator[tuple[int, MessageKey]]:
    """Number and key of what is planned of a campaign and day, up to the number ``newest``, read in bounded batches."""
    of_day = (open_messages.c.campaign == campaign) & (open_messages.c.as_of == as_of) & open_messages.c.planned
    found = (
        sa.select(messages.c.id, *_KEY)
        .where(_is_open(of_day, open_messages.c.message_id <= newest), messages.c.state == "planned")
        .order_by(messages.c.id)
    )
    for number, *key in connection.execute(found, execution_options={"yield_per": 10_000}):
        yield number, MessageKey(*key)


def withdraw(connection: sa.Connection, ids: Collection[int], *, at: datetime) -> int:
    """Take planned messages back, as ``withdrawn``; returns how many.

    What is reserved or has gone stays as it is, and what somebody works on at this moment.
    """
    if not ids:
        return 0
    chosen = (
        sa.select(messages.c.id)
        .where(messages.c.id == sa.any_(_array(list(ids), sa.BigInteger())))
        .where(messages.c.state == "planned", messages.c.reserved_by.is_(None))
        .order_by(messages.c.id)
        .with_for_update(of=messages, key_share=True, skip_locked=True)
        .cte("chosen")
    )
    changed = connection.execute(
        sa.update(messages)
        .where(messages.c.id == chosen.c.id)
        .values(state="suppressed", reason="withdrawn", settled_at=at, changed_at=at)
    )
    return changed.rowcount


def expire(
    connection: sa.Connection, campaign: str, before: date, *, at: datetime, late: Mapping[str, datetime] | None = None
) -> int:
    """Give up what days before ``before`` left planned, as ``window_closed``; returns how many messages.

    ``late`` names steps, each with a time: what was triggered before it is too late for the step, whatever its day.
    """
    too_late = [
        (messages.c.step == step) & (messages.c.triggered_at < time) for step, time in sorted((late or {}).items())
    ]
    open_ones = [open_messages.c.planned, open_messages.c.campaign == campaign]
    left = (
        sa.select(messages.c.id)
        .where(_is_open(*open_ones, *([] if too_late else [open_messages.c.as_of < before])))
        .where(messages.c.state == "planned", sa.or_(messages.c.as_of < before, *too_late))
        .order_by(messages.c.id)
        .with_for_update(of=messages, key_share=True, skip_locked=True)
        .cte("left_over")
    )
    changed = connection.execute(
        sa.update(messages)
        .where(messages.c.id == left.c.id)
        .values(state="suppressed", reason="window_closed", settled_at=at, changed_at=at)
    )
    return changed.rowcount


def reserve(
    connection: sa.Connection,
    *,
    campaign: str,
    as_of: date,
    limit: int,
    by: str,
    via: str,
    cap: Cap,
    at: datetime,
    after: int = 0,
    hours: Hours | None = None,
    once: bool = False,
) -> Reserved:
    """Take up to ``limit`` planned messages for the dispatcher ``by``, unless a switch says that nothing may leave.

    They come in the order of their ids, those greater than ``after``. Under ``hours`` those stay planned whose hour has not
    come; without, all leave at once. ``once``: a person gets each step once, whatever the occasion.

    In the same transaction each is checked again: an address that is missing or suppressed by now, an opt-out, something
    that takes the message back, or a person who has had it under another id, or ``cap`` messages, makes it ``suppressed``,
    with the reason. No
    row is ever taken by two: rows another dispatcher works on are skipped, and reservations wait for each other, so that
    two campaigns together keep the cap. A switch waits for them too: once it is committed, nothing more is reserved.
    """
    controls.lock(connection)
    if why := controls.stopped(connection, campaign):
        return Reserved([], 0, why)
    of = {"of_campaign": campaign, "of_day": as_of, "after": after, "most": limit, **parameters(hours, at)}
    taken = connection.execute(_reserving(), of | {"who": by, "how": via, "once": once} | cap.on(as_of)).all()
    if not taken and (last := connection.scalar(sa.select(sa.func.max(_waiting().subquery().c.message_id)), of)):
        # others hold all of these at this moment, as a day that takes over: look further on
        return reserve(
            connection,
            campaign=campaign,
            as_of=as_of,
            limit=limit,
            by=by,
            via=via,
            cap=cap,
            at=at,
            after=last,
            hours=hours,
            once=once,
        )
    free = [
        Message(row[1], MessageKey(*row[2:6]), "reserved", None, via, as_of, at, *row[6:])
        for row in taken
        if not row[0]
    ]
    return Reserved(sorted(free), len(taken), None)


def _waiting() -> sa.Select[Any]:
    """Ids of up to ``most`` planned messages of a campaign and day whose hour has come, those ``after`` an id."""
    return (
        sa.select(open_messages.c.message_id)
        .where(
            open_messages.c.campaign == sa.bindparam("of_campaign", type_=sa.Text),
            open_messages.c.as_of == sa.bindparam("of_day", type_=sa.Date),
            open_messages.c.planned,
            open_messages.c.message_id > sa.bindparam("after", type_=sa.BigInteger),
            has_come(),
        )
        .order_by(open_messages.c.message_id)
        .limit(sa.bindparam("most", type_=sa.Integer))
    )


@cache
def _reserving() -> sa.Update:
    """The statement of a reservation, built once: building it costs as much as running it."""
    chosen = (
        sa.select(*(messages.c[name] for name in FACTS))
        .where(
            _among(_waiting()), messages.c.state == "planned", messages.c.as_of == sa.bindparam("of_day", type_=sa.Date)
        )
        .order_by(messages.c.id)
        .with_for_update(of=messages, key_share=True, skip_locked=True)
        .cte("chosen")
    )
    checked = verdict(chosen)
    free = checked.c.blocked.is_(None)
    by, via = (sa.bindparam(name, type_=sa.Text) for name in ("who", "how"))
    at = sa.bindparam("now", type_=_WHEN)
    return (
        sa.update(messages)
        .where(messages.c.id == checked.c.id)
        .values(
            state=sa.case((free, "reserved"), else_="suppressed"),
            reason=checked.c.blocked,
            via=sa.case((free, via)),
            reserved_by=sa.case((free, by)),
            reserved_at=sa.case((free, at)),
            settled_at=sa.case((free, None), else_=at),
            changed_at=at,
        )
        .returning(checked.c.blocked, messages.c.id, *_KEY, *_SAYS)
    )


def settle(connection: sa.Connection, outcomes: Sequence[Settled], *, by: str, at: datetime) -> int:
    """Write what became of messages that ``by`` reserved; returns how many rows that changed.

    A message that was given up as ``unknown`` in the meantime takes the better knowledge; one that is settled stays.
    """
    if not outcomes:
        return 0
    by_outcome: dict[tuple[str | None, ...], list[int]] = {}
    for message_id, *outcome in outcomes:
        by_outcome.setdefault(tuple(outcome), []).append(message_id)
    text = as_json(
        {"ids": ids, "state": state, "reason": _storable(reason), "provider_id": provider_id}
        for (state, reason, provider_id), ids in by_outcome.items()
    )
    return connection.execute(_settling(), {"told": text, "who": by, "now": at}).rowcount


@cache
def _settling() -> sa.Update:
    """The statement that settles, built once."""
    outcomes = recordset(
        sa.bindparam("told", type_=sa.Text),
        sa.column("ids", ARRAY(sa.BigInteger)),
        *(messages.c[name] for name in _OUTCOME),
    )
    told = sa.select(sa.func.unnest(outcomes.c.ids).label("id"), *(outcomes.c[name] for name in _OUTCOME)).cte("told")
    better = (messages.c.state == "unknown") & told.c.state.in_(("sent", "failed"))
    mine = (
        sa.select(*told.c)
        .where(_among(sa.select(told.c.id)), messages.c.id == told.c.id)
        .where(messages.c.reserved_by == sa.bindparam("who", type_=sa.Text))
        .where((messages.c.state == "reserved") | better)
        .order_by(messages.c.id)  # as everybody locks them: an event may settle the same messages at this moment
        .with_for_update(of=messages, key_share=True)
        .cte("mine")
    )
    back, at = mine.c.state == "planned", sa.bindparam("now", type_=_WHEN)
    return (
        sa.update(messages)
        .where(messages.c.id == mine.c.id)
        .values(
            state=mine.c.state,
            reason=mine.c.reason,
            provider_id=mine.c.provider_id,
            settled_at=sa.case((back, None), else_=at),
            reserved_at=sa.case((back, None), else_=messages.c.reserved_at),
            reserved_by=sa.case((back, None), else_=messages.c.reserved_by),
            via=sa.case((back, None), else_=messages.c.via),
            changed_at=at,
        )
    )


def settle_by_event(connection: sa.Connection, outcomes: Sequence[tuple[int, str, str | None]], *, at: datetime) -> int:
    """Settle messages as ``sent`` or ``failed`` because an event of the provider says so; returns how many.

    ``outcomes`` are (message, state, provider's id). Only what is ``unknown`` changes, and what is ``reserved`` still:
    its dispatcher may be dead, and there will be no other event. What is settled stays as it is.
    """
    if not outcomes:
        return 0
    last = {message: (state, provider_id) for message, state, provider_id in outcomes}
    told = given(
        [{"id": n, "state": state, "provider_id": provider_id} for n, (state, provider_id) in last.items()],
        *(messages.c[name] for name in ("id", "state", "provider_id")),
    )
    open_ones = (
        sa.select(messages.c.id, told.c.state, told.c.provider_id)
        .where(messages.c.id == told.c.id, messages.c.state.in_(("reserved", "unknown")))
        .order_by(messages.c.id)
        .with_for_update(of=messages, key_share=True)  # others may store events of the same messages meanwhile
        .cte("open_ones")
    )
    changed = connection.execute(
        sa.update(messages)
        .where(messages.c.id == open_ones.c.id)
        .values(
            state=open_ones.c.state,
            reason=sa.case((open_ones.c.state == "failed", "event")),
            provider_id=sa.func.coalesce(open_ones.c.provider_id, messages.c.provider_id),
            settled_at=at,
            changed_at=at,
        )
    )
    return changed.rowcount


def reserving(connection: sa.Connection) -> list[str]:
    """The dispatchers that have reservations at this moment, in the order of the earliest."""
    first = sa.func.min(messages.c.id)
    wanted = _still_open("reserved").with_only_columns(messages.c.reserved_by)
    return [*connection.scalars(wanted.group_by(messages.c.reserved_by).order_by(first))]


def reserved(connection: sa.Connection, by: str) -> list[Message]:
    """Messages that the dispatcher ``by`` has reserved, in the order of their ids."""
    wanted = _still_open("reserved").where(messages.c.reserved_by == by).order_by(messages.c.id)
    return [_message(row) for row in connection.execute(wanted)]


def retry_failed(connection: sa.Connection, campaign: str, as_of: date, *, at: datetime) -> int:
    """Plan the failed messages of a day again: an operator's decision, once the cause is mended. Returns how many."""
    forgotten = dict.fromkeys(("settled_at", "reserved_at", "reserved_by", "via"))
    changed = connection.execute(
        sa.update(messages)
        .where(messages.c.campaign == campaign, messages.c.as_of == as_of, messages.c.state == "failed")
        .values(state="planned", reason="retry", changed_at=at, **forgotten)
    )
    return changed.rowcount


def unknown(connection: sa.Connection, campaign: str | None = None, *, limit: int = 1000) -> list[Message]:
    """Messages that may or may not have left, the oldest first, up to ``limit``."""
    wanted = _still_open("unknown").order_by(messages.c.id).limit(limit)
    if campaign is not None:
        wanted = wanted.where(messages.c.campaign == campaign)
    return [_message(row) for row in connection.execute(wanted)]


def unknown_counts(connection: sa.Connection) -> dict[tuple[str, date], int]:
    """How many messages of each campaign and day may or may not have left."""
    where = (messages.c.campaign, messages.c.as_of)
    rows = connection.execute(
        _still_open("unknown").with_only_columns(*where, sa.func.count()).group_by(*where).order_by(*where)
    )
    return {(row[0], row[1]): row[2] for row in rows}


def resolve(
    connection: sa.Connection,
    *,
    state: str,
    why: str,
    at: datetime,
    ids: Collection[int] | None = None,
    campaign: str | None = None,
    as_of: date | None = None,
    via: str | None = None,
) -> int:
    """Settle ``unknown`` messages by hand, all that the filters leave; returns how many.

    ``state`` is ``sent`` or ``failed``; ``why`` is kept as the reason. What is not ``unknown`` is not touched.
    """
    filters = {"campaign": campaign, "as_of": as_of, "via": via}
    chosen = _still_open("unknown").where(
        *(messages.c[name] == value for name, value in filters.items() if value is not None),
        *([messages.c.id == sa.any_(_array(list(ids), sa.BigInteger()))] if ids is not None else []),
    )
    chosen_ids = chosen.order_by(messages.c.id).with_for_update(of=messages, key_share=True).cte("chosen")
    changed = connection.execute(
        sa.update(messages)
        .where(messages.c.id == chosen_ids.c.id)
        .values(state=state, reason=why, settled_at=at, changed_at=at)
    )
    return changed.rowcount


def rates(connection: sa.Connection, campaign: str, since: datetime) -> Rates:
    """What became of the messages of a campaign that were sent since then, by the provider's events so far."""
    # a look-up by message, which an aggregate keeps from becoming a join: one planned on stale counts took minutes
    seen = (
        sa.select(sa.func.array_agg(provider_events.c.type).label("types"))
        .where(
            provider_events.c.message_id == messages.c.id,
            provider_events.c.type.in_(("delivered", "bounce", "dropped", "spam_report")),
        )
        .lateral("seen")
    )

    def having(*types: str) -> sa.ColumnElement[int]:
        return sa.func.count().filter(seen.c.types.op("&&")(_array(list(types), sa.Text())))

    row = connection.execute(
        sa.select(sa.func.count(), having("delivered"), having("bounce", "dropped"), having("spam_report"))
        .select_from(messages.join(seen, sa.true()))
        .where(messages.c.campaign == campaign, messages.c.state == "sent", messages.c.settled_at >= since)
    ).one()
    return Rates._make(row)


def find(connection: sa.Connection, message_id: int) -> Message | None:
    """The message with this id."""
    row = connection.execute(sa.select(*_MESSAGE).where(messages.c.id == message_id)).one_or_none()
    return _message(row) if row else None


def newest_day(connection: sa.Connection, campaign: str) -> date | None:
    """Newest day the campaign has messages of."""
    return connection.execute(sa.select(sa.func.max(messages.c.as_of)).where(messages.c.campaign == campaign)).scalar()


def sent_count(connection: sa.Connection, campaign: str, as_of: date) -> int:
    """How many messages of a campaign and day were sent."""
    return sum(n for (state, _), n in counts(connection, campaign, as_of).items() if state == "sent")


def sent_later(
    connection: sa.Connection, as_of: date, *, without: Collection[str] = (), without_via: str | None = None
) -> tuple[str, date] | None:
    """A campaign and a day after ``as_of`` of which something has left or may have, the latest; ``None`` where nothing has.

    Not looked at are the campaigns ``without``, and what went ``without_via``.
    """
    name = messages.c.campaign
    each = sa.select(sa.func.min(name).label("name")).cte("each", recursive=True)  # one look at the index a campaign
    after = sa.select(sa.func.min(name)).where(name > each.c.name).scalar_subquery()
    each = each.union_all(sa.select(after).where(each.c.name.is_not(None)))
    gone = (
        sa.select(messages.c.as_of)
        .where(name == each.c.name, messages.c.as_of > as_of, messages.c.state.in_(("reserved", "sent", "unknown")))
        .where(*([messages.c.via.is_distinct_from(without_via)] if without_via else []))
        .order_by(messages.c.as_of.desc())
        .limit(1)
        .lateral("gone")
    )
    found = (
        sa.select(each.c.name, gone.c.as_of)
        .select_from(each.join(gone, sa.true()))
        .where(each.c.name.not_in(list(without)))
        .order_by(gone.c.as_of.desc(), each.c.name)
        .limit(1)
    )
    row = connection.execute(found).one_or_none()
    return (row[0], row[1]) if row else None


def settled_after(connection: sa.Connection, at: datetime) -> datetime | None:
    """The latest time after ``at`` at which an outcome was written."""
    return connection.execute(sa.select(sa.func.max(messages.c.settled_at)).where(messages.c.settled_at > at)).scalar()


def counts(connection: sa.Connection, campaign: str, as_of: date) -> dict[tuple[str, str], int]:
    """Messages of a campaign and day by state and reason (empty where there is none), in order."""
    state, reason = messages.c.state, sa.func.coalesce(messages.c.reason, "")
    rows = connection.execute(
        sa.select(state, reason, sa.func.count())
        .where(messages.c.campaign == campaign, messages.c.as_of == as_of)
        .group_by(state, reason)
        .order_by(state, reason)
    )
    return {(row[0], row[1]): row[2] for row in rows}


def counts_by_day(
    connection: sa.Connection, campaign: str, start: date, end: date
) -> dict[date, dict[tuple[str, str], int]]:
    """:func:`counts` of every day from ``start`` to ``end`` that has messages."""
    state, reason = messages.c.state, sa.func.coalesce(messages.c.reason, "")
    rows = connection.execute(
        sa.select(messages.c.as_of, state, reason, sa.func.count())
        .where(messages.c.campaign == campaign, messages.c.as_of.between(start, end))
        .group_by(messages.c.as_of, state, reason)
        .order_by(messages.c.as_of, state, reason)
    )
    found: dict[date, dict[tuple[str, str], int]] = {}
    for day, of_state, why, number in rows:
        found.setdefault(day, {})[of_state, why] = number
    return found


def sent_keys(connection: sa.Connection, campaign: str, as_of: date) -> Iterator[tuple[MessageKey, str]]:
    """Key and channel of every message of a campaign and day that was sent, in key order, read in bounded batches."""
    rows = connection.execute(
        sa.select(messages.c.campaign, messages.c.step, messages.c.customer_id, messages.c.occasion, messages.c.channel)
        .where(messages.c.campaign == campaign, messages.c.as_of == as_of, messages.c.state == "sent")
        .order_by(*(messages.c[name].collate("C") for name in MessageKey._fields[1:])),
        execution_options={"yield_per": 10_000},
    )
    for row in rows:
        yield MessageKey(*row[:4]), row.channel


def _still_open(state: str) -> sa.Select[Any]:
    """Messages that are ``reserved`` or ``unknown``."""
    return sa.select(*_MESSAGE).where(_is_open(~open_messages.c.planned), messages.c.state == state)


def _is_open(*conditions: sa.ColumnElement[bool]) -> sa.ColumnElement[bool]:
    return _among(sa.select(open_messages.c.message_id).where(*conditions))


def _among(ids: sa.Select[Any]) -> sa.ColumnElement[bool]:
    """As an array, so that messages are looked up by their ids whatever the planner makes of a join."""
    return messages.c.id == sa.any_(sa.func.array(ids.scalar_subquery(), type_=ARRAY(sa.BigInteger)))


def _array(values: list[Any], kind: Any) -> sa.BindParameter[Any]:
    return sa.bindparam(None, values, type_=ARRAY(kind), unique=True)


def _storable(text: str | None) -> str | None:
    """A provider's words without what PostgreSQL cannot hold."""
    return text and text.replace("\0", "").encode("utf-8", "replace").decode()


def _message(row: Sequence[Any]) -> Message:
    """A row of the columns ``_MESSAGE``."""
    return Message(row[0], MessageKey(*row[1:5]), *row[5:])

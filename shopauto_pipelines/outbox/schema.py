"""The outbox's tables in PostgreSQL, as the migrations make them. The lake's tables are in each room's ``tables.py``."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import ARRAY, INT8MULTIRANGE, JSONB

from shopauto_pipelines.platform.postgres import SCHEMA

#: Every state a message can be in.
STATES = ("planned", "reserved", "sent", "failed", "unknown", "suppressed")

#: What may follow what. ``failed`` means: surely not accepted, so it may be planned again; ``unknown`` may not. A planned
#: message that a later day takes over stays planned.
FOLLOWS = (
    ("planned", "planned"),
    ("planned", "reserved"),
    ("planned", "suppressed"),
    ("reserved", "sent"),
    ("reserved", "failed"),
    ("reserved", "unknown"),
    ("reserved", "planned"),
    ("unknown", "sent"),
    ("unknown", "failed"),
    ("failed", "planned"),
)

#: What a person can say about a topic on a channel.
CHOICES = ("opted_in", "opted_out", "less_often")

#: The topic that stands for all topics.
ALL_TOPICS = "*"

#: The scope that stands for all campaigns.
EVERYTHING = "*"

_WHEN = sa.DateTime(timezone=True)

metadata = sa.MetaData(schema=SCHEMA)

messages = sa.Table(
    "messages",
    metadata,
    sa.Column("id", sa.BigInteger, sa.Identity(always=True), primary_key=True, doc="number of the message"),
    sa.Column("campaign", sa.Text, nullable=False, doc="campaign"),
    sa.Column("step", sa.Text, nullable=False, doc="step of the campaign"),
    sa.Column("customer_id", sa.Text, nullable=False, doc="the person"),
    sa.Column("occasion", sa.Text, nullable=False, doc="what it is about; with the three before it: once"),
    sa.Column("state", sa.Text, nullable=False, server_default="planned", doc=", ".join(STATES)),
    sa.Column("reason", sa.Text, doc="why it is in this state"),
    sa.Column("channel", sa.Text, nullable=False, doc="email or sms"),
    sa.Column("via", sa.Text, doc="the channel that took it: inbox, sendgrid, smtp, …"),
    sa.Column("as_of", sa.Date, nullable=False, doc="day of the audience it comes from"),
    sa.Column("language", sa.Text, nullable=False, doc="language it is written in"),
    sa.Column("template", sa.Text, nullable=False, doc="template it is rendered from"),
    sa.Column("explanation", JSONB, nullable=False, doc="why this person was chosen"),
    sa.Column("address_hash", sa.LargeBinary, doc="keyed hash of the address; null: there is none"),
    sa.Column("provider_id", sa.Text, doc="the channel's own id of the message"),
    sa.Column("planned_at", _WHEN, nullable=False, doc="when it was planned"),
    sa.Column("reserved_at", _WHEN, doc="when a dispatcher took it"),
    sa.Column("reserved_by", sa.Text, doc="the dispatcher"),
    sa.Column("settled_at", _WHEN, doc="when its outcome was written"),
    sa.Column("changed_at", _WHEN, nullable=False, doc="time of the latest change of state"),
    sa.Column("run_id", sa.Text, doc="the run that planned it"),
    sa.Column("topic", sa.Text, nullable=False, server_default="news", doc="what people can opt out of on its own"),
    sa.Column("triggered_at", _WHEN, doc="when its trigger happened; null: no such moment"),
    sa.Column("exit_on", ARRAY(sa.Text), nullable=False, server_default="{}", doc="what takes it back: ordered, …"),
    sa.Column("send_from", _WHEN, doc="when it may leave at the earliest, in live mode; null: at once, at any hour"),
    sa.Column("time_zone", sa.Text, doc="by whose clock hours are quiet; null: the shop's"),
    sa.Column("other_ids", ARRAY(sa.Text), nullable=False, server_default="{}", doc="other shop ids of the person"),
    sa.UniqueConstraint("campaign", "step", "customer_id", "occasion", name="messages_once"),
    sa.CheckConstraint(f"state in {STATES}", name="messages_state"),
    sa.CheckConstraint("(state = 'reserved') <= (reserved_by is not null)", name="messages_reserved_by"),
    # no index has the state in it, and the one of a time is a summary: a change of state rewrites none, its main cost
    sa.Index("messages_day", "campaign", "as_of"),
    sa.Index("messages_settled", "settled_at", postgresql_using="brin"),
    sa.Index("messages_customer", "customer_id", "as_of"),
    postgresql_with={"fillfactor": 40},
)
open_messages = sa.Table(
    "open_messages",
    metadata,
    sa.Column("message_id", sa.BigInteger, primary_key=True, autoincrement=False, doc="planned, reserved or unknown"),
    sa.Column("campaign", sa.Text, nullable=False),
    sa.Column("as_of", sa.Date, nullable=False),
    sa.Column("planned", sa.Boolean, nullable=False, doc="whether it waits to be reserved"),
    sa.Column("send_from", _WHEN, doc="as in messages"),
    sa.Column("time_zone", sa.Text, doc="as in messages"),
    sa.Index("open_messages_day", "campaign", "as_of", "message_id"),
    postgresql_with={"fillfactor": 45},
)
dispatchers = sa.Table(
    "dispatchers",
    metadata,
    sa.Column("name", sa.Text, primary_key=True),
    sa.Column("given_up_at", _WHEN, doc="when another one found it dead; from then on it may hand over nothing"),
)
handed_over = sa.Table(
    "handed_over",
    metadata,
    sa.Column("dispatcher", sa.ForeignKey(dispatchers.c.name, ondelete="cascade"), primary_key=True),
    sa.Column("first_id", sa.BigInteger, primary_key=True, doc="of its messages those from here …"),
    sa.Column("last_id", sa.BigInteger, nullable=False, doc="… to here may have reached the channel"),
)
message_history = sa.Table(
    "message_history",
    metadata,
    sa.Column("id", sa.BigInteger, sa.Identity(always=True), primary_key=True, doc="in the order of the changes"),
    sa.Column("from_state", sa.Text, doc="null: the messages were new"),
    sa.Column("to_state", sa.Text, nullable=False),
    sa.Column("at", _WHEN, nullable=False),
    sa.Column("why", sa.Text),
    sa.Column("messages", INT8MULTIRANGE, nullable=False, doc="numbers of the messages that one statement changed so"),
    sa.CheckConstraint(f"from_state is null or (from_state, to_state) in {FOLLOWS}", name="message_history_follows"),
    sa.Index("message_history_messages", "messages", postgresql_using="gist"),
)
suppressions = sa.Table(
    "suppressions",
    metadata,
    sa.Column("address_hash", sa.LargeBinary, primary_key=True, doc="keyed hash of the address"),
    sa.Column("channel", sa.Text, primary_key=True, doc="email or sms"),
    sa.Column("reason", sa.Text, nullable=False, doc="unsubscribe, bounce, spam_report, …"),
    sa.Column("at", _WHEN, nullable=False),
)
consents = sa.Table(
    "consents",
    metadata,
    sa.Column("id", sa.BigInteger, sa.Identity(always=True), primary_key=True),
    sa.Column("address_hash", sa.LargeBinary, nullable=False, doc="keyed hash of the address"),
    sa.Column("channel", sa.Text, nullable=False, doc="email or sms"),
    sa.Column("topic", sa.Text, nullable=False, doc="topic of campaigns; * is all of them"),
    sa.Column("choice", sa.Text, nullable=False, doc=", ".join(CHOICES)),
    sa.Column("source", sa.Text, nullable=False, doc="preference_page, unsubscribe, spam_report, import, …"),
    sa.Column("wording", sa.Text, doc="what the person was shown"),
    sa.Column("message_id", sa.ForeignKey(messages.c.id), doc="the message whose link or event said it"),
    sa.Column("at", _WHEN, nullable=False, doc="when it was chosen; the latest counts"),
    sa.CheckConstraint(f"choice in {CHOICES}", name="consents_choice"),
    sa.Index("consents_address", "address_hash", "channel", "topic", "at", "id"),
)
exits = sa.Table(
    "exits",
    metadata,
    sa.Column("customer_id", sa.Text, primary_key=True, doc="the person"),
    sa.Column(
        "event", sa.Text, primary_key=True, doc="ordered, cart_emptied, left_segment, unsubscribed, opted_out_email, …"
    ),
    sa.Column(
        "occasion", sa.Text, primary_key=True, server_default="", doc="what it is about, as a cart; '': anything"
    ),
    sa.Column("at", _WHEN, primary_key=True, doc="when it happened"),
    sa.Index("exits_occasion", "occasion", postgresql_where=sa.text("occasion <> ''")),
)
offers = sa.Table(
    "offers",
    metadata,
    sa.Column("code", sa.Text, primary_key=True, doc="to be used once, at the checkout"),
    sa.Column("campaign", sa.Text, nullable=False),
    sa.Column("customer_id", sa.Text, nullable=False),
    sa.Column("occasion", sa.Text, nullable=False),
    sa.Column("kind", sa.Text, nullable=False, doc="free_shipping or percent"),
    sa.Column("percent", sa.Integer, doc="discount, percent"),
    sa.Column("category", sa.Text, doc="category it holds for; null: everything"),
    sa.Column("minimum_cents", sa.BigInteger, doc="least basket it holds for, minor units; null: any"),
    sa.Column("granted_at", _WHEN, nullable=False),
    sa.Column("expires_at", _WHEN, nullable=False),
    sa.Column("why", sa.Text, nullable=False, doc="the tier, and what it rests on"),
    sa.UniqueConstraint("campaign", "customer_id", "occasion", name="offers_once"),
    sa.Index("offers_customer", "customer_id", "granted_at"),
)


def _switches() -> list[sa.Column]:
    return [
        sa.Column("paused", sa.Boolean, nullable=False),
        sa.Column("why", sa.Text, doc="what the operator or breaker gave as the cause"),
        sa.Column("by", sa.Text, nullable=False, doc="who switched"),
        sa.Column("at", _WHEN, nullable=False),
    ]


controls = sa.Table(
    "controls",
    metadata,
    sa.Column("scope", sa.Text, primary_key=True, doc="a campaign; * is everything"),
    *_switches(),
)
control_history = sa.Table(
    "control_history",
    metadata,
    sa.Column("id", sa.BigInteger, sa.Identity(always=True), primary_key=True),
    sa.Column("scope", sa.Text, nullable=False),
    *_switches(),
)
provider_events = sa.Table(
    "provider_events",
    metadata,
    sa.Column("event_id", sa.Text, primary_key=True, doc="the provider's id of the event: it may come several times"),
    sa.Column("message_id", sa.BigInteger, sa.ForeignKey(messages.c.id), doc="null: not of a message we know"),
    sa.Column("type", sa.Text, nullable=False, doc="processed, delivered, open, click, bounce, dropped, …"),
    sa.Column("at", _WHEN, nullable=False, doc="the provider's time"),
    sa.Column("received_at", _WHEN, nullable=False, doc="when it came in"),
    sa.Column("is_machine", sa.Boolean, nullable=False, doc="opened by a machine, not by the person"),
    sa.Column("reason", sa.Text, doc="the provider's words, without the address"),
    sa.Column("provider_id", sa.Text, doc="the provider's own id of the message"),
    sa.Index("provider_events_message", "message_id", "type"),
    sa.Index("provider_events_at", "at"),
)


def given(rows: Sequence[Mapping[str, Any]], *columns: sa.ColumnElement[Any]) -> sa.TableValuedAlias:
    """Rows as a table of a statement, handed over as one JSON text: several times quicker than a parameter a value."""
    return recordset(sa.literal(as_json(rows), sa.Text), *columns)


def recordset(text: sa.ColumnElement[str], *columns: sa.ColumnElement[Any]) -> sa.TableValuedAlias:
    """What :func:`as_json` wrote, as a table of a statement."""
    typed = sa.func.json_to_recordset(sa.cast(text, sa.JSON)).table_valued(
        *(sa.column(c.name, c.type) for c in columns)
    )
    return typed.render_derived("told", with_types=True)


def as_json(rows: Iterable[Mapping[str, Any]]) -> str:
    """Rows by column, as one text."""
    return json.dumps([*rows], default=_as_text, separators=(",", ":"))


def _as_text(value: Any) -> str:
    """How PostgreSQL reads a value JSON has no form for: bytes, a day, a time."""
    return f"\\x{value.hex()}" if isinstance(value, bytes) else value.isoformat()

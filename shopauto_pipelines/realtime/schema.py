"""The room's tables in PostgreSQL, as the migrations make them: what came in, whose visitor it is, carts, what is served.

``collected`` and ``people`` hold private data: what visitors typed, and what the shop knows of its customers.
"""

from __future__ import annotations

import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import JSONB

from shopauto_pipelines.platform.postgres import SCHEMA

_WHEN = sa.DateTime(timezone=True)

metadata = sa.MetaData(schema=SCHEMA)

collected = sa.Table(
    "collected",
    metadata,
    sa.Column("id", sa.BigInteger, sa.Identity(always=True), primary_key=True, doc="order in which rows came in"),
    sa.Column("raw_table", sa.Text, nullable=False, doc="table of the lake it becomes a row of, e.g. raw/events"),
    sa.Column("key", sa.Text, nullable=False, doc="its key there: an event's id; what comes again is not stored again"),
    sa.Column("at", _WHEN, nullable=False, doc="when it happened"),
    sa.Column("received_at", _WHEN, nullable=False, doc="when it came in"),
    sa.Column("cart_id", sa.Text, doc="the cart it speaks of"),
    sa.Column("row", JSONB, nullable=False, doc="columns of the table; private"),
    sa.UniqueConstraint("raw_table", "key", name="collected_once"),
    sa.Index("collected_at", "raw_table", "at"),
    sa.Index("collected_cart", "cart_id", postgresql_where=sa.text("cart_id is not null")),
)
visitors = sa.Table(
    "visitors",
    metadata,
    sa.Column("anonymous_id", sa.Text, primary_key=True, doc="browser id"),
    sa.Column("shop_customer_id", sa.Text, doc="whose browser it is, by the latest login"),
    sa.Column("shop_customer_at", _WHEN, doc="when that login was"),
    sa.Column("address_hash", sa.LargeBinary, doc="keyed hash of the latest e-mail address the visitor gave"),
    sa.Column("address_at", _WHEN, doc="when the visitor gave it"),
)
guests = sa.Table(
    "guests",
    metadata,
    sa.Column(
        "shop_customer_id", sa.Text, primary_key=True, doc="guest:<hash>, as orders of guests have it, or an account's"
    ),
    sa.Column("address_hash", sa.LargeBinary, nullable=False, doc="keyed hash of the e-mail address that came with it"),
)
carts = sa.Table(
    "carts",
    metadata,
    sa.Column("cart_id", sa.Text, primary_key=True),
    sa.Column("shop_customer_id", sa.Text, doc="whose cart it is, where something said so"),
    sa.Column("shop_customer_at", _WHEN, doc="when that was said; the latest counts"),
    sa.Column("anonymous_id", sa.Text, doc="browser it was filled in"),
    sa.Column("anonymous_at", _WHEN, doc="when that was said; the latest counts"),
    sa.Column("last_at", _WHEN, nullable=False, doc="when something last happened to it, by its events' own times"),
    sa.Column("ordered_at", _WHEN, doc="when an order took it; final"),
    sa.Column("snapshot_at", _WHEN, doc="when the shop last told its whole contents"),
    sa.Column("snapshot", JSONB, doc="these contents: {product id: pieces}"),
    sa.Column("emptied", sa.Boolean, nullable=False, server_default=sa.false(), doc="something was in it, nothing is"),
    sa.Column(
        "waited_seconds",
        sa.BigInteger,
        nullable=False,
        server_default="0",
        doc="longest wait that is over since last_at and was seen to; 0: none",
    ),
    sa.Index("carts_waiting", "waited_seconds", "last_at", postgresql_where=sa.text("ordered_at is null")),
    sa.Index("carts_visitor", "anonymous_id"),
)
due_carts = sa.Table(
    "due_carts",
    metadata,
    sa.Column("id", sa.BigInteger, sa.Identity(always=True), primary_key=True, doc="batches are ranges of these"),
    sa.Column("cart_id", sa.Text, nullable=False),
    sa.Column("waited_seconds", sa.BigInteger, nullable=False, doc="how long nothing had happened: a step's wait"),
    sa.Column("triggered_at", _WHEN, nullable=False, doc="when something last happened to the cart"),
    sa.Column("queued_at", _WHEN, nullable=False, doc="when it was found to be due"),
    sa.UniqueConstraint("cart_id", "waited_seconds", "triggered_at", name="due_carts_once"),
)
people = sa.Table(
    "people",
    metadata,
    sa.Column("customer_id", sa.Text, primary_key=True, doc="the person"),
    sa.Column("as_of", sa.Date, nullable=False, doc="day whose profile, features and segments these are"),
    sa.Column("address_hash", sa.LargeBinary, doc="keyed hash of the e-mail address"),
    sa.Column("lapsed", sa.Boolean, nullable=False, doc="whether in the segment of lapsed customers"),
    sa.Column("held_out", sa.Boolean, nullable=False, doc="whether in a holdout of the on-site offer"),
    sa.Column("discount_seeker", sa.Boolean, nullable=False, doc="waits for coupons, so gets no discounts"),
    sa.Column("last_order_on", sa.Date, doc="day of the last order; a lapse begins with it"),
    sa.Column("churn_factor", sa.Float, doc="time since the last order ÷ the mean interval"),
    sa.Column("favourite_category", sa.Text, doc="where they buy most, the latest weighing most"),
    sa.Column("favourite_category_order_cents", sa.BigInteger, doc="own mean spend per order there, minor units"),
    sa.Column("category_average_order_cents", sa.BigInteger, doc="everybody's mean spend per order there, minor units"),
    sa.Index("people_address", "address_hash"),
    postgresql_with={"fillfactor": 45},  # every day changes nearly every row
)
people_ids = sa.Table(
    "people_ids",
    metadata,
    sa.Column("shop_customer_id", sa.Text, primary_key=True),
    sa.Column("customer_id", sa.Text, nullable=False, doc="the person the shop's id belongs to"),
    sa.Index("people_ids_customer", "customer_id"),
)
categories = sa.Table(
    "categories",
    metadata,
    sa.Column("category", sa.Text, primary_key=True),
    sa.Column("priced_cents", sa.BigInteger, nullable=False, doc="worth of goods whose cost is known, minor units"),
    sa.Column("cost_cents", sa.BigInteger, nullable=False, doc="what these cost the shop, minor units"),
    sa.Column("unknown_cents", sa.BigInteger, nullable=False, doc="worth of goods of unknown cost, minor units"),
)
decisions = sa.Table(
    "decisions",
    metadata,
    sa.Column("id", sa.BigInteger, sa.Identity(always=True), primary_key=True),
    sa.Column("at", _WHEN, nullable=False),
    sa.Column("customer_id", sa.Text, doc="null: nobody we know"),
    sa.Column("offered", sa.Boolean, nullable=False),
    sa.Column("reason", sa.Text, nullable=False, doc="why, or why not"),
    sa.Column("count", sa.Integer, nullable=False, server_default="1", doc="questions of that moment answered so"),
)

"""What the collector takes in, carts and visitors, what is served to the shop's pages; settings that change at run time.

Revision ID: 0003
Revises: 0002
"""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects.postgresql import JSONB

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None

_SCHEMA = "shopauto"
_NOW = sa.DateTime(timezone=True)


def upgrade() -> None:
    """Add the tables, and to exits the occasion they are about."""
    op.add_column("exits", sa.Column("occasion", sa.Text, nullable=False, server_default=""), schema=_SCHEMA)
    op.drop_constraint("exits_pkey", "exits", schema=_SCHEMA)
    op.create_primary_key("exits_pkey", "exits", ["customer_id", "event", "occasion", "at"], schema=_SCHEMA)
    op.create_index("exits_occasion", "exits", ["occasion"], schema=_SCHEMA, postgresql_where=sa.text("occasion <> ''"))
    op.create_table(
        "collected",
        sa.Column("id", sa.BigInteger, sa.Identity(always=True), primary_key=True),
        sa.Column("raw_table", sa.Text, nullable=False),
        sa.Column("key", sa.Text, nullable=False),
        sa.Column("at", _NOW, nullable=False),
        sa.Column("received_at", _NOW, nullable=False),
        sa.Column("cart_id", sa.Text),
        sa.Column("row", JSONB, nullable=False),
        sa.UniqueConstraint("raw_table", "key", name="collected_once"),
        schema=_SCHEMA,
    )
    op.create_index("collected_at", "collected", ["raw_table", "at"], schema=_SCHEMA)
    op.create_index(
        "collected_cart", "collected", ["cart_id"], schema=_SCHEMA, postgresql_where=sa.text("cart_id is not null")
    )
    op.create_table(
        "visitors",
        sa.Column("anonymous_id", sa.Text, primary_key=True),
        sa.Column("shop_customer_id", sa.Text),
        sa.Column("shop_customer_at", _NOW),
        sa.Column("address_hash", sa.LargeBinary),
        sa.Column("address_at", _NOW),
        schema=_SCHEMA,
    )
    op.create_table(
        "guests",
        sa.Column("shop_customer_id", sa.Text, primary_key=True),
        sa.Column("address_hash", sa.LargeBinary, nullable=False),
        schema=_SCHEMA,
    )
    op.create_table(
        "carts",
        sa.Column("cart_id", sa.Text, primary_key=True),
        sa.Column("shop_customer_id", sa.Text),
        sa.Column("shop_customer_at", _NOW),
        sa.Column("anonymous_id", sa.Text),
        sa.Column("anonymous_at", _NOW),
        sa.Column("last_at", _NOW, nullable=False),
        sa.Column("ordered_at", _NOW),
        sa.Column("snapshot_at", _NOW),
        sa.Column("snapshot", JSONB),
        sa.Column("emptied", sa.Boolean, nullable=False, server_default=sa.false()),
        sa.Column("waited_seconds", sa.BigInteger, nullable=False, server_default="0"),
        schema=_SCHEMA,
    )
    op.create_index(
        "carts_waiting",
        "carts",
        ["waited_seconds", "last_at"],
        schema=_SCHEMA,
        postgresql_where=sa.text("ordered_at is null"),
    )
    op.create_index("carts_visitor", "carts", ["anonymous_id"], schema=_SCHEMA)
    op.create_table(
        "due_carts",
        sa.Column("id", sa.BigInteger, sa.Identity(always=True), primary_key=True),
        sa.Column("cart_id", sa.Text, nullable=False),
        sa.Column("waited_seconds", sa.BigInteger, nullable=False),
        sa.Column("triggered_at", _NOW, nullable=False),
        sa.Column("queued_at", _NOW, nullable=False),
        sa.UniqueConstraint("cart_id", "waited_seconds", "triggered_at", name="due_carts_once"),
        schema=_SCHEMA,
    )
    op.create_table(
        "offers",
        sa.Column("code", sa.Text, primary_key=True),
        sa.Column("campaign", sa.Text, nullable=False),
        sa.Column("customer_id", sa.Text, nullable=False),
        sa.Column("occasion", sa.Text, nullable=False),
        sa.Column("kind", sa.Text, nullable=False),
        sa.Column("percent", sa.Integer),
        sa.Column("category", sa.Text),
        sa.Column("minimum_cents", sa.BigInteger),
        sa.Column("granted_at", _NOW, nullable=False),
        sa.Column("expires_at", _NOW, nullable=False),
        sa.Column("why", sa.Text, nullable=False),
        sa.UniqueConstraint("campaign", "customer_id", "occasion", name="offers_once"),
        schema=_SCHEMA,
    )
    op.create_index("offers_customer", "offers", ["customer_id", "granted_at"], schema=_SCHEMA)
    op.create_table(
        "people",
        sa.Column("customer_id", sa.Text, primary_key=True),
        sa.Column("as_of", sa.Date, nullable=False),
        sa.Column("address_hash", sa.LargeBinary),
        sa.Column("lapsed", sa.Boolean, nullable=False),
        sa.Column("held_out", sa.Boolean, nullable=False),
        sa.Column("discount_seeker", sa.Boolean, nullable=False),
        sa.Column("last_order_on", sa.Date),
        sa.Column("churn_factor", sa.Float),
        sa.Column("favourite_category", sa.Text),
        sa.Column("favourite_category_order_cents", sa.BigInteger),
        sa.Column("category_average_order_cents", sa.BigInteger),
        schema=_SCHEMA,
        postgresql_with={"fillfactor": 45},
    )
    op.create_index("people_address", "people", ["address_hash"], schema=_SCHEMA)
    op.create_table(
        "people_ids",
        sa.Column("shop_customer_id", sa.Text, primary_key=True),
        sa.Column("customer_id", sa.Text, nullable=False),
        schema=_SCHEMA,
    )
    op.create_index("people_ids_customer", "people_ids", ["customer_id"], schema=_SCHEMA)
    op.create_table(
        "categories",
        sa.Column("category", sa.Text, primary_key=True),
        sa.Column("priced_cents", sa.BigInteger, nullable=False),
        sa.Column("cost_cents", sa.BigInteger, nullable=False),
        sa.Column("unknown_cents", sa.BigInteger, nullable=False),
        schema=_SCHEMA,
    )
    op.create_table(
        "decisions",
        sa.Column("id", sa.BigInteger, sa.Identity(always=True), primary_key=True),
        sa.Column("at", _NOW, nullable=False),
        sa.Column("customer_id", sa.Text),
        sa.Column("offered", sa.Boolean, nullable=False),
        sa.Column("reason", sa.Text, nullable=False),
        sa.Column("count", sa.Integer, nullable=False, server_default="1"),
        schema=_SCHEMA,
    )
    op.create_table(
        "live_settings",
        sa.Column("name", sa.Text, primary_key=True),
        sa.Column("value", sa.Text, nullable=False),
        sa.Column("why", sa.Text),
        sa.Column("by", sa.Text, nullable=False),
        sa.Column("at", _NOW, nullable=False),
        schema=_SCHEMA,
    )
    op.create_table(
        "live_setting_history",
        sa.Column("id", sa.BigInteger, sa.Identity(always=True), primary_key=True),
        sa.Column("name", sa.Text, nullable=False),
        sa.Column("value", sa.Text),
        sa.Column("why", sa.Text),
        sa.Column("by", sa.Text, nullable=False),
        sa.Column("at", _NOW, nullable=False),
        schema=_SCHEMA,
    )

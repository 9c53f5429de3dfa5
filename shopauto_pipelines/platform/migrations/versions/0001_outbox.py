"""The outbox: the ledger of messages, the history of every change, and the suppressed addresses.

Revision ID: 0001
Revises:
"""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects.postgresql import JSONB

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None

_SCHEMA = "shopauto"
_NOW = sa.DateTime(timezone=True)

#: What may follow what. `failed` means: surely not accepted, so an operator may plan it again; `unknown` may not.
_GUARD = """
create function shopauto.messages_changed() returns trigger language plpgsql as $$
declare
    wrong record;
begin
    select b.id, b.state as before, a.state as after into wrong
    from changed_before b join changed_after a using (id)
    where b.state <> a.state and (b.state, a.state) not in (
        ('planned', 'reserved'), ('planned', 'suppressed'),
        ('reserved', 'sent'), ('reserved', 'failed'), ('reserved', 'unknown'), ('reserved', 'planned'),
        ('unknown', 'sent'), ('unknown', 'failed'),
        ('failed', 'planned')
    )
    limit 1;
    if found then
        raise exception 'message % cannot go from % to %', wrong.id, wrong.before, wrong.after
            using errcode = 'check_violation';
    end if;
    insert into shopauto.message_history (message_id, from_state, to_state, at, why)
    select a.id, b.state, a.state, a.changed_at, a.reason
    from changed_before b join changed_after a using (id)
    where b.state <> a.state
    order by a.id;
    return null;
end $$;

create function shopauto.messages_added() returns trigger language plpgsql as $$
begin
    insert into shopauto.message_history (message_id, from_state, to_state, at, why)
    select id, null, state, changed_at, reason from added order by id;
    return null;
end $$;

create trigger messages_changed after update on shopauto.messages
    referencing old table as changed_before new table as changed_after
    for each statement execute function shopauto.messages_changed();

create trigger messages_added after insert on shopauto.messages
    referencing new table as added
    for each statement execute function shopauto.messages_added();
"""


def upgrade() -> None:
    """Make the tables, and the triggers that keep the history and refuse a change of state that must not be."""
    op.create_table(
        "messages",
        sa.Column("id", sa.BigInteger, sa.Identity(always=True), primary_key=True),
        sa.Column("campaign", sa.Text, nullable=False),
        sa.Column("step", sa.Text, nullable=False),
        sa.Column("customer_id", sa.Text, nullable=False),
        sa.Column("occasion", sa.Text, nullable=False),
        sa.Column("state", sa.Text, nullable=False, server_default="planned"),
        sa.Column("reason", sa.Text),
        sa.Column("channel", sa.Text, nullable=False),
        sa.Column("via", sa.Text),
        sa.Column("as_of", sa.Date, nullable=False),
        sa.Column("language", sa.Text, nullable=False),
        sa.Column("template", sa.Text, nullable=False),
        sa.Column("explanation", JSONB, nullable=False),
        sa.Column("address_hash", sa.LargeBinary),
        sa.Column("provider_id", sa.Text),
        sa.Column("planned_at", _NOW, nullable=False),
        sa.Column("reserved_at", _NOW),
        sa.Column("reserved_by", sa.Text),
        sa.Column("settled_at", _NOW),
        sa.Column("changed_at", _NOW, nullable=False),
        sa.Column("run_id", sa.Text),
        sa.UniqueConstraint("campaign", "step", "customer_id", "occasion", name="messages_once"),
        sa.CheckConstraint(
            "state in ('planned', 'reserved', 'sent', 'failed', 'unknown', 'suppressed')", name="messages_state"
        ),
        sa.CheckConstraint("(state = 'reserved') <= (reserved_by is not null)", name="messages_reserved_by"),
        schema=_SCHEMA,
    )
    op.create_index("messages_work", "messages", ["campaign", "as_of", "state", "id"], schema=_SCHEMA)
    op.create_index("messages_customer", "messages", ["customer_id", "as_of"], schema=_SCHEMA)
    op.create_index(
        "messages_reserved", "messages", ["reserved_by"], schema=_SCHEMA, postgresql_where=sa.text("state = 'reserved'")
    )
    op.create_table(
        "message_history",
        sa.Column("id", sa.BigInteger, sa.Identity(always=True), primary_key=True),
        sa.Column("message_id", sa.BigInteger, sa.ForeignKey(f"{_SCHEMA}.messages.id"), nullable=False),
        sa.Column("from_state", sa.Text),
        sa.Column("to_state", sa.Text, nullable=False),
        sa.Column("at", _NOW, nullable=False),
        sa.Column("why", sa.Text),
        schema=_SCHEMA,
    )
    op.create_index("message_history_message", "message_history", ["message_id"], schema=_SCHEMA)
    op.create_table(
        "suppressions",
        sa.Column("address_hash", sa.LargeBinary, primary_key=True),
        sa.Column("channel", sa.Text, primary_key=True),
        sa.Column("reason", sa.Text, nullable=False),
        sa.Column("at", _NOW, nullable=False),
        schema=_SCHEMA,
    )
    op.execute(_GUARD)


def downgrade() -> None:
    """Drop everything above."""
    for table in ("message_history", "messages", "suppressions"):
        op.drop_table(table, schema=_SCHEMA)
    op.execute("drop function shopauto.messages_changed(); drop function shopauto.messages_added();")

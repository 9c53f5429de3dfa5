"""The outbox learns topics, choices of people, exits, switches of operators and the provider's events.

Revision ID: 0002
Revises: 0001
"""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects.postgresql import ARRAY

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None

_SCHEMA = "shopauto"
_NOW = sa.DateTime(timezone=True)

#: What the triggers do from here on. A change that must not be is found by the condition of a trigger, row by row, which
#: costs a tenth of what a look at both sides did. The two sides of a change are joined by a hash: the planner knows no row
#: counts of them. ``open_messages`` follows by arrays of numbers: index look-ups, whatever the statistics say.
#: A planned message that a later day takes over keeps its state; the history tells it all the same.
_TRIGGERS = """
create or replace function shopauto.messages_changed() returns trigger language plpgsql
    set enable_nestloop = off set enable_mergejoin = off as $$
begin
    insert into shopauto.message_history (message_id, from_state, to_state, at, why)
    select a.id, b.state, a.state, a.changed_at, a.reason
    from changed_after a join changed_before b using (id)
    where b.state <> a.state or b.as_of <> a.as_of
    order by a.id;
    return null;
end $$;

create function shopauto.messages_refused() returns trigger language plpgsql as $$
begin
    raise exception 'message % cannot go from % to %', old.id, old.state, new.state using errcode = 'check_violation';
end $$;

create trigger messages_refused after update on shopauto.messages for each row
    when (old.state <> new.state and old.state || ' ' || new.state not in (
        'planned reserved', 'reserved sent', 'planned suppressed', 'reserved failed', 'reserved unknown',
        'reserved planned', 'unknown sent', 'unknown failed', 'failed planned'
    ))
    execute function shopauto.messages_refused();

create function shopauto.open_messages_added() returns trigger language plpgsql as $$
begin
    insert into shopauto.open_messages (message_id, campaign, as_of, planned)
    select id, campaign, as_of, state = 'planned' from added where state in ('planned', 'reserved', 'unknown')
    order by id;
    return null;
end $$;

create function shopauto.open_messages_changed() returns trigger language plpgsql as $$
begin
    delete from shopauto.open_messages where message_id = any (
        array(select id from changed_after where state in ('sent', 'failed', 'suppressed'))
    );
    update shopauto.open_messages set planned = false where planned and message_id = any (
        array(select id from changed_after where state in ('reserved', 'unknown'))
    );
    insert into shopauto.open_messages (message_id, campaign, as_of, planned)
    select id, campaign, as_of, true from changed_after where state = 'planned' order by id
    on conflict (message_id) do update set as_of = excluded.as_of, planned = true;
    return null;
end $$;

create trigger open_messages_added after insert on shopauto.messages
    referencing new table as added
    for each statement execute function shopauto.open_messages_added();

create trigger open_messages_changed after update on shopauto.messages
    referencing new table as changed_after
    for each statement execute function shopauto.open_messages_changed();

insert into shopauto.open_messages (message_id, campaign, as_of, planned)
select id, campaign, as_of, state = 'planned' from shopauto.messages where state in ('planned', 'reserved', 'unknown');
"""


def upgrade() -> None:
    """Add the columns and tables."""
    op.add_column("messages", sa.Column("topic", sa.Text, nullable=False, server_default="news"), schema=_SCHEMA)
    op.add_column("messages", sa.Column("triggered_at", _NOW), schema=_SCHEMA)
    op.add_column("messages", sa.Column("exit_on", ARRAY(sa.Text), nullable=False, server_default="{}"), schema=_SCHEMA)
    op.drop_constraint("message_history_message_id_fkey", "message_history", schema=_SCHEMA)
    op.drop_constraint("message_history_pkey", "message_history", schema=_SCHEMA)
    op.drop_index("message_history_message", "message_history", schema=_SCHEMA)
    op.create_primary_key("message_history_pkey", "message_history", ["message_id", "id"], schema=_SCHEMA)
    for index in ("messages_work", "messages_reserved"):
        op.drop_index(index, "messages", schema=_SCHEMA)
    op.create_index("messages_day", "messages", ["campaign", "as_of"], schema=_SCHEMA)
    op.create_index("messages_settled", "messages", ["settled_at"], schema=_SCHEMA, postgresql_using="brin")
    op.execute(f"alter table {_SCHEMA}.messages set (fillfactor = 40)")
    op.create_table(
        "open_messages",
        sa.Column("message_id", sa.BigInteger, primary_key=True, autoincrement=False),
        sa.Column("campaign", sa.Text, nullable=False),
        sa.Column("as_of", sa.Date, nullable=False),
        sa.Column("planned", sa.Boolean, nullable=False),
        schema=_SCHEMA,
    )
    op.create_index("open_messages_day", "open_messages", ["campaign", "as_of", "message_id"], schema=_SCHEMA)
    op.execute(f"alter table {_SCHEMA}.open_messages set (fillfactor = 45)")
    op.create_table(
        "dispatchers",
        sa.Column("name", sa.Text, primary_key=True),
        sa.Column("given_up_at", _NOW),
        schema=_SCHEMA,
    )
    op.create_table(
        "handed_over",
        sa.Column(
            "dispatcher", sa.Text, sa.ForeignKey(f"{_SCHEMA}.dispatchers.name", ondelete="cascade"), primary_key=True
        ),
        sa.Column("first_id", sa.BigInteger, primary_key=True, autoincrement=False),
        sa.Column("last_id", sa.BigInteger, nullable=False),
        schema=_SCHEMA,
    )
    # what a dispatcher of the version before had reserved may have left
    op.execute(
        f"insert into {_SCHEMA}.dispatchers (name) select distinct reserved_by from {_SCHEMA}.messages "
        "where state = 'reserved'"
    )
    op.execute(f"insert into {_SCHEMA}.handed_over select name, 0, {2**63 - 1} from {_SCHEMA}.dispatchers")
    op.create_table(
        "consents",
        sa.Column("id", sa.BigInteger, sa.Identity(always=True), primary_key=True),
        sa.Column("address_hash", sa.LargeBinary, nullable=False),
        sa.Column("channel", sa.Text, nullable=False),
        sa.Column("topic", sa.Text, nullable=False),
        sa.Column("choice", sa.Text, nullable=False),
        sa.Column("source", sa.Text, nullable=False),
        sa.Column("wording", sa.Text),
        sa.Column("message_id", sa.BigInteger, sa.ForeignKey(f"{_SCHEMA}.messages.id")),
        sa.Column("at", _NOW, nullable=False),
        sa.CheckConstraint("choice in ('opted_in', 'opted_out', 'less_often')", name="consents_choice"),
        schema=_SCHEMA,
    )
    op.create_index("consents_address", "consents", ["address_hash", "channel", "topic", "at", "id"], schema=_SCHEMA)
    op.create_table(
        "exits",
        sa.Column("customer_id", sa.Text, primary_key=True),
        sa.Column("event", sa.Text, primary_key=True),
        sa.Column("at", _NOW, primary_key=True),
        schema=_SCHEMA,
    )
    op.create_table(
        "controls",
        sa.Column("scope", sa.Text, primary_key=True),
        sa.Column("paused", sa.Boolean, nullable=False),
        sa.Column("why", sa.Text),
        sa.Column("by", sa.Text, nullable=False),
        sa.Column("at", _NOW, nullable=False),
        schema=_SCHEMA,
    )
    op.create_table(
        "control_history",
        sa.Column("id", sa.BigInteger, sa.Identity(always=True), primary_key=True),
        sa.Column("scope", sa.Text, nullable=False),
        sa.Column("paused", sa.Boolean, nullable=False),
        sa.Column("why", sa.Text),
        sa.Column("by", sa.Text, nullable=False),
        sa.Column("at", _NOW, nullable=False),
        schema=_SCHEMA,
    )
    op.create_table(
        "provider_events",
        sa.Column("event_id", sa.Text, primary_key=True),
        sa.Column("message_id", sa.BigInteger, sa.ForeignKey(f"{_SCHEMA}.messages.id")),
        sa.Column("type", sa.Text, nullable=False),
        sa.Column("at", _NOW, nullable=False),
        sa.Column("received_at", _NOW, nullable=False),
        sa.Column("is_machine", sa.Boolean, nullable=False),
        sa.Column("reason", sa.Text),
        sa.Column("provider_id", sa.Text),
        schema=_SCHEMA,
    )
    op.create_index("provider_events_message", "provider_events", ["message_id", "type"], schema=_SCHEMA)
    op.create_index("provider_events_at", "provider_events", ["at"], schema=_SCHEMA)
    op.execute(_TRIGGERS)

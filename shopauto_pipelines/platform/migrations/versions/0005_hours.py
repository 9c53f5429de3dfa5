"""Messages wait for their hour: from when each may leave, and by whose clock.

Revision ID: 0005
Revises: 0004
"""

from alembic import op

revision = "0005"
down_revision = "0004"
branch_labels = None
depends_on = None

#: Both stand in ``open_messages`` too: a reservation passes over what waits without looking it up.
_UP = """
alter table shopauto.messages add column send_from timestamptz, add column time_zone text;
alter table shopauto.open_messages add column send_from timestamptz, add column time_zone text;

create or replace function shopauto.open_messages_added() returns trigger language plpgsql as $$
begin
    insert into shopauto.open_messages (message_id, campaign, as_of, planned, send_from, time_zone)
    select id, campaign, as_of, state = 'planned', send_from, time_zone
    from added where state in ('planned', 'reserved', 'unknown')
    order by id;
    return null;
end $$;

create or replace function shopauto.open_messages_changed() returns trigger language plpgsql as $$
begin
    delete from shopauto.open_messages where message_id = any (
        array(select id from changed_after where state in ('sent', 'failed', 'suppressed'))
    );
    update shopauto.open_messages set planned = false where planned and message_id = any (
        array(select id from changed_after where state in ('reserved', 'unknown'))
    );
    insert into shopauto.open_messages (message_id, campaign, as_of, planned, send_from, time_zone)
    select id, campaign, as_of, true, send_from, time_zone from changed_after where state = 'planned' order by id
    on conflict (message_id) do update
        set as_of = excluded.as_of, planned = true, send_from = excluded.send_from, time_zone = excluded.time_zone;
    return null;
end $$;
"""


def upgrade() -> None:
    """Add the columns, and have the triggers keep them."""
    op.execute(_UP)

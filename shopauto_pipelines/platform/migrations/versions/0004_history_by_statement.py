"""The history of messages is one row per kind of change and statement, no longer one per message.

Revision ID: 0004
Revises: 0003
"""

from alembic import op

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None

#: What may follow what is now a condition of the history itself: a change that must not be finds no place in it. The two
#: sides of a change are joined by a hash: the planner knows no row counts of them.
#: Rows of before are put together by their turn in the story of their message, so that each keeps its order.
_UP = """
create table shopauto.message_changes (
    id bigint generated always as identity primary key,
    from_state text,
    to_state text not null,
    at timestamptz not null,
    why text,
    messages int8multirange not null,
    constraint message_history_follows check (from_state is null or (from_state, to_state) in (
        ('planned', 'planned'), ('planned', 'reserved'), ('planned', 'suppressed'),
        ('reserved', 'sent'), ('reserved', 'failed'), ('reserved', 'unknown'), ('reserved', 'planned'),
        ('unknown', 'sent'), ('unknown', 'failed'), ('failed', 'planned')
    ))
);

insert into shopauto.message_changes (from_state, to_state, at, why, messages)
select from_state, to_state, at, why, range_agg(int8range(message_id, message_id, '[]'))
from (select *, row_number() over (partition by message_id order by id) as turn from shopauto.message_history) as told
group by turn, from_state, to_state, at, why
order by turn, min(id);

drop table shopauto.message_history;
alter table shopauto.message_changes rename to message_history;
alter index shopauto.message_changes_pkey rename to message_history_pkey;
alter sequence shopauto.message_changes_id_seq rename to message_history_id_seq;
create index message_history_messages on shopauto.message_history using gist (messages);

drop trigger messages_refused on shopauto.messages;
drop function shopauto.messages_refused();

create or replace function shopauto.messages_changed() returns trigger language plpgsql
    set enable_nestloop = off set enable_mergejoin = off as $$
begin
    insert into shopauto.message_history (from_state, to_state, at, why, messages)
    select b.state, a.state, a.changed_at, a.reason, range_agg(int8range(a.id, a.id, '[]'))
    from changed_after a join changed_before b using (id)
    where b.state <> a.state or b.as_of <> a.as_of
    group by b.state, a.state, a.changed_at, a.reason
    order by min(a.id);
    return null;
end $$;

create or replace function shopauto.messages_added() returns trigger language plpgsql as $$
begin
    insert into shopauto.message_history (to_state, at, why, messages)
    select state, changed_at, reason, range_agg(int8range(id, id, '[]')) from added
    group by state, changed_at, reason
    order by min(id);
    return null;
end $$;
"""


def upgrade() -> None:
    """Put the history together."""
    op.execute(_UP)

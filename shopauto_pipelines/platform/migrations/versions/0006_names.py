"""A message knows all shop ids of its person: what was sent under another one of them was sent.

Revision ID: 0006
Revises: 0005
"""

from alembic import op

revision = "0006"
down_revision = "0005"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Add the column."""
    op.execute("alter table shopauto.messages add column other_ids text[] not null default '{}'")

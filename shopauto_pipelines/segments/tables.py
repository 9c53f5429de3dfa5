"""Tables of the segments room: who is in which segment, since when, and what changed on the day."""

from __future__ import annotations

from shopauto_pipelines.platform.tables import Column, Table
from shopauto_pipelines.profiles.tables import CUSTOMER_ID

MEMBERSHIP = Table(
    "segments/membership",
    "Members of every segment as of the day, all segments in one pass.",
    (
        Column("segment", "string", "segment's name", required=True),
        CUSTOMER_ID,
        Column("entered_on", "date", "first day of the present stay", required=True),
    ),
    ("segment", "customer_id"),
)
CHANGES = Table(
    "segments/changes",
    "Who entered and who left each segment on the day. Empty on the first day ever computed: nothing to compare with.",
    (
        Column("segment", "string", "segment's name", required=True),
        CUSTOMER_ID,
        Column("change", "string", "entered or left", required=True),
        Column("entered_on", "date", "first day of the stay that began or ended", required=True),
    ),
    ("segment", "customer_id"),
)

#: Every table of the room, in reading order.
TABLES = (MEMBERSHIP, CHANGES)

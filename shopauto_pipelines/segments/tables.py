"""Tables of the segments room: who is in which segment, since when, and what changed on the day."""

from __future__ import annotations

from shopauto_pipelines.platform.tables import Column, Table
from shopauto_pipelines.profiles.tables import CUSTOMER_ID

DECLARED = Table(
    "segments/declared",
    "The segments that were declared when the day was computed: which are new since the day before, or have another name.",
    (
        Column("segment", "string", "segment's name; with `each`, without a value", required=True),
        Column("meaning", "string", "digest of what decides who is in it: the same under another name", required=True),
    ),
    ("segment",),
)
MEMBERSHIP = Table(
    "segments/membership",
    "Members of every segment as of the day, all segments in one pass.",
    (
        Column("segment", "string", "segment's name", required=True),
        CUSTOMER_ID,
        Column("entered_on", "date", "first day of the present stay", required=True),
        Column(
            "through",
            "string",
            "null: meets the condition; else the fallback through which the person stands in, as the segment is too small",
        ),
    ),
    ("segment", "customer_id"),
)
CHANGES = Table(
    "segments/changes",
    "Who entered and who left each segment on the day; who only stood in is not among them. "
    "On the first day of a segment nobody enters it: nothing to compare with.",
    (
        Column("segment", "string", "segment's name", required=True),
        CUSTOMER_ID,
        Column("change", "string", "entered or left", required=True),
        Column("entered_on", "date", "first day of the stay that began or ended", required=True),
    ),
    ("segment", "customer_id"),
)

SIZES = Table(
    "segments/sizes",
    "How many people are in each segment as of the day, and how many came and went on it. No row: nobody, and nobody left.",
    (
        Column("segment", "string", "segment's name", required=True),
        Column("size", "int64", "people who meet the condition", required=True),
        Column("entered", "int64", "of these, who entered on the day", required=True),
        Column("left", "int64", "who left on the day", required=True),
        Column(
            "standing_in", "int64", "people of the fallback who stand in, as the segment is too small", required=True
        ),
    ),
    ("segment",),
)
OVERLAP = Table(
    "segments/overlap",
    "How many people two segments have in common: each pair that has any, once, in the order of the alphabet.",
    (
        Column("segment", "string", "one segment", required=True),
        Column("other", "string", "the other, later in the alphabet", required=True),
        Column("size", "int64", "people in the one", required=True),
        Column("other_size", "int64", "people in the other", required=True),
        Column("both", "int64", "people in both", required=True),
        Column("share_of_smaller", "float64", "both ÷ people in the smaller one, 0 to 1", required=True),
        Column("lift", "float64", "both ÷ what it would be by chance: 1 is chance", required=True),
    ),
    ("segment", "other"),
)

#: Every table of the room, in reading order.
TABLES = (DECLARED, MEMBERSHIP, CHANGES, SIZES, OVERLAP)

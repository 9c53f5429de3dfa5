"""Tables of the campaigns room: one audience per campaign, who is to get what and why, and who is not and why."""

from __future__ import annotations

from shopauto_pipelines.platform.tables import Column, Table
from shopauto_pipelines.profiles.tables import CUSTOMER_ID


def audience(campaign: str) -> Table:
    """The table ``campaigns/<campaign>/audience``: the planner's decisions as of the day."""
    return Table(
        f"campaigns/{campaign}/audience",
        "Every person the campaign's trigger reached as of the day: planned or refused, each with its reason.",
        (
            Column("step", "string", "step of the campaign", required=True),
            CUSTOMER_ID,
            Column(
                "occasion",
                "string",
                "what the message is about; once per occasion, e.g. the day of sign-up",
                required=True,
            ),
            Column("triggered_on", "date", "day the trigger happened", required=True),
            Column("due_on", "date", "day the step is due", required=True),
            Column("decision", "string", "planned or refused", required=True),
            Column("reason", "string", "why, e.g. `due`, `no_consent`, `holdout`, `cap`", required=True),
            Column("channel", "string", "email or sms", required=True),
            Column("template", "string", "template to render", required=True),
            Column("language", "string", "language to write in", required=True),
            Column("variant", "string", "variant of the campaign's experiment the person has; null: the step has none"),
            Column("send_from", "timestamp(6)", "earliest moment to send it, UTC; null: at once"),
            Column(
                "offer", "string", "the decision on the step's offer with its reason, JSON; null: the step has none"
            ),
            Column(
                "details", "string", "what set it off, e.g. the product, JSON without private data; null: nothing more"
            ),
            Column(
                "explanation",
                "string",
                "trigger, segment, scores and rule that led here, JSON without private data",
                required=True,
            ),
        ),
        ("step", "customer_id", "occasion"),
    )

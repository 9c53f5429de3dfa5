"""Tables of the insights room: who was assigned to what, and what the campaigns brought about."""

from __future__ import annotations

from shopauto_pipelines.platform.tables import Column, Table
from shopauto_pipelines.profiles.tables import CUSTOMER_ID

ASSIGNMENTS = Table(
    "insights/assignments",
    "Whom the audiences of the day assigned to a campaign, to one of its holdouts, or to a variant of its experiment: what they "
    "say of it in one table, so that a year of it is read at once.",
    (
        Column("campaign", "string", "campaign", required=True),
        Column("comparison", "string", "the experiment; *: the campaign against its holdouts", required=True),
        CUSTOMER_ID,
        Column("occasion", "string", "what the message is about", required=True),
        Column("step", "string", "step of the experiment; empty: of any", required=True),
        Column("arm", "string", "campaign, campaign_holdout, global_holdout, or the variant", required=True),
    ),
    ("campaign", "comparison", "customer_id", "occasion", "step"),
)
CAMPAIGN_EFFECTS = Table(
    "insights/campaign_effects",
    "What each campaign brought about: its people against those held out, and the variants of its experiment against each "
    "other, with intervals. Everybody who was assigned counts, sent to or not; each for the same number of days afterwards.",
    (
        Column("campaign", "string", "campaign", required=True),
        Column(
            "comparison",
            "string",
            "campaign_holdout: against those who got nothing of this campaign; global_holdout: of no campaign; otherwise the "
            "name of the experiment",
            required=True,
        ),
        Column("variant", "string", "`campaign`, or the variant that is compared with `control`", required=True),
        Column("metric", "string", "ordered, clicked (shares of occasions) or revenue (minor units an occasion)", True),
        Column(
            "within_days",
            "int64",
            "days after the assignment in which it counts; clicks, and orders after messages about carts, count on its day too",
            required=True,
        ),
        Column("people", "int64", "people assigned to it whose days are over", required=True),
        Column("occasions", "int64", "their occasions: a person may have several", required=True),
        Column("control_people", "int64", "people of the control whose days are over", required=True),
        Column("control_occasions", "int64", "their occasions", required=True),
        Column("value", "float64", "the metric, per occasion"),
        Column("control_value", "float64", "the metric of the control"),
        Column("lift", "float64", "value - control_value"),
        Column(
            "lift_low",
            "float64",
            "lower end of the interval that holds the true lift in 95 % of cases: of a holdout on all days together, of an "
            "experiment of several variants for all of them together",
        ),
        Column("lift_high", "float64", "upper end of that interval"),
        Column("relative", "float64", "lift ÷ control_value"),
        Column("verdict", "string", "better, worse or cannot tell yet", required=True),
        Column("note", "string", "why it cannot be told yet"),
        Column(
            "minimum_detectable_effect",
            "float64",
            "least rise over the control that so many people show with a chance of 80 %",
        ),
        Column(
            "people_needed",
            "int64",
            "people, in both groups, to see the rise that is worth seeing (a setting); of an experiment the registered ones",
        ),
    ),
    ("campaign", "comparison", "variant", "metric"),
)

#: Every table of the room, in reading order.
TABLES = (ASSIGNMENTS, CAMPAIGN_EFFECTS)

"""Suites on the profiles: contact data is clean, and nobody is two people."""

from shopauto_pipelines.platform.dagster.checks import suite_check
from shopauto_pipelines.platform.quality import Expect, Suite
from shopauto_pipelines.profiles import tables

SUITES = (
    Suite.of(tables.CLAIMS),
    Suite.of(tables.IDENTITIES),
    Suite.of(tables.ATTRIBUTES),
    Suite.of(
        tables.CONSENT,
        Expect("ExpectColumnValuesToBeInSet", "channel", {"value_set": ["email", "sms", "push"]}),
        Expect("ExpectColumnValuesToBeInSet", "state", {"value_set": ["pending", "opted_in", "opted_out"]}),
    ),
    Suite.of(
        tables.CUSTOMERS,
        Expect("ExpectColumnValuesToMatchRegex", "email", {"regex": r"^[^@\s]+@[^@\s]+\.[^@\s]+$"}),
        Expect("ExpectColumnValuesToMatchRegex", "phone", {"regex": r"^\+[1-9]\d{6,14}$"}),
        Expect("ExpectColumnValuesToMatchRegex", "country", {"regex": r"^[A-Z]{2}$"}),
        Expect("ExpectColumnValuesToBeInSet", "gender", {"value_set": ["female", "male", "other"]}),
        Expect("ExpectColumnValuesToBeBetween", "shop_ids", {"min_value": 1}),
        Expect("ExpectColumnValuesToBeBetween", "people", {"min_value": 1}, fact=True),
        facts=lambda rows: {"people": rows.count()},
    ),
)

CHECKS = [suite_check(suite) for suite in SUITES]

"""Tables of the profiles room. Private data of customers lives here and in raw, nowhere else."""

from __future__ import annotations

from shopauto_pipelines.platform.tables import Column, Table

CUSTOMER_ID = Column(
    "customer_id", "string", "the person: the earliest shop id of all that belong together", required=True
)
SHOP_CUSTOMER_ID = Column("shop_customer_id", "string", "the shop's own customer id", required=True)

CLAIMS = Table(
    "profiles/claims",
    "What a source claims about a customer, one row per field, cleaned, with source and time.",
    (
        SHOP_CUSTOMER_ID,
        Column(
            "field",
            "string",
            "email, phone, first_name, last_name, gender, birthday, country, city, language, time_zone or created_on",
            required=True,
        ),
        Column("value", "string", "the cleaned value; null where it could not be used", private=True),
        Column("kind", "string", "declared or inferred", required=True),
        Column("source", "string", "source that said so; for inferred values what it was inferred from", required=True),
        Column("at", "timestamp(6)", "when it was said, UTC", required=True),
        Column("problem", "string", "why the value was not usable, e.g. `not an e-mail address`"),
    ),
    ("shop_customer_id", "field", "kind", "at", "source"),
    partition="day",
)
IDENTITIES = Table(
    "profiles/identities",
    "Which shop ids are one person: by shop id, e-mail or phone, under a versioned rule set.",
    (
        SHOP_CUSTOMER_ID,
        CUSTOMER_ID,
        Column("rule", "string", "what joined this shop id to the person: shop_id, email or phone", required=True),
        Column("rules_version", "int64", "version of the merge rules", required=True),
    ),
    ("shop_customer_id",),
)
ATTRIBUTES = Table(
    "profiles/attributes",
    "The value in force of every field of a person, with where it comes from; declared beats inferred, then the latest.",
    (
        CUSTOMER_ID,
        Column("field", "string", "field, as in `profiles/claims`", required=True),
        Column("value", "string", "the value in force", required=True, private=True),
        Column("kind", "string", "declared or inferred", required=True),
        Column("source", "string", "source that said so", required=True),
        Column("at", "timestamp(6)", "when it was said, UTC", required=True),
    ),
    ("customer_id", "field"),
)
CONSENT = Table(
    "profiles/consent",
    "Consent in force per person and channel. No row means never asked: no marketing is sent.",
    (
        CUSTOMER_ID,
        Column("channel", "string", "email, sms or push", required=True),
        Column("state", "string", "pending, opted_in or opted_out", required=True),
        Column("source", "string", "source of the latest change; `unsubscribe` for one in a message", required=True),
        Column("wording", "string", "the words agreed to"),
        Column("at", "timestamp(6)", "time of the latest change, UTC", required=True),
        Column("refused_topics", "string", "topics that the person does not want, in order, a comma between them"),
    ),
    ("customer_id", "channel"),
)
CUSTOMERS = Table(
    "profiles/customers",
    "One row per person: contact, demographics and consent in force.",
    (
        CUSTOMER_ID,
        Column("email", "string", "normalised e-mail", private=True),
        Column("phone", "string", "phone in E.164", private=True),
        Column("first_name", "string", "given name", private=True),
        Column("last_name", "string", "family name", private=True),
        Column("gender", "string", "female, male or other"),
        Column("birthday", "date", "date of birth", private=True),
        Column("country", "string", "ISO 3166-1 alpha-2"),
        Column("city", "string", "city"),
        Column("language", "string", "language tag, declared or inferred from the country"),
        Column("time_zone", "string", "IANA time zone, inferred from the country"),
        Column("created_on", "date", "day the first account was created"),
        Column("shop_ids", "int64", "how many shop ids belong to the person", required=True),
        Column("email_consent", "string", "consent in force for e-mail; null: never asked"),
        Column("sms_consent", "string", "consent in force for SMS; null: never asked"),
    ),
    ("customer_id",),
)

#: Every table of the room, in reading order.
TABLES = (CLAIMS, IDENTITIES, ATTRIBUTES, CONSENT, CUSTOMERS)

"""The canonical raw tables: append-only change logs, partitioned by the day the row changed or happened.

Every raw table ends in the three lineage columns of ``LINEAGE``, so that a decision can name the file and line it rests on.
Money is in minor units (cents) as integers: sums are exact and the same in any order. Times are UTC.
"""

from __future__ import annotations

from shopauto_pipelines.platform.tables import Column, Table

LINEAGE = (
    Column("source", "string", "name of the source that delivered the row", required=True),
    Column("source_file", "string", "file name, or database table, the row came from", required=True),
    Column(
        "source_row",
        "int64",
        "1-based data row in that file, the header not counted; of a database table the primary key",
        required=True,
    ),
)


def _raw(name: str, description: str, key: tuple[str, ...], *columns: Column) -> Table:
    return Table(f"raw/{name}", description, (*columns, *LINEAGE), key, partition="day")


CUSTOMERS = _raw(
    "customers",
    "Every change of a customer record in the shop; the row holds the whole record as of the change.",
    ("shop_customer_id", "changed_at"),
    Column(
        "shop_customer_id",
        "string",
        "the shop's own customer id; guests are `guest:<hash of the e-mail>`",
        required=True,
    ),
    Column("changed_at", "timestamp(6)", "when the record changed, UTC", required=True),
    Column("created_at", "timestamp(6)", "when the account was created, UTC"),
    Column("email", "string", "e-mail as typed", private=True),
    Column("phone", "string", "phone as typed", private=True),
    Column("first_name", "string", "given name", private=True),
    Column("last_name", "string", "family name", private=True),
    Column("gender", "string", "as declared"),
    Column("birthday", "date", "date of birth", private=True),
    Column("country", "string", "country as the shop writes it: ISO code or English name"),
    Column("city", "string", "city"),
    Column("language", "string", "language tag, e.g. `en` or `pt-BR`"),
)
CONSENTS = _raw(
    "consents",
    "Every change of a marketing consent, per channel.",
    ("shop_customer_id", "channel", "changed_at"),
    Column("shop_customer_id", "string", "the shop's own customer id", required=True),
    Column("channel", "string", "email, sms or push", required=True),
    Column("state", "string", "pending (double opt-in not confirmed), opted_in or opted_out", required=True),
    Column("wording", "string", "the words the customer agreed to, or where"),
    Column("changed_at", "timestamp(6)", "when it changed, UTC", required=True),
)
TOPIC_CHOICES = _raw(
    "topic_choices",
    "Every choice about one topic of messages, per channel: what a person does not want although they get others.",
    ("shop_customer_id", "channel", "topic", "changed_at"),
    Column("shop_customer_id", "string", "the shop's own customer id", required=True),
    Column("channel", "string", "email or sms", required=True),
    Column("topic", "string", "topic of campaigns", required=True),
    Column("state", "string", "opted_in or opted_out", required=True),
    Column("changed_at", "timestamp(6)", "when it changed, UTC", required=True),
)
PRODUCTS = _raw(
    "products",
    "Every change of a product; the row holds the whole product as of the change.",
    ("product_id", "changed_at"),
    Column("product_id", "string", "the shop's product id", required=True),
    Column("changed_at", "timestamp(6)", "when the product changed, UTC", required=True),
    Column("name", "string", "name"),
    Column("category", "string", "main category"),
    Column("price_cents", "int64", "list price, minor units"),
    Column("cost_cents", "int64", "unit cost, minor units"),
)
ORDERS = _raw(
    "orders",
    "Paid orders, one row each. Cancellations and returns are in `raw/refunds`.",
    ("order_id",),
    Column("order_id", "string", "the shop's order id", required=True),
    Column("ordered_at", "timestamp(6)", "when it was placed, UTC", required=True),
    Column("shop_customer_id", "string", "who ordered; null for an anonymous sale"),
    Column("email", "string", "e-mail given at a guest checkout", private=True),
    Column("currency", "string", "ISO 4217 code"),
    Column("total_cents", "int64", "what was paid, minor units, after discounts, with shipping", required=True),
    Column("discount_cents", "int64", "discount included in the total, minor units"),
    Column("shipping_cents", "int64", "shipping included in the total, minor units"),
    Column("coupon_code", "string", "coupon that was used"),
    Column("cart_id", "string", "cart the order came from"),
)
ORDER_LINES = _raw(
    "order_lines",
    "Lines of paid orders. `kind` separates goods from postage, fees, discounts and book-keeping.",
    ("order_id", "line_number"),
    Column("order_id", "string", "the order", required=True),
    Column("line_number", "int64", "1-based line within the order", required=True),
    Column("ordered_at", "timestamp(6)", "when the order was placed, UTC", required=True),
    Column("shop_customer_id", "string", "who ordered; null for an anonymous sale"),
    Column("product_id", "string", "what was bought"),
    Column("kind", "string", "product, shipping, fee, discount, gift_card or adjustment", required=True),
    Column("quantity", "int64", "pieces", required=True),
    Column("unit_price_cents", "int64", "price of a piece, minor units"),
    Column("amount_cents", "int64", "quantity × unit price, rounded once, minor units", required=True),
)
REFUNDS = _raw(
    "refunds",
    "Refunds, returns and cancellations, one row per refunded line.",
    ("refund_id",),
    Column("refund_id", "string", "the shop's refund id", required=True),
    Column("refunded_at", "timestamp(6)", "when, UTC", required=True),
    Column("order_id", "string", "the order it belongs to, where the shop says so"),
    Column("shop_customer_id", "string", "who was refunded"),
    Column("product_id", "string", "what came back"),
    Column("kind", "string", "product, shipping, fee, discount, gift_card or adjustment"),
    Column("quantity", "int64", "pieces, positive"),
    Column("amount_cents", "int64", "refunded amount, minor units, positive", required=True),
    Column("reason", "string", "reason given"),
)
EVENTS = _raw(
    "events",
    "What visitors do in the shop: pages, searches, products, carts, logins; and what they ask its support.",
    ("event_id",),
    Column("event_id", "string", "unique id of the event", required=True),
    Column("happened_at", "timestamp(6)", "when, UTC", required=True),
    Column(
        "type",
        "string",
        "page_view, search, product_view, add_to_cart, remove_from_cart, checkout_started, login, ticket_opened or ticket_closed",
        required=True,
    ),
    Column("shop_customer_id", "string", "known visitor"),
    Column("anonymous_id", "string", "browser id of an unknown visitor"),
    Column("session_id", "string", "visit the event belongs to"),
    Column("cart_id", "string", "cart the event belongs to"),
    Column("product_id", "string", "product seen or put in the cart"),
    Column("quantity", "int64", "pieces put in or taken out"),
    Column("url", "string", "page"),
)
MESSAGE_EVENTS = _raw(
    "message_events",
    "What became of the messages: sent, delivered, opened, clicked, bounced, unsubscribed, complained.",
    ("event_id",),
    Column("event_id", "string", "unique id of the event", required=True),
    Column("happened_at", "timestamp(6)", "when, UTC", required=True),
    Column(
        "type", "string", "sent, delivered, open, click, bounce, dropped, unsubscribe or spam_report", required=True
    ),
    Column("message_id", "string", "message the event belongs to"),
    Column("shop_customer_id", "string", "recipient"),
    Column("channel", "string", "email, sms or push"),
    Column("campaign", "string", "campaign the message belongs to"),
    Column("is_machine", "boolean", "true where a mail proxy, not a person, opened it"),
)
FORM_SUBMISSIONS = _raw(
    "form_submissions",
    "Forms filled in on the site and on landing pages.",
    ("submission_id",),
    Column("submission_id", "string", "unique id", required=True),
    Column("submitted_at", "timestamp(6)", "when, UTC", required=True),
    Column("form", "string", "name of the form", required=True),
    Column("email", "string", "e-mail typed", private=True),
    Column("shop_customer_id", "string", "known customer"),
    Column("fields", "string", "all fields as JSON", private=True),
    Column("utm_source", "string", "UTM source"),
    Column("utm_medium", "string", "UTM medium"),
    Column("utm_campaign", "string", "UTM campaign"),
)
SURVEY_ANSWERS = _raw(
    "survey_answers",
    "Answers to surveys, one row per question.",
    ("answer_id",),
    Column("answer_id", "string", "unique id", required=True),
    Column("answered_at", "timestamp(6)", "when, UTC", required=True),
    Column("survey", "string", "name of the survey", required=True),
    Column("question", "string", "the question", required=True),
    Column("shop_customer_id", "string", "who answered"),
    Column("score", "float64", "numeric answer"),
    Column("answer", "string", "free text", private=True),
)
AD_SPEND = _raw(
    "ad_spend",
    "Advertising cost by channel and campaign.",
    ("channel", "campaign", "spent_at"),
    Column("channel", "string", "advertising channel", required=True),
    Column("campaign", "string", "campaign name there", required=True),
    Column("spent_at", "timestamp(6)", "start of the period, UTC", required=True),
    Column("amount_cents", "int64", "spend, minor units", required=True),
    Column("impressions", "int64", "impressions"),
    Column("clicks", "int64", "clicks"),
)
STOCK_LEVELS = _raw(
    "stock_levels",
    "Stock on hand after each change.",
    ("product_id", "warehouse", "changed_at"),
    Column("product_id", "string", "product", required=True),
    Column("warehouse", "string", "warehouse", required=True),
    Column("changed_at", "timestamp(6)", "when, UTC", required=True),
    Column("quantity", "int64", "pieces on hand", required=True),
)

#: Every canonical table, in reading order.
RAW_TABLES = (
    CUSTOMERS,
    CONSENTS,
    PRODUCTS,
    ORDERS,
    ORDER_LINES,
    REFUNDS,
    EVENTS,
    MESSAGE_EVENTS,
    FORM_SUBMISSIONS,
    SURVEY_ANSWERS,
    AD_SPEND,
    STOCK_LEVELS,
    TOPIC_CHOICES,
)

#: Tables the rooms after this one read: their assets exist whether or not a source feeds them.
CORE_TABLES = RAW_TABLES[:8]

#: Tables whose rows may come in through the collector, too.
COLLECTED_TABLES = (CUSTOMERS, CONSENTS, ORDERS, ORDER_LINES, REFUNDS, EVENTS, FORM_SUBMISSIONS)

#: Time column of each table, which decides the partition day.
TIME_COLUMN = {
    "raw/customers": "changed_at",
    "raw/consents": "changed_at",
    "raw/topic_choices": "changed_at",
    "raw/products": "changed_at",
    "raw/orders": "ordered_at",
    "raw/order_lines": "ordered_at",
    "raw/refunds": "refunded_at",
    "raw/events": "happened_at",
    "raw/message_events": "happened_at",
    "raw/form_submissions": "submitted_at",
    "raw/survey_answers": "answered_at",
    "raw/ad_spend": "spent_at",
    "raw/stock_levels": "changed_at",
}

QUARANTINE = Table(
    "raw/quarantine",
    "Rows that could not be loaded, each with its reason. Loaded and quarantined rows together are the file's rows.",
    (
        Column("table", "string", "canonical table the row was meant for", required=True),
        Column("source", "string", "source that delivered it", required=True),
        Column("source_file", "string", "file name", required=True),
        Column("source_row", "int64", "1-based data row in the file, the header not counted", required=True),
        Column("column", "string", "column at fault, where one is"),
        Column("reason", "string", "why the row was refused", required=True),
        Column("raw_value", "string", "the value as delivered, at most 200 characters", private=True),
    ),
    ("table", "source", "source_file", "source_row", "reason"),
    partition="day",
)

#: Columns that hold one of a few words; a row with another word is quarantined.
ALLOWED_VALUES: dict[tuple[str, str], tuple[str, ...]] = {
    ("raw/consents", "channel"): ("email", "sms", "push"),
    ("raw/consents", "state"): ("pending", "opted_in", "opted_out"),
    ("raw/topic_choices", "channel"): ("email", "sms"),
    ("raw/topic_choices", "state"): ("opted_in", "opted_out"),
    ("raw/order_lines", "kind"): ("product", "shipping", "fee", "discount", "gift_card", "adjustment"),
    ("raw/refunds", "kind"): ("product", "shipping", "fee", "discount", "gift_card", "adjustment"),
    ("raw/events", "type"): (
        "page_view",
        "search",
        "product_view",
        "add_to_cart",
        "remove_from_cart",
        "checkout_started",
        "login",
        "ticket_opened",
        "ticket_closed",
    ),
    ("raw/message_events", "type"): (
        "sent",
        "delivered",
        "open",
        "click",
        "bounce",
        "dropped",
        "unsubscribe",
        "spam_report",
    ),
    ("raw/message_events", "channel"): ("email", "sms", "push", "onsite"),
}

#: Columns whose rows are quarantined where the number is below zero.
NEVER_NEGATIVE: frozenset[tuple[str, str]] = frozenset(
    {
        ("raw/products", "price_cents"),
        ("raw/products", "cost_cents"),
        ("raw/orders", "total_cents"),
        ("raw/orders", "discount_cents"),
        ("raw/order_lines", "quantity"),
        ("raw/refunds", "amount_cents"),
        ("raw/refunds", "quantity"),
        ("raw/events", "quantity"),
    }
)

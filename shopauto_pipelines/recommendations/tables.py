"""Tables of the recommendations room: what to show to whom, what goes with what, what will be needed again, what is missing."""

from __future__ import annotations

from shopauto_pipelines.platform.tables import Column, Table
from shopauto_pipelines.profiles.tables import CUSTOMER_ID

_PRODUCT_ID = Column("product_id", "string", "product", required=True)

PRODUCTS = Table(
    "recommendations/products",
    "Every product with its sales as of the day: on sale and in stock, how often its owners buy it again, how long it lasts.",
    (
        _PRODUCT_ID,
        Column("name", "string", "name as last delivered"),
        Column("category", "string", "category as last delivered"),
        Column("price_cents", "int64", "list price, minor units"),
        Column("available", "boolean", "on sale and not out of stock: may be recommended", required=True),
        Column("stock", "int64", "pieces on hand over all warehouses; null: the shop does not say"),
        Column("buyers", "int64", "people who bought it", required=True),
        Column("buyers_90d", "int64", "people who bought it in the last 90 days", required=True),
        Column("repurchases", "int64", "later order days on which an owner bought it again", required=True),
        Column("repurchases_per_year", "float64", "of an owner who still orders, per year, shrunk to the category's"),
        Column("durable", "boolean", "owners hardly ever buy it again: not recommended to them", required=True),
        Column("category_durable", "boolean", "the same holds for its whole category", required=True),
        Column("replacement_days", "int64", "age at which an owned durable may be recommended again, days"),
        Column("durable_basis", "string", "why it is durable: `declared`, `category` or `product`"),
        Column("days_per_piece", "float64", "days one piece lasts; null: not bought again often enough to tell"),
        Column(
            "pieces_per_purchase", "float64", "pieces bought at a time by those who buy it again; null with the days"
        ),
    ),
    ("product_id",),
)
COMPLEMENTS = Table(
    "recommendations/complements",
    "What people buy with a product or within 30 days after it, more often than after anything else; never substitutes.",
    (
        _PRODUCT_ID,
        Column("complement_id", "string", "product that goes with it", required=True),
        Column("rank", "int64", "1 is the strongest complement of the product", required=True),
        Column("triggers", "int64", "order days with the product", required=True),
        Column("pairs", "int64", "of these, followed by the complement within the window, or with it", required=True),
        Column("support", "float64", "pairs per order day of the shop", required=True),
        Column("confidence", "float64", "pairs per trigger, shrunk to what is expected", required=True),
        Column("confidence_low", "float64", "lower end of its 99 % interval (Wilson)", required=True),
        Column("confidence_high", "float64", "upper end of its 99 % interval (Wilson)", required=True),
        Column("lift", "float64", "confidence over what is expected after any order, shrunk to 1", required=True),
        Column("lift_low", "float64", "lower end of the lift's 99 % interval", required=True),
    ),
    ("product_id", "complement_id"),
)
RELATED_PRODUCTS = Table(
    "recommendations/related_products",
    "Products that the same people buy and view: the neighbours recommendations are found by. Substitutes are among them.",
    (
        _PRODUCT_ID,
        Column("related_id", "string", "product that the same people take to", required=True),
        Column("rank", "int64", "1 is the nearest", required=True),
        Column("people", "int64", "people who have bought or viewed both", required=True),
        Column("similarity", "float64", "cosine of the two sets of people, shrunk: 0 to 1", required=True),
    ),
    ("product_id", "related_id"),
)
CUSTOMER_PRODUCTS = Table(
    "recommendations/customer_products",
    "Products to recommend to each person who has bought or viewed any, best first, each with its reason.",
    (
        CUSTOMER_ID,
        Column("rank", "int64", "1 is the best", required=True),
        _PRODUCT_ID,
        Column("score", "float64", "strength, comparable between the products of a person only", required=True),
        Column(
            "reason",
            "string",
            "bought_before, viewed, bought_together, popular_in_category or popular: the first that holds",
            required=True,
        ),
        Column("because_product_id", "string", "product the reason rests on, for `bought_together`"),
        Column("why", "string", "the reason in words", required=True),
    ),
    ("customer_id", "rank"),
)
CUSTOMER_COMPLEMENTS = Table(
    "recommendations/customer_complements",
    "What goes with each person's latest purchase and is not owned yet, best first.",
    (
        CUSTOMER_ID,
        Column("rank", "int64", "1 is the best", required=True),
        Column("product_id", "string", "complement to recommend", required=True),
        Column("bought_product_id", "string", "what was bought", required=True),
        Column("bought_on", "date", "day of the latest purchase", required=True),
        Column("lift", "float64", "lift of the pair", required=True),
        Column("confidence", "float64", "share of the buyers of the one who take the other", required=True),
        Column("why", "string", "the reason in words", required=True),
    ),
    ("customer_id", "rank"),
)
NEXT_CATEGORIES = Table(
    "recommendations/next_categories",
    "The categories a person is most likely to buy from next, with probabilities; all categories of a person sum to 1.",
    (
        CUSTOMER_ID,
        Column("rank", "int64", "1 is the most likely", required=True),
        Column("category", "string", "category", required=True),
        Column("probability", "float64", "that the next product bought is of the category", required=True),
    ),
    ("customer_id", "rank"),
)
REPLENISHMENT = Table(
    "recommendations/replenishment",
    "When each person's pack of a product that is bought again and again will be used up. A re-order begins it anew.",
    (
        CUSTOMER_ID,
        _PRODUCT_ID,
        Column("last_bought_on", "date", "day of the latest purchase", required=True),
        Column("quantity", "int64", "pieces bought that day", required=True),
        Column("purchases", "int64", "order days of the person with the product", required=True),
        Column(
            "days_per_piece", "float64", "how long a piece lasts this person, shrunk to the product's", required=True
        ),
        Column("due_on", "date", "when to remind: some days before it is used up", required=True),
        Column("used_up_on", "date", "when it is expected to be used up", required=True),
        Column("state", "string", "waiting, due, or overdue: used up and not bought again", required=True),
        Column("why", "string", "the reason in words", required=True),
    ),
    ("customer_id", "product_id"),
)
CATALOGUE_GAPS = Table(
    "recommendations/catalogue_gaps",
    "What people look for and do not find: candidates for dropshipping, with the evidence of the last 90 days.",
    (
        Column(
            "kind",
            "string",
            "search: a term that leads to no product; out_of_stock or not_on_sale: a product that is viewed, or goes with "
            "what is bought, and cannot be had",
            required=True,
        ),
        Column("subject", "string", "the search term, or the product id", required=True),
        Column("category", "string", "category of the product"),
        Column("people", "int64", "people or visitors who looked for it", required=True),
        Column("demand", "int64", "searches, or views and purchases of what it goes with", required=True),
        Column("unmet", "int64", "of these, the ones that led to no product", required=True),
        Column("unmet_share_low", "float64", "unmet ÷ demand, lower end of its 95 % interval (Wilson)", required=True),
        Column("because_product_id", "string", "the product it complements most, where it is one"),
        Column("why", "string", "the evidence in words", required=True),
    ),
    ("kind", "subject"),
)
CATEGORY_TRENDS = Table(
    "recommendations/category_trends",
    "Demand of each category by week, and the trend of the 8 weeks that end with it against the same weeks a year before.",
    (
        Column("category", "string", "category", required=True),
        Column("week_on", "date", "Monday the week begins with; complete weeks only", required=True),
        Column("units", "int64", "pieces bought in the week", required=True),
        Column("revenue_cents", "int64", "paid for them, minor units", required=True),
        Column("units_year_ago", "int64", "pieces in the same week a year before; null: not known"),
        Column("units_8w", "int64", "pieces in the 8 weeks that end with it", required=True),
        Column(
            "basis",
            "string",
            "what the trend compares with: `year_ago`, the same weeks a year before; `previous_weeks`, the 8 weeks before, "
            "as a share of the whole shop's, where there is no such year; null: too early",
        ),
        Column("change_percent", "float64", "units against the basis, percent"),
        Column("change_low_percent", "float64", "lower end of its 80 % interval, percent"),
        Column("change_high_percent", "float64", "upper end of its 80 % interval, percent"),
        Column("trend", "string", "rising, falling, steady (the interval holds 0) or unknown", required=True),
    ),
    ("category", "week_on"),
)

#: Every table of the room, in reading order.
TABLES = (
    PRODUCTS,
    COMPLEMENTS,
    RELATED_PRODUCTS,
    CUSTOMER_PRODUCTS,
    CUSTOMER_COMPLEMENTS,
    NEXT_CATEGORIES,
    REPLENISHMENT,
    CATALOGUE_GAPS,
    CATEGORY_TRENDS,
)

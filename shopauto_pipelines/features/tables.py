"""Tables of the features room: daily rollups per shop customer, features as of a day, and the 360° view of both."""

from __future__ import annotations

from shopauto_pipelines.platform.tables import Column, Table
from shopauto_pipelines.profiles import tables as profiles

_WHO = profiles.SHOP_CUSTOMER_ID

DAILY_ACTIVITY = Table(
    "features/daily_activity",
    "What each shop customer did on the day. Sums over days are exact, so any window is a sum of these rows.",
    (
        _WHO,
        Column("orders", "int64", "orders placed", required=True),
        Column("items", "int64", "pieces of goods bought", required=True),
        Column("revenue_cents", "int64", "order totals, minor units", required=True),
        Column("discount_cents", "int64", "discounts given, minor units", required=True),
        Column("coupon_orders", "int64", "orders with a coupon", required=True),
        Column("refunds", "int64", "refunded lines", required=True),
        Column("refund_cents", "int64", "refunded, minor units", required=True),
        Column("visits", "int64", "sessions with an event on the day", required=True),
        Column("page_views", "int64", "pages seen, product pages included", required=True),
        Column("product_views", "int64", "product pages seen", required=True),
        Column("searches", "int64", "searches", required=True),
        Column("seconds_on_site", "int64", "last minus first event, summed over sessions, seconds", required=True),
        Column("emails_sent", "int64", "e-mails sent, marketing or not", required=True),
        Column("opens", "int64", "opens by people", required=True),
        Column("machine_opens", "int64", "opens by mail proxies", required=True),
        Column("clicks", "int64", "clicks", required=True),
        Column("sms_sent", "int64", "SMS sent", required=True),
        Column("sms_clicks", "int64", "clicks in SMS", required=True),
        Column("tickets_opened", "int64", "times the shop's support was asked for help", required=True),
        Column("tickets_closed", "int64", "times it said that the matter is settled", required=True),
        Column("tickets_left_open", "int64", "1: the day's last word on a ticket was a question", required=True),
    ),
    ("shop_customer_id",),
    partition="day",
)
DAILY_PRODUCTS = Table(
    "features/daily_products",
    "What each shop customer bought, viewed and put into a cart on the day, per product.",
    (
        _WHO,
        Column("product_id", "string", "product", required=True),
        Column("category", "string", "its category as known that day"),
        Column("orders", "int64", "orders with the product", required=True),
        Column("quantity", "int64", "pieces bought", required=True),
        Column("revenue_cents", "int64", "paid for it, minor units", required=True),
        Column("views", "int64", "product page views", required=True),
        Column("carted", "int64", "times put into a cart", required=True),
    ),
    ("shop_customer_id", "product_id"),
    partition="day",
)
DAILY_CARTS = Table(
    "features/daily_carts",
    "What happened to each cart on the day.",
    (
        Column("cart_id", "string", "cart", required=True),
        _WHO,
        Column("first_at", "timestamp(6)", "first cart event of the day, UTC"),
        Column("last_at", "timestamp(6)", "last cart event of the day, UTC"),
        Column(
            "longest_pause_seconds",
            "int64",
            "longest time on the day from a cart event to the next or to the order, seconds",
            required=True,
        ),
        Column("items_added", "int64", "pieces put in minus taken out", required=True),
        Column("ordered_at", "timestamp(6)", "when an order took the cart, UTC"),
        Column("coupon", "boolean", "that order used a coupon", required=True),
    ),
    ("cart_id", "shop_customer_id"),
    partition="day",
)
DAILY_HOURS = Table(
    "features/daily_hours",
    "At which quarter of an hour each shop customer ordered, began a visit, opened or clicked on the day.",
    (
        _WHO,
        Column("at", "timestamp(6)", "beginning of the quarter of an hour, UTC", required=True),
        Column("signs", "int64", "orders, visits begun, messages opened and clicks of people", required=True),
    ),
    ("shop_customer_id", "at"),
    partition="day",
)
DAILY_MESSAGES = Table(
    "features/daily_messages",
    "What each shop customer got and did with it on the day, per channel and campaign.",
    (
        _WHO,
        Column("channel", "string", "email, sms, push or onsite"),
        Column("campaign", "string", "campaign; null where the message belongs to none"),
        Column("sent", "int64", "messages sent", required=True),
        Column("opens", "int64", "opens by people", required=True),
        Column("clicks", "int64", "clicks by people", required=True),
    ),
    ("shop_customer_id", "channel", "campaign"),
    partition="day",
)
DAILY_FORMS = Table(
    "features/daily_forms",
    "Forms each shop customer filled in on the day.",
    (
        _WHO,
        Column("form", "string", "name of the form", required=True),
        Column("submissions", "int64", "times it was sent in", required=True),
    ),
    ("shop_customer_id", "form"),
    partition="day",
)

CUSTOMER_FEATURES = Table(
    "features/customer_features",
    "Behaviour of each person as of the day; nothing from the future.",
    (
        profiles.CUSTOMER_ID,
        Column("first_order_on", "date", "day of the first order"),
        Column("last_order_on", "date", "day of the last order"),
        Column("recency_days", "int64", "days since the last order"),
        Column("tenure_days", "int64", "days since the first order"),
        Column("orders", "int64", "order days so far: orders on one day count once", required=True),
        Column("orders_30d", "int64", "order days in the last 30 days", required=True),
        Column("orders_90d", "int64", "order days in the last 90 days", required=True),
        Column("orders_365d", "int64", "order days in the last 365 days", required=True),
        Column("orders_weighted_30d", "float64", "order days so far, each half as much for every 30 days of its age"),
        Column("orders_weighted_120d", "float64", "order days so far, each half as much for every 120 days of its age"),
        Column("orders_weighted_240d", "float64", "order days so far, each half as much for every 240 days of its age"),
        Column("revenue_cents", "int64", "order totals so far, minor units", required=True),
        Column("revenue_cents_30d", "int64", "order totals of the last 30 days, minor units", required=True),
        Column("revenue_cents_90d", "int64", "order totals of the last 90 days, minor units", required=True),
        Column("revenue_cents_365d", "int64", "order totals of the last 365 days, minor units", required=True),
        Column("refund_cents", "int64", "refunded so far, minor units", required=True),
        Column("average_order_cents", "int64", "revenue ÷ order days, rounded, minor units"),
        Column("typical_order_cents", "int64", "geometric mean of the totals of order days, minor units"),
        Column("first_order_cents", "int64", "total of the first order day, minor units"),
        Column("last_order_cents", "int64", "total of the last order day, minor units"),
        Column("items_365d", "int64", "pieces bought in the last 365 days", required=True),
        Column("coupon_orders_365d", "int64", "orders with a coupon in the last 365 days", required=True),
        Column(
            "mean_interval_days", "float64", "mean days between order days; one-order customers: their cohort's median"
        ),
        Column("interval_imputed", "boolean", "true where the interval is the cohort's"),
        Column("last_interval_days", "int64", "days between the last two order days; null with one"),
        Column("interval_variation", "float64", "standard deviation ÷ mean of the intervals; null with one order day"),
        Column("churn_factor", "float64", "recency ÷ mean interval: 30 days since, mean 30 → 1.0"),
        Column("visits_30d", "int64", "visits in the last 30 days", required=True),
        Column("visits_90d", "int64", "visits in the last 90 days", required=True),
        Column("visits_365d", "int64", "visits in the last 365 days", required=True),
        Column("page_views_90d", "int64", "pages seen in the last 90 days", required=True),
        Column("product_views_30d", "int64", "product pages seen in the last 30 days", required=True),
        Column("product_views_90d", "int64", "product pages seen in the last 90 days", required=True),
        Column("pages_per_visit_90d", "float64", "visit depth over the last 90 days"),
        Column("seconds_on_site_90d", "int64", "time on site in the last 90 days, seconds", required=True),
        Column("last_visit_on", "date", "day of the last visit"),
        Column(
            "favourite_category",
            "string",
            "recency-weighted by amount bought (half-life 180 days); ties: first in the alphabet",
        ),
        Column("favourite_product_id", "string", "recency-weighted by pieces bought; ties: first in the alphabet"),
        Column(
            "favourite_category_order_cents", "int64", "own mean spend per order in the favourite category, minor units"
        ),
        Column(
            "category_average_order_cents", "int64", "all customers' mean spend per order in that category, minor units"
        ),
        Column("carts_started_365d", "int64", "carts started in the last 365 days", required=True),
        Column(
            "carts_abandoned_365d",
            "int64",
            "carts left for the threshold or longer in the last 365 days",
            required=True,
        ),
        Column(
            "carts_recovered_with_coupon_365d",
            "int64",
            "abandoned carts that were then bought with a coupon",
            required=True,
        ),
        Column(
            "discount_seeker",
            "boolean",
            "at least 2 abandoned carts were then bought with a coupon, and half or more of a year's orders used one",
            required=True,
        ),
        Column("emails_sent_90d", "int64", "e-mails sent in the last 90 days, marketing or not", required=True),
        Column("opens_90d", "int64", "opens by people in the last 90 days", required=True),
        Column("machine_opens_90d", "int64", "opens by mail proxies in the last 90 days", required=True),
        Column("clicks_90d", "int64", "e-mail clicks in the last 90 days", required=True),
        Column("sms_sent_90d", "int64", "SMS sent in the last 90 days", required=True),
        Column("sms_clicks_90d", "int64", "SMS clicks in the last 90 days", required=True),
        Column("last_click_on", "date", "day of the last click"),
        Column("last_ticket_on", "date", "day the shop's support was last asked for help"),
        Column(
            "ticket_open",
            "boolean",
            "asked for help within the last 14 days, and nobody has settled it since",
            required=True,
        ),
    ),
    ("customer_id",),
)

INTERESTS = Table(
    "features/interests",
    "The categories each person is interested in, the strongest first, by what they bought, put into a cart or viewed in the "
    "last 365 days; with the evidence.",
    (
        profiles.CUSTOMER_ID,
        Column("category", "string", "category", required=True),
        Column("rank", "int64", "1 is the strongest; ties: first in the alphabet", required=True),
        Column(
            "score",
            "float64",
            "0 to 1: each product bought today halves what is missing to 1; one put into a cart counts 0.3 of it, viewed 0.1; "
            "half as much for every 90 days",
            required=True,
        ),
        Column("purchases", "int64", "products bought, each counted once a day", required=True),
        Column("carted", "int64", "products put into a cart, each counted once a day", required=True),
        Column("views", "int64", "product pages seen", required=True),
        Column("revenue_cents", "int64", "paid for products of the category, minor units", required=True),
        Column("last_bought_on", "date", "day of the last purchase"),
        Column("last_carted_on", "date", "day something was last put into a cart"),
        Column("last_viewed_on", "date", "day a product was last viewed"),
        Column("last_on", "date", "day of the last of these signs", required=True),
        Column("why", "string", "the evidence in words", required=True),
    ),
    ("customer_id", "category"),
)
CLUSTER_MODELS = Table(
    "features/cluster_models",
    "The behaviour clusters in force: who they are, and the centres that people are assigned by.",
    (
        Column("cluster", "string", "label, which stays from fit to fit", required=True),
        Column("fitted_on", "date", "day the clusters were fitted as of", required=True),
        Column("described", "string", "what sets it apart from the shop's median customer", required=True),
        Column("centre", "string", "its centre, JSON: value by trait (logarithms, shares)", required=True),
        Column("scale", "string", "median and spread of the traits, JSON: the same in every row", required=True),
    ),
    ("cluster",),
)
CLUSTERS = Table(
    "features/clusters",
    "The behaviour cluster of everybody with an order, by the nearest centre of the clusters in force.",
    (profiles.CUSTOMER_ID, Column("cluster", "string", "label of the cluster", required=True)),
    ("customer_id",),
)

_PROFILE = tuple(c for c in profiles.CUSTOMERS.columns)
LEADS = Table(
    "features/leads",
    "How far each person is on the way to the first order, and for those without one a score with its reasons.",
    (
        profiles.CUSTOMER_ID,
        Column(
            "stage",
            "string",
            "awareness (known), consideration (has looked at products, clicked or filled in a form), decision (a cart within "
            "30 days, or 60 points), customer (has ordered)",
            required=True,
        ),
        Column("score", "int64", "fit + intent, 0 to 100; null: has ordered"),
        Column("fit", "int64", "points for being like those who buy, 0 to 40"),
        Column("intent", "int64", "points for what was done lately, 0 to 60"),
        Column("why", "string", "the signs that hold, each with its points, in words"),
        Column("first_source", "string", "UTM source of the first form"),
        Column("first_medium", "string", "UTM medium of the first form"),
        Column("first_campaign", "string", "UTM campaign of the first form"),
        Column("last_form", "string", "form that was filled in last"),
        Column("last_form_on", "date", "day of it"),
    ),
    ("customer_id",),
)

CUSTOMER_360 = Table(
    "features/customer_360",
    "The 360° view: everything known about a person as of the day, profile and behaviour in one row.",
    (
        *_PROFILE,
        *CUSTOMER_FEATURES.columns[1:],
        Column(
            "top_interest",
            "string",
            "category of most interest, by what was bought, put into a cart or viewed in a year",
        ),
        Column(
            "cluster", "string", "label of the behaviour cluster; null: no order, or too few customers for clusters"
        ),
        Column(
            "best_hour",
            "int64",
            "hour of the day, 0 to 23 in their time zone, at which they most often open, click, visit or order; the shop's "
            "where they have done so too rarely to tell",
        ),
        Column("journey_stage", "string", "awareness, consideration, decision or customer, see `features/leads`"),
        Column("lead_score", "int64", "0 to 100, see `features/leads`; null: has ordered"),
    ),
    ("customer_id",),
)

#: Every table of the room, in reading order.
TABLES = (
    DAILY_ACTIVITY,
    DAILY_PRODUCTS,
    DAILY_CARTS,
    DAILY_MESSAGES,
    DAILY_FORMS,
    DAILY_HOURS,
    CUSTOMER_FEATURES,
    INTERESTS,
    CLUSTER_MODELS,
    CLUSTERS,
    LEADS,
    CUSTOMER_360,
)

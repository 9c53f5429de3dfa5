"""The room's assets: daily rollups, features as of a day, the 360° view. The logic is in the modules they call."""

from collections.abc import Callable

from shopauto_pipelines.features import customer_360 as view
from shopauto_pipelines.features import customer_features as behaviour
from shopauto_pipelines.features import rollups, tables
from shopauto_pipelines.platform.dagster.assets import lake_asset
from shopauto_pipelines.platform.dagster.resources import SettingsResource
from shopauto_pipelines.platform.lake import LakeTable
from shopauto_pipelines.profiles import tables as profiles
from shopauto_pipelines.sources import tables as raw


@lake_asset(
    tables.DAILY_ACTIVITY,
    ins={
        "orders": raw.ORDERS,
        "order_lines": raw.ORDER_LINES,
        "refunds": raw.REFUNDS,
        "events": raw.EVENTS,
        "message_events": raw.MESSAGE_EVENTS,
    },
)
def daily_activity(
    orders: LakeTable, order_lines: LakeTable, refunds: LakeTable, events: LakeTable, message_events: LakeTable
) -> Callable:
    """Orders, visits and reactions to messages per shop customer and day."""
    logs = (orders, order_lines, refunds, events, message_events)
    return lambda start, end: rollups.daily_activity(*(log.between(start, end) for log in logs))


@lake_asset(tables.DAILY_PRODUCTS, ins={"order_lines": raw.ORDER_LINES, "events": raw.EVENTS, "products": raw.PRODUCTS})
def daily_products(order_lines: LakeTable, events: LakeTable, products: LakeTable) -> Callable:
    """Products bought and seen per shop customer and day."""
    return lambda start, end: rollups.daily_products(
        order_lines.between(start, end), events.between(start, end), products.until(end)
    )


@lake_asset(tables.DAILY_CARTS, ins={"events": raw.EVENTS, "orders": raw.ORDERS})
def daily_carts(events: LakeTable, orders: LakeTable) -> Callable:
    """What happened to each cart on the day."""
    return lambda start, end: rollups.daily_carts(events.between(start, end), orders.between(start, end))


@lake_asset(
    tables.CUSTOMER_FEATURES,
    ins={
        "activity": tables.DAILY_ACTIVITY,
        "products": tables.DAILY_PRODUCTS,
        "carts": tables.DAILY_CARTS,
        "identities": profiles.IDENTITIES,
    },
)
def customer_features(
    activity: LakeTable, products: LakeTable, carts: LakeTable, identities: LakeTable, settings: SettingsResource
) -> Callable:
    """Behaviour of each person as of the day."""
    chosen = settings.settings
    return lambda as_of: behaviour.customer_features(
        activity.until(as_of),
        products.until(as_of),
        carts.until(as_of),
        identities.on(as_of),
        as_of,
        behaviour.end_of_day(as_of, chosen.zone),
        chosen.cart_abandoned_minutes,
    )


@lake_asset(tables.CUSTOMER_360, ins={"customers": profiles.CUSTOMERS, "features": tables.CUSTOMER_FEATURES})
def customer_360(customers: LakeTable, features: LakeTable) -> Callable:
    """Profile and behaviour of each person in one row."""
    return lambda as_of: view.customer_360(customers.on(as_of), features.on(as_of))


#: The room's assets in the order the data walks through them.
ASSETS = [daily_activity, daily_products, daily_carts, customer_features, customer_360]

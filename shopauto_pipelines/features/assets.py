"""The room's assets: daily rollups, features as of a day, the 360° view. The logic is in the modules they call."""

from collections.abc import Callable, Mapping
from datetime import date
from typing import Any

import dagster as dg
import ibis
import ibis.expr.types as ir
from ibis import _

from shopauto_pipelines.features import clusters as grouping
from shopauto_pipelines.features import customer_360 as view
from shopauto_pipelines.features import customer_features as behaviour
from shopauto_pipelines.features import hours as daytimes
from shopauto_pipelines.features import interests as liking
from shopauto_pipelines.features import leads as journey
from shopauto_pipelines.features import rollups, tables
from shopauto_pipelines.platform.dagster.assets import lake_asset
from shopauto_pipelines.platform.dagster.resources import SettingsResource
from shopauto_pipelines.platform.lake import Lake, LakeTable
from shopauto_pipelines.profiles import tables as profiles
from shopauto_pipelines.sources import tables as raw

#: With more people the parts of their features are computed one after the other: one statement for a million needs over 2 GB.
MANY_PEOPLE = 200_000


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
    return lambda start, end: rollups.daily_activity(*(log.once(start, end) for log in logs))


@lake_asset(
    tables.DAILY_PRODUCTS,
    ins={"order_lines": raw.ORDER_LINES, "events": raw.EVENTS, "products": raw.PRODUCTS},
    earlier=[raw.PRODUCTS],
)
def daily_products(order_lines: LakeTable, events: LakeTable, products: LakeTable) -> Callable:
    """Products bought and seen per shop customer and day."""
    return lambda start, end: rollups.daily_products(
        order_lines.once(start, end), events.once(start, end), products.until(end)
    )


@lake_asset(tables.DAILY_CARTS, ins={"events": raw.EVENTS, "orders": raw.ORDERS})
def daily_carts(events: LakeTable, orders: LakeTable) -> Callable:
    """What happened to each cart on the day."""
    return lambda start, end: rollups.daily_carts(events.once(start, end), orders.once(start, end))


@lake_asset(tables.DAILY_HOURS, ins={"orders": raw.ORDERS, "events": raw.EVENTS, "message_events": raw.MESSAGE_EVENTS})
def daily_hours(orders: LakeTable, events: LakeTable, message_events: LakeTable) -> Callable:
    """When on the day each shop customer ordered, came, opened and clicked."""
    logs = (orders, events, message_events)
    return lambda start, end: daytimes.daily_hours(*(log.once(start, end) for log in logs))


@lake_asset(tables.DAILY_MESSAGES, ins={"message_events": raw.MESSAGE_EVENTS})
def daily_messages(message_events: LakeTable) -> Callable:
    """Messages and what people did with them, per shop customer, channel, campaign and day."""
    return lambda start, end: rollups.daily_messages(message_events.once(start, end))


@lake_asset(tables.DAILY_FORMS, ins={"form_submissions": raw.FORM_SUBMISSIONS})
def daily_forms(form_submissions: LakeTable) -> Callable:
    """Forms filled in per shop customer and day."""
    return lambda start, end: rollups.daily_forms(form_submissions.once(start, end))


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
    chosen, lake = settings.settings, identities.lake

    def features(as_of: date) -> ir.Table:
        many = lake.rows(profiles.IDENTITIES, as_of) > MANY_PEOPLE
        return behaviour.customer_features(
            activity.until(as_of),
            products.until(as_of),
            carts.until(as_of),
            identities.on(as_of),
            as_of,
            behaviour.end_of_day(as_of, chosen.zone),
            chosen.cart_abandoned_minutes,
            lake.kept if many else behaviour.as_it_is,
        )

    return features


@lake_asset(tables.INTERESTS, ins={"products": tables.DAILY_PRODUCTS, "identities": profiles.IDENTITIES})
def interests(products: LakeTable, identities: LakeTable) -> Callable:
    """The categories each person is interested in, with the evidence."""
    return lambda as_of: liking.interests(products.between(liking.first_day(as_of), as_of), identities.on(as_of), as_of)


_TRAITS = [(tables.CUSTOMER_FEATURES.name, column) for trait in grouping.TRAITS for column in trait.inputs]


@lake_asset(
    tables.CLUSTER_MODELS,
    ins={"features": tables.CUSTOMER_FEATURES},
    earlier=[tables.CLUSTER_MODELS],
    origins={column.name: _TRAITS for column in tables.CLUSTER_MODELS.columns if column.name != "fitted_on"},
)
def cluster_models(features: LakeTable, settings: SettingsResource) -> Callable:
    """The behaviour clusters in force, carried over from the table's own latest earlier partition until a fit is due."""
    chosen, own = settings.settings, LakeTable(features.lake, tables.CLUSTER_MODELS)

    def of_day(as_of: date) -> Any:
        earlier = own.before(as_of)
        previous = earlier[1].order_by("cluster").to_pyarrow().to_pylist() if earlier else []
        return grouping.model(features.on(as_of), previous, as_of, chosen.clusters, chosen.retrain_days)

    return of_day


def clusters_shown(lake: Lake, day: date) -> Mapping[str, Any]:
    """Each cluster with its people, what sets it apart, and since when."""
    sizes = lake.on(tables.CLUSTERS, day).group_by("cluster").aggregate(people=_.count())
    rows = lake.on(tables.CLUSTER_MODELS, day).inner_join(sizes, "cluster").order_by(ibis.desc("people"), "cluster")
    lines = [
        f"| {row['cluster']} | {row['people']:,} | {row['described']} | {row['fitted_on']} |"
        for row in rows.to_pyarrow().to_pylist()
    ]
    head = ["| cluster | people | what sets it apart | fitted on |", "| --- | ---: | --- | --- |"]
    return {"clusters": dg.MetadataValue.md("\n".join([*head, *lines]) if lines else "Too few customers for clusters.")}


@lake_asset(
    tables.CLUSTERS,
    ins={"features": tables.CUSTOMER_FEATURES, "models": tables.CLUSTER_MODELS},
    summary=clusters_shown,
    origins={  # a model's centres are numbers in the expression
        "customer_id": [(tables.CUSTOMER_FEATURES.name, "customer_id")],
        "cluster": [*_TRAITS, *((tables.CLUSTER_MODELS.name, column) for column in ("cluster", "centre", "scale"))],
    },
)
def clusters(features: LakeTable, models: LakeTable) -> Callable:
    """The behaviour cluster of everybody with an order."""
    return lambda as_of: grouping.assigned(
        features.on(as_of), models.on(as_of).order_by("cluster").to_pyarrow().to_pylist()
    )


@lake_asset(
    tables.LEADS,
    ins={
        "customers": profiles.CUSTOMERS,
        "features": tables.CUSTOMER_FEATURES,
        "products": tables.DAILY_PRODUCTS,
        "forms": raw.FORM_SUBMISSIONS,
        "identities": profiles.IDENTITIES,
    },
)
def leads(
    customers: LakeTable, features: LakeTable, products: LakeTable, forms: LakeTable, identities: LakeTable
) -> Callable:
    """The stage of each person's journey, and the score of those who have not ordered."""
    return lambda as_of: journey.leads(
        customers.on(as_of),
        features.on(as_of),
        products.between(journey.first_day(as_of), as_of),
        forms.until(as_of),
        identities.on(as_of),
        as_of,
    )


@lake_asset(
    tables.CUSTOMER_360,
    ins={
        "customers": profiles.CUSTOMERS,
        "features": tables.CUSTOMER_FEATURES,
        "interests": tables.INTERESTS,
        "clusters": tables.CLUSTERS,
        "hours": tables.DAILY_HOURS,
        "leads": tables.LEADS,
        "identities": profiles.IDENTITIES,
    },
)
def customer_360(
    customers: LakeTable,
    features: LakeTable,
    interests: LakeTable,
    clusters: LakeTable,
    hours: LakeTable,
    leads: LakeTable,
    identities: LakeTable,
    settings: SettingsResource,
) -> Callable:
    """Profile and behaviour of each person in one row."""
    zone = settings.settings.timezone

    def of_day(as_of: date) -> Any:
        recent, people = hours.between(daytimes.first_day(as_of), as_of), customers.on(as_of)
        best = daytimes.best_hours(recent, identities.on(as_of), people, zone)
        return view.customer_360(
            people, features.on(as_of), interests.on(as_of), clusters.on(as_of), best, leads.on(as_of)
        )

    return of_day


#: The room's assets in the order the data walks through them.
ASSETS = [
    daily_activity,
    daily_products,
    daily_carts,
    daily_messages,
    daily_forms,
    daily_hours,
    customer_features,
    interests,
    cluster_models,
    clusters,
    leads,
    customer_360,
]

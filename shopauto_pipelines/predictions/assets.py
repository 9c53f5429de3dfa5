"""The room's assets: the models in force and the scores they give. The logic is in ``serving``."""

from collections.abc import Callable, Iterable, Mapping
from datetime import date
from functools import cache
from typing import Any

import dagster as dg
from ibis import _
from pydantic import Field

from shopauto_pipelines.features import customer_features as behaviour
from shopauto_pipelines.features import tables as features
from shopauto_pipelines.platform.dagster.assets import lake_asset
from shopauto_pipelines.platform.dagster.failures import errors_told
from shopauto_pipelines.platform.dagster.resources import LakeResource, SettingsResource
from shopauto_pipelines.platform.lake import Lake, LakeTable
from shopauto_pipelines.platform.settings import load_settings
from shopauto_pipelines.predictions import plots, serving, tables
from shopauto_pipelines.predictions.dataset import Shop, cut_offs, sampled
from shopauto_pipelines.predictions.declaration import load_predictions
from shopauto_pipelines.predictions.lineage import SCORES_LINEAGE, models_lineage
from shopauto_pipelines.predictions.store import ModelStore
from shopauto_pipelines.profiles import identity
from shopauto_pipelines.profiles import tables as profiles
from shopauto_pipelines.sources import tables as raw

_KINDS = {"python", "scikitlearn", "parquet"}


def models_summary(lake: Lake, day: date) -> Mapping[str, Any]:
    """Verdicts, and each challenger's back-test beside the rules, as table and picture."""
    return models_metadata(lake.on(tables.MODELS, day).to_pyarrow().to_pylist())


def models_metadata(rows: Iterable[Mapping[str, Any]]) -> dict[str, Any]:
    """What the UI shows of rows of ``predictions/models``."""
    store = ModelStore(load_settings().models_path)
    said: dict[str, Any] = {}
    for row in rows:
        shown = plots.described(row, store.picture)
        said |= {f"{row['target']}_{name}": dg.MetadataValue.md(text) for name, text in shown.items()}
    return said


class ModelChoice(dg.Config):
    """Which models score the days of a run."""

    named: list[str] = Field(
        default_factory=list,
        description="Ids of models to score with, whatever was in force on the days: folders under `models` in the home, at most "
        "one for each target. A model of a later day than the one it scores knows what came later; the scores say so.",
    )


@lake_asset(
    tables.MODELS,
    ins={
        "customers": raw.CUSTOMERS,
        "orders": raw.ORDERS,
        "claims": profiles.CLAIMS,
        "activity": features.DAILY_ACTIVITY,
        "products": features.DAILY_PRODUCTS,
        "carts": features.DAILY_CARTS,
    },
    kinds=_KINDS,
    summary=models_summary,
    origins=models_lineage,
)
def models(
    customers: LakeTable,
    orders: LakeTable,
    claims: LakeTable,
    activity: LakeTable,
    products: LakeTable,
    carts: LakeTable,
    settings: SettingsResource,
    lake: LakeResource,
    config: ModelChoice,
) -> Callable:
    """Trains and back-tests a challenger where one is due, and tells which model is in force."""
    chosen, con, own = settings.settings, activity.lake.con, load_predictions().own
    first_day = min(activity.lake.days(features.DAILY_ACTIVITY), default=None)

    def shop(day: date) -> Shop:
        told = customers.until(day), orders.until(day), claims.until(day)
        known = identity.identities(*told)
        who = con.create_table("people_of_training_day", known, temp=True, overwrite=True)
        who, done, bought, filled = sampled(con, who, activity.until(day), products.until(day), carts.until(day))
        days = cut_offs(day, first_day or day, chosen.horizon_days)
        then = identity.identities_of_days(*told, days).semi_join(who, "shop_customer_id")
        people = con.create_table("people_of_cut_offs", then, temp=True, overwrite=True)
        return Shop(
            con=con,
            features=lambda cut_off, end: behaviour.customer_features(
                done, bought, filled, people.filter(_.as_of == cut_off), cut_off, end, chosen.cart_abandoned_minutes
            ),
            activity=done,
            identities=people,
            first_day=first_day or day,
            end_of_day=lambda cut_off: behaviour.end_of_day(cut_off, chosen.zone),
        )

    @cache
    def fingerprint(day: date) -> str:
        front = lake.front()
        told = (front.between(each.table, end=day) for each in (customers, orders, claims))
        done = (front.between(each.table, end=day) for each in (activity, products, carts))
        read = (*identity.decisive(*told), *done)
        return serving.fingerprint(read, first_day, chosen.timezone, chosen.cart_abandoned_minutes)

    store = ModelStore(chosen.models_path, own)
    with errors_told():
        named = store.named(config.named)
    trainer = serving.Trainer(
        store=store,
        shop=shop,
        fingerprint=fingerprint,
        first_day=first_day or date.max,
        horizon=chosen.horizon_days,
        retrain_days=chosen.retrain_days,
        own=own,
        named=named,
    )
    return trainer.models


@lake_asset(
    tables.SCORES,
    ins={"models": tables.MODELS, "customer_features": features.CUSTOMER_FEATURES},
    kinds=_KINDS,
    origins=SCORES_LINEAGE,
)
def scores(models: LakeTable, customer_features: LakeTable, settings: SettingsResource, lake: LakeResource) -> Callable:
    """Scores everybody who has ordered with the models in force."""
    store = ModelStore(settings.settings.models_path, load_predictions().own)
    return lambda as_of: serving.scores(
        customer_features.on(as_of), models.on(as_of).to_pyarrow().to_pylist(), store, as_of, lake.lake()
    )


#: In flow order.
ASSETS = [models, scores]

"""How a lake table becomes an asset: key, group, partitions, schema, owners, freshness, all from the table's declaration."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Collection, Iterable, Mapping
from datetime import timedelta
from functools import wraps
from typing import Any

import dagster as dg
import sqlalchemy as sa

from shopauto_pipelines.platform.dagster.io_manager import LAKE_ASSETS, LakeAsset, Origins, Summary
from shopauto_pipelines.platform.dagster.partitions import DAILY, ONE_RUN
from shopauto_pipelines.platform.dagster.resources import LakeResource
from shopauto_pipelines.platform.lake import LakeTable
from shopauto_pipelines.platform.tables import Table

#: Who is asked when something is wrong with an asset.
OWNERS = ["team:data"]

#: A day's partition is expected on the following day; the daily refresh starts at 05:00.
FRESHNESS = dg.FreshnessPolicy.time_window(fail_window=timedelta(hours=36), warn_window=timedelta(hours=30))

#: Tag that tells what a partition holds: ``day``, what happened on it, or ``as_of``, the state at its end.
PARTITION_TAG = "shopauto/partition"

#: Tag of what no refresh of days makes: ``realtime``, made when something happens.
LANE_TAG = "shopauto/lane"

#: Pool of all that computes: an instance may say how many runs with such steps there are at once (``deploy/dagster.yaml``).
ENGINE_POOL = "engine"

_COLUMN_TYPES = {"int64": "integer", "float64": "number", "timestamp(6)": "timestamp (UTC)"}


def asset_key(table: Table) -> dg.AssetKey:
    """The asset of a table: its name's parts."""
    return dg.AssetKey(table.name.split("/"))


def column_schema(table: Table) -> dg.TableSchema:
    """The declared columns as the UI shows them; private columns are tagged."""
    partition = dg.TableColumn(
        table.partition,
        "date",
        "the partition: the day it happened"
        if table.partition == "day"
        else "the partition: state at the end of this day",
    )
    return dg.TableSchema(
        [
            partition,
            *(
                dg.TableColumn(
                    c.name,
                    _COLUMN_TYPES.get(c.type, c.type),
                    c.description,
                    constraints=dg.TableColumnConstraints(nullable=not c.required),
                    tags={"private": ""} if c.private else {},
                )
                for c in table.columns
            ),
        ]
    )


def database_schema(columns: Iterable[sa.Column[Any]]) -> dg.TableSchema:
    """Columns of a table in PostgreSQL as the UI shows them; a column's ``doc`` is its description."""
    return dg.TableSchema(
        [
            dg.TableColumn(
                column.name,
                str(column.type).lower(),
                column.doc,
                constraints=dg.TableColumnConstraints(nullable=bool(column.nullable)),
            )
            for column in columns
        ]
    )


def spec_arguments(table: Table, group: str, kinds: set[str] | None = None) -> dict[str, Any]:
    """What every asset of the house has in common, for ``@dg.asset`` and ``dg.AssetSpec`` alike."""
    key = asset_key(table)
    LAKE_ASSETS.setdefault(key, LakeAsset(table))
    return {
        "key": key,
        "group_name": group,
        "description": table.description,
        "owners": OWNERS,
        "kinds": kinds or {"duckdb", "parquet"},
        "tags": {PARTITION_TAG: table.partition},
        "metadata": {"dagster/column_schema": column_schema(table)},
        "partitions_def": DAILY,
        "freshness_policy": FRESHNESS,
    }


def lake_asset(
    table: Table,
    *,
    ins: Mapping[str, Table] | None = None,
    group: str | None = None,
    kinds: set[str] | None = None,
    summary: Summary | None = None,
    origins: Origins | Callable[[], Origins] | None = None,
    earlier: Collection[Table] = (),
    **more: Any,
) -> Callable[[Callable[..., Any]], dg.AssetsDefinition]:
    """Decorator: the function becomes the asset of ``table``.

    ``ins`` names the tables the function takes, by parameter. What the function returns is described at
    :class:`~shopauto_pipelines.platform.dagster.io_manager.LakeIOManager`. ``summary`` says more of each partition once it
    is written; ``origins`` is the column lineage where the expression does not tell it, or a function that does; ``earlier``
    names the tables of which earlier partitions decide, too: those of what happened on days always do for a state as of a day.
    ``more`` are arguments of ``dg.asset``, which win.
    """
    common = spec_arguments(table, group or table.room, kinds)
    read = ins or {}
    LAKE_ASSETS[common["key"]] = LakeAsset(table, summary or LakeAsset.summary, origins, earlier, tuple(read.values()))
    deps = [*map(asset_key, read.values()), *more.pop("deps", ())]

    def wrap(function: Callable[..., Any]) -> dg.AssetsDefinition:
        made = dg.asset(
            deps=deps, io_manager_key="lake_io", backfill_policy=ONE_RUN, pool=ENGINE_POOL, **(common | more)
        )
        return made(_handed(function, read))

    return wrap


def _handed(function: Callable[..., Any], tables: Mapping[str, Table]) -> Callable[..., Any]:
    """The function as Dagster calls it: without the ``tables``, which are handed to it unread.

    Were they inputs to Dagster, it would record the loading of each, for every step: a third of all events of a refresh.
    """
    wanted = inspect.signature(function)
    others = [p for p in wanted.parameters.values() if p.name not in tables and p.kind is not p.VAR_KEYWORD]
    asks = any(parameter.name == "lake" for parameter in others)
    lake_too = [] if asks else [inspect.Parameter("lake", inspect.Parameter.KEYWORD_ONLY, annotation=LakeResource)]

    @wraps(function)
    def called(*args: Any, **kwargs: Any) -> Any:
        lake = (kwargs["lake"] if asks else kwargs.pop("lake")).lake()
        return function(*args, **kwargs, **{name: LakeTable(lake, table) for name, table in tables.items()})

    called.__signature__ = wanted.replace(parameters=[*others, *lake_too])  # type: ignore[attr-defined]
    called.__annotations__ = {parameter.name: parameter.annotation for parameter in (*others, *lake_too)}
    return called

"""The lake's tables in the order a refresh makes them, read off Dagster's graph: what :mod:`.health` judges by."""

from __future__ import annotations

from dagster import AssetKey
from dagster._core.definitions.assets.graph.asset_graph import AssetGraph

from shopauto_pipelines.orchestration.health import Made
from shopauto_pipelines.platform.dagster.io_manager import LAKE_ASSETS


def flow(graph: AssetGraph) -> list[Made]:
    """Every table that an asset writes to the lake, each after those it reads."""

    def is_written(key: AssetKey) -> bool:
        return key in LAKE_ASSETS and graph.assets_def_for_key(key).get_io_manager_key_for_asset_key(key) == "lake_io"

    made = []
    for key in filter(is_written, graph.toposorted_asset_keys):
        reads = [LAKE_ASSETS[parent].table for parent in sorted(graph.get(key).parent_keys) if parent in LAKE_ASSETS]
        made.append(Made(LAKE_ASSETS[key].table, reads, LAKE_ASSETS[key].earlier))
    return made

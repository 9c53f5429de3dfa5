"""The room's tables as assets: what is declared, membership, its changes, sizes, overlap. Each segment is an asset, too."""

from collections.abc import Callable, Mapping
from datetime import date
from typing import Any

import dagster as dg
import ibis

from shopauto_pipelines.features import tables as features
from shopauto_pipelines.platform.dagster.assets import asset_key, lake_asset
from shopauto_pipelines.platform.lake import Lake, LakeTable
from shopauto_pipelines.predictions.tables import SCORES
from shopauto_pipelines.profiles.tables import IDENTITIES
from shopauto_pipelines.segments import meaning, prepared, stays, tables
from shopauto_pipelines.segments import membership as logic
from shopauto_pipelines.segments import overlap as explorer
from shopauto_pipelines.segments.declaration import load_segments
from shopauto_pipelines.segments.events import EVENTS

#: What ``did`` asks: the daily rollups, by the last part of their names.
_ROLLUPS = {event.rollup.name.split("/")[-1]: event.rollup for event in EVENTS.values()}


@lake_asset(tables.DECLARED, deps=[asset_key(features.CUSTOMER_360)])  # a day that a check stops has none
def declared() -> Callable:
    """The playbook's segments, whatever the day."""
    rows = meaning.declared(load_segments())
    return lambda as_of: ibis.memtable(rows)


@lake_asset(
    tables.MEMBERSHIP,
    ins={
        "customers": features.CUSTOMER_360,
        "scores": SCORES,
        "identities": IDENTITIES,
        "declared": tables.DECLARED,
        **_ROLLUPS,
    },
    origins=lambda: prepared.statement(load_segments()).origins,
    earlier=[tables.MEMBERSHIP, tables.DECLARED],
)
def membership(customers: LakeTable, **_others: LakeTable) -> Callable:
    """All declared segments in one pass; stays are carried over from the table's own latest earlier partition."""
    lake, segments = customers.lake, load_segments()
    return lambda as_of: prepared.rows(lake, segments, as_of)


@lake_asset(
    tables.CHANGES,
    ins={"membership": tables.MEMBERSHIP, "identities": IDENTITIES, "declared": tables.DECLARED},
    earlier=[tables.MEMBERSHIP, tables.DECLARED],
)
def changes(membership: LakeTable, **_others: LakeTable) -> Callable:
    """Who entered and who left, against the latest earlier partition of membership."""
    return lambda as_of: logic.changes(membership.on(as_of), stays.previous(membership.lake, as_of), as_of)


@lake_asset(tables.SIZES, ins={"membership": tables.MEMBERSHIP, "changes": tables.CHANGES})
def sizes(membership: LakeTable, changes: LakeTable) -> Callable:
    """How large each segment is, and how many came and went."""
    return lambda as_of: explorer.counted(membership.on(as_of), changes.on(as_of))


def overlap_shown(lake: Lake, day: date) -> Mapping[str, Any]:
    """Sizes, the heat map of the largest segments, and the pairs that overlap most."""
    shown = explorer.markdown(explorer.explore(lake, day))
    return {name: dg.MetadataValue.md(text) for name, text in shown.items()}


@lake_asset(
    tables.OVERLAP,
    ins={"membership": tables.MEMBERSHIP, "customers": features.CUSTOMER_360},
    summary=overlap_shown,
    deps=[asset_key(tables.SIZES)],  # which the summary shows
)
def overlap(membership: LakeTable, customers: LakeTable) -> Callable:
    """How much the segments overlap: for every pair the people in both."""
    return lambda as_of: explorer.overlap(membership.on(as_of), customers.on(as_of))


#: Every asset of this module, in flow order.
ASSETS = [declared, membership, changes, sizes, overlap]

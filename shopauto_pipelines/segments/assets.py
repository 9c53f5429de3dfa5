"""The room's tables as assets: membership and its changes. The declared segments are assets of ``component``."""

from collections.abc import Callable

from shopauto_pipelines.features.tables import CUSTOMER_360
from shopauto_pipelines.platform.dagster.assets import lake_asset
from shopauto_pipelines.platform.lake import LakeTable
from shopauto_pipelines.predictions.tables import SCORES
from shopauto_pipelines.segments import membership as logic
from shopauto_pipelines.segments import tables
from shopauto_pipelines.segments.declaration import load_segments


@lake_asset(tables.MEMBERSHIP, ins={"customers": CUSTOMER_360, "scores": SCORES})
def membership(customers: LakeTable, scores: LakeTable) -> Callable:
    """All declared segments in one pass; stays are carried over from the table's own latest earlier partition."""
    segments, own = load_segments(), LakeTable(customers.lake, tables.MEMBERSHIP)
    return lambda as_of: logic.membership(customers.on(as_of), scores.on(as_of), own.before(as_of), segments, as_of)


@lake_asset(tables.CHANGES, ins={"membership": tables.MEMBERSHIP})
def changes(membership: LakeTable) -> Callable:
    """Who entered and who left, against the latest earlier partition of membership."""
    return lambda as_of: logic.changes(membership.on(as_of), membership.before(as_of), as_of)


#: Every asset of this module, in flow order.
ASSETS = [membership, changes]

"""What all rooms' Dagster faces share: partitions, the I/O manager, how an asset is made, checks, and Dagster's storage."""

import warnings

# Known and accepted: backfills in one run are beta in Dagster. Said once for each asset, it would bury everything else.
warnings.filterwarnings("ignore", message=r"Parameter `(backfill_policy|execution_type)` .* is currently in beta")

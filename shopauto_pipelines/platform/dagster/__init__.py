"""What all rooms' Dagster faces share: partitions, the I/O manager, how an asset is made, checks, and Dagster's storage."""

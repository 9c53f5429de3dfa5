"""Computes a day of a refreshed home again with Spark, table by table, and compares every value with what DuckDB wrote.

``python parity.py HOME DAY [ROOM…]`` works on a copy that may be thrown away. Each table is made of what DuckDB made of the
others, so that a difference shows where it comes about. Prints a line for each table, then one of JSON:
``tables``, ``rows``, ``values``, ``differences``, and ``same_bytes``, tables whose files are the same.
"""

from __future__ import annotations

import json
import math
import os
import shutil
import sys
import time
from collections.abc import Iterator
from datetime import date
from pathlib import Path
from typing import Any, NamedTuple

import pyarrow.parquet as pq

#: A cluster of two worker processes of one core on this machine, for few rows: to compile queries would take longer.
MASTER = "local-cluster[2,1,1024]"
CONF = {
    "spark.default.parallelism": "2",
    "spark.driver.host": "127.0.0.1",
    "spark.executor.memory": "1g",
    "spark.sql.codegen.factoryMode": "NO_CODEGEN",
    "spark.sql.codegen.wholeStage": "false",
    "spark.sql.shuffle.partitions": "2",
}

#: How far floats may be apart, as a share of the larger: engines add them up in another order.
TOLERANCE = 1e-6


class Compared(NamedTuple):
    """What came out for one table: ``differences`` are values that differ, and rows that only one of the two has."""

    rows: int
    values: int
    differences: int
    first: str


def same(left: Any, right: Any) -> bool:
    """Whether two values are the same; floats within :data:`TOLERANCE`."""
    if isinstance(left, float) and isinstance(right, float):
        return (math.isnan(left) and math.isnan(right)) or math.isclose(left, right, rel_tol=TOLERANCE)
    return type(left) is type(right) and bool(left == right)


def compare(expected: Path, made: Path) -> Compared:
    """Two files of one table, both in the order of its key, value by value."""
    one, other = pq.read_table(expected), pq.read_table(made)
    assert one.schema.equals(other.schema), f"{one.schema} is not {other.schema}"
    differences, first = abs(one.num_rows - other.num_rows), ""
    for name in one.schema.names:
        pairs = zip(one[name].to_pylist(), other[name].to_pylist(), strict=False)
        wrong = [(row, *pair) for row, pair in enumerate(pairs) if not same(*pair)]
        differences += len(wrong)
        if wrong and not first:
            first = f"{name}, row {wrong[0][0]}: {wrong[0][1]!r} is {wrong[0][2]!r} with Spark"
    return Compared(one.num_rows, one.num_rows * one.num_columns, differences, first)


def parity(day: date, rooms: list[str]) -> Iterator[tuple[str, Compared, bool, float]]:
    """Each table of the rooms with what came out, whether its bytes are the same, and the seconds it took."""
    import dagster as dg

    from shopauto_pipelines.definitions import defs
    from shopauto_pipelines.features import assets as features
    from shopauto_pipelines.orchestration.flow import flow
    from shopauto_pipelines.platform.lake import Lake
    from shopauto_pipelines.platform.settings import load_settings

    features.MANY_PEOPLE = 0  # as in the shops that Spark is for; what DuckDB wrote was made as one statement
    graph, lake = defs().resolve_asset_graph(), Lake(load_settings().lake_path)
    for made in flow(graph):
        table, began = made.table, time.monotonic()
        if rooms and table.room not in rooms:
            continue
        expected = lake.root / "_staging" / f"{table.name.replace('/', '_')}.parquet"
        shutil.copy(lake.path(table, day), expected)
        lake.delete(table, day)
        key = dg.AssetKey(table.name.split("/"))
        dg.materialize(
            [graph.assets_def_for_key(key)],
            selection=[key],
            partition_key=day.isoformat(),
            run_config={"loggers": {"console": {"config": {"log_level": "CRITICAL"}}}},
        )
        result = lake.path(table, day)
        yield (
            table.name,
            compare(expected, result),
            expected.read_bytes() == result.read_bytes(),
            time.monotonic() - began,
        )
        shutil.move(expected, result)


def main(home: str, day: str, *rooms: str) -> None:
    """Compare, tell, and end with 1 where anything differs."""
    os.environ |= {
        "JDK_JAVA_OPTIONS": "-XX:TieredStopAtLevel=1 -XX:ReservedCodeCacheSize=240m",
        "SHOPAUTO_HOME": home,
        "SHOPAUTO_ENGINE": "spark",
        "SHOPAUTO_SPARK_MASTER": os.environ.get("SHOPAUTO_SPARK_MASTER", MASTER),
        "SHOPAUTO_SPARK_CONF": " ".join(f"{name}={value}" for name, value in CONF.items()),
    }
    found: dict[str, tuple[Compared, bool]] = {}
    for name, compared, same_bytes, seconds in parity(date.fromisoformat(day), [*rooms]):
        found[name] = compared, same_bytes
        print(
            f"{name}: {compared.rows} rows, {compared.differences} differences {compared.first}, {seconds:.1f} s",
            flush=True,
        )
    told = {
        "tables": len(found),
        "rows": sum(compared.rows for compared, _ in found.values()),
        "values": sum(compared.values for compared, _ in found.values()),
        "differences": sum(compared.differences for compared, _ in found.values()),
        "same_bytes": sum(same_bytes for _, same_bytes in found.values()),
    }
    print(json.dumps(told))
    sys.exit(told["differences"] > 0)


if __name__ == "__main__":
    main(*sys.argv[1:])

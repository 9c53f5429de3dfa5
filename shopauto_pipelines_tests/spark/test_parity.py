"""What Spark computes on a cluster of two worker processes is what DuckDB computes."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from shopauto_pipelines.platform.settings import PROJECT_ROOT
from shopauto_pipelines_tests.spark.parity import compare, same

#: Rooms whose tables are compared in every run of the tests; ``SHOPAUTO_TEST_PARITY=all`` compares all of them.
ROOMS = ("profiles", "segments")


@pytest.fixture
def home(java, refreshed, new_shop):
    """Of a refreshed shop, to be thrown away."""
    return new_shop(like=refreshed).home


@pytest.mark.slow
def test_every_value_is_the_one_that_duckdb_wrote(home):
    rooms = [] if os.environ.get("SHOPAUTO_TEST_PARITY") == "all" else ROOMS
    program = Path(__file__).with_name("parity.py")
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("SHOPAUTO_", "DAGSTER_"))}
    done = subprocess.run(
        [sys.executable, "-W", "ignore", program, home, "2026-06-30", *rooms],
        env=kept | {"PYTHONPATH": str(PROJECT_ROOT)},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout + done.stderr[-4000:]
    *lines, last = done.stdout.splitlines()
    print(done.stdout)
    told = json.loads(last)
    assert told["tables"] == len(lines) >= 9
    assert told["rows"] > 2_000
    assert told["differences"] == 0


@pytest.mark.parametrize(
    ("one", "other"), [(1.0, 1.001), (1, 2), ("a", None), (1, 1.0), (None, 0.0), (float("nan"), 1.0), (True, 1)]
)
def test_values_that_differ_are_told_apart(one, other):
    assert not same(one, other)
    assert not same(other, one)


@pytest.mark.parametrize("value", [None, "a", 3, 0.25, float("nan"), True, [1, None], {"a": 1}])
def test_a_value_is_the_same_as_itself(value):
    assert same(value, value)


def test_floats_may_differ_by_a_rounding_alone():
    assert same(0.1 + 0.2, 0.3)
    assert not same(1_000.0, 1_000.01)


def test_a_comparison_counts_values_that_differ_and_rows_that_lack(tmp_path):
    def written(name, **columns):
        pq.write_table(pa.table(columns), tmp_path / name)
        return tmp_path / name

    whole = written("whole", id=[1, 2, 3], of=["a", "b", None])
    assert compare(whole, written("same", id=[1, 2, 3], of=["a", "b", None]))[:3] == (3, 6, 0)
    other = compare(whole, written("other", id=[1, 2], of=["a", "c"]))
    assert other.differences == 2
    assert other.first == "of, row 1: 'b' is 'c' with Spark"
    with pytest.raises(AssertionError):
        compare(whole, written("retyped", id=[1.0, 2.0, 3.0], of=["a", "b", None]))

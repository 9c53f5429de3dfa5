"""Looking rows up by key in a partition."""

from __future__ import annotations

from datetime import date

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from shopauto_pipelines.platform import lake as lake_module
from shopauto_pipelines.platform.lake import Lake, MissingPartition
from shopauto_pipelines.platform.lookup import Lookup
from shopauto_pipelines.platform.tables import Column, Table

DAY = date(2026, 1, 3)
TABLE = Table(
    "profiles/people",
    "People.",
    (Column("id", "string", "id", required=True), Column("name", "string", "name"), Column("born", "date", "day")),
    ("id",),
)


def _write(lake: Lake, count: int) -> None:
    rows = [{"id": f"c{n:05}", "name": f"Ana {n}" if n % 2 else None, "born": DAY} for n in range(count)]
    lake.write(TABLE, [DAY], pa.Table.from_pylist(rows, schema=TABLE.arrow_schema))


@pytest.fixture(scope="module")
def lookup(tmp_path_factory):
    lake = Lake(tmp_path_factory.mktemp("lake"), 1)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(lake_module, "ROW_GROUP", 100)
        _write(lake, 1000)
    return Lookup(lake, TABLE, DAY)


@given(st.lists(st.integers(-5, 1005)))
def test_a_row_is_found_where_it_is_and_nowhere_else(lookup, wanted):
    keys = [f"c{n:05}" for n in wanted]
    found = lookup.rows(keys)
    assert {key: dict(row) for key, row in found.items()} == {
        f"c{n:05}": {"id": f"c{n:05}", "name": f"Ana {n}" if n % 2 else None, "born": DAY}
        for n in wanted
        if 0 <= n < 1000
    }


def test_at_most_two_row_groups_are_held_and_only_the_columns_asked_for(lookup):
    assert lookup._file.num_row_groups == 10
    for n in range(0, 1000, 50):
        assert lookup.rows([f"c{n:05}"])[f"c{n:05}"].get("born") == DAY
    assert len(lookup._held) <= 2
    assert all(set(group) <= {"id", "born"} for group in lookup._held.values())


def test_all_rows_of_a_key_are_found_in_order_though_they_stand_in_several_row_groups(tmp_path, monkeypatch):
    columns = (Column("id", "string", "id", required=True), Column("rank", "int64", "place", required=True))
    table, lake = Table("profiles/places", "Places.", columns, ("id", "rank")), Lake(tmp_path, 1)
    counts = {"ann": 3, "bob": 250, "cid": 1, "dee": 96}
    rows = [{"id": who, "rank": n} for who, count in counts.items() for n in range(count)]
    monkeypatch.setattr(lake_module, "ROW_GROUP", 50)
    lake.write(table, [DAY], pa.Table.from_pylist(rows, schema=table.arrow_schema))
    found = Lookup(lake, table, DAY).every(["dee", "bob", "nobody", "ann", "bob", "zoe"])
    assert {who: [row["rank"] for row in each] for who, each in found.items()} == {
        who: list(range(counts[who])) for who in ("ann", "bob", "dee")
    }


def test_an_empty_partition_holds_nobody(tmp_path):
    lake = Lake(tmp_path, 1)
    _write(lake, 0)
    assert Lookup(lake, TABLE, DAY).rows(["c00000"]) == {}


def test_a_partition_that_is_missing_is_named(tmp_path):
    with pytest.raises(MissingPartition, match="profiles/people"):
        Lookup(Lake(tmp_path, 1), TABLE, DAY)


def test_a_column_that_an_earlier_version_did_not_write_is_null(tmp_path):
    lake = Lake(tmp_path, threads=1)
    _write(lake, 3)
    newer = Table(TABLE.name, TABLE.description, (*TABLE.columns, Column("since", "date", "since when")), TABLE.key)
    (row,) = Lookup(lake, newer, DAY).rows(["c00001"]).values()
    assert (row["name"], row["since"]) == ("Ana 1", None)
    assert [each["since"] for each in Lookup(lake, newer, DAY).every(["c00002"])["c00002"]] == [None]

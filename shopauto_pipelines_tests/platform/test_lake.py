"""Partitions are whole or absent, the same rows give the same bytes, and as-of reads see nothing later."""

import os
import random
import signal
import subprocess
import sys
import textwrap
import time
from collections.abc import Iterator
from dataclasses import replace
from datetime import date, timedelta
from pathlib import Path

import ibis
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from ibis import _

from shopauto_pipelines.platform import lake as lake_module
from shopauto_pipelines.platform.engine import OUT_OF_MEMORY, streamed
from shopauto_pipelines.platform.lake import (
    KNOWN_THEN,
    Lake,
    LakeTable,
    MissingPartition,
    OutdatedPartition,
    days_between,
)
from shopauto_pipelines.platform.lineage import column_lineage
from shopauto_pipelines.platform.tables import Column, Table

SALES = Table(
    "test/sales",
    "Sales.",
    (
        Column("sale_id", "string", "id", required=True),
        Column("amount_cents", "int64", "minor units"),
        Column("at", "timestamp(6)", "when, UTC"),
    ),
    ("sale_id",),
    partition="day",
)
FIRST = date(2026, 1, 1)


def _rows(days, per_day=3):
    table = pa.table(
        {
            "sale_id": pa.array([f"{day}-{n}" for day in days for n in range(per_day)], pa.string()),
            "amount_cents": pa.array([n * 100 for _day in days for n in range(per_day)], pa.int64()),
            "day": pa.array([day for day in days for _n in range(per_day)], pa.date32()),
        }
    )
    return table.append_column("at", pa.nulls(len(table), pa.timestamp("us")))


def _bytes(lake, day):
    return lake.path(SALES, day).read_bytes()


def test_a_range_is_written_as_one_file_a_day_and_days_without_rows_get_an_empty_one(lake):
    days = days_between(FIRST, FIRST + timedelta(days=3))
    written = lake.write(SALES, days, _rows(days[:2]))
    assert [written[day].rows for day in days] == [3, 3, 0, 0]
    assert lake.days(SALES) == days
    assert lake.on(SALES, days[3]).count().execute() == 0
    known = lake.between(SALES, end=days[1]).agg(n=_.count(), last=_.day.max()).to_pyarrow().to_pylist()
    assert known == [{"n": 6, "last": days[1]}]


def test_wherever_a_writer_is_stopped_every_partition_that_is_listed_has_its_file(tmp_path):
    script = """
        import sys
        from pathlib import Path
        from shopauto_pipelines.platform.lake import Lake
        from shopauto_pipelines_tests.platform.test_lake import FIRST, SALES, _rows, days_between, timedelta
        lake, days = Lake(Path(sys.argv[1])), days_between(FIRST, FIRST + timedelta(days=39))
        while True:
            lake.write(SALES, days, _rows(days))
            for day in days:
                lake.delete(SALES, day)
    """
    writer = subprocess.Popen([sys.executable, "-c", textwrap.dedent(script), str(tmp_path)])
    folder = tmp_path / SALES.name
    seen = 0
    try:
        while seen < 100:
            assert writer.poll() is None
            time.sleep(random.random() / 500)
            writer.send_signal(signal.SIGSTOP)
            os.waitid(os.P_PID, writer.pid, os.WSTOPPED)
            contents = [os.listdir(partition) for partition in folder.glob("day=*")]
            assert all(content == ["data.parquet"] for content in contents)
            seen += bool(contents)
            writer.send_signal(signal.SIGCONT)
    finally:
        writer.kill()
        writer.wait()


def test_what_killed_processes_left_is_removed_a_day_later(lake):
    old, new = (lake.root / "_staging" / name for name in ("partition-1-old", "partition-1-new"))
    for folder in (old, new):
        folder.mkdir()
        (folder / "data.parquet").touch()
    (lake.root / "_staging" / "month-1-old").touch()
    for path in (old, lake.root / "_staging" / "month-1-old"):
        os.utime(path, (0, 0))
    lake.session()
    assert os.listdir(lake.root / "_staging") == [new.name]


def test_a_column_that_an_earlier_version_lacks_is_there_once_the_day_was_written_again(lake):
    Lake(lake.root).write(replace(SALES, columns=SALES.columns[:1]), [FIRST], pa.table({"sale_id": ["a"]}))
    assert lake.on(SALES, FIRST).amount_cents.execute().isna().all()
    lake.write(SALES, [FIRST], _rows([FIRST], 1))
    assert lake.on(SALES, FIRST).amount_cents.execute().tolist() == [0]


def test_a_range_and_single_days_give_the_same_bytes(tmp_path):
    days = days_between(FIRST, FIRST + timedelta(days=4))
    one, many = Lake(tmp_path / "one"), Lake(tmp_path / "many", threads=1)
    one.write(SALES, days, _rows(days))
    for day in days:
        many.write(SALES, [day], _rows([day]).drop_columns(["day"]))
    assert [_bytes(one, day) for day in days] == [_bytes(many, day) for day in days]


@pytest.mark.parametrize(("few", "writers"), [(0, 1), (2, 3), (10_000, 1), (10_000, 4)])
def test_small_days_written_at_once_and_large_ones_in_turn_give_the_same_bytes(
    lake, tmp_path, monkeypatch, few, writers
):
    days = days_between(FIRST, FIRST + timedelta(days=59))
    expected = lake.write(SALES, days, _rows(days[5:50]))
    monkeypatch.setattr(lake_module, "_FEW_ROWS", few)
    monkeypatch.setattr(lake_module, "_WRITERS", writers)
    other = Lake(tmp_path / "other")
    assert other.write(SALES, days, _rows(days[5:50])) == expected
    assert [_bytes(other, day) for day in days] == [_bytes(lake, day) for day in days]


def test_a_day_that_cannot_be_written_among_several_at_once_stops_the_write_and_leaves_nothing_staged(
    lake, monkeypatch
):
    days = days_between(FIRST, FIRST + timedelta(days=39))

    def full(table, day, *others):
        if day == days[20]:
            raise OSError("no space left")
        return write(table, day, *others)

    write = lake._write_partition
    monkeypatch.setattr(lake, "_write_partition", full)
    with pytest.raises(OSError, match="no space left"):
        lake.write(SALES, days, _rows(days))
    assert set(lake.days(SALES)) < set(days)
    assert not [entry for entry in (lake.root / "_staging").iterdir() if entry.name != "spill"]


def test_a_rewrite_with_the_same_rows_leaves_the_file_alone(lake):
    lake.write(SALES, [FIRST], _rows([FIRST]))
    before = lake.path(SALES, FIRST).stat().st_ino
    assert not lake.write(SALES, [FIRST], _rows([FIRST]))[FIRST].changed
    assert lake.path(SALES, FIRST).stat().st_ino == before
    assert lake.write(SALES, [FIRST], _rows([FIRST], per_day=4))[FIRST].changed


def test_rows_of_a_day_that_was_not_named_are_refused_and_nothing_else_is_lost(lake):
    days = days_between(FIRST, FIRST + timedelta(days=2))
    with pytest.raises(ValueError, match="2026-01-03"):
        lake.write(SALES, days[:2], _rows(days))


def test_a_missing_partition_says_what_to_run(lake):
    with pytest.raises(
        MissingPartition, match=r"test/sales has not been computed for 2026-01-01: run `shopauto refresh"
    ):
        lake.on(SALES, FIRST)


def test_reading_a_table_nobody_wrote_gives_its_columns_and_no_rows(lake):
    empty = lake.between(SALES)
    assert empty.columns == ("sale_id", "amount_cents", "at", "day")
    assert empty.count().execute() == 0


def test_a_partition_of_an_earlier_version_has_nulls_in_new_columns_and_is_refused_where_one_is_required(lake):
    later = FIRST + timedelta(days=1)
    lake.write(SALES, [FIRST], _rows([FIRST]))
    noted = replace(SALES, columns=(*SALES.columns, Column("note", "string", "a new column")))
    assert lake.session().on(noted, FIRST).note.isnull().all().execute()
    lake.write(noted, [later], _rows([later]).append_column("note", pa.array(["new"] * 3)))
    assert lake.between(noted).note.count().execute() == 3
    counted = replace(SALES, columns=(*SALES.columns, Column("pieces", "int64", "a new column", required=True)))
    new = _rows([FIRST]).append_column("pieces", pa.array([1] * 3))
    for day in (FIRST, later + timedelta(days=1)):
        lake.session().write(counted, [day], new)
    with pytest.raises(OutdatedPartition, match=f"test/sales of {later} was written by an earlier version.*`pieces`"):
        lake.session().between(counted)


def test_a_month_that_an_earlier_version_packed_is_refused_with_what_computes_all_such_days_again(lake):
    days = days_between(FIRST, FIRST + timedelta(days=60))
    lake.write(SALES, days, _rows(days[1:]))
    assert lake.between(SALES).count().execute() == 180  # through files of months
    counted = replace(SALES, columns=(*SALES.columns, Column("pieces", "int64", "a new column", required=True)))
    with pytest.raises(
        OutdatedPartition, match=f"test/sales of {FIRST} was .* `shopauto refresh --stale`: it computes all"
    ):
        lake.session().between(counted)
    (lake.root / KNOWN_THEN).touch()
    with pytest.raises(OutdatedPartition, match=f"`shopauto --known then refresh --day {FIRST}` to compute it again"):
        lake.session().between(counted)


def test_the_partition_before_a_day_skips_days_that_were_not_computed(lake):
    table = LakeTable(lake, SALES)
    assert table.before(FIRST) is None
    lake.write(SALES, [FIRST], _rows([FIRST]))
    day, rows = table.before(FIRST + timedelta(days=9))
    assert day == FIRST
    assert rows.count().execute() == 3


@settings(max_examples=15, deadline=None)
@given(sizes=st.lists(st.integers(0, 7), min_size=1, max_size=6), group=st.integers(1, 5), chunk=st.integers(1, 9))
def test_bytes_do_not_depend_on_how_the_rows_arrive(tmp_path_factory, sizes, group, chunk):
    days = [FIRST + timedelta(days=n) for n in range(len(sizes))]
    table = pa.concat_tables([_rows([day], per_day=size) for day, size in zip(days, sizes, strict=True)])
    batches = table.select(["sale_id", "amount_cents", "at", "day"]).to_batches(max_chunksize=chunk)
    old, lake_module.ROW_GROUP = lake_module.ROW_GROUP, group
    try:
        a, b = (Lake(tmp_path_factory.mktemp("lake")) for _ in range(2))
        a.write(SALES, days, table)
        for day, part in Lake._by_day(SALES, days, iter(batches)) if len(days) > 1 else []:
            with b.storage.replacing(SALES.name, "", 1) as replaced:
                b._write_partition(SALES, day, part, replaced)
            assert _bytes(a, day) == _bytes(b, day)
    finally:
        lake_module.ROW_GROUP = old


def test_a_process_killed_while_it_writes_leaves_the_old_partition_whole(tmp_path):
    lake = Lake(tmp_path / "lake")
    lake.write(SALES, [FIRST], _rows([FIRST]))
    before = _bytes(lake, FIRST)
    script = textwrap.dedent(
        f"""
        import os, signal
        from datetime import date
        from pathlib import Path
        import pyarrow.parquet as pq
        from shopauto_pipelines.platform.lake import Lake
        from shopauto_pipelines_tests.platform.test_lake import SALES, _rows, FIRST
        write = pq.ParquetWriter.write_table
        def write_and_die(self, *args, **kwargs):
            write(self, *args, **kwargs)
            os.kill(os.getpid(), signal.SIGKILL)
        pq.ParquetWriter.write_table = write_and_die
        Lake(Path({str(tmp_path / "lake")!r})).write(SALES, [FIRST], _rows([FIRST], per_day=9))
        """
    )
    done = subprocess.run([sys.executable, "-c", script], cwd=os.getcwd(), capture_output=True, check=False)
    assert done.returncode == -9, done.stderr
    assert _bytes(lake, FIRST) == before
    assert [p.name for p in lake.path(SALES, FIRST).parent.iterdir()] == ["data.parquet"]


def test_column_lineage_is_read_off_the_expression(lake):
    lake.write(SALES, [FIRST], _rows([FIRST]))
    sales = lake.on(SALES, FIRST)
    per_sale = sales.filter(_.amount_cents > 0).group_by("sale_id").agg(total=_.amount_cents.sum())
    joined = per_sale.join(sales.select("sale_id", "at"), "sale_id").mutate(
        label=_.sale_id.upper() + ":" + _.total.cast("string"), one=ibis.literal(1)
    )
    lineage = column_lineage(joined, lake)
    assert lineage["total"] == {("test/sales", "amount_cents")}
    assert lineage["label"] == {("test/sales", "sale_id"), ("test/sales", "amount_cents")}
    assert lineage["at"] == {("test/sales", "at")}
    assert lineage["one"] == frozenset()
    both = column_lineage(ibis.union(per_sale, per_sale.mutate(total=_.total * 2)), lake)
    assert both["total"] == {("test/sales", "amount_cents")}


def test_the_value_of_a_group_comes_also_from_what_chose_its_rows_and_a_number_from_what_names_them(lake):
    lake.write(SALES, [FIRST], _rows([FIRST]))
    sales = lake.on(SALES, FIRST)

    def told(table):
        return {name: {column for _table, column in pairs} for name, pairs in column_lineage(table, lake).items()}

    paid = sales.filter(_.amount_cents > 0).select("sale_id", "at")
    per_sale = paid.group_by("sale_id").agg(rows=_.count(), last=_.at.max(), late=_.count(where=_.at > FIRST))
    assert told(per_sale) == {
        "sale_id": {"sale_id"},
        "rows": {"sale_id", "amount_cents"},
        "last": {"at", "amount_cents"},
        "late": {"sale_id", "amount_cents", "at"},
    }
    several = per_sale.filter(_.late > 1).agg(sales=_.count(), last=_.last.max())
    assert told(several) == {"sales": {"sale_id", "amount_cents", "at"}, "last": {"sale_id", "amount_cents", "at"}}
    # of a join the conditions of its first table's rows
    joined = sales.filter(_.amount_cents > 0).left_join(sales.filter(_.at > FIRST).select("sale_id"), "sale_id")
    assert told(joined.group_by("sale_id").agg(last=_.at.max()))["last"] == {"at", "amount_cents"}
    # neither the condition of rows that are no group's, nor what joins them
    kept = per_sale.filter(_.rows > 1).join(sales.select("sale_id", "amount_cents"), "sale_id")
    assert told(kept)["last"] == {"at", "amount_cents"}
    assert told(kept.select("amount_cents"))["amount_cents"] == {"amount_cents"}
    # a query in a value is followed, to the one column that it gives
    share = sales.mutate(share=_.amount_cents / sales.amount_cents.sum().as_scalar(), all=sales.count().as_scalar())
    assert told(share)["share"] == {"amount_cents"}
    assert told(share)["all"] == set()
    assert told(sales.mutate(known=_.at.isin(paid.at)))["known"] == {"at"}


def test_the_first_day_is_the_earliest_ever_noted(lake):
    assert Lake.first_day(lake.root) is None
    lake.note_first_day(date(2026, 3, 1))
    lake.note_first_day(date(2026, 5, 1))
    lake.note_first_day(date(2025, 12, 1))
    assert Lake.first_day(lake.root) == date(2025, 12, 1)


def test_a_long_read_goes_through_months_and_follows_every_change(lake, monkeypatch):
    monkeypatch.setattr(lake_module, "_FEW_FILES", 10)
    days = days_between(date(2026, 1, 20), date(2026, 3, 10))
    lake.write(SALES, days, _rows(days))

    def known(end):
        rows = lake.between(SALES, end=end).agg(n=_.count(), cents=_.amount_cents.sum(), last=_.day.max())
        return rows.to_pyarrow().to_pylist()[0]

    per_day = {"n": 3, "cents": 300}
    for end in (days[-1], date(2026, 2, 28), date(2026, 2, 14)):
        count = (end - days[0]).days + 1
        assert known(end) == {"n": count * per_day["n"], "cents": count * per_day["cents"], "last": end}
    months = lake.root / "_months" / SALES.name
    assert {path.name[:7] for path in months.iterdir()} == {"2026-01", "2026-02"}

    lake.write(SALES, [date(2026, 1, 25)], _rows([date(2026, 1, 25)], per_day=5).drop_columns(["day"]))
    lake.delete(SALES, date(2026, 2, 3))
    assert known(days[-1])["n"] == len(days) * 3 + 2 - 3
    assert column_lineage(lake.between(SALES), lake)["sale_id"] == {("test/sales", "sale_id")}


def test_readings_of_many_days_are_forgotten_once_nobody_needs_them(lake, monkeypatch):
    days = days_between(FIRST, FIRST + timedelta(days=9))
    lake.write(SALES, days, _rows(days))

    def read() -> int:
        counted = [lake.between(SALES, end=day).count().execute() for day in days]
        assert counted == [3 * n for n in range(1, 11)]
        lake.between(SALES, end=FIRST - timedelta(days=1))  # an empty table
        lake.forget_reads()
        ((left,),) = lake.con.raw_sql(
            "select count(*) from duckdb_views() where view_name like 'test_sales_%'"
        ).fetchall()
        ((empty,),) = lake.con.raw_sql("select count(*) from duckdb_tables()").fetchall()
        return left + empty

    assert read() == 11
    monkeypatch.setattr("shopauto_pipelines.platform.lake._MANY_READS", 10)
    assert [read(), read()] == [0, 0]


def test_a_folder_may_be_called_as_it_likes(tmp_path):
    lake, days = Lake(tmp_path / 'Anna\'s "shop" [1]'), days_between(FIRST, FIRST + timedelta(days=60))
    lake.write(SALES, days, _rows(days))
    assert lake.between(SALES).count().execute() == 183  # through files of months


def test_days_that_are_read_once_are_not_packed_into_months(lake, monkeypatch):
    monkeypatch.setattr(lake_module, "_FEW_FILES", 10)
    days = days_between(date(2026, 1, 1), date(2026, 3, 31))
    lake.write(SALES, days, _rows(days))
    before = lake.between(SALES, days[3], days[-4], once=True).agg(n=_.count(), first=_.day.min(), last=_.day.max())
    expected = {"n": 3 * len(days[3:-3]), "first": days[3], "last": days[-4]}
    assert before.to_pyarrow().to_pylist() == [expected]
    assert LakeTable(lake, SALES).once(days[0], days[-1]).count().execute() == 3 * len(days)
    assert not (lake.root / "_months").exists()
    assert lake.between(SALES).count().execute() == 3 * len(days)
    assert (lake.root / "_months").exists()


def test_many_rows_are_taken_in_ranges_of_days_that_fit_and_a_large_day_alone(lake, monkeypatch):
    days = days_between(FIRST, FIRST + timedelta(days=9))
    assert [*lake.spans([], days)] == [days]
    assert [*lake.spans([SALES], days)] == [days], "nothing is there"
    lake.write(SALES, days, _rows(days))
    of_a_day = lake.path(SALES, days[0]).stat().st_size
    lake.write(SALES, [days[4]], _rows([days[4]], per_day=5_000).drop_columns("day"))
    monkeypatch.setattr(lake.engine, "room", 3 * of_a_day + 20)
    spans = [*lake.spans([SALES], days)]
    assert [day for span in spans for day in span] == days
    assert [len(span) for span in spans] == [3, 1, 1, 3, 2]
    assert [len(span) for span in lake.spans([SALES, SALES], days[:3])] == [1, 1, 1]


def test_each_engine_spills_into_a_folder_of_its_own_and_what_was_left_of_one_goes(tmp_path):
    left = tmp_path / "_staging" / "spill-1-killed"
    left.mkdir(parents=True)
    os.utime(left, (0, 0))
    places = set()
    for lake in (Lake(tmp_path), Lake(tmp_path)):
        places.add(lake.engine.fetch("select current_setting('temp_directory') as place")["place"][0].as_py())
    assert len(places) == 2, "processes name what they spill the same, and would read each other's"
    assert {Path(place).parent for place in places} == {left.parent}
    assert not left.exists()


@pytest.mark.parametrize(("fits_with", "tried"), [(8, [8]), (3, [8, 4, 2]), (1, [8, 4, 2, 1]), (0, [8, 4, 2, 1])])
def test_what_does_not_fit_is_tried_with_fewer_threads_which_come_back_afterwards(tmp_path, fits_with, tried):
    engine, seen, told = Lake(tmp_path, threads=8).engine, [], []

    def threads() -> int:
        return engine.fetch("select current_setting('threads') as n")["n"][0].as_py()

    def work() -> str:
        seen.append(threads())
        if seen[-1] > fits_with:
            raise OUT_OF_MEMORY("failed to allocate")
        return "made"

    if fits_with:
        assert engine.sparing(work, told.append) == "made"
    else:
        with pytest.raises(OUT_OF_MEMORY):
            engine.sparing(work, told.append)
    assert seen == tried
    assert [how.rpartition(" ")[2] for how in told] == [str(threads) for threads in tried[1:]]
    assert threads() == 8


@pytest.mark.parametrize(("told", "raised"), [("Out of Memory Error: no block", OUT_OF_MEMORY), ("disk full", OSError)])
def test_memory_that_ends_while_rows_come_is_told_as_such(told, raised):
    def broken() -> Iterator[pa.RecordBatch]:
        yield pa.record_batch({"n": [1]})
        raise OSError(told)

    rows = streamed(broken())
    assert next(rows).num_rows == 1
    with pytest.raises(raised, match=told):
        next(rows)


@pytest.mark.parametrize("memory", ["1GB", "800MB", "2GiB", "1500MiB"])
def test_the_engine_has_room_for_an_eighth_of_its_memory(tmp_path, memory):
    size = (
        float(memory.rstrip("GMiB")) * {"GB": 1e9, "MB": 1e6, "GiB": 2**30, "MiB": 2**20}[memory.lstrip("0123456789")]
    )
    assert Lake(tmp_path, memory=memory).engine.room == pytest.approx(size / 8, rel=0.05)

"""A lake in a bucket does what one in a folder does: the same bytes, the same times, swapped at once."""

import multiprocessing
import os
import random
import shutil
import subprocess
import sys
import textwrap
import threading
import time
import uuid
from collections import Counter
from datetime import date, timedelta
from pathlib import Path

import httpx
import ibis
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from pydantic import ValidationError
from s3fs import S3FileSystem

from shopauto_pipelines.cli.doctor import _lake
from shopauto_pipelines.platform import lake as lake_module
from shopauto_pipelines.platform import object_storage
from shopauto_pipelines.platform.lake import Lake, MissingPartition, days_between
from shopauto_pipelines.platform.object_storage import ObjectStorage, ObjectStorageError
from shopauto_pipelines.platform.settings import Settings, load_settings
from shopauto_pipelines.platform.storage import FILE, LocalStorage
from shopauto_pipelines.platform.tables import Column, Table
from shopauto_pipelines.sources import landing, raw, staleness
from shopauto_pipelines.sources.tables import CUSTOMERS, ORDERS, QUARANTINE
from shopauto_pipelines_tests.platform.conftest import BUCKET, KEYS
from shopauto_pipelines_tests.sources.declared import an_order_a_day

SALES = Table(
    "test/sales",
    "Sales.",
    (Column("sale_id", "string", "id", required=True), Column("amount_cents", "int64", "minor units")),
    ("sale_id",),
    partition="day",
)
STATE = Table(
    "test/state", "Sums.", (Column("cents", "int64", "minor units", required=True),), ("cents",), partition="as_of"
)
FIRST = date(2026, 1, 30)


def rows(days, per_day=3, cents=100):
    ids = [f"{day}-{n}" for day in days for n in range(per_day)]
    of_day = [day for day in days for _n in range(per_day)]
    return pa.table({"sale_id": ids, "amount_cents": [cents] * len(ids), "day": pa.array(of_day, pa.date32())})


def test_a_large_partition_that_another_machine_replaces_at_once_is_not_taken_for_ones_own(bucket, monkeypatch):
    monkeypatch.setattr(object_storage, "_PART", 5 * 2**20)
    ours, theirs = bucket(), bucket("other machine")
    call, done = S3FileSystem._call_s3, []

    async def called(self, method, *args, **kwargs):
        answer = await call(self, method, *args, **kwargs)
        if method == "complete_multipart_upload" and not done:
            done.append(method)
            await call(self, "put_object", Bucket=kwargs["Bucket"], Key=kwargs["Key"], Body=b"B" * (11 * 2**20))
        return answer

    monkeypatch.setattr(S3FileSystem, "_call_s3", called)
    staged = ours.root / "_staging" / "large" / FILE
    staged.parent.mkdir()
    staged.write_bytes(b"A" * (11 * 2**20))
    with ours.storage.replacing("test/large", "columns", 1) as replaced:
        replaced("as_of=2026-01-01", staged)
    assert done
    for lake in (ours, theirs):
        (file,) = lake.storage.local([lake.storage.partition("test/large", "as_of=2026-01-01")])
        assert file.read_bytes()[:1] == b"B"


def test_what_was_written_is_read_by_this_machine_and_by_another(made):
    days = days_between(FIRST, FIRST + timedelta(days=3))
    written = made().write(SALES, days, rows(days[:3]))
    assert [written[day].rows for day in days] == [3, 3, 3, 0]
    for lake in (made(), made("other machine")):
        assert lake.days(SALES) == days
        assert lake.rows(SALES, days[0]) == 3
        assert lake.has(SALES, days[3])
        assert not lake.has(SALES, days[3] + timedelta(days=1))
        assert sorted(lake.between(SALES, end=days[1]).sale_id.execute()) == sorted(
            rows(days[:2])["sale_id"].to_pylist()
        )
        assert lake.on(SALES, days[3]).count().execute() == 0


def test_the_same_rows_are_the_same_bytes_in_a_folder_and_in_a_bucket(bucket, tmp_path):
    days = days_between(FIRST, FIRST + timedelta(days=1))
    folder, remote = Lake(tmp_path / "folder"), bucket()
    for lake in (folder, remote):
        lake.write(SALES, days, rows(days))
    elsewhere = bucket("other machine")
    assert [elsewhere.path(SALES, day).read_bytes() for day in days] == [
        folder.path(SALES, day).read_bytes() for day in days
    ]


def test_a_rewrite_with_the_same_rows_was_computed_again_and_did_not_change(made):
    lake = made()
    lake.write(SALES, [FIRST], rows([FIRST]))
    first = lake.times(SALES)[FIRST]
    time.sleep(0.01)
    assert not made("other machine").write(SALES, [FIRST], rows([FIRST]))[FIRST].changed
    again = lake.times(SALES)[FIRST]
    assert first.changed == again.changed
    assert first.computed < again.computed
    assert lake.write(SALES, [FIRST], rows([FIRST], cents=7))[FIRST].changed
    other = made("other machine").times_of([SALES, STATE])
    assert other[SALES.name][FIRST].changed > again.computed
    assert other[STATE.name] == {}


def test_within_one_second_it_is_known_what_came_first(made):
    lake = made()
    lake.write(SALES, [FIRST], rows([FIRST]))
    lake.write(STATE, [FIRST], pa.table({"cents": [1]}))
    assert lake.times(SALES)[FIRST].changed < lake.times(STATE)[FIRST].computed
    lake.write(SALES, [FIRST], rows([FIRST], cents=2))
    assert lake.times(SALES)[FIRST].changed > lake.times(STATE)[FIRST].computed


def test_a_deleted_partition_is_missing_everywhere(made):
    lake, other = made(), made("other machine")
    lake.write(SALES, [FIRST], rows([FIRST]))
    assert other.on(SALES, FIRST).count().execute() == 3
    lake.delete(SALES, FIRST)
    lake.delete(SALES, FIRST)
    assert other.days(SALES) == []
    assert not other.path(SALES, FIRST).exists()
    with pytest.raises(MissingPartition, match="test/sales has not been computed for 2026-01-30"):
        other.on(SALES, FIRST)


def test_a_month_is_made_anew_where_a_day_of_it_changed(made, monkeypatch):
    monkeypatch.setattr(lake_module, "_FEW_FILES", 2)
    days = days_between(FIRST, FIRST + timedelta(days=3))
    made().write(SALES, days, rows(days))
    other = made("other machine")
    assert other.between(SALES).amount_cents.sum().execute() == 1200
    made().write(SALES, [FIRST], rows([FIRST], cents=7))
    assert other.between(SALES).amount_cents.sum().execute() == 921
    assert sorted(path.name[:7] for path in (other.root / "_months" / SALES.name).iterdir()) == ["2026-01", "2026-01"]


def test_who_reads_while_a_partition_is_replaced_sees_the_old_one_or_the_new_one(made):
    lake, other = made(), made("other machine")
    lake.write(SALES, [FIRST], rows([FIRST], 2000, cents=1))
    over, seen, failed = threading.Event(), set(), []

    def read() -> None:
        try:
            while not over.is_set():
                found = pq.ParquetFile(other.path(SALES, FIRST)).read()["amount_cents"]
                if not isinstance(other.storage, LocalStorage):  # an engine opens a file in a folder more than once
                    found = other.on(SALES, FIRST).amount_cents.to_pyarrow()
                seen.add((len(found), *found.unique().to_pylist()))
        except Exception as error:
            failed.append(error)

    reader = threading.Thread(target=read)
    reader.start()
    for cents in range(2, 12):
        lake.write(SALES, [FIRST], rows([FIRST], 2000 + cents, cents=cents))
    over.set()
    reader.join()
    assert not failed
    assert seen <= {(2000, 1), *((2000 + cents, cents) for cents in range(2, 12))}
    assert len(seen) > 1


def test_notes_are_the_same_for_all_machines(made):
    assert Lake.first_day(made().storage) is None
    made().note_first_day(FIRST)
    made("other machine").note_first_day(FIRST + timedelta(days=1))
    assert Lake.first_day(made("third machine").storage) == FIRST
    made().write(STATE, [FIRST], pa.table({"cents": [1]}))
    day, computed = made("other machine").newest_state()
    assert (day, computed) >= (FIRST, made().times(STATE)[FIRST].computed)


def test_a_large_partition_goes_and_comes_in_parts(bucket, monkeypatch, tmp_path):
    monkeypatch.setattr(object_storage, "_PART", 5 * 1024 * 1024)  # S3 takes none that are smaller, but for the last
    storage, staged = bucket().storage, tmp_path / "staged" / FILE
    staged.parent.mkdir()
    staged.write_bytes(content := os.urandom(11 * 1024 * 1024))
    with storage.replacing(SALES.name, "", 1) as replaced:
        replaced(f"day={FIRST}", staged)
    for lake in (bucket(), bucket("other machine")):
        assert lake.path(SALES, FIRST).read_bytes() == content


def test_a_writer_killed_anywhere_leaves_whole_partitions(s3, bucket):
    lake = bucket()
    lake.write(SALES, [FIRST], rows([FIRST], cents=1))
    lake.write(STATE, [FIRST], pa.table({"cents": [1]}))
    script = """
        import sys
        from pathlib import Path
        from shopauto_pipelines.platform.lake import Lake
        from shopauto_pipelines.platform.object_storage import ObjectStorage
        from shopauto_pipelines_tests.platform.test_storage import FIRST, SALES, rows
        lake = Lake(ObjectStorage(sys.argv[1], Path(sys.argv[2]), sys.argv[3]), threads=1)
        for cents in range(2, 10_000):
            lake.write(SALES, [FIRST], rows([FIRST], 2000 + cents, cents=cents))
            print(cents, flush=True)
    """
    command = [sys.executable, "-c", textwrap.dedent(script), lake.place, str(lake.root) + "-killed", s3.url]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as writer:
        assert writer.stdout
        writer.stdout.readline()
        time.sleep(random.random() / 5)
        writer.kill()
    found = lake.on(SALES, FIRST).amount_cents.to_pyarrow()
    (cents,) = found.unique().to_pylist()
    assert len(found) == 2000 + cents
    assert lake.times(SALES)[FIRST].changed > lake.times(STATE)[FIRST].computed


def test_rows_without_times_changed_when_the_store_took_them(bucket):
    lake = bucket()
    lake.write(SALES, [FIRST], rows([FIRST]))
    lake.write(STATE, [FIRST], pa.table({"cents": [1]}))
    other = bucket("other machine")
    other.write(SALES, [FIRST + timedelta(days=1)], rows([FIRST], cents=5))
    put(lake, f"{SALES.name}/day={FIRST}/data.parquet", other.path(SALES, FIRST + timedelta(days=1)).read_bytes())
    assert lake.times(SALES)[FIRST].changed > lake.times(STATE)[FIRST].computed
    time.sleep(1.1)  # it has its times in seconds
    lake.write(STATE, [FIRST], pa.table({"cents": [1]}))
    assert lake.times(SALES)[FIRST].changed < lake.times(STATE)[FIRST].computed
    assert lake.on(SALES, FIRST).amount_cents.sum().execute() == 15


def test_objects_beside_a_partition_that_are_somebody_elses_do_not_matter(bucket):
    lake = bucket()
    lake.write(SALES, [FIRST], rows([FIRST]))
    mine = lake.times(SALES)[FIRST]
    for name in ("_computed-", "_computed-today-by-hand", "_computed-1-2-3"):
        put(lake, f"{SALES.name}/day={FIRST}/{name}", b"")
    assert bucket("other machine").times(SALES)[FIRST] == mine


def put(lake, name, content):
    """As a writer does who is killed right after."""
    storage = lake.storage
    storage._call("write", "put_object", name, Body=content)


def test_what_is_asked_of_the_store_does_not_grow_with_the_days(bucket, s3):
    lake, days = bucket(), days_between(FIRST, FIRST + timedelta(days=9))

    def asked(what):
        before = len(s3.requests())
        what()
        return sorted(Counter(s3.requests()[before:]).items())

    lake.write(SALES, days[:1], rows(days[:1]))
    assert asked(lambda: lake.write(SALES, days, rows(days))) == [("DELETE", 1), ("GET", 1), ("PUT", 19)]
    assert asked(lambda: lake.between(SALES).count().execute()) == [("GET", 1)]
    assert asked(lambda: lake.on(SALES, FIRST).count().execute()) == [("GET", 1)]
    assert asked(lambda: lake.times_of([SALES, STATE])) == [("GET", 1)]
    other = bucket("other machine")
    assert asked(lambda: other.between(SALES).count().execute()) == [("GET", 11)]
    assert asked(lambda: other.between(SALES, FIRST, FIRST).count().execute()) == [("GET", 1)]


def test_a_lake_that_need_not_be_fresh_asks_once_and_sees_what_it_writes_itself(bucket, s3):
    mine, other = bucket(fresh_for=60), bucket("other machine")
    mine.write(SALES, [FIRST], rows([FIRST]))
    before = len(s3.requests())
    for _time in range(3):
        assert mine.days(SALES) == [FIRST]
        assert mine.on(SALES, FIRST).amount_cents.sum().execute() == 300
    mine.write(SALES, [FIRST], rows([FIRST], cents=1))
    assert mine.session().between(SALES).amount_cents.sum().execute() == 3
    assert Counter(s3.requests()[before:]) == {"GET": 2, "PUT": 2, "DELETE": 1}
    other.write(SALES, [FIRST], rows([FIRST], cents=2))
    assert mine.on(SALES, FIRST).amount_cents.sum().execute() == 3
    shutil.rmtree(mine.root / "_copies" / SALES.name)  # who has no copy needs what is there now
    assert mine.on(SALES, FIRST).amount_cents.sum().execute() == 6
    mine.delete(SALES, FIRST)
    assert mine.days(SALES) == []


def test_late_rows_make_the_same_days_stale_in_a_folder_and_in_a_bucket(made, settings, tmp_path):
    days = days_between(date(2026, 1, 5), date(2026, 1, 8))
    lake = made()
    load_with = an_order_a_day(lake, settings, tmp_path, days)
    load_with()
    other = made("other machine")

    def compute(on, days):
        for table in (CUSTOMERS, ORDERS):
            on.write(table, days, raw.accepted(on, table, days[0], days[-1]))
        on.write(QUARANTINE, days, raw.rejected(on, days[0], days[-1]))
        for day in days:
            on.write(STATE, [day], on.between(ORDERS, end=day).agg(cents=ibis._.count()))

    compute(other, days)
    assert staleness.stale_days(lake, STATE) == []
    load_with("late,2026-01-07,c1,,1")
    assert staleness.days_behind(other, ORDERS) == days[2:]
    assert staleness.stale_days(other, STATE) == days[2:]
    compute(lake, days[2:])
    for machine in (lake, other, made("third machine")):
        assert staleness.stale_days(machine, STATE) == []
        assert machine.on(STATE, days[3]).cents.execute().tolist() == [5]
        assert landing.landed_days(machine) == (days[0], days[-1])


def test_a_load_that_was_killed_is_as_if_it_had_not_begun(bucket, settings, tmp_path):
    days = days_between(date(2026, 1, 5), date(2026, 1, 6))
    lake, other = bucket(), bucket("other machine")
    an_order_a_day(lake, settings, tmp_path, days)()
    manifest = lake.root / "landing" / "shop" / "manifest.json"
    names = sorted(path.name for path in manifest.parent.rglob("*") if path.is_file())
    (manifest.parent / "orders" / "half.parquet").write_bytes(b"begun")
    manifest.write_text(manifest.read_text().replace("orders.csv", "begun.csv"))
    landing.manifests(lake)
    assert "begun.csv" in manifest.read_text()  # who holds the lock may be at it
    assert [*landing.manifests(other)[0].files] == ["customers:customers.csv", "orders:orders.csv"]
    (manifest.parent.parent / ".mirrored").write_text('{"half')
    with landing._locked(lake, settings):
        assert "begun.csv" not in manifest.read_text()
    assert sorted(path.name for path in manifest.parent.rglob("*") if path.is_file()) == names


def test_what_was_landed_long_ago_stays_when_a_file_of_the_same_mapping_comes(bucket, monkeypatch):
    lake, other = bucket(), bucket("other machine")

    def names(machine):
        folder = machine.root / "landing" / "shop" / "orders"
        return sorted(path.name for path in folder.iterdir())

    def land(name):
        file = lake.root / "landing" / "shop" / "orders" / f"{name}-mapping.parquet"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(name)
        lake.storage.push("landing")

    land("a")
    land("b")
    other.storage.pull("landing")
    monkeypatch.setattr(object_storage, "_REPLACED_SECONDS", -1)
    land("c")
    other.storage.reset("landing")
    other.storage.push("landing")
    landed = ["a-mapping.parquet", "b-mapping.parquet", "c-mapping.parquet"]
    third = bucket("third machine")
    third.storage.pull("landing")
    assert names(other) == names(third) == landed


def test_a_manifest_that_came_before_the_network_failed_is_not_taken_for_this_machines_own(bucket, monkeypatch):
    lake, other = bucket(), bucket("other machine")

    def land(text):
        for source in ("a", "b"):
            manifest = lake.root / "landing" / source / "manifest.json"
            manifest.parent.mkdir(parents=True, exist_ok=True)
            manifest.write_text(text)
        lake.storage.push("landing")

    def seen():
        return {path.read_text() for path in (other.root / "landing").glob("*/manifest.json")}

    land("first")
    fetch = other.storage._bytes

    async def broken(s3, wanted):
        if "/b/" in wanted["Key"]:
            raise TimeoutError
        return await fetch(s3, wanted)

    with monkeypatch.context() as patched:
        patched.setattr(other.storage, "_bytes", broken)
        with pytest.raises(ObjectStorageError):
            other.storage.pull("landing")
    land("second")
    other.storage.pull("landing")
    assert seen() == {"second"}


def refused(url, monkeypatch, place=f"s3://{BUCKET}/shop", **environment):
    """What is said where the store cannot be used."""
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    S3FileSystem.clear_instance_cache()
    with pytest.raises(ObjectStorageError) as told:
        ObjectStorage(place, Path("/nowhere"), url).partitions("raw/orders")
    text = str(told.value)
    assert place in text
    assert not any(secret in text for secret in (*KEYS.values(), "a-password") if len(secret) > 9)
    assert told.value.__suppress_context__ or told.value.__context__ is None
    return text


def test_a_bucket_that_is_not_there_is_told_with_what_to_do(s3, keys, monkeypatch):
    told = refused(s3.url, monkeypatch, "s3://no-such-bucket/shop")
    assert f"the lake at s3://no-such-bucket/shop at {s3.url}: there is no bucket no-such-bucket: create it, or" in told


def test_a_server_that_cannot_be_reached_is_told_without_what_stands_before_its_host(keys, monkeypatch):
    told = refused("http://user:a-password@127.0.0.1:9", monkeypatch)
    assert "at http://127.0.0.1:9: it cannot be reached" in told


@pytest.mark.parametrize("url", ["127.0.0.1:9000", "minio", "http://user:a-password@127.0.0.1:port"])
def test_an_endpoint_that_is_no_address_is_told_without_what_stands_before_its_host(keys, monkeypatch, url):
    told = refused(url, monkeypatch)
    assert "SHOPAUTO_LAKE_ENDPOINT or AWS_ENDPOINT_URL is no address of a server: http://host:port" in told


def test_keys_that_are_missing_or_wrong_are_told_and_not_shown(s3, keys, monkeypatch):
    httpx.post(f"{s3.url}/moto-api/reset-auth", content="0").raise_for_status()
    try:
        assert "the keys are not accepted (InvalidAccessKeyId): correct AWS_ACCESS_KEY_ID" in refused(
            s3.url, monkeypatch
        )
    finally:
        httpx.post(f"{s3.url}/moto-api/reset-auth", content="inf").raise_for_status()
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.delenv(name)
    nothing = {"AWS_CONFIG_FILE": "/dev/null", "AWS_SHARED_CREDENTIALS_FILE": "/dev/null"}
    assert "no keys were found: set AWS_ACCESS_KEY_ID" in refused(s3.url, monkeypatch, **nothing)


def test_without_its_packages_a_lake_in_a_bucket_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "s3fs", None)
    with pytest.raises(ObjectStorageError, match=r"pip install '\.\[s3\]'"):
        ObjectStorage("s3://lake/shop", Path("/nowhere")).partitions("raw/orders")


def test_the_settings_say_where_the_lake_is_and_take_no_other_kind_of_address(tmp_path):
    def at(lake, **more):
        return Settings(home=tmp_path, lake=lake, _env_file=None, **more)

    assert (at(None).lake_path, at(None).lake_bucket) == (tmp_path / "lake", None)
    assert (at(str(tmp_path / "other")).lake_path, at(str(tmp_path)).lake_bucket) == (tmp_path / "other", None)
    assert at("s3://my-lake/shop/").lake_bucket == "s3://my-lake/shop"
    assert at("s3://my-lake/shop").lake_path.parent == tmp_path / "copies"
    assert at("s3://my-lake/shop", known="then").lake_bucket is None
    with pytest.raises(ValidationError, match=r"http://host:port, or https://host"):
        at("s3://my-lake/shop", lake_endpoint="http://key:secret@minio:9000")
    for wrong in ("gs://my-lake", "s3://", "s3://key:secret@my-lake/shop"):
        with pytest.raises(ValidationError, match=r"must be a folder, or s3://bucket/prefix"):
            at(wrong)


def test_the_doctor_tries_the_bucket_and_leaves_nothing_in_it(s3, keys, shopauto, monkeypatch):
    place = f"s3://{BUCKET}/{uuid.uuid4().hex[:8]}"
    monkeypatch.setenv("SHOPAUTO_LAKE", place)
    monkeypatch.setenv("SHOPAUTO_LAKE_ENDPOINT", s3.url)
    S3FileSystem.clear_instance_cache()
    found = " ".join(finding.text for finding in _lake(load_settings()))
    assert f"{place} at {s3.url}: may list, read, write and delete" in found
    assert ObjectStorage(place, Path("/nowhere"), s3.url)._listed("") == []
    monkeypatch.setenv("SHOPAUTO_LAKE", "s3://no-such-bucket/shop")
    assert "there is no bucket no-such-bucket" in shopauto("segments", "show", "vip", code=1)


def test_a_process_forked_from_one_that_has_read_reads_too(bucket):
    lake = bucket()
    lake.note_first_day(FIRST)
    assert Lake.first_day(lake.storage) == FIRST
    with multiprocessing.get_context("fork").Pool(1) as forked:
        assert forked.apply_async(Lake.first_day, (lake.storage,)).get(30) == FIRST

"""A refresh is repeatable, a range equals single days, a killed one leaves nothing half done, nothing is sent twice."""

import os
import random
import shutil
import signal
import time
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from shopauto_pipelines_tests.e2e.conftest import RANGE, RANGE_DAYS

pytestmark = pytest.mark.slow

COMPUTED = ("profiles", "features", "predictions", "segments", "campaigns")

#: How many days of the range are computed again one by one.
SINGLE_DAYS = int(os.environ.get("SHOPAUTO_TEST_SINGLE_DAYS", "1"))


def test_the_same_day_again_gives_the_same_bytes_and_not_one_more_message(new_shop, refreshed):
    assert refreshed.messages()
    shop = new_shop(like=refreshed)
    shop.run("refresh")
    assert shop.tables() == refreshed.tables()
    assert shop.messages() == refreshed.messages()
    assert {state for _campaign, _day, state, _number in shop.ledger()} == {"sent"}


def test_a_range_in_one_run_gives_the_tables_of_single_days_and_sends_only_for_the_newest(new_shop, refreshed):
    shop = new_shop(like=refreshed)
    ranged, sent = shop.tables(), shop.messages()
    assert len([path for path in ranged if path.startswith("segments/membership/as_of=2026-06")]) == RANGE_DAYS
    assert sent
    assert {day for _campaign, day, _state, _number in shop.ledger()} == {"2026-06-30"}

    first = 31 - SINGLE_DAYS
    for day in range(first, 31):
        for partition in (shop.home / "lake").rglob(f"*=2026-06-{day:02}"):
            shutil.rmtree(partition)
    assert len(shop.tables()) < len(ranged)
    shop.python(
        f"""
        from datetime import date
        from rich.console import Console
        from shopauto_pipelines.cli import refreshing
        from shopauto_pipelines.platform.lake import Lake
        from shopauto_pipelines.platform.settings import load_settings
        settings = load_settings()
        for day in range({first}, 31):
            day = date(2026, 6, day)
            refreshing.refresh(Lake(settings.lake_path), settings, day, day, Console(quiet=True))
        """,
        timeout=1800,
    )
    assert shop.tables() == ranged
    assert shop.messages() == sent


def test_killed_anywhere_and_run_again_is_as_if_it_had_never_been_killed(new_shop, loaded, refreshed):
    shop, ledger = new_shop(like=loaded), new_shop(like=refreshed).ledger()
    partitions = len(set(refreshed.tables()) - set(loaded.tables()))
    messages = len(refreshed.messages())
    chance = random.Random()
    seed = chance.randrange(1_000_000)
    chance.seed(seed)
    for progress, total in ((_partitions_written, partitions), (_messages_delivered, messages)):
        point = chance.randrange(1, total)
        where = f"seed {seed}: killed at {point} of {total} by {progress.__name__}"
        started = time.time_ns()
        process = shop.start("refresh", *RANGE)
        while progress(shop.home, started) < point:
            assert process.is_alive(), f"{where}: ended before"
            time.sleep(0.002)
        process.kill()
        process.join()
        assert process.exitcode == -signal.SIGKILL, where
        for folder in (shop.home / "lake").glob("[a-z]*/**/*=2026-06-*"):
            pq.read_table(folder / "data.parquet")
        assert set(shop.messages()) <= set(refreshed.messages()), where
    shop.run("refresh", *RANGE)
    assert shop.tables() == refreshed.tables(), where
    assert shop.messages() == refreshed.messages(), where
    assert shop.ledger() == ledger, where


def test_a_bad_batch_stops_before_the_send_and_says_what_is_wrong(new_shop, tmp_path):
    from shopauto_pipelines.sources.sample import generate

    files = tmp_path / "files"
    generate(files, customers=60, months=2)
    bad = _edit_last_rows(files / "orders.csv", 2, {"total": "2000000.00"})
    shop = new_shop()
    shop.run("load", "sample", files)
    output = shop.run("refresh", code=1)
    assert "raw/orders:quality" in output
    assert "expect_column_values_to_be_between(total_cents" in output
    assert "fails for 2 of" in output
    for row in bad:
        assert row["order_id"] in output
    assert "2000000" not in output
    assert "200000000" not in output
    assert shop.messages() == []
    assert not any("as_of=2026-06-30" in path for path in shop.tables(*COMPUTED))


def test_late_rows_are_told_by_the_doctor_and_mended_on_exactly_the_days_they_touch(
    new_shop, loaded, refreshed, small_files, tmp_path
):
    late = tmp_path / "late"
    shutil.copytree(small_files, late)
    order = {"order_id": "late-1", "ordered_at": "2026-06-15T12:00:00Z", "shop_customer_id": "c00001", "email": ""}
    _append_copy(late / "orders.csv", {**order, "cart_id": "", "coupon_code": ""})
    shop = new_shop(like=refreshed)
    assert "late rows" not in shop.run("doctor")
    shop.run("load", "sample", late)
    told = " ".join(shop.run("doctor").split())
    assert "stale 16 days, 2026-06-15 … 2026-06-30: late rows of orders.csv (sample) → shopauto refresh --stale" in told
    shop.run("refresh", "--stale")
    assert "late rows" not in shop.run("doctor")

    before, after = refreshed.tables(), shop.tables()
    changed = {path for path in after if after[path] != before.get(path)}
    assert "raw/orders/day=2026-06-15/data.parquet" in changed
    assert "features/customer_features/as_of=2026-06-30/data.parquet" in changed
    refreshed_days = {f"2026-06-{day:02}" for day in range(31 - RANGE_DAYS, 31)}
    assert {path.split("=")[1][:10] for path in changed} == {"2026-06-15"} | refreshed_days
    assert set(refreshed.messages()) <= set(shop.messages())
    rows = pq.read_table(shop.home / "lake" / "raw" / "orders" / "day=2026-06-15" / "data.parquet").to_pylist()
    assert [row["shop_customer_id"] for row in rows if row["order_id"] == "late-1"] == [order["shop_customer_id"]]

    whole = new_shop(like=loaded)
    whole.run("load", "sample", late)
    whole.run("refresh", *RANGE)
    assert after == whole.tables()


def _partitions_written(home: Path, since: int) -> int:
    lake = home / "lake"
    folders = [*lake.glob("[a-z]*/*/*=2026-06-*"), *lake.glob("campaigns/*/*/*=2026-06-*")]
    return sum(folder.stat().st_mtime_ns > since for folder in folders)


def _messages_delivered(home: Path, since: int) -> int:
    return len(list((home / "inbox").rglob("*.eml")))


def _edit_last_rows(path: Path, count: int, values: dict[str, str]) -> list[dict[str, str]]:
    header, *rows = path.read_text().splitlines()
    names = header.split(",")
    edited = [dict(zip(names, row.split(","), strict=True)) | values for row in rows[-count:]]
    lines = [header, *rows[:-count], *(",".join(row[name] for name in names) for row in edited)]
    path.write_text("\n".join(lines) + "\n")
    return edited


def _append_copy(path: Path, values: dict[str, str]) -> None:
    """Append the last row once more with other values."""
    path.write_text(path.read_text() + path.read_text().splitlines()[-1] + "\n")
    _edit_last_rows(path, 1, values)

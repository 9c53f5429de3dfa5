"""A refresh is repeatable, a range equals single days, and a killed one leaves nothing half done."""

import random
import signal
import textwrap
import time

import pytest

pytestmark = pytest.mark.slow

COMPUTED = ("profiles", "features", "predictions", "segments", "campaigns")


def test_the_same_day_again_gives_the_same_bytes_and_not_one_more_message(new_shop, small_files):
    shop = new_shop()
    shop.run("load", "sample", small_files)
    first = shop.run("refresh")
    assert "As of" not in first
    tables, messages = shop.tables(), shop.messages()
    assert messages, first
    shop.run("refresh")
    assert shop.tables() == tables
    assert shop.messages() == messages


def test_a_range_in_one_run_gives_the_tables_of_single_days_and_sends_only_for_the_newest(new_shop, small_files):
    one, many = new_shop("one"), new_shop("many")
    for shop in (one, many):
        shop.run("load", "sample", small_files)
    one.run("refresh", "--from", "2026-06-01", "--to", "2026-06-30")
    many.python(
        textwrap.dedent(
            """
            from datetime import date, timedelta
            from rich.console import Console
            from shopauto_pipelines.cli import refreshing
            from shopauto_pipelines.platform.lake import Lake
            from shopauto_pipelines.platform.settings import load_settings
            settings = load_settings()
            lake = Lake(settings.lake_path)
            for n in range(30):
                day = date(2026, 6, 1) + timedelta(days=n)
                refreshing.refresh(lake, settings, day, day, Console(quiet=True))
            """
        )
    )
    assert len([path for path in one.tables("segments") if "membership" in path]) == 30
    assert one.tables() == many.tables()
    assert one.messages() == many.messages()
    days = one.python(
        "import sqlalchemy as sa\n"
        "from shopauto_pipelines.platform.postgres import engine\n"
        "from shopauto_pipelines.platform.settings import load_settings\n"
        "with engine(load_settings()).connect() as c:\n"
        "    print(*[str(d) for d in c.scalars(sa.text('select distinct as_of from messages'))])"
    )
    assert days.split() == ["2026-06-30"]


def test_killed_anywhere_and_run_again_is_as_if_it_had_never_been_killed(new_shop, small_files):
    untouched, killed = new_shop("untouched"), new_shop("killed")
    for shop in (untouched, killed):
        shop.run("load", "sample", small_files)
    started = time.monotonic()
    untouched.run("refresh")
    takes = time.monotonic() - started
    chance = random.Random(11)
    for _round in range(4):
        process = killed.start("refresh")
        time.sleep(chance.uniform(0.3, 0.95) * takes)
        process.send_signal(signal.SIGKILL)
        process.wait()
        halves = [path for path in (killed.home / "lake").rglob("day=*") if path.is_dir() and not any(path.iterdir())]
        assert halves == []
    killed.run("refresh")
    assert killed.tables() == untouched.tables()
    assert killed.messages() == untouched.messages()


def test_a_bad_batch_stops_before_the_send_and_says_what_is_wrong(new_shop, small_files, tmp_path):
    files = tmp_path / "files"
    files.mkdir()
    for source in small_files.glob("*.csv"):
        text = source.read_text()
        if source.name == "orders.csv":
            header, *rows = text.splitlines()
            at = header.split(",").index("total")
            last = [row.split(",") for row in rows[-3:]]
            for row in last:
                row[at] = f"-{row[at]}"
            text = "\n".join([header, *rows[:-3], *(",".join(row) for row in last)]) + "\n"
        (files / source.name).write_text(text)
    shop = new_shop()
    shop.run("load", "sample", files)
    output = shop.run("refresh", fails=True)
    assert "raw/orders: expect_column_values_to_be_between(total_cents" in output
    assert "fails for 3 of" in output
    assert last[0][0] in output
    assert shop.messages() == []


def test_a_backfill_of_the_newest_day_sends_nothing(new_shop, small_files):
    shop = new_shop()
    shop.run("load", "sample", small_files)
    shop.python(
        textwrap.dedent(
            """
            from shopauto_pipelines.cli import runs
            from shopauto_pipelines.definitions import defs
            from shopauto_pipelines.platform.dagster.runs import range_tags
            from datetime import date
            with runs.instance() as instance:
                repository = defs()
                for job, start, end in (
                    ("load_history", "2025-07-01", "2026-06-29"),
                    ("daily_refresh", "2026-06-30", "2026-06-30"),
                ):
                    result = repository.resolve_job_def(job).execute_in_process(
                        instance=instance,
                        tags={**range_tags(date.fromisoformat(start), date.fromisoformat(end)), "dagster/backfill": "abc"},
                        run_config={"loggers": {"console": {"config": {"log_level": "CRITICAL"}}}},
                    )
                    assert result.success
            """
        )
    )
    assert shop.messages() == []
    shop.run("refresh", "--day", "2026-06-30")
    assert shop.messages()


def test_refreshing_an_older_day_computes_it_and_sends_nothing(new_shop, small_files):
    shop = new_shop()
    shop.run("load", "sample", small_files)
    shop.run("refresh", "--day", "2026-06-20")
    assert shop.messages() == []
    assert any("campaigns/welcome/audience/as_of=2026-06-20" in path for path in shop.tables("campaigns"))

"""A day as known then, of a whole shop: the bytes the day had, beside the lake of everyday, and nothing that acts."""

import json
import shutil

import pytest

from shopauto_pipelines_tests.e2e.conftest import Shop

pytestmark = pytest.mark.slow

DAY = "2026-05-31"


def test_after_late_rows_a_day_as_known_then_is_what_it_was_beside_a_lake_and_a_ledger_that_stay_as_they_are(
    new_shop, loaded, small_files, tmp_path
):
    shop = new_shop(like=loaded)
    held, models = shop.tables(), sorted(file.name for file in (shop.home / "models").iterdir())
    files = tmp_path / "files"
    shutil.copytree(small_files, files)
    with (files / "orders.csv").open() as orders:
        names = next(orders).strip().split(",")
        order = dict(zip(names, next(orders).strip().split(","), strict=True))
    order |= {"order_id": "late-1", "ordered_at": "2026-05-20T12:00:00Z", "cart_id": "", "coupon_code": ""}
    with (files / "orders.csv").open("a") as orders:
        orders.write(",".join(order[name] for name in names) + "\n")
    shop.run("load", "sample", files)

    said = shop.run("--known", "then", "refresh", "--day", DAY)
    assert "late" not in said
    assert "carries over" not in said
    assert f"{DAY} as known that day" in said
    then = Shop(shop.home / "known_then")
    assert then.tables() == held
    assert sorted(file.name for file in (then.home / "models").iterdir()) == models
    assert shop.tables() == held
    assert "As known that day" in shop.run("--known", "then", "segments", "list")

    found = json.loads(
        shop.python("from shopauto_pipelines_tests.e2e.test_known_then import look; look()").splitlines()[-1]
    )
    assert found["runs"] == {"now": ["2026-05-30", DAY], "then": ["2026-05-30", DAY]}
    assert found["acts"] == {"now": True, "then": False}
    assert found["by_hand"] == "Days as known then are computed in their order"
    assert (shop.ledger(), shop.messages()) == ([], [])
    assert "late rows of orders.csv (sample)" in shop.run("health", code=1)


def look() -> None:
    """What Dagster has in the home of the environment, as known now and then, as a line of JSON."""
    import os

    import dagster as dg

    from shopauto_pipelines.cli import runs
    from shopauto_pipelines.definitions import defs

    end = "dagster/asset_partition_range_end"
    found: dict[str, dict[str, object]] = {"runs": {}, "acts": {}}
    for known in ("now", "then"):
        os.environ["SHOPAUTO_KNOWN"] = known
        with runs.instance() as instance:
            found["runs"][known] = sorted(run.tags[end] for run in instance.get_runs())
            made = defs()
            keys = {key.path[0] for key in made.resolve_asset_graph().executable_asset_keys}
            found["acts"][known] = bool({"outbox", "collector", "realtime"} & keys or made.sensors or made.schedules)
            if known == "then":
                job = made.resolve_job_def("daily_refresh")
                result = job.execute_in_process(
                    instance=dg.DagsterInstance.ephemeral(),
                    partition_key=DAY,
                    asset_selection=[dg.AssetKey(["profiles", "claims"])],
                    raise_on_error=False,
                )
                (failure,) = result.filter_events(lambda event: event.is_step_failure)
                said = failure.step_failure_data.user_failure_data.description
                print(json.dumps({**found, "by_hand": said.partition(":")[0]}))

"""What a run is about, read from its tags: which days, and whether it may send."""

from __future__ import annotations

from datetime import date

import dagster as dg
import pytest

from shopauto_pipelines.platform.dagster.runs import barred, range_tags, run_days


@pytest.fixture(scope="module")
def instance():
    """An instance of its own, in memory."""
    with dg.DagsterInstance.ephemeral() as made:
        yield made


def _run(instance: dg.DagsterInstance, parent: dg.DagsterRun | None = None, **tags: str) -> dg.DagsterRun:
    """A run with these tags; one with a parent repeats it, as Dagster notes it."""
    told = {f"dagster/{name}": value for name, value in tags.items()}
    if parent:
        told |= {"dagster/parent_run_id": parent.run_id, "dagster/root_run_id": parent.root_run_id or parent.run_id}
    return instance.run_storage.add_run(
        dg.DagsterRun(
            job_name="send", tags=told, parent_run_id=parent and parent.run_id, root_run_id=parent and parent.run_id
        )
    )


@pytest.mark.parametrize("tag", ["backfill", "parent_backfill_id", "from_automation_condition", "asset_evaluation_id"])
def test_what_a_backfill_or_a_condition_launched_may_not_send_however_often_it_is_repeated(instance, tag):
    run = _run(instance, **{tag: "x"})
    what = "a backfill" if "backfill" in tag else "an automation condition"
    assert barred(run, instance) == f"{what} never sends"
    for _ in range(3):
        run = _run(instance, parent=run)
        assert barred(run, instance).startswith(f"{what} never sends, and this run repeats one of its runs")


def test_what_was_launched_on_its_own_may_send_and_so_may_its_repetition(instance):
    run = _run(instance, partition="2026-01-03")
    assert barred(run, instance) is None
    assert barred(_run(instance, parent=_run(instance, parent=run)), instance) is None


def test_what_repeats_a_run_that_is_gone_may_not_send(instance):
    first = _run(instance)
    second = _run(instance, parent=first)
    instance.delete_run(first.run_id)
    assert "of which nothing is known any more" in barred(second, instance)
    assert "of which nothing is known any more" in barred(_run(instance, parent=second), instance)


def test_a_run_has_the_days_of_its_partition_or_of_its_range():
    assert run_days({"dagster/partition": "2026-01-03"}) == [date(2026, 1, 3)]
    assert run_days(range_tags(date(2026, 1, 2), date(2026, 1, 3))) == [date(2026, 1, 2), date(2026, 1, 3)]


@pytest.mark.parametrize(
    "ends", [{}, {"start"}, {"end"}, {"partition", "start"}, {"partition", "end"}, {"partition", "start", "end"}]
)
def test_tags_that_do_not_say_which_days_are_refused(ends):
    names = {"partition": "dagster/partition"} | {e: f"dagster/asset_partition_range_{e}" for e in ("start", "end")}
    with pytest.raises(ValueError, match="this run has"):
        run_days({names[each]: "2026-01-03" for each in ends})

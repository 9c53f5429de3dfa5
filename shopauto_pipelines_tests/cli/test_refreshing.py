"""Which earlier days a refresh needs: logs that are missing, and as known then those from which something carries over."""

from datetime import date

import ibis
import pytest

from shopauto_pipelines.cli import refreshing, runs
from shopauto_pipelines.features.tables import CUSTOMER_360, DAILY_ACTIVITY, DAILY_FORMS
from shopauto_pipelines.platform.lake import Lake, open_lake
from shopauto_pipelines.platform.settings import load_settings
from shopauto_pipelines.sources import known


def _day(day: int) -> date:
    return date(2026, 6, day)


def _computed(lake: Lake, *days: int) -> None:
    for day in days:
        lake.write(CUSTOMER_360, [_day(day)], ibis.memtable([], schema=CUSTOMER_360.schema))


@pytest.mark.parametrize(
    ("refreshed", "as_then", "start", "gap"),
    [
        ((), (), 5, None),
        ((5, 6), (), 5, None),
        ((3, 4, 5), (), 5, (None, 3)),
        ((3, 4, 5), (3,), 5, (3, 4)),
        ((3, 4, 5), (3, 4), 5, None),
        ((3, 4, 5), (6,), 5, (None, 3)),
    ],
)
def test_it_says_with_which_day_to_begin_where_earlier_ones_are_not_there_yet(
    tmp_path, monkeypatch, refreshed, as_then, start, gap
):
    monkeypatch.setenv("SHOPAUTO_HOME", str(tmp_path))
    _computed(open_lake(load_settings()), *refreshed)
    monkeypatch.setenv("SHOPAUTO_KNOWN", "then")
    settings = load_settings()
    lake = known.opened(settings)
    _computed(lake, *as_then)
    found = refreshing._days_left_out(lake, settings, _day(start))
    assert found == (gap and tuple(day and _day(day) for day in gap))


def test_before_a_day_is_refreshed_the_earlier_days_of_every_log_are_written_not_of_one_alone(lake):
    for table in runs.logs():
        for day in (1, 2, 3):
            lake.write(table, [_day(day)], table.arrow_schema.empty_table())
    assert refreshing._logs_behind(lake, _day(1), _day(4)) == set()
    for day in (1, 2):  # a rollup that is newer than these days, or was deleted
        lake.delete(DAILY_FORMS, _day(day))
    lake.delete(DAILY_ACTIVITY, _day(3))
    assert refreshing._logs_behind(lake, _day(1), _day(3)) == {_day(1), _day(2)}
    assert refreshing._logs_behind(lake, _day(2), _day(4)) == {_day(2), _day(3)}

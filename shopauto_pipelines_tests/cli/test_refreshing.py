"""Where days as known then have to begin, so that what carries over from day to day does."""

from datetime import date

import ibis
import pytest

from shopauto_pipelines.cli import refreshing
from shopauto_pipelines.features.tables import CUSTOMER_360
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

"""A season that comes every year is seen; growth, chance and the beginning of the data are not taken for one."""

from datetime import timedelta

import numpy as np
import pytest

from shopauto_pipelines.predictions import backtest, dataset
from shopauto_pipelines.predictions.dataset import habits, window
from shopauto_pipelines.predictions.own import OURS
from shopauto_pipelines.predictions.season import season
from shopauto_pipelines_tests.predictions.conftest import DAYS, FIRST, order_log

HORIZON = 90


def factor_of(shop, coming, known, ago=(90, 135, 180)):
    """The season of the days after ``coming``, learned as the back-test does it."""
    days = [coming - timedelta(days=n) for n in (364, *ago)]
    before, *others = (
        window(shop, habits(shop, day, since=day - timedelta(days=known)), HORIZON, coming) for day in days
    )
    return season(before, others, HORIZON)


def test_customers_from_before_the_data_are_not_taken_for_a_season(make_shop):
    """People order at the same pace all the time, but the export leaves out what was before the first day."""
    start = FIRST + timedelta(days=300)
    log = [(who, day) for who, day in order_log(1_500, days=DAYS + 300, seed=5) if day >= start]
    coming = start + timedelta(days=DAYS - 1 - HORIZON)
    known = (coming - timedelta(days=364) - start).days
    assert factor_of(make_shop(log), coming, known) == pytest.approx(1, abs=0.08)


def winters(make_shop, winter):
    """Six hundred people who order at random for two years, ``winter`` times as often from November to January."""
    rng = np.random.default_rng(3)
    days = [FIRST + timedelta(days=n) for n in range(670)]
    pace = np.array([0.02 * (winter if day.month in (11, 12, 1) else 1) for day in days])
    who, when = np.nonzero(rng.random((600, len(days))) < pace)
    return make_shop([(f"c{n:05}", days[at]) for n, at in zip(who, when, strict=True)])


@pytest.mark.parametrize(("winter", "low", "high"), [(2, 1.5, 2.0), (1, 0.95, 1.05), (0.4, 0.5, 0.75)])
def test_a_season_that_comes_every_year_is_seen_and_one_by_chance_hardly(make_shop, winter, low, high):
    coming = FIRST + timedelta(days=669)  # the first of November of the second year
    assert low <= factor_of(winters(make_shop, winter), coming, 240, ago=(149, 179, 209)) <= high


@pytest.mark.parametrize("horizon", [365, 547, 730])
def test_a_horizon_of_a_year_or_more_holds_every_season(make_shop, horizon):
    """What a day a year ago was followed by is known for that year only."""
    shop = make_shop(order_log(800, days=4 * 365 + 1, seed=7))
    today = FIRST + timedelta(days=4 * 365)
    assert backtest._History(shop, dataset.plan(today, FIRST, horizon), OURS).season(today) == 1


def test_the_season_is_not_known_before_a_year_and_two_months():
    cut_off = FIRST + timedelta(days=364 + dataset.HISTORY_DAYS)
    assert dataset.year_before(cut_off, FIRST) == FIRST + timedelta(days=dataset.HISTORY_DAYS)
    assert dataset.year_before(cut_off - timedelta(days=1), FIRST) is None

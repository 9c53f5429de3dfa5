"""Forecasts for a plain list of purchases: what comes back, what is said beside it, and when it is refused."""

from datetime import date, timedelta

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pytest

from shopauto_pipelines.predictions import plain
from shopauto_pipelines.predictions.backtest import SEASON_UNKNOWN
from shopauto_pipelines.predictions.dataset import NotEnoughData
from shopauto_pipelines.predictions.transactions.reading import TRANSACTIONS
from shopauto_pipelines_tests.predictions.conftest import FIRST, YOUNG_LAST, newcomers, purchases

SCORES = {
    "customer_id": pa.string(),
    "orders": pa.int64(),
    "last_order_on": pa.date32(),
    "probability_of_order": pa.float64(),
    "expected_orders": pa.float64(),
    "next_order_from": pa.date32(),
    "next_order_on": pa.date32(),
    "next_order_to": pa.date32(),
    "value_cents": pa.float64(),
    "value_cents_365d": pa.float64(),
}


def test_everybody_who_has_ordered_is_scored_in_sensible_bounds(young, young_forecast):
    scores = young_forecast.scores
    assert {field.name: field.type for field in scores.schema} == SCORES
    assert scores["customer_id"].to_pylist() == sorted({who for who, _ in young})
    rows = scores.to_pylist()
    days = {who: [day for other, day in young if other == who] for who in ("c00000", "c00123", "c00299")}
    for row in rows:
        assert 0 < row["probability_of_order"] < 1
        assert 0 <= row["expected_orders"] <= 60
        assert 0 <= row["value_cents"] <= row["value_cents_365d"]
        dates = [row[name] or date.max for name in ("next_order_from", "next_order_on", "next_order_to")]
        assert YOUNG_LAST < dates[0] <= dates[1] <= dates[2]
        if row["customer_id"] in days:
            assert (row["orders"], row["last_order_on"]) == (
                len(days[row["customer_id"]]),
                days[row["customer_id"]][-1],
            )


def test_a_shop_of_one_amount_is_worth_that_amount_for_every_order(young_forecast):
    scores = young_forecast.scores.filter(pc.field("expected_orders") > 0.1)  # cents are whole
    assert len(scores) > 100
    paid = pc.divide(scores["value_cents"], scores["expected_orders"]).to_numpy()
    assert paid == pytest.approx(np.full(len(paid), 4_000), rel=0.01)


def test_what_the_history_is_too_short_for_is_said_in_the_notes(young_forecast):
    assert "tested over 50 days, the history is too short for 60" in young_forecast.notes
    assert SEASON_UNKNOWN in young_forecast.notes
    for metrics in young_forecast.metrics.values():
        assert metrics["tested_days"] == 50
        assert metrics["horizon_days"] == 60
        assert metrics["people"] == 300  # just as many as a model needs
        if metrics["verdict"].startswith("kept out"):
            assert metrics["verdict"] in young_forecast.notes


@pytest.mark.slow
def test_neither_the_order_of_the_rows_nor_later_ones_nor_a_day_split_in_two_changes_anything(young, young_forecast):
    table = purchases(young).to_pylist()
    split = [{**row, "cents": cents} for row in table[::50] for cents in (1_500, 2_500)]
    later = [
        {"customer_id": f"c{n:05}", "day": YOUNG_LAST + timedelta(days=1 + n % 40), "cents": 99} for n in range(350)
    ]
    rows = [row for n, row in enumerate(table) if n % 50] + split + later
    np.random.default_rng(2).shuffle(rows)
    again = plain.forecast(pa.Table.from_pylist(rows, schema=TRANSACTIONS), YOUNG_LAST, 60)
    assert again.scores.equals(young_forecast.scores)
    assert again.metrics == young_forecast.metrics
    assert again.notes == young_forecast.notes


def everybody_again(people: int) -> list[tuple[str, date]]:
    """People who all order every tenth day."""
    return [(f"c{n}", FIRST + timedelta(days=n % 10 + 10 * k)) for n in range(people) for k in range(9)]


@pytest.mark.parametrize(
    ("log", "days", "reason"),
    [
        ([], 100, "0 people had ordered by"),
        (newcomers(320, 73), 73, "a model needs 74 days of history, the shop has 73"),
        (newcomers(299, 100), 100, "299 people had ordered by 2025-02-17, a model needs 300"),
        ([(f"c{n}", FIRST + timedelta(days=n % 40)) for n in range(400)], 100, "0 of the people tested ordered again"),
        (everybody_again(400), 100, "0 of the people tested did not order again"),
    ],
    ids=["nothing", "too short", "too few people", "nobody ordered again", "everybody ordered again"],
)
def test_too_little_data_is_said_and_not_guessed_from(log, days, reason):
    with pytest.raises(NotEnoughData, match=reason):
        plain.forecast(purchases(log), FIRST + timedelta(days=days - 1), 60)


def test_rows_after_the_day_do_not_make_up_for_too_little_data():
    with pytest.raises(NotEnoughData, match="the shop has 50"):
        plain.forecast(purchases(newcomers(400, 200)), FIRST + timedelta(days=49), 60)

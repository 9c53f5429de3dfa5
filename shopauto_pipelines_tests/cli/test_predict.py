"""`shopauto predict` as a stranger meets it: one file in, a back-test and scores out, and clear words where it cannot be."""

import csv
from datetime import date, timedelta

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from shopauto_pipelines.cli import predict

FIRST, LAST = date(2025, 1, 1), date(2025, 12, 31)


@pytest.fixture(scope="module")
def orders(tmp_path_factory):
    """A year of 600 customers with rhythms of their own, as a spreadsheet would save it."""
    rng = np.random.default_rng(5)
    path = tmp_path_factory.mktemp("shop") / "our orders [2025].csv"
    with path.open("w", newline="") as file:
        rows = csv.writer(file, delimiter=";")
        rows.writerow(["Customer No", "Order Date", "Net Amount"])
        for person in range(600):
            at, pause, stays = float(rng.integers(0, 300)), rng.gamma(3, 15), rng.beta(6, 1.5)
            while at < 365:
                day = FIRST + timedelta(days=int(at))
                rows.writerow([f"c{person}", f"{day:%d.%m.%Y}", f"{rng.gamma(4, 12):.2f}".replace(".", ",")])
                if rng.random() > stays:
                    break
                at += 1 + rng.exponential(pause)
        rows.writerow(["", "01.02.2025", "5,00"])
    return path


@pytest.mark.slow
def test_a_stranger_s_file_is_tested_and_scored_and_nothing_is_overwritten(shopauto, orders, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    shown = shopauto("predict", orders, "--as-of", LAST, "--horizon", 60, "--report", "test.html")
    assert "customer = `Customer No`, time = `Order Date`, amount = `Net Amount`" in shown
    assert "guessed: say --customer, --time, --amount" in shown
    assert "1 set aside: no customer" in shown
    for word in (
        "AUC",
        "log loss",
        "calibration error",
        "MAE",
        "RMSE",
        "bias",
        "recency",
        "BG/NBD",
        "our model",
        "Verdict",
    ):
        assert word in shown
    scores = tmp_path / "our orders 2025-scores.csv"
    with scores.open() as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == len({row["customer_id"] for row in rows}) > 500
    assert f"of {len(rows):,} customers" in shown
    assert all(0 <= float(row["probability_of_order"]) <= 1 and float(row["value"]) >= 0 for row in rows)
    assert sum(float(row["expected_orders"]) for row in rows) == pytest.approx(
        sum(float(row["probability_of_order"]) for row in rows), rel=1
    )
    for row in rows:
        days = [row[f"next_order_{which}"] or "later" for which in ("from", "on", "to")]
        assert [str(LAST + timedelta(days=1)), *days] == sorted([str(LAST + timedelta(days=1)), *days])
        assert row["last_order_on"] <= str(LAST)
    page = (tmp_path / "test.html").read_text()
    assert page.count('<img src="data:image/png') == 2
    assert "<td>our model</td>" in page

    before = scores.read_bytes()
    assert "is already there: say --force" in shopauto("predict", orders, code=1)
    assert scores.read_bytes() == before
    assert not list(tmp_path.glob(".*-scores*"))


def test_scores_are_written_with_money_in_major_units_and_whole_or_not_at_all(tmp_path):
    table = pa.table(
        {"customer_id": ["a,b"], "expected_orders": [0.12345678], "value_cents": [1234.56], "value_cents_365d": [1e7]}
    )
    scores = predict._in_major_units(table)
    assert scores.to_pylist() == [
        {"customer_id": "a,b", "expected_orders": 0.123457, "value": 12.35, "value_365d": 100_000.0}
    ]
    predict._write(scores, tmp_path / "scores.parquet")
    assert pq.read_table(tmp_path / "scores.parquet").equals(scores)
    predict._write(scores, tmp_path / "scores.csv")
    assert (tmp_path / "scores.csv").read_text().splitlines()[1] == '"a,b",0.123457,12.35,100000'
    with pytest.raises(predict.PredictError, match="cannot be written"):
        predict._write(scores, tmp_path / "nowhere" / "scores.csv")
    assert len(list(tmp_path.iterdir())) == 2


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (["--horizon", "0"], 2, "--horizon"),
        (["--horizon", "731"], 2, "--horizon"),
        (["--as-of", "1.1.2025"], 2, "'1.1.2025' is not a day; write it like 2026-06-30"),
        (["--as-of", "2999-01-01"], 1, "--as-of 2999-01-01 is in the future"),
        (["--as-of", "2024-12-31"], 1, "the first purchase in the file is of 2025-01-"),
        (["--as-of", "2025-01-20"], 1, "not enough data"),
        (["--out", "scores.xlsx"], 2, "must end with .csv or .parquet"),
        (["--out", "nowhere/scores.csv"], 1, "there is no folder nowhere"),
        (["--customer", "custmer no"], 1, "there is no column `custmer no`; did you mean `Customer No`?"),
        (["--where", "country = 'DE'"], 1, "--where: there is no column `country`"),
        (["--price", "Net Amount"], 1, "--quantity and --price go together"),
        (["--time-format", "%Y-%m-%d"], 1, "time cannot be read (e.g. `01.01.2025`)"),
    ],
)
def test_what_cannot_be_forecast_ends_with_a_sentence_and_without_a_file(
    shopauto, orders, tmp_path, monkeypatch, arguments, code, words
):
    monkeypatch.chdir(tmp_path)
    assert words in " ".join(shopauto("predict", orders, *arguments, code=code).replace("│", " ").split())
    assert not [path for path in tmp_path.iterdir() if path.name != "home"]


def test_a_file_is_never_written_over_itself(shopauto, orders):
    assert "is the file that is read" in shopauto("predict", orders, "--out", orders, "--force", code=1)


def test_a_file_that_is_no_table_is_told(shopauto, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "book.xlsx").write_bytes(b"PK\x03\x04" + b"\0" * 100)
    assert "save the table as CSV" in shopauto("predict", "book.xlsx", code=1)
    assert "there is no such file" in shopauto("predict", "none.csv", code=1)

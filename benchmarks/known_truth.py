"""Forecasts for the sample shop, whose truth is known: are probabilities and intervals what they claim to be?

    python benchmarks/known_truth.py [--quick]

*Probabilities and orders.* The shipped sample shop and others from other seeds, as of their last day, 90 days. ``orders.csv``
is all that is told. What was drawn for each person gives a true probability of no order and true expected orders; the true
probability knows who has left, which nobody can see, so a perfect forecast agrees with it on average in each of ten groups of
people and not more. ``chance`` is the calibration error that such a forecast would still have, with so few people.

*Intervals.* Most next orders come later than the 90 days of the truth's future. So shops are generated with a year more, of
which nothing is told: their first 18 months are as the sample's. An interval whose end is later than a year is open, and a
right one holds 90 %, not 80. So ``interval_coverage`` is the share of next orders inside, of people whose interval has both
ends. ``early`` are next orders before the beginning, of all with a beginning, ``late`` those after the end, of all with an
end: 10 % each where right. ``of orders``: the share inside of those who did order within the year, open intervals too.

*The whole shop*, unless ``--quick``: the sample shop is loaded and refreshed as a user does it, so that visits, carts and
messages count too, and its scores are compared with the same truth.

Ends with one line of JSON.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Sequence
from datetime import date, timedelta
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from baselines import calibration_error
from measuring import say
from order_logs import Numbers, OrderLog, Split, sample_shop
from pyarrow.csv import read_csv

from shopauto_pipelines.platform.lake import Lake
from shopauto_pipelines.platform.settings import PROJECT_ROOT
from shopauto_pipelines.predictions.tables import SCORES
from shopauto_pipelines.profiles.tables import IDENTITIES
from shopauto_pipelines.sources.sample import generate

#: The sample shop as shipped, and seeds of others like it.
SAMPLE, SAMPLE_SEED, SEEDS = PROJECT_ROOT / "data", 7, (11, 12, 13, 14)
LAST, MONTHS, HORIZON = date(2026, 6, 30), 18, 90
#: Days that are generated after the last known one, for the intervals: their cap.
AFTER = 365
COUNTED = ("inside", "both", "early", "begun", "late", "ended")


def main() -> None:
    """Run the benchmark and print its figures."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument(
        "--quick", action="store_true", help="two shops, three for the intervals, not the whole refresh"
    )
    print(json.dumps({name: float(f"{value:.5g}") for name, value in measure(parser.parse_args().quick).items()}))


def measure(quick: bool = False) -> dict[str, float]:
    """Figures over the shops: means of each shop's, and calibration errors of all their people together (``_pooled``)."""
    with tempfile.TemporaryDirectory(prefix="shopauto-benchmark-") as folder:
        shops = [Judged.of("shipped sample", SAMPLE)]
        for seed in SEEDS[: 1 if quick else None]:
            generate(Path(folder) / str(seed), months=MONTHS, end=LAST, seed=seed)
            shops.append(Judged.of(f"seed {seed}", Path(folder) / str(seed)))
        found = [shop.figures() for shop in shops]
        _print("\nThe sample shop, 90 days, by orders.csv alone: beside the known truth", shops, found)
        figures = {f"truth_{name}": float(np.mean([row[name] for row in found])) for name in found[0]}
        figures |= {f"truth_{name}_pooled": error for name, error in _pooled(shops).items()}
        figures |= {"truth_calibration_error_sample": found[0]["calibration_error"]}
        figures |= _intervals(Path(folder), SEEDS[: 2 if quick else None])
        if not quick:
            whole = refreshed(Path(folder) / "home")
            _print(
                "\nThe shipped sample shop, loaded and refreshed: visits, carts and messages too",
                [whole],
                [whole.figures()],
            )
            figures |= {f"refreshed_{name}": value for name, value in whole.figures().items()}
    return figures


class Judged:
    """A forecast for a sample shop beside its truth: one element a person with an account and an order."""

    def __init__(self, name: str, folder: Path, scores: pa.Table) -> None:
        """Scores: ``shop_customer_id`` (first accounts), ``again`` (probability of an order), ``expected`` (orders)."""
        truth = read_csv(folder / "truth" / "customers.csv")
        split = Split.of(name, sample_shop(folder), LAST, HORIZON)
        came = pa.table({"shop_customer_id": split.log.ids[split.people], "orders": split.orders})
        rows = scores.join(truth, "shop_customer_id", join_type="inner").join(
            came, "shop_customer_id", join_type="inner"
        )
        rows = rows.sort_by("shop_customer_id")
        columns = {
            column: rows[column].cast("float64").to_numpy()
            for column in ("again", "expected", "orders", "expected_orders_90d", "probability_no_order_90d")
        }
        self.name, self.orders = name, columns["orders"]
        self.again, self.expected = columns["again"], columns["expected"]
        self.true_again, self.true_expected = 1 - columns["probability_no_order_90d"], columns["expected_orders_90d"]

    @classmethod
    def of(cls, name: str, folder: Path) -> Judged:
        """The forecast from the orders alone."""
        from shopauto_pipelines.predictions import plain

        say(f"{name}: forecast")
        split = Split.of(name, sample_shop(folder), LAST, HORIZON)
        scores = plain.forecast(split.known.transactions(), LAST, HORIZON).scores
        columns = ("customer_id", "probability_of_order", "expected_orders")
        return cls(name, folder, scores.select(columns).rename_columns(["shop_customer_id", "again", "expected"]))

    def figures(self) -> dict[str, float]:
        """Errors against the true probabilities and expectations, and against what came."""
        return {
            "calibration_error": calibration_error(self.again, self.true_again),
            "chance": by_chance(self.again, self.true_again),
            "outcome_calibration_error": calibration_error(self.again, (self.orders > 0).astype(float)),
            "outcome_chance": by_chance(self.again, (self.orders > 0).astype(float)),
            "expected_orders_bias": float(self.expected.sum() / self.true_expected.sum() - 1),
            "expected_orders_mae": float(np.abs(self.expected - self.true_expected).mean()),
        }


def by_chance(predicted: Numbers, actual: Numbers) -> float:
    """The calibration error that chance would give were ``predicted`` right: groups differ by their standard error."""
    groups = np.array_split(np.argsort(predicted, kind="stable"), 10)
    errors = [np.sqrt(2 / np.pi * (actual[g] - predicted[g]).var() / len(g)) * len(g) for g in groups]
    return float(sum(errors) / len(predicted))


def _pooled(shops: Sequence[Judged]) -> dict[str, float]:
    again, true = (np.concatenate([getattr(s, name) for s in shops]) for name in ("again", "true_again"))
    ordered = np.concatenate([s.orders > 0 for s in shops]).astype(float)
    return {
        "calibration_error": calibration_error(again, true),
        "outcome_calibration_error": calibration_error(again, ordered),
    }


def _intervals(folder: Path, seeds: Sequence[int]) -> dict[str, float]:
    """Shares of next orders inside, before and after the intervals, over the people of all shops."""
    counts: Counter[str] = Counter()
    for seed in (SAMPLE_SEED, *seeds):
        say(f"seed {seed}: intervals")
        shop = folder / f"longer-{seed}"
        generate(shop, months=MONTHS + 12, end=LAST + timedelta(days=AFTER), seed=seed)
        found = interval_counts(sample_shop(shop), LAST)
        counts += found
        inside, both, early, begun, late, ended = (found[n] for n in COUNTED)
        print(
            f"  seed {seed:3}: inside {inside / both:.3f} of {both}, early {early / begun:.3f}, late {late / ended:.3f}"
        )
    return {
        "interval_coverage": counts["inside"] / counts["both"],
        "interval_early": counts["early"] / counts["begun"],
        "interval_late": counts["late"] / counts["ended"],
        "interval_inside_of_orders": counts["inside_of_orders"] / counts["orders"],
        "interval_people_with_both_ends": counts["both"],
    }


def interval_counts(log: OrderLog, as_of: date) -> Counter[str]:
    """People by how their next order, up to a year after ``as_of``, lies to the interval that was forecast then."""
    from shopauto_pipelines.predictions import plain

    split = Split.of("", log, as_of, AFTER)
    scores = plain.forecast(split.known.transactions(), as_of, HORIZON).scores
    begin, end = (_numbers(scores[f"next_order_{name}"]) for name in ("from", "to"))
    following = log.between(split.as_of, split.as_of + AFTER).first()[split.people]
    inside = (following >= begin) & (following <= end)
    begun, ended, ordered = np.isfinite(begin), np.isfinite(end), np.isfinite(following)
    return Counter(
        people=len(begin),
        both=int((begun & ended).sum()),
        inside=int(inside[begun & ended].sum()),
        begun=int(begun.sum()),
        early=int((following < begin)[begun].sum()),
        ended=int(ended.sum()),
        late=int((following > end)[ended].sum()),
        orders=int(ordered.sum()),
        inside_of_orders=int(inside[ordered].sum()),
    )


def refreshed(home: Path) -> Judged:
    """The shipped sample shop through the whole pipeline, as a user runs it."""
    for what, *arguments in (("load", "sample", SAMPLE), ("refresh",)):
        say(f"the whole shop: {what}")
        command = [str(Path(sys.executable).with_name("shopauto")), what, *map(str, arguments)]
        done = subprocess.run(
            command, env={**os.environ, "SHOPAUTO_HOME": str(home)}, capture_output=True, text=True, check=False
        )
        if done.returncode:
            sys.exit(f"{' '.join(command)} failed:\n{done.stdout}{done.stderr}")
    lake = Lake(home / "lake")
    scores, accounts = (
        pq.read_table(lake.path(table, LAST), columns=columns, partitioning=None)
        for table, columns in (
            (SCORES, ["customer_id", "churn_probability", "expected_orders_90d"]),
            (IDENTITIES, ["shop_customer_id", "customer_id"]),
        )
    )
    rows = accounts.join(scores, "customer_id", join_type="inner")
    again = pc.subtract(1.0, rows["churn_probability"])
    found = pa.table(
        {"shop_customer_id": rows["shop_customer_id"], "again": again, "expected": rows["expected_orders_90d"]}
    )
    return Judged("whole shop", SAMPLE, found)


def _numbers(days: pa.ChunkedArray) -> Numbers:
    """Days since 1970; infinite where null."""
    numbers = days.cast("int32").cast("float64")
    return np.asarray(pc.fill_null(numbers, np.inf).to_numpy())


def _print(title: str, shops: Sequence[Judged], found: Sequence[dict[str, float]]) -> None:
    print(title)
    for name in found[0]:
        print(f"  {name:28}" + "".join(f"{row[name]:9.4f}" for row in found))
    print(f"  {'people':28}" + "".join(f"{len(shop.again):9}" for shop in shops))


if __name__ == "__main__":
    main()

"""What it costs to fit the forecasts and to score a million customers, beside one plain fit and prediction by boosting.

    python benchmarks/prediction_cost.py [--people N] [--quick]

Simulated customers with 900 days of orders. Each measurement is a process of its own, kept on two processors; ``peak_mib`` is
its highest memory.

*Ours*, as it is in use: ``fit_seconds`` is one training from features in memory (the buying process, both models with a linear
learner and boosted trees each, the time to the next order) on the people that a training takes at most; ``score_seconds`` is
probability, expected orders, value and dates of everybody, batch by batch. ``whole_seconds`` is all of it as a user has it:
features from the orders, three back-tests, training, scores; ``whole_peak_mib`` is its memory.

*Plain*: scikit-learn's ``HistGradientBoostingClassifier`` as it comes, on both processors, fitted to who ordered within the
90 days after an earlier day and asked about the last day, on the same inputs of the same people. It says one number of the
several that ours says. ``cost_over_plain_boosting`` is (fit + score) ÷ (plain fit + prediction).

Ends with one line of JSON.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
from measuring import in_child, peak_mib, say, timed
from order_logs import BEGIN, DAYS, Habits, simulate

#: The last known day, and how far is looked ahead.
AS_OF, HORIZON = BEGIN + timedelta(days=DAYS - 1), 90
#: Habits of the customers: most order once or twice.
HABITS = Habits(shape=0.6, gap=120, gone=(1.0, 3.0))
PROCESSORS = 2
#: Seconds one measurement may take.
PATIENCE = 1_800


def main() -> None:
    """Run the benchmark and print its figures."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--people", type=int, default=1_000_000)
    parser.add_argument("--quick", action="store_true", help="100,000 customers")
    parser.add_argument("--child", nargs=2, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.child:
        what, folder = options.child
        figures = CHILDREN[what](Path(folder))
        print(json.dumps(figures | {"peak_mib": peak_mib()}))
        return
    figures = measure(100_000 if options.quick else options.people)
    print(json.dumps({name: float(f"{value:.5g}") for name, value in figures.items()}))


def measure(people: int) -> dict[str, float]:
    """Seconds and memory of ours and of plain boosting for so many customers."""
    with tempfile.TemporaryDirectory(prefix="shopauto-benchmark-") as name:
        folder = Path(name)
        say("customers are simulated")
        log = simulate(
            HABITS, people=round(people * 1.234)
        )  # some come after the last day, or were gone before the first
        pq.write_table(log.transactions(), folder / "transactions.parquet")
        found = {what: _child(what, folder) for what in CHILDREN}
    own, whole, plain = (found[what] for what in ("models", "whole", "plain"))
    seconds, theirs = own["fit"] + own["score"], plain["fit"] + plain["score"]
    figures = {
        "cost_people": own["people"],
        "fit_seconds": own["fit"],
        "score_seconds": own["score"],
        "fit_and_score_seconds": seconds,
        "peak_mib": own["peak_mib"],
        "whole_seconds": whole["seconds"],
        "whole_peak_mib": whole["peak_mib"],
        "plain_boosting_seconds": theirs,
        "plain_boosting_peak_mib": plain["peak_mib"],
        "cost_over_plain_boosting": seconds / theirs,
    }
    print(f"\nCost of {own['people']:,.0f} customers on {PROCESSORS} processors")
    for title, value in figures.items():
        print(f"  {title:26}{value:12,.2f}")
    return figures


def _models(folder: Path) -> dict[str, float]:
    """One training, and the scores of everybody."""
    from shopauto_pipelines.predictions import dataset, serving
    from shopauto_pipelines.predictions.models import ChurnModel, OrdersModel, fit_process, one_thread

    shop, sample = _shop(folder), _shop(folder, most=dataset.PEOPLE)
    days = dataset.plan(AS_OF, sample.first_day, HORIZON).learned_from(AS_OF)
    known = {day: dataset.people(sample, day) for day in {AS_OF, *(day for day, _ in days)}}
    windows = [dataset.window(sample, known[day], horizon, AS_OF) for day, horizon in days]
    count, seconds = 0, 0.0
    with one_thread():
        started = time.perf_counter()
        process = fit_process(known[AS_OF])
        churn = ChurnModel.fit(windows, known[AS_OF], process, HORIZON, 1.0)
        orders = OrdersModel.fit(windows, known[AS_OF], process, HORIZON, 1.0)
        fit = time.perf_counter() - started
        del known, windows
        for part in serving.batches(iter(shop.con.to_pyarrow_batches(shop.everybody(AS_OF), chunk_size=serving.BATCH))):
            features = {name: dataset.to_numpy(part[name]) for name in dataset.COLUMNS}
            started = time.perf_counter()
            told = serving.forecasts(features, churn, orders, HORIZON, 365)
            orders.spent_per_order(features)
            serving.dates(told, AS_OF)
            seconds += time.perf_counter() - started
            count += part.num_rows
    return {"people": count, "fit": fit, "score": seconds}


def _whole(folder: Path) -> dict[str, float]:
    """All that a user waits for."""
    from shopauto_pipelines.predictions import plain

    purchases = pq.read_table(folder / "transactions.parquet")
    return {"seconds": timed(lambda: plain.forecast(purchases, AS_OF, HORIZON))}


def _matrix(folder: Path) -> dict[str, float]:
    """Writes the inputs of everybody on an earlier day, whether they ordered, and the inputs on the last day."""
    from shopauto_pipelines.predictions import dataset
    from shopauto_pipelines.predictions.inputs import inputs
    from shopauto_pipelines.predictions.models import fit_process, known

    shop = _shop(folder)
    for name, day in (("before", AS_OF - timedelta(days=HORIZON)), ("now", AS_OF)):
        people = dataset.people(shop, day)
        np.save(folder / f"{name}.npy", known(inputs(people.features, fit_process(people), HORIZON).matrix))
        np.save(folder / f"{name}_ordered.npy", dataset.window(shop, people, HORIZON, AS_OF).orders > 0)
    return {}


def _plain(folder: Path) -> dict[str, float]:
    """Plain boosting on the inputs."""
    from sklearn.ensemble import HistGradientBoostingClassifier

    X, y, now = (np.load(folder / f"{name}.npy") for name in ("before", "before_ordered", "now"))
    model = HistGradientBoostingClassifier(early_stopping=False, random_state=0)
    return {"fit": timed(lambda: model.fit(X, y)), "score": timed(lambda: model.predict_proba(now))}


CHILDREN: dict[str, Callable[[Path], dict[str, float]]] = {
    "models": _models,
    "whole": _whole,
    "matrix": _matrix,
    "plain": _plain,
}


def _shop(folder: Path, most: int | None = None) -> Any:
    """The purchases as the forecasts read them; ``most``: of so many of the people."""
    import ibis
    from ibis import _

    from shopauto_pipelines.predictions import dataset, plain

    con = ibis.duckdb.connect()
    purchases = con.create_table("purchases", con.read_parquet(folder / "transactions.parquet"))
    who = purchases.select(customer_id=_.customer_id, shop_customer_id=_.customer_id).distinct()
    who = con.create_table("customers", who)
    if most:
        who, purchases = dataset.sampled(con, who, purchases.mutate(shop_customer_id=_.customer_id), most=most)
    return plain._shop(con, purchases, who)


def _child(what: str, folder: Path) -> dict[str, float]:
    say(f"measures: {what}")
    found: dict[str, float] = in_child(__file__, "--child", what, folder, processors=PROCESSORS, patience=PATIENCE)
    return found


if __name__ == "__main__":
    main()

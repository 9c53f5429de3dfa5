"""Forecasts of who orders again, how often, when and for how much, beside rules, published models and plain boosting.

    python benchmarks/predictions.py [--quick] [--only PART …] [--people N]

Everything learns from the past of a day alone and is asked about the days after it. The parts:

- ``published``: BG/NBD and Pareto/NBD, fitted to the CDNOW sample in weeks, beside Fader, Hardie & Lee (2005).
- ``cdnow``: the CDNOW sample, known up to 1997-09-30, and the 273 days after it.
- ``online-retail``: the first year of Online Retail II, known up to 2010-06-01, and the 182 days after it.
- ``elsewhere``: other days and horizons of both.
- ``simulated``: shops simulated in five ways, each on two days, so that tuning to two public files would show.
- ``truth``: the sample shop, whose habits are known (``known_truth.py``).
- ``cost``: a million customers on two processors (``prediction_cost.py``), and BG/NBD beside ``lifetimes`` (``btyd.py``).

Neither public file is part of the project: where one is absent, the benchmark says so and does the rest. There is at most one
order per customer and day. Plain boosting is tried with several layouts of earlier windows; each is a row, and every row
is to be beaten. *Calibration error*: ten equal groups by predicted probability. *Top 10 %*: the share of all spending by the
tenth with the highest expected spend. Rows marked *given* are what others measured on the same data. *Taught by the
outcomes* is no forecast: it learned from the holdout itself (ten folds), so it shows how much there is to know. Where a baseline
is ahead, the standard error of the lead says what chance would make of it.

Ends with one line of JSON; what was not done is null.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import date, timedelta
from pathlib import Path
from typing import Any

import known_truth
import numpy as np
import prediction_cost
from baselines import (
    LESS_IS_BETTER,
    METRICS,
    Answer,
    best,
    buy_till_you_die,
    ceiling,
    every_layout,
    lead_error,
    measure,
    ours,
    rules,
    statistics,
)
from measuring import say
from order_logs import BEGIN, CDNOW, ONLINE_RETAIL, SHOPS, Split, cdnow, online_retail, simulate

from shopauto_pipelines.predictions.btyd.bg_nbd import BGNBD
from shopauto_pipelines.predictions.btyd.pareto_nbd import ParetoNBD

Row = dict[str, Any]
Figures = dict[str, Any]

#: Fader, Hardie & Lee (2005), CDNOW sample, 39 weeks: parameters and log-likelihood.
PUBLISHED = {
    "bgnbd": (BGNBD, (0.2426, 4.4137, 0.7930, 2.4262), -9582.429),
    "paretonbd": (ParetoNBD, (0.553, 10.58, 0.606, 11.66), -9594.976),
}

#: What others measured on the CDNOW sample with the same split.
GIVEN: tuple[Row, ...] = (
    {"name": "recency rule", "auc": 0.771, "spearman": 0.446},
    {"name": "frequency rule", "auc": 0.779, "spearman": 0.461},
    {"name": "churn factor", "auc": 0.691, "spearman": 0.317},
    {"name": "same as last period", "mae": 0.877, "rmse": 1.966, "spearman": 0.516},
    {"name": "BG/NBD", "auc": 0.757, "mae": 0.785, "rmse": 1.608, "spearman": 0.449},
    {"name": "Pareto/NBD", "auc": 0.771, "mae": 0.755, "rmse": 1.603, "spearman": 0.460},
    {"name": "boosting, earlier windows", "auc": 0.738, "mae": 0.850, "rmse": 1.724, "spearman": 0.421},
)

#: Metrics in which ours has to be the best on Online Retail, and how far its bias may be from none.
TO_WIN, BIAS = ("auc", "mae", "rmse", "calibration_error", "top_decile_spend"), 0.10

#: Last known days and horizons that are tried besides.
ELSEWHERE = {
    "CDNOW": (CDNOW, cdnow, (("1997-06-30", 91), ("1997-09-30", 91), ("1997-12-31", 182))),
    "Online Retail": (ONLINE_RETAIL, online_retail, (("2010-03-31", 91), ("2010-07-31", 60), ("2010-08-31", 91))),
}
#: Last known days, from the first, and horizons of the simulated shops.
SIMULATED = ((400, 120), (700, 180))

PARTS = ("published", "cdnow", "online-retail", "elsewhere", "simulated", "truth", "cost")


def main() -> None:
    """Run the benchmark and print its figures."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--only", choices=PARTS, nargs="+", default=list(PARTS), help="parts to do")
    parser.add_argument("--people", type=int, default=1_000_000, help="customers of the cost part")
    parser.add_argument("--quick", action="store_true", help="fewer shops, 100,000 customers, not the whole refresh")
    options = parser.parse_args()
    people = 100_000 if options.quick else options.people
    works: dict[str, Callable[[], Figures]] = {
        "published": published,
        "cdnow": lambda: _real("cdnow", CDNOW, cdnow, date(1997, 9, 30), 273, GIVEN),
        "online-retail": lambda: _real("online_retail", ONLINE_RETAIL, online_retail, date(2010, 6, 1), 182),
        "elsewhere": lambda: _many("elsewhere", _elsewhere(options.quick)),
        "simulated": lambda: _many("simulated", _simulated(options.quick)),
        "truth": lambda: known_truth.measure(options.quick),
        "cost": lambda: cost(people),
    }
    figures: Figures = {}
    for part in PARTS:
        if part in options.only:
            started = time.perf_counter()
            figures |= works[part]()
            say(f"{part}: {time.perf_counter() - started:.0f} s")
    print(json.dumps({name: _rounded(value) for name, value in figures.items()}))


def published() -> Figures:
    """Largest relative error of the parameters, and error of the log-likelihood, of both published fits."""
    split = _split("CDNOW", CDNOW, cdnow, date(1997, 9, 30), 273)
    figures: Figures = {}
    if split:
        print("\nCDNOW sample, 39 weeks: the published parameters and log-likelihood, and ours")
    for name, (kind, parameters, likelihood) in PUBLISHED.items():
        figures |= {f"{name}_parameter_error": None, f"{name}_loglik_error": None}
        if split:
            model = kind().fit(statistics(split, unit=7))
            found = [getattr(model, parameter) for parameter in model._names]
            off = np.abs(np.array(found) / parameters - 1).max()
            figures[f"{name}_parameter_error"] = float(off)
            figures[f"{name}_loglik_error"] = abs(model.log_likelihood_ - likelihood)
            print(f"  {name:10} published {_numbers(parameters)}  {likelihood:.3f}")
            print(f"  {'':10}      ours {_numbers(found)}  {model.log_likelihood_:.3f}")
    return figures


def _real(key: str, file: Path, read: Callable, day: date, horizon: int, given: Sequence[Row] = ()) -> Figures:
    split = _split(key, file, read, day, horizon)
    names = (*METRICS, "beats_all_baselines", "loses_in")
    if split is None:
        return {f"{key}_{name}": None for name in names}
    answers = _answers(split)
    rows = [_row(answer, split) for answer in answers]
    taught = _row(ceiling(split), split)
    _print(split, [*rows, taught, *({**row, "name": f"{row['name']} (given)"} for row in given)])
    ahead = ahead_of(rows)
    for metric, place in ahead.items():
        behind, error = rows[-1][metric] - rows[place][metric], lead_error(answers[-1], answers[place], split, metric)
        print(f"  {metric}: {rows[place]['name']} is better; ours {behind:+.4f}, standard error of that {error:.4f}")
    wins = not ahead and abs(rows[-1]["bias"]) <= BIAS
    return {f"{key}_{name}": rows[-1].get(name) for name in METRICS} | {
        f"{key}_beats_all_baselines": wins,
        f"{key}_loses_in": list(ahead),
    }


def ahead_of(rows: Sequence[Row], digits: int = 4) -> dict[str, int]:
    """The metrics of :data:`TO_WIN` in which another row is better than the last, and the place of the best one.

    As many digits count.
    """
    found = {}
    for metric in TO_WIN:
        sign = -1 if metric in LESS_IS_BETTER else 1
        points = [-np.inf if row[metric] is None else sign * round(row[metric], digits) for row in rows]
        if max(points) > points[-1]:
            found[metric] = int(np.argmax(points))
    return found


def _answers(split: Split) -> list[Answer]:
    """The baselines', then ours."""
    say(f"{split.name}, as of {split.day}, {split.horizon} days: {len(split.people):,} people")
    return [*rules(split), *buy_till_you_die(split), *every_layout(split), ours(split)]


def _row(answer: Answer, split: Split) -> Row:
    return {"name": answer.name, **measure(answer, split)}


def _many(key: str, splits: Iterator[Split]) -> Figures:
    """The average lead of ours over each kind of baseline: positive where ours is better.

    AUC, calibration error, log loss and top 10 % are differences; MAE and RMSE are shares of the baseline's.
    """
    leads: dict[tuple[str, str], list[float]] = {}
    shown = []
    for split in splits:
        rows = [_row(answer, split) for answer in _answers(split)]
        named = {row["name"]: row for row in rows}
        mine = named["ours"]
        boosted = [row for row in rows if row["name"].startswith("boosting")]
        rivals: dict[str, Mapping[str, Any]] = {"bgnbd": named["BG/NBD"], "paretonbd": named["Pareto/NBD"]}
        rivals |= {"boosting": best(boosted)} if boosted else {}
        for rival, row in rivals.items():
            for metric in ("auc", "log_loss", "calibration_error", "mae", "rmse", "top_decile_spend"):
                leads.setdefault((rival, metric), []).append(_lead(metric, mine, row))
        shown += [{**row, "name": f"{split.name}, {split.day}, {split.horizon} d: {n}"} for n, row in rivals.items()]
        shown.append({**mine, "name": f"{split.name}, {split.day}, {split.horizon} d: ours"})
    if not shown:
        return {}
    print(f"\n{key.capitalize()}: {len(shown)} rows; boosting is the layout of the lowest log loss in the holdout")
    _print_rows(shown)
    figures = {f"{key}_{metric}_lead_over_{rival}": float(np.mean(each)) for (rival, metric), each in leads.items()}
    print("  average lead of ours (in brackets: the cases in which it is not behind)")
    for (rival, metric), each in leads.items():
        ahead = sum(lead >= 0 for lead in each)
        print(f"    {metric:18} over {rival:10} {np.mean(each):+.4f}  ({ahead} of {len(each)})")
    return figures


def _lead(metric: str, mine: Row, other: Row) -> float:
    if metric in ("mae", "rmse"):
        return float(1 - mine[metric] / other[metric])
    return float((mine[metric] - other[metric]) * (-1 if metric in LESS_IS_BETTER else 1))


def _elsewhere(quick: bool) -> Iterator[Split]:
    for name, (file, read, cases) in ELSEWHERE.items():
        for day, horizon in cases[: 1 if quick else None]:
            split = _split(name, file, read, date.fromisoformat(day), horizon)
            if split:
                yield split


def _simulated(quick: bool) -> Iterator[Split]:
    for seed, (name, habits) in enumerate(SHOPS.items()):
        log = simulate(habits, seed=seed)
        for days, horizon in SIMULATED[1:] if quick else SIMULATED:
            yield Split.of(name, log, BEGIN + timedelta(days=days), horizon)


def cost(people: int) -> Figures:
    """What ``prediction_cost.py`` measures, and how many times faster BG/NBD is than ``lifetimes``."""
    figures = prediction_cost.measure(people)
    say("BG/NBD and lifetimes")
    command = [sys.executable, str(Path(__file__).with_name("btyd.py")), "--people", str(people)]
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
    return figures | {"bgnbd_over_lifetimes": json.loads(done.stdout.splitlines()[-1])["speedup"]}


def _split(name: str, file: Path, read: Callable, day: date, horizon: int) -> Split | None:
    if not file.exists():
        say(f"{name} is left out: {file} is not here")
        return None
    return Split.of(name, read(), day, horizon)


def _print(split: Split, rows: Sequence[Row]) -> None:
    buy = (split.orders > 0).mean()
    print(
        f"\n{split.name}: known up to {split.day}, {split.horizon} days after it; {len(split.people):,} people, {buy:.1%} buy"
    )
    _print_rows(rows)


def _print_rows(rows: Sequence[Mapping[str, Any]]) -> None:
    titles = {"calibration_error": "calibration", "top_decile_spend": "top 10 %", "log_loss": "log loss"}
    width = max(len(row["name"]) for row in rows)
    print("  " + " " * width + "".join(f"{titles.get(metric, metric):>13}" for metric in METRICS))
    for row in rows:
        cells = (row.get(metric) for metric in METRICS)
        print(f"  {row['name']:{width}}" + "".join(f"{'' if c is None else f'{c:.4f}':>13}" for c in cells))


def _numbers(values: Sequence[float]) -> str:
    return " ".join(f"{value:9.4f}" for value in values)


def _rounded(value: Any) -> Any:
    return float(f"{value:.5g}") if isinstance(value, float) else value


if __name__ == "__main__":
    main()

"""What the buy-till-you-die models cost: seconds to fit and score a million people, next to the ``lifetimes`` package.

    python benchmarks/btyd.py [--quick] [--people N]

People are simulated as the BG/NBD says, over two years in whole days. Everything runs on one thread in a process of its own,
which only reads the people from a file; ``peak_mib`` is that process' highest memory, people included. Our fits are the median of
three; ``score_seconds`` is the probability of an order and the expected orders within 90 days for everybody by the BG/NBD.

``lifetimes`` 0.11.3, the usual package in Python, is installed by pip into an environment in a temporary folder, with what it
asks for; where that is not possible its figures are null, and the reason is printed. Both must find the same parameters, or
the benchmark fails.

Ends with one line of JSON.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import venv
from pathlib import Path
from typing import Any

import numpy as np
from measuring import peak_mib, say, timed
from numpy.typing import NDArray

PARAMETERS = ("r", "alpha", "a", "b")
LIFETIMES = "lifetimes==0.11.3"
#: Installing and fitting may take this long each.
PATIENCE = 900

THEIRS = """
import json, sys, time, warnings
warnings.simplefilter("ignore")
import numpy as np
from lifetimes import BetaGeoFitter
x, last, age = np.load(sys.argv[1]).T
started = time.perf_counter()
model = BetaGeoFitter().fit(x, last, age)
seconds = time.perf_counter() - started
print(json.dumps({"seconds": seconds, "parameters": {name: float(value) for name, value in model.params_.items()}}))
"""


def main() -> None:
    """Simulate, measure ours and theirs, and print the figures."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="50,000 people")
    parser.add_argument("--people", type=int, default=1_000_000)
    parser.add_argument("--measure", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.measure:
        print(json.dumps(measure(options.measure)))
        return
    count = 50_000 if options.quick else options.people

    with tempfile.TemporaryDirectory(prefix="shopauto-benchmark-") as folder:
        people = Path(folder) / "people.npy"
        say(f"{count:,} people are simulated")
        np.save(people, simulate(count))
        say("ours: fits and scores")
        ours = json.loads(_run([sys.executable, __file__, "--measure", people]))
        theirs = lifetimes(Path(folder), people)

    if theirs:
        off = max(abs(ours["parameters"][name] / theirs["parameters"][name] - 1) for name in PARAMETERS)
        if off > 0.01:
            sys.exit(f"The parameters differ by {off:.1%}: {ours['parameters']} and {theirs['parameters']}.")
    seconds = theirs["seconds"] if theirs else None
    figures = {
        "people": count,
        "groups": ours["groups"],
        "bgnbd_fit_seconds": round(ours["bgnbd_fit"], 2),
        "lifetimes_fit_seconds": round(seconds, 2) if seconds else None,
        "speedup": round(seconds / ours["bgnbd_fit"], 1) if seconds else None,
        "paretonbd_fit_seconds": round(ours["paretonbd_fit"], 2),
        "score_seconds": round(ours["score"], 2),
        "paretonbd_score_seconds": round(ours["paretonbd_score"], 2),
        "peak_mib": round(ours["peak_mib"]),
    }
    for name, value in figures.items():
        print(f"{name:24}{value}")
    print(json.dumps(figures))


def simulate(count: int, seed: int = 0, span: int = 730) -> NDArray[np.float64]:
    """Rows (repeat orders, day of the last, age in days) of people who order and leave as the BG/NBD says."""
    rng = np.random.default_rng(seed)
    age = rng.uniform(0, span, count)
    rate, chance = rng.gamma(0.55, 1 / 45, count), rng.beta(0.8, 2.4, count)
    x, last, here = np.zeros(count), np.zeros(count), np.arange(count)
    while len(here):
        following = last[here] + rng.exponential(1 / rate[here])
        ordered = following < age[here]
        here = here[ordered]
        last[here] = following[ordered]
        x[here] += 1
        here = here[rng.random(len(here)) >= chance[here]]
    return np.floor(np.stack([x, last, age], axis=1))


def measure(file: Path) -> dict[str, Any]:
    """Seconds of fits and scores of the people in ``file``, and this process' peak memory."""
    from shopauto_pipelines.predictions.btyd.bg_nbd import BGNBD
    from shopauto_pipelines.predictions.btyd.pareto_nbd import ParetoNBD

    people = np.load(file)
    seconds, models = {}, {"bgnbd": BGNBD(), "paretonbd": ParetoNBD()}
    for name, model in models.items():
        fit = statistics.median(timed(lambda model=model: model.fit(people)) for _ in range(3))
        order = timed(lambda model=model: model.probability_of_order(people, 90))
        orders = timed(lambda model=model: model.expected_orders(people, 90))
        seconds |= {f"{name}_fit": fit, f"{name}_score": order + orders}
    found = models["bgnbd"]
    return seconds | {
        "score": seconds["bgnbd_score"],
        "groups": found.groups_,
        "parameters": {name: getattr(found, f"{name}_") for name in PARAMETERS},
        "peak_mib": peak_mib(),
    }


def lifetimes(folder: Path, people: Path) -> dict[str, Any] | None:
    """Seconds and parameters of the package's fit, or None, with the reason printed."""
    try:
        say(f"{LIFETIMES} is installed into an environment in {folder}")
        venv.create(folder / "lifetimes", with_pip=True)
        python = folder / "lifetimes" / "bin" / "python"
        _run([python, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", LIFETIMES])
        say("theirs: fits")
        found: dict[str, Any] = json.loads(_run([python, "-c", THEIRS, people]))
        return found
    except (subprocess.SubprocessError, OSError) as error:
        reason = (getattr(error, "stderr", None) or str(error)).strip().splitlines()[-1:]
        say(f"without lifetimes, so without the comparison: {' '.join(reason)}")
        return None


def _run(command: list[Any]) -> str:
    env = {**os.environ, "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
    done = subprocess.run(
        [str(part) for part in command], env=env, check=True, capture_output=True, text=True, timeout=PATIENCE
    )
    return done.stdout


if __name__ == "__main__":
    main()

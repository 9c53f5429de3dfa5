"""Past days computed again: many in one run, one by one, and against a full recompute.

    python benchmarks/backfill.py [--customers N] [--days N] [--quick] [--home DIR]
    python benchmarks/backfill.py --check-bytes N [--known-then] [--customers N] [--home DIR]

A sample shop of N customers and three years is loaded, and everything below is ``shopauto refresh`` in a process of its own,
from its start to its end. No day is the newest one, so none sends. Models are kept. The shorter ranges begin with a day on which
models are trained, and it was computed before; of a year of days thirteen train.

- *One run*: ``--from --to`` over the last ``--days`` days: ``seconds_per_day``.
- *A run each*: ``--day`` for a few of the same days, ``separate_runs`` of them; ``runs_over_single_run`` is what one of them
  costs over a day of the one run. With as many runs as days it is the same ratio: each does what the others do.
- *Daily refresh against a full recompute*: the daily refresh is a run of one day on what is there. The full recompute begins with
  nothing, as if nothing were kept from one day to the next: the files are loaded, three years of raw tables and rollups written,
  the models trained, the same day computed. ``rebuild_over_daily`` is less of it: what was loaded and the models stay, all else
  that was made is deleted.
- *Growth*: a range of days in one run when the shop has one year behind it, and the same number when it has three; people, orders
  and events have grown with it. ``growth_3y_over_1y`` is what a day costs then over what it cost before: 3 is linear.

``…_cpu`` are the same of the seconds of all cores: they hold on a machine that has other things to do. A year at 100,000
customers takes hours: with ``--home`` all is kept, and what was measured there is not measured again. The long range comes last.

``--check-bytes`` measures nothing. It lives the last N days as a shop does: each morning the day's rows are added to the files,
loaded, refreshed, and its messages sent to the inbox, by processes that are forked with the libraries imported. Then all computed
tables are deleted, and backfilled in one run on another number of threads: every file must have the same bytes. A late row is
then loaded: only the days it touches may change, and with ``--known-then`` no file may have other bytes as known then than it had
before. It fails otherwise.

Ends with one line of JSON.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import resource
import shutil
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import date, timedelta
from pathlib import Path
from typing import Any, NamedTuple

import duckdb
from measuring import say, shopauto, shopauto_forked

from shopauto_pipelines.platform.settings import Settings
from shopauto_pipelines.predictions.dataset import training_day

#: Last day of the sample shop, and its months: three years and what a range of days before the first of them needs.
LAST, MONTHS = date(2026, 6, 30), 37

#: Days of a range for the growth; runs of one day that are measured.
RANGE, SEPARATE = 20, 3

#: Days that a late row touches, at most, where it is shown what it changes.
MOST_TOUCHED = 24

#: The lake's folders that are not computed.
GIVEN = ("landing", "_months", "_staging", "first_day", "newest_state")


def main() -> None:
    """Run the benchmark and print its figures."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--customers", type=int)
    parser.add_argument("--days", type=int, default=365)
    parser.add_argument("--quick", action="store_true", help="250 customers, too few for models, and 6 days")
    parser.add_argument("--check-bytes", type=int, metavar="DAYS", help="live so many days, and backfill them")
    parser.add_argument("--known-then", action="store_true", help="with --check-bytes: also all days as known then")
    parser.add_argument(
        "--home", type=Path, help="keep everything in this folder; what was measured or lived in it is not done again"
    )
    options = parser.parse_args()
    customers = options.customers or (600 if options.check_bytes else 250 if options.quick else 100_000)
    with _folder(options.home) as folder:
        if options.check_bytes:
            figures = check_bytes(folder, customers, options.check_bytes, known_then=options.known_then)
        else:
            days = 6 if options.quick else options.days
            figures = measure(folder, customers, days, separate=1 if options.quick else SEPARATE)
    width = max(map(len, figures))
    for name, value in figures.items():
        print(f"{name:{width}}  {value}")
    print(json.dumps(figures))


class Took(NamedTuple):
    """Seconds of a command: by the clock, and of all cores."""

    seconds: float
    cpu: float


def measure(folder: Path, customers: int, days: int, separate: int) -> dict[str, Any]:
    """The figures of the first part of the module's text."""
    home, shop, note = folder / "home", folder / "shop", folder / "measured.json"
    known: dict[str, list[float]] = json.loads(note.read_text()) if note.exists() else {}

    def once(what: str, *commands: tuple[object, ...]) -> Took:
        """What the commands took together, now or when it was measured before."""
        if what not in known:
            before = resource.getrusage(resource.RUSAGE_CHILDREN)
            seconds = sum(shopauto(home, what, *command) for command in commands)
            after = resource.getrusage(resource.RUSAGE_CHILDREN)
            known[what] = [seconds, after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime]
            note.write_text(json.dumps(known))
        took = Took(*known[what])
        say(f"  {what}: {took.seconds:.1f} s, {took.cpu:.1f} s of processors")
        return took

    def refresh(start: date, end: date) -> tuple[object, ...]:
        return "refresh", "--from", start, "--to", end

    wanted = ("--customers", customers, "--months", MONTHS, "--end", LAST)
    once(f"sample of {customers:,} customers, {MONTHS} months", ("sample", shop, *wanted))
    load = ("load", "sample", shop)
    once("load", load)
    first = date.fromisoformat((home / "lake" / "first_day").read_text())
    span = min(days, RANGE)

    def range_until(latest: date) -> tuple[date, date]:
        """``span`` days that begin with one on which models are trained."""
        start = training_day(latest - timedelta(days=span - 1), first, Settings().retrain_days)
        return start, start + timedelta(days=span - 1)

    begin, end = range_until(first + timedelta(days=364))
    once("history and training up to a day of the first year's end", refresh(begin, begin))
    early = once(f"{span} days after one year, in one run", refresh(begin, end))
    begin, end = range_until(LAST - timedelta(days=1))
    once("history and training up to a day of the third year's end", refresh(begin, begin))
    late = once(f"{span} days after three years, in one run", refresh(begin, end))
    alone = [end - timedelta(days=n) for n in range(separate)]
    each = [once(f"{day} in a run of its own", refresh(day, day)) for day in alone]
    daily = Took(*(sum(values) / separate for values in zip(*each, strict=True)))
    if (what := f"{end} from what was loaded") not in known:
        _forget(home)
    rebuild = once(what, refresh(end, end))
    if (what := f"{end} from nothing") not in known:
        shutil.rmtree(home)
    full = once(what, load, refresh(end, end))
    whole = late if span == days else once(f"{days} days in one run", refresh(end - timedelta(days=days - 1), end))
    return {
        "customers": customers,
        "days": days,
        "full_over_daily": round(full.seconds / daily.seconds, 2),
        "runs_over_single_run": round(daily.seconds / (whole.seconds / days), 2),
        "seconds_per_day": round(whole.seconds / days, 3),
        "growth_3y_over_1y": round(late.seconds / early.seconds, 2),
        "one_run_seconds": round(whole.seconds, 1),
        "separate_runs": separate,
        "seconds_per_run": round(daily.seconds, 1),
        "a_run_each_extrapolated_seconds": round(daily.seconds * days, 1),
        "full_recompute_seconds": round(full.seconds, 1),
        "rebuild_over_daily": round(rebuild.seconds / daily.seconds, 2),
        "rebuild_seconds": round(rebuild.seconds, 1),
        "growth_days": span,
        "seconds_per_day_after_1y": round(early.seconds / span, 3),
        "seconds_per_day_after_3y": round(late.seconds / span, 3),
        "full_over_daily_cpu": round(full.cpu / daily.cpu, 2),
        "rebuild_over_daily_cpu": round(rebuild.cpu / daily.cpu, 2),
        "runs_over_single_run_cpu": round(daily.cpu / (whole.cpu / days), 2),
        "cpu_seconds_per_day": round(whole.cpu / days, 3),
        "growth_3y_over_1y_cpu": round(late.cpu / early.cpu, 2),
    }


def check_bytes(folder: Path, customers: int, days: int, *, known_then: bool) -> dict[str, Any]:
    """Live ``days`` days one by one, backfill them, load a late row; ends the program where bytes differ."""
    home, shop, files = folder / "home", folder / "shop", folder / "files"
    if not shop.exists():
        months = 6 + days // 30
        shopauto(
            home, f"sample of {customers:,} customers", "sample", shop, "--customers", customers, "--months", months
        )
    files.mkdir(exist_ok=True)
    lived = [LAST - timedelta(days=n) for n in reversed(range(days))]
    note = folder / "lived_until"
    done = date.fromisoformat(note.read_text()) if note.exists() else date.min
    for count, day in enumerate(lived, start=1):
        if day <= done:
            continue
        _export(shop, files, until=day)
        shopauto_forked(home, f"{day}, {count} of {days}", "load", "sample", files)
        shopauto_forked(home, "  refresh, and send", "refresh", "--day", day)
        note.write_text(day.isoformat())
    by_day, sent = _digests(home), len(list((home / "inbox").rglob("*.eml")))
    _forget(home)
    threads = {"SHOPAUTO_ENGINE_THREADS": "1"}
    shopauto(home, f"all {days} days in one run, on one thread", "refresh", "--from", lived[0], "--to", LAST, **threads)
    _same(by_day, _digests(home), "one run on one thread gave other bytes than a run each day on all")
    say(f"  {len(by_day):,} partitions, all with the bytes they had")

    late = lived[-min(days // 2, MOST_TOUCHED)]
    mended = mend(home, files, late, by_day)
    changed = [name for name in mended if mended[name] != by_day.get(name)]
    then: dict[str, str] = {}
    if known_then:
        shopauto(home, "all days as known then", "--known", "then", "refresh", "--from", lived[0], "--to", LAST)
        then = _digests(home / "known_then")
        _same(by_day, then, "as known then, days have other bytes than they had then")
        _same(mended, _digests(home), "computing days as known then changed the lake of everyday")
    return {
        "customers": customers,
        "days": days,
        "partitions": len(by_day),
        "messages": sent,
        "identical": True,
        "late_row_of": late.isoformat(),
        "partitions_changed_by_it": len(changed),
        "days_changed_by_it": len({_day(name) for name in changed}),
        "partitions_as_known_then": len(then),
    }


def mend(home: Path, files: Path, late: date, before: dict[str, str]) -> dict[str, str]:
    """Load a late order of a day, mend what is stale: digests afterwards. Ends the program where other days changed than may."""
    _add_late_order(files, late)
    shopauto(home, f"load an order of {late} that comes late", "load", "sample", files)
    shopauto(home, "refresh what is stale", "refresh", "--stale")
    mended = _digests(home)
    changed = sorted(name for name in mended if mended[name] != before.get(name))
    wrong = [name for name in changed if _day(name) < late or ("/day=" in name and _day(name) != late)]
    seen = f"features/customer_features/as_of={LAST}/data.parquet" in changed
    if wrong or not seen:
        sys.exit(f"a late order of {late} changed {wrong or 'nothing of today'}")
    say(f"  {len(changed):,} partitions changed, of {len({_day(name) for name in changed})} days, none of a day before")
    _forget(home, since=late)
    shopauto(home, "the days since then once more", "refresh", "--from", late, "--to", LAST)
    _same(mended, _digests(home), "mending what was stale gave other bytes than computing it")
    return mended


def _export(shop: Path, files: Path, until: date) -> None:
    """The shop's files as they stand at the end of a day: rows in the order they happened."""
    for file in shop.glob("*.csv"):
        rows = duckdb.read_csv(str(file), all_varchar=True, header=True)
        at = next(name for name in rows.columns if name.endswith("_at"))
        shown = rows.filter(f"{at} < '{until + timedelta(days=1)}'").order(
            f"{at}, {rows.columns[0]}, {rows.columns[1]}"
        )
        shown.write_csv(str(files / file.name), header=True)


def _add_late_order(files: Path, day: date) -> None:
    """One more order of a day, of whoever ordered last before, at the end of the file."""
    file = files / "orders.csv"
    header, *rows = file.read_text().splitlines()
    names = header.split(",")
    orders = [dict(zip(names, row.split(","), strict=True)) for row in rows]
    order = max((each for each in orders if each["ordered_at"] < f"{day}"), key=lambda each: each["ordered_at"])
    order |= {"order_id": "late-1", "ordered_at": f"{day}T12:00:00Z", "cart_id": "", "coupon_code": ""}
    file.write_text("\n".join([header, *rows, ",".join(order[name] for name in names)]) + "\n")


def _forget(home: Path, since: date = date.min) -> None:
    """Delete all that was computed of days ``since`` then; what was loaded stays, and so do models."""
    for name in _computed(home):
        if _day(name) >= since:
            shutil.rmtree((home / "lake" / name).parent)


def _computed(home: Path) -> list[str]:
    """The paths of all partitions in the lake."""
    lake = home / "lake"
    found = (file.relative_to(lake) for file in lake.rglob("data.parquet"))
    return [str(path) for path in found if path.parts[0] not in GIVEN]


def _digests(home: Path) -> dict[str, str]:
    """Digest of every partition by its path."""
    return {name: hashlib.sha256((home / "lake" / name).read_bytes()).hexdigest() for name in _computed(home)}


def _day(name: str) -> date:
    return date.fromisoformat(name.partition("=")[2][:10])


def _same(these: dict[str, str], those: dict[str, str], otherwise: str) -> None:
    different = sorted(name for name in these.keys() | those.keys() if these.get(name) != those.get(name))
    if different:
        sys.exit(f"{otherwise}: {len(different)} of {len(these)}, {', '.join(different[:10])}")


@contextmanager
def _folder(wanted: Path | None) -> Iterator[Path]:
    if wanted:
        wanted.mkdir(parents=True, exist_ok=True)
        yield wanted
    else:
        with tempfile.TemporaryDirectory(prefix="shopauto-benchmark-") as folder:
            yield Path(folder)


if __name__ == "__main__":
    main()

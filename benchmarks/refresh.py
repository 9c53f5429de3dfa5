"""The whole daily refresh and the full recompute, raw to audience, with checks, beside what the machine can do at best.

    python benchmarks/refresh.py [--customers N] [--months N] [--memory 800MB] [--quick]
    python benchmarks/refresh.py --home DIR [...]        (keeps the home; one that was refreshed is measured as it is)
    python benchmarks/refresh.py --only-refreshes [...]  (not the same work in other words)

**As a user runs it.** A sample shop is generated and loaded, each in a process of its own. ``shopauto refresh`` of a day
then computes the whole history, trains the models and makes the day: that is the *full recompute*, with the training, which is
more than a recompute that keeps its models. ``shopauto refresh`` of the next day is the *daily refresh*. Neither is the newest
day, so nothing is sent: from files to audiences, with all checks. Both run under ``watched_shopauto``, which is the same command
with a stop-watch.

**The same work in other words.** Afterwards the same tables are made of the same files in the same run: by the project's
expressions and its lake without Dagster (*ours*), by SQL written by hand for DuckDB (``refresh_by_hand``), and in pandas
(``refresh_in_pandas``, up to 200,000 customers). Each runs in a process of its own; imports do not count, reading and writing
does.

- *From raw rows*: ``raw/*`` of all days → the rollups ``features/daily_activity``, ``_products``, ``_carts`` and ``_messages`` of
  all days → ``features/customer_features``, ``features/customer_360`` and ``segments/membership`` of the day, for the 20 segments
  of ``refresh_segments``. Profiles, identities, scores, and the five columns of the 360° view that are neither profile nor
  behaviour are given to all.
- *From rollups*: the rollups of all days are there, what follows is made of them: the part of it that a daily refresh does.

First of all it is checked that they say the same: SQL in every value, pandas too but for the sixth digit of what is rounded.

The line of JSON at the end has, beside the seconds and MiB of everything above:

- ``ratio_to_hand_sql``: ours ÷ SQL by hand, seconds from raw rows; both write rollups, features, view and membership as Parquet.
- ``ratio_to_hand_sql_daily``: the same from rollups.
- ``ratio_to_hand_sql_unstored``: both keep the rollups in the engine and write only what follows from them. The next day would
  have to read all raw rows again, so nobody refreshes like this; it is the same work as that of pandas.
- ``ratio_to_scan``: ours from raw rows ÷ reading the raw columns that the SQL needs, every value hashed.
- ``daily_refresh_over_scan``: the whole daily refresh ÷ reading the columns of the lake that it reads of the whole history.
- ``pandas_over_us_seconds``, ``pandas_over_us_memory``: pandas ÷ ours from raw rows, seconds and highest memory of the process.
  Both keep their rollups and write what follows from them. ``pandas_over_us_storing_…``: the same where ours writes its rollups
  too, a sorted file for each of them and each day.
- ``peak_mib``: the highest memory of any process of the two refreshes (``ru_maxrss``); the database server is apart.
- ``dagster_share``: of the daily refresh, from the start of its process to its end, the share that is not spent inside the
  house's own functions: bodies of assets and checks, and the I/O manager. Imports and the start of everything are in it.
- ``full_over_daily``: the full recompute ÷ the daily refresh.

``…_cpu`` are seconds of all cores: they hold on a machine that has other things to do. ``--memory`` is the limit of the query
engine for all that is ours; SQL by hand has 2 GB. ``growth_plot.py`` draws several runs, ``docs/scaling.md`` tells what came out.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from datetime import date, timedelta
from pathlib import Path
from typing import Any

import duckdb
import refresh_by_hand as by_hand
from measuring import in_child, peak_mib, say, shopauto, timed_with_cpu
from refresh_by_hand import Given
from refresh_segments import SEGMENTS

#: Last day of a generated shop; the first of the two days that are refreshed.
LAST, FIRST = date(2026, 6, 30), date(2026, 6, 28)

#: More customers do not fit into the memory of pandas.
MOST_IN_PANDAS = 200_000

#: Columns of the lake that a refresh of one day reads over the whole history.
READ_DAILY = {
    "profiles/claims": ["shop_customer_id", "field", "value", "kind", "at"],
    "raw/consents": ["shop_customer_id", "channel", "state", "changed_at"],
    "features/daily_activity": [
        *("shop_customer_id", "orders", "items", "revenue_cents", "coupon_orders", "refund_cents", "visits"),
        *("page_views", "product_views", "seconds_on_site", "emails_sent", "opens", "machine_opens", "clicks"),
    ],
    "features/daily_products": ["shop_customer_id", "product_id", "category", "orders", "quantity", "revenue_cents"],
    "features/daily_carts": ["cart_id", "shop_customer_id", "last_at", "ordered_at", "coupon"],
}

#: Memory of the engine for SQL by hand, which does not go range by range and does not always fit into less.
BY_HAND = "2GB"

#: What is compared with the same tables in other words.
MADE = ("customer_features", "customer_360", "membership")

#: Columns of the 360° view that are given to all.
MORE = ("top_interest", "cluster", "best_hour", "journey_stage", "lead_score")


def main() -> None:
    """Run the benchmark and print its figures."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--customers", type=int, default=100_000)
    parser.add_argument("--months", type=int, default=37)
    parser.add_argument("--memory", help="memory of the query engine; 800MB up to 200,000 customers, 2GB beyond")
    parser.add_argument("--home", type=Path, help="keep the home here, or measure the next day of the one that is here")
    parser.add_argument("--only-refreshes", action="store_true", help="not the same work in other words")
    parser.add_argument("--quick", action="store_true", help="3,000 customers, 13 months")
    parser.add_argument("--child", nargs=2, metavar=("WHAT", "FOLDER"), help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.child:
        what, folder = options.child
        print(json.dumps(CHILDREN[what](Path(folder)) | {"peak_mib": peak_mib()}))
        return
    size = (3_000, 13) if options.quick else (options.customers, options.months)
    memory = options.memory or ("800MB" if size[0] <= MOST_IN_PANDAS else "2GB")
    with tempfile.TemporaryDirectory(prefix="shopauto-benchmark-") as folder:
        home = options.home or Path(folder) / "home"
        figures = measure(Path(folder), home, size, memory, alone=options.only_refreshes)
    width = max(map(len, figures))
    for name, value in figures.items():
        print(f"{name:{width}}  {value}")
    print(json.dumps(figures))


def measure(folder: Path, home: Path, size: tuple[int, int], memory: str, *, alone: bool) -> dict[str, Any]:
    """All figures, in the order of the module's text; ``alone``: those of the refreshes."""
    lake = home / "lake"
    engine = {"SHOPAUTO_ENGINE_MEMORY": memory}
    refreshed = _refreshed(lake)
    timings: dict[str, float] = {}
    first: dict[str, Any] = {}
    if not refreshed:
        shop = folder / "shop"
        customers, months = size
        wanted = ("--customers", customers, "--months", months, "--end", LAST)
        timings["generate_seconds"] = shopauto(home, f"sample of {customers:,} customers", "sample", shop, *wanted)
        timings["load_seconds"] = shopauto(home, "load", "load", "sample", shop, **engine)
        shutil.rmtree(shop)
        first = _refresh(home, folder, FIRST, "full recompute: history, training, one day", engine)
        refreshed = [FIRST]
    day = refreshed[-1] + timedelta(days=1)
    if day >= (newest := _newest(lake)):
        sys.exit(
            f"{home} is refreshed up to {refreshed[-1]}, its data end on {newest}: a refresh of that day would send"
        )
    daily = _refresh(home, folder, day, f"daily refresh of {day}", engine)
    figures = {
        "customers": duckdb.sql(
            f"select count(*) from '{lake}/features/customer_360/as_of={day}/data.parquet'"
        ).fetchall()[0][0],
        **_sizes(lake, day),
        "raw_rows": duckdb.sql(f"select count(*) from read_parquet('{lake}/raw/*/*/data.parquet')").fetchall()[0][0],
        "processors": len(os.sched_getaffinity(0)),
        "engine_memory": memory,
        **timings,
    }
    if first:
        figures |= {
            "full_seconds": first["seconds"],
            "full_seconds_cpu": first["cpu_seconds"],
            "full_house_seconds": first["house_seconds"],
            "full_peak_mib": first["peak_mib"],
            "full_over_daily": first["seconds"] / daily["seconds"],
            "full_longest_steps": _top(first["steps"]),
            "full_largest_steps": _top(first["mib"]),
        }
    figures |= {
        "daily_seconds": daily["seconds"],
        "daily_seconds_cpu": daily["cpu_seconds"],
        "daily_house_seconds": daily["house_seconds"],
        "daily_peak_mib": daily["peak_mib"],
        "daily_longest_steps": _top(daily["steps"]),
        "daily_largest_steps": _top(daily["mib"]),
        "dagster_share": 1 - daily["house_seconds"] / daily["seconds"],
        "peak_mib": max(run["peak_mib"] for run in (first, daily) if run),
    }
    if not alone:
        figures |= _in_other_words(folder, home, day, memory)
        figures["daily_refresh_over_scan"] = figures["daily_seconds"] / figures["daily_scan_seconds"]
    return {name: _short(value) for name, value in figures.items()}


def _short(value: Any) -> Any:
    if isinstance(value, float):
        return round(value, 1) if value >= 100 else round(value, 3)
    return value


def _top(steps: dict[str, float]) -> dict[str, float]:
    return {step.replace("__", "/"): round(value, 1) for step, value in [*steps.items()][:12]}


def _sizes(lake: Path, day: date) -> dict[str, float]:
    """MiB of the raw tables and of the rollups of all days, and of all states of one day."""

    def mib(pattern: str) -> float:
        return sum(file.stat().st_size for file in lake.glob(pattern)) / 2**20

    return {
        "raw_mib": mib("raw/*/*/data.parquet"),
        "rollups_mib": mib("features/daily_*/*/data.parquet"),
        "states_of_a_day_mib": mib(f"**/as_of={day}/data.parquet"),
    }


def _refreshed(lake: Path) -> list[date]:
    """Days of which the home has the 360° view."""
    found = (lake / "features" / "customer_360").glob("as_of=*")
    return sorted(date.fromisoformat(folder.name.removeprefix("as_of=")) for folder in found)


def _newest(lake: Path) -> date:
    """The newest day of the shop's data, the one that messages leave for."""
    from shopauto_pipelines.outbox.windows import newest_day
    from shopauto_pipelines.platform.lake import Lake

    return newest_day(Lake(lake, threads=1)) or date.min


def _refresh(home: Path, folder: Path, day: date, what: str, engine: dict[str, str]) -> dict[str, Any]:
    """``shopauto refresh --day`` in a process of its own: what its stop-watch says, and what the process has used."""
    say(what)
    told = folder / "watched.json"
    script = Path(__file__).with_name("watched_shopauto.py")
    output = folder / "refresh.log"
    with output.open("w") as log:
        started = time.perf_counter()
        process = subprocess.Popen(
            [sys.executable, str(script), str(told), "refresh", "--day", str(day)],
            env={**os.environ, "SHOPAUTO_HOME": str(home), **engine},
            stdout=log,
            stderr=subprocess.STDOUT,
        )
        _pid, status, used = os.wait4(process.pid, 0)
        seconds = time.perf_counter() - started
    if status:
        sys.exit(f"refresh of {day} failed:\n{output.read_text()}")
    say(f"  {seconds:.1f} s")
    return json.loads(told.read_text()) | {
        "seconds": seconds,
        "cpu_seconds": used.ru_utime + used.ru_stime,
        "peak_mib": used.ru_maxrss / 1024,
    }


def _in_other_words(folder: Path, home: Path, day: date, memory: str) -> dict[str, Any]:
    """Ours without Dagster, SQL by hand, pandas, and the scans, on the lake of the home."""
    (folder / "compared.json").write_text(json.dumps({"home": str(home), "day": str(day), "memory": memory}))

    def child(what: str) -> dict[str, Any]:
        say(f"{what.replace('_', ' ')}")
        found: dict[str, Any] = in_child(__file__, "--child", what, folder)
        if "seconds" in found:
            say(f"  {found['seconds']:.1f} s, {found['peak_mib']:.0f} MiB")
        return found

    people = child("given")["people"]
    ran = {
        what: child(what)
        for what in (
            *("ours", "ours_unstored", "ours_daily", "hand", "hand_unstored", "hand_daily", "scan", "daily_scan"),
        )
    }
    if people <= MOST_IN_PANDAS:
        ran["pandas"] = child("pandas")
    _check(folder, home, day, pandas="pandas" in ran)
    figures: dict[str, Any] = {}
    for what, run in ran.items():
        figures |= {f"{what}_seconds": run["seconds"], f"{what}_seconds_cpu": run["cpu_seconds"]}
        figures |= {f"{what}_mib": run["peak_mib"]}
    ours = ran["ours"]
    figures["ratio_to_scan"] = ours["seconds"] / ran["scan"]["seconds"]
    figures["ratio_to_hand_sql"] = ours["seconds"] / ran["hand"]["seconds"]
    figures["ratio_to_hand_sql_cpu"] = ours["cpu_seconds"] / ran["hand"]["cpu_seconds"]
    figures["ratio_to_hand_sql_daily"] = ran["ours_daily"]["seconds"] / ran["hand_daily"]["seconds"]
    unstored = ran["ours_unstored"]
    figures["ratio_to_hand_sql_unstored"] = unstored["seconds"] / ran["hand_unstored"]["seconds"]
    if "pandas" in ran:
        for what, run in (("us", unstored), ("us_storing", ours)):
            figures[f"pandas_over_{what}_seconds"] = ran["pandas"]["seconds"] / run["seconds"]
            figures[f"pandas_over_{what}_memory"] = ran["pandas"]["peak_mib"] / run["peak_mib"]
    return figures


def _check(folder: Path, home: Path, day: date, pandas: bool) -> None:
    """All have made the same tables; ends the program where they have not."""
    say("compare what they made")
    ours = {name: folder / "ours" / f"{name}.parquet" for name in MADE}
    for other in ("ours_unstored", "ours_daily", "hand", "hand_unstored", "hand_daily"):
        for name, file in ours.items():
            _same(file, folder / other / f"{name}.parquet", f"{other}: {name}")
    for name in MADE[:2]:
        _same(ours[name], home / f"lake/features/{name}/as_of={day}/data.parquet", f"shopauto refresh: {name}")
    if pandas:
        for name, file in ours.items():
            _near(file, folder / "pandas" / f"{name}.parquet", f"pandas: {name}")
    if not duckdb.sql(f"select count(*) from '{ours['membership']}'").fetchall()[0][0]:
        sys.exit("nobody is in any segment: nothing was compared")


def _same(ours: Path, other: Path, what: str) -> None:
    """Ends the program where two files differ in any value."""
    columns = ", ".join(f'"{name}"' for name in duckdb.sql(f"from '{ours}'").columns)
    for left, right in ((ours, other), (other, ours)):
        rows = duckdb.sql(f"select {columns} from '{left}' except all select {columns} from '{right}'")
        if count := len(rows):
            sys.exit(f"{what} is not what ours is: {count} rows differ, such as\n{rows.limit(2)}")


def _near(ours: Path, other: Path, what: str) -> None:
    """The same, but for what comes from rounding to six digits."""
    rows = duckdb.sql(f"from '{ours}'")
    key = [name for name in ("segment", "customer_id") if name in rows.columns]
    on = " and ".join(f'l."{name}" = r."{name}"' for name in key)
    same = " and ".join(
        f'coalesce(abs(l."{name}" - r."{name}") < 2e-6, l."{name}" is null and r."{name}" is null)'
        if str(kind) == "DOUBLE"
        else f'l."{name}" is not distinct from r."{name}"'
        for name, kind in zip(rows.columns, rows.types, strict=True)
    )
    differ = duckdb.sql(f"select * from '{ours}' l full join '{other}' r on {on} where not ({same})")
    if count := len(differ):
        sys.exit(f"{what} is not what ours is: {count} rows differ, such as\n{differ.limit(2)}")


class Compared:
    """What a child works on: the home, the day, folders for what is made."""

    def __init__(self, folder: Path) -> None:
        told = json.loads((folder / "compared.json").read_text())
        self.folder, self.home, self.memory = folder, Path(told["home"]), told["memory"]
        self.day = date.fromisoformat(told["day"])
        self.yesterday = self.day - timedelta(days=1)
        os.environ["SHOPAUTO_HOME"] = str(folder / "statements")
        self.previous = folder / "previous.parquet"

    @property
    def given(self) -> Given:
        """What everybody is given."""
        from shopauto_pipelines.features.customer_features import end_of_day
        from shopauto_pipelines.platform.settings import Settings

        settings = Settings()
        return Given(
            self.home / "lake",
            self.day,
            end_of_day(self.day, settings.zone),
            settings.cart_abandoned_minutes,
            self.folder / "more.parquet",
        )

    def target(self, name: str) -> Path:
        """The folder for what somebody makes."""
        made = self.folder / name
        made.mkdir()
        return made

    def duckdb(self) -> duckdb.DuckDBPyConnection:
        """An engine for SQL by hand."""
        return duckdb.connect(config={"memory_limit": BY_HAND, "temp_directory": str(self.folder / "spill")})


def _given(folder: Path) -> dict[str, Any]:
    """Yesterday's membership of the segments, and the columns of the 360° view that are given."""
    from shopauto_pipelines.platform.lake import Lake
    from shopauto_pipelines.segments import prepared

    told = Compared(folder)
    lake = Lake(told.home / "lake", memory=told.memory)
    rows = prepared.rows(lake, [said.declaration for said in SEGMENTS], told.yesterday)
    lake.con.to_parquet(rows.order_by("segment", "customer_id"), told.previous)
    view = told.given.partition("features/customer_360")
    con = told.duckdb()
    con.execute(f"copy (select customer_id, {', '.join(MORE)} from '{view}') to '{told.given.more}' (format parquet)")
    return {"people": duckdb.sql(f"select count(*) from '{view}'").fetchall()[0][0]}


def _our_lake(told: Compared, name: str, *rooms: str) -> Any:
    """A lake of which what is given is that of the home."""
    from shopauto_pipelines.platform.lake import Lake

    root = told.target(f"{name}_lake")
    for room in rooms:
        (root / room).parent.mkdir(parents=True, exist_ok=True)
        (root / room).symlink_to(told.home / "lake" / room)
    before = root / f"segments/membership/as_of={told.yesterday}/data.parquet"
    before.parent.mkdir(parents=True)
    before.symlink_to(told.previous)
    return Lake(root, memory=told.memory)


def _our_features(told: Compared, lake: Any, rollups: dict[str, Any]) -> Any:
    """Features and view as the assets make them, of rollups by their names; the rows of ``predictions/scores``."""
    from shopauto_pipelines.features import customer_360 as view
    from shopauto_pipelines.features import tables
    from shopauto_pipelines.features.customer_features import customer_features
    from shopauto_pipelines.profiles.tables import CUSTOMERS, IDENTITIES

    given, day = told.given, told.day
    activity, products, carts = (
        rollups[table.name] for table in (tables.DAILY_ACTIVITY, tables.DAILY_PRODUCTS, tables.DAILY_CARTS)
    )
    people = lake.on(IDENTITIES, day)
    features = customer_features(activity, products, carts, people, day, given.day_end, given.cart_minutes)
    lake.write(tables.CUSTOMER_FEATURES, [day], features)
    more = lake.con.read_parquet(given.more)
    parts = (
        more.filter(more.top_interest.notnull()).select("customer_id", category="top_interest").mutate(rank=1),
        more.select("customer_id", "cluster"),
        more.select("customer_id", "best_hour"),
        more.select("customer_id", stage="journey_stage", score="lead_score"),
    )
    seen = view.customer_360(lake.on(CUSTOMERS, day), lake.on(tables.CUSTOMER_FEATURES, day), *parts)
    lake.write(tables.CUSTOMER_360, [day], seen)


def _our_membership(told: Compared, lake: Any, rows: Any, target: Path) -> None:
    """The day's membership; what was made is put into the folder ``target``."""
    from shopauto_pipelines.features.tables import CUSTOMER_360, CUSTOMER_FEATURES
    from shopauto_pipelines.segments.tables import MEMBERSHIP

    lake.write(MEMBERSHIP, [told.day], rows)
    for name, table in zip(MADE, (CUSTOMER_FEATURES, CUSTOMER_360, MEMBERSHIP), strict=True):
        (target / f"{name}.parquet").symlink_to(lake.path(table, told.day))


def _our_state(told: Compared, lake: Any, target: Path) -> None:
    """Features, view and membership as the assets make them, of the rollups in the lake."""
    from shopauto_pipelines.features import tables
    from shopauto_pipelines.segments import prepared

    kept = (tables.DAILY_ACTIVITY, tables.DAILY_PRODUCTS, tables.DAILY_CARTS)
    _our_features(told, lake, {table.name: lake.between(table, end=told.day) for table in kept})
    _our_membership(told, lake, prepared.rows(lake, [said.declaration for said in SEGMENTS], told.day), target)


def _our_rollups(told: Compared, lake: Any) -> Iterator[tuple[Any, list[date], Any]]:
    """The rollups as the assets make them, range by range: the table, the days, the expression."""
    from shopauto_pipelines.features import rollups, tables
    from shopauto_pipelines.platform.lake import days_between
    from shopauto_pipelines.sources import tables as raw

    days = days_between(lake.days(raw.ORDERS)[0], told.day)
    logs_of_activity = (raw.ORDERS, raw.ORDER_LINES, raw.REFUNDS, raw.EVENTS, raw.MESSAGE_EVENTS)
    for table, make, logs in (
        (tables.DAILY_ACTIVITY, rollups.daily_activity, logs_of_activity),
        (tables.DAILY_PRODUCTS, rollups.daily_products, (raw.ORDER_LINES, raw.EVENTS)),
        (tables.DAILY_CARTS, rollups.daily_carts, (raw.EVENTS, raw.ORDERS)),
        (tables.DAILY_MESSAGES, rollups.daily_messages, (raw.MESSAGE_EVENTS,)),
    ):
        for span in lake.spans(logs, days):
            rows = [lake.between(log, span[0], span[-1], once=True) for log in logs]
            if table is tables.DAILY_PRODUCTS:
                rows.append(lake.between(raw.PRODUCTS, end=span[-1]))
            yield table, span, make(*rows)


def _ours(folder: Path) -> dict[str, Any]:
    told = Compared(folder)
    lake, target = _our_lake(told, "ours", "raw", "profiles", "predictions"), told.target("ours")

    def compute() -> None:
        for table, days, rows in _our_rollups(told, lake):
            lake.write(table, days, rows)
        _our_state(told, lake, target)

    return timed_with_cpu(compute)


def _ours_unstored(folder: Path) -> dict[str, Any]:
    from shopauto_pipelines.features.tables import CUSTOMER_360
    from shopauto_pipelines.predictions.tables import SCORES
    from shopauto_pipelines.profiles.tables import IDENTITIES
    from shopauto_pipelines.segments.inputs import Inputs
    from shopauto_pipelines.segments.membership import membership
    from shopauto_pipelines.segments.tables import MEMBERSHIP

    told = Compared(folder)
    lake = _our_lake(told, "ours_unstored", "raw", "profiles", "predictions")
    target = told.target("ours_unstored")

    def compute() -> None:
        rollups: dict[str, Any] = {}
        for table, _days, rows in _our_rollups(told, lake):
            if table.name in rollups:
                lake.con.insert(table.name.replace("/", "_"), rows)
            else:
                rollups[table.name] = lake.con.create_table(table.name.replace("/", "_"), rows, temp=True)
        _our_features(told, lake, rollups)
        day = told.day
        given = Inputs(lake.on(CUSTOMER_360, day), lake.on(SCORES, day), lake.on(IDENTITIES, day), rollups)
        previous = told.yesterday, lake.on(MEMBERSHIP, told.yesterday)
        segments = [said.declaration for said in SEGMENTS]
        _our_membership(told, lake, membership(given, previous, segments, day), target)

    return timed_with_cpu(compute)


def _ours_daily(folder: Path) -> dict[str, Any]:
    told = Compared(folder)
    rooms = ("profiles", "predictions", *(f"features/{name}" for name in by_hand.ROLLUPS), "_months")
    lake, target = _our_lake(told, "ours_daily", *rooms), told.target("ours_daily")
    return timed_with_cpu(lambda: _our_state(told, lake, target))


def _hand(folder: Path, name: str, stored: bool) -> dict[str, Any]:
    told = Compared(folder)
    con, given, target = told.duckdb(), told.given, told.target(name)
    files = told.target(f"{name}_lake") if stored else None

    def compute() -> None:
        by_hand.rollups(con, given, files)
        by_hand.features_and_segments(con, given, told.previous, target)

    return timed_with_cpu(compute)


def _hand_daily(folder: Path) -> dict[str, Any]:
    told = Compared(folder)
    con, given, target = told.duckdb(), told.given, told.target("hand_daily")

    def compute() -> None:
        for name in by_hand.ROLLUPS:
            by_hand.read(con, given.lake / "features" / name, name)
        by_hand.features_and_segments(con, given, told.previous, target)

    return timed_with_cpu(compute)


def _pandas(folder: Path) -> dict[str, Any]:
    import refresh_in_pandas as in_pandas

    told = Compared(folder)
    given, target = told.given, told.target("pandas")
    return timed_with_cpu(lambda: in_pandas.features_and_segments(given, told.previous, target))


def _scan(folder: Path, tables: dict[str, Any], room: str = "") -> dict[str, Any]:
    told = Compared(folder)

    def read() -> None:
        con = told.duckdb()
        for table, columns in tables.items():
            sums = ", ".join(f'bit_xor(hash("{column}"))' for column in columns)
            con.execute(f"select {sums} from read_parquet('{told.home}/lake/{room}{table}/*/data.parquet')").fetchall()

    return min((timed_with_cpu(read) for _ in range(3)), key=lambda took: took["seconds"])


CHILDREN: dict[str, Callable[[Path], dict[str, Any]]] = {
    "given": _given,
    "ours": _ours,
    "ours_unstored": _ours_unstored,
    "ours_daily": _ours_daily,
    "hand": lambda folder: _hand(folder, "hand", stored=True),
    "hand_unstored": lambda folder: _hand(folder, "hand_unstored", stored=False),
    "hand_daily": _hand_daily,
    "scan": lambda folder: _scan(folder, by_hand.RAW, "raw/"),
    "daily_scan": lambda folder: _scan(folder, READ_DAILY),
    "pandas": _pandas,
}


if __name__ == "__main__":
    main()

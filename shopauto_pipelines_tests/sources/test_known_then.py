import hashlib
import shutil
from dataclasses import replace
from datetime import date

import ibis
import pyarrow as pa
import pytest
from ibis import _

from shopauto_pipelines.platform.lake import Lake, MissingPartition, days_between
from shopauto_pipelines.platform.settings import Settings
from shopauto_pipelines.platform.tables import Column, Table
from shopauto_pipelines.sources import arrivals, known, raw, staleness, tables
from shopauto_pipelines.sources.landing import how_to_compute, land, landing_root, read_manifest
from shopauto_pipelines.sources.reading import LandingError

from .declared import CUSTOMERS, ORDERS, ORDERS_HEADER, an_order_a_day, declare, load, put

REFUNDS = """
    refunds:
      files: refunds*.csv
      columns: {refund_id: id, refunded_at: at, order_id: order_id, amount_cents: cents(amount)}
"""
CONSENTS = """
    consents:
      files: consents*.csv
      columns: {shop_customer_id: customer, channel: "'email'", state: state, changed_at: at}
"""
#: A rollup and a state of the tests' own: what the rooms after this one make, in short.
LOG = Table(
    "features/log",
    "Orders and refunds of a day.",
    (Column("orders", "int64", "orders"), Column("cents", "int64", "paid less refunded, cents")),
    ("orders",),
    partition="day",
)
STATE = Table(
    "features/state",
    "A table as of a day.",
    (
        Column("cents", "int64", "paid less refunded so far, cents"),
        Column("opted_out", "int64", "changes of consent to no so far"),
        Column("days", "int64", "days so far on which the state before was another"),
    ),
    ("cents",),
)
RAW = (tables.CUSTOMERS, tables.ORDERS, tables.REFUNDS, tables.CONSENTS, tables.QUARANTINE)
LOGS = (*RAW, LOG)
FIRST, LAST = date(2026, 1, 5), date(2026, 1, 12)
LIVED = days_between(date(2026, 1, 9), LAST)

CUSTOMER_ROWS = ["c1,2026-01-05,,", "c2,2026-01-05,,"]
HEADS = {
    "customers": "id,changed_at,created_at,email\n",
    "orders": ORDERS_HEADER,
    "refunds": "id,at,order_id,amount\n",
    "consents": "customer,at,state\n",
}


class Shop:
    """A shop whose files grow day by day; what ``happened`` on a day is told on it, or ``told`` with a later load."""

    def __init__(self, folder):
        self.folder = folder
        self.rows = {"customers": [*CUSTOMER_ROWS], "orders": [], "refunds": [], "consents": []}

    def add(self, table, *rows):
        self.rows[table] += rows

    def files(self):
        return put(
            self.folder, **{name: HEADS[name] + "".join(f"{row}\n" for row in self.rows[name]) for name in HEADS}
        )


def happens(shop, day):
    """What the shop's files tell with the load of a day: its order, and what comes in late, is corrected, or goes."""
    shop.add("orders", f"o{day.day},{day}T10:00:00,c1,,{day.day}")
    match day.day:
        case 10:
            shop.add("orders", "late,2026-01-06,c2,,100", "stranger,2026-01-10,c3,,5")
            shop.add("refunds", "r1,2026-01-09,o7,7")
        case (
            11
        ):  # a consent comes late, a row is corrected, one spoilt, and the stranger was a customer before he ordered
            shop.add("consents", "c1,2026-01-10,opted_out")
            shop.rows["orders"][shop.rows["orders"].index("o6,2026-01-06T10:00:00,c1,,6")] = "o6,2026-01-06,c1,,66"
            shop.rows["orders"][shop.rows["orders"].index("o8,2026-01-08T10:00:00,c1,,8")] = "o8,2026-01-08,c1,,eight"
            shop.add("customers", "c3,2026-01-11,2026-01-09,")
            shop.add("orders", "other,2026-01-11,c4,,9")
        case 12:  # so was this one, and nobody looks at his order again
            shop.add("customers", "c4,2026-01-12,2026-01-10,")


def write_logs(lake, start, end):
    days = days_between(start, end)
    for table in RAW[:-1]:
        lake.write(table, days, raw.accepted(lake, table, start, end))
    lake.write(tables.QUARANTINE, days, raw.rejected(lake, start, end))
    paid = lake.between(tables.ORDERS, start, end).group_by("day").agg(orders=_.count(), paid=_.total_cents.sum())
    back = lake.between(tables.REFUNDS, start, end).group_by("day").agg(refunded=_.amount_cents.sum())
    both = paid.left_join(back, "day").mutate(cents=_.paid - _.refunded.fill_null(0))
    lake.write(LOG, days, both.select("day", "orders", "cents"))


def write_state(lake, day):
    outs = lake.between(tables.CONSENTS, end=day).filter(_.state == "opted_out").count().as_scalar()
    before = [earlier for earlier in lake.days(STATE) if earlier < day]
    days = lake.con.to_pyarrow(lake.on(STATE, before[-1]))["days"][0].as_py() + 1 if before else 0
    logs = lake.between(LOG, end=day)
    lake.write(STATE, [day], logs.agg(cents=_.cents.sum().fill_null(0), opted_out=outs, days=ibis.literal(days)))


def refresh(lake, start, end):
    """What the daily refresh does: logs that are missing or behind, then the days."""
    missing = [day for day in days_between(FIRST, end) if day not in lake.days(LOG)]
    behind = sorted({*missing, *(day for day in staleness.raw_behind(lake) if day < start), start})
    write_logs(lake, behind[0], end)
    for day in days_between(start, end):
        write_state(lake, day)


def refresh_then(lake, start, end):
    found = []
    for step in arrivals.steps(lake, start, end, LOG):
        if step.logs:
            write_logs(lake, *step.logs)
        write_logs(lake, *step.days)
        for day in days_between(*step.days):
            write_state(lake, day)
        found.append(step)
    return found


def digests(lake, until):
    """Of every table the digest of each partition up to a day."""
    return {
        (table.name, day): hashlib.sha256(lake.path(table, day).read_bytes()).hexdigest()
        for table in (*LOGS, STATE)
        for day in lake.days(table)
        if day <= until
    }


def states(lake, days):
    return {day: lake.con.to_pyarrow(lake.on(STATE, day)).to_pylist()[0] for day in days}


@pytest.fixture(scope="module")
def lived(tmp_path_factory):
    """A shop that lived day by day: its settings, its lake, and what the lake held right after each day's refresh."""
    folder = tmp_path_factory.mktemp("lived")
    settings = Settings(home=folder, _env_file=None)
    lake, shop = Lake(settings.lake_path, threads=2), Shop(folder)
    mapping = declare(folder, CUSTOMERS, ORDERS, REFUNDS, CONSENTS)
    held = {}
    for day in days_between(FIRST, LAST):
        happens(shop, day)
        if day in LIVED:
            load(lake, settings, mapping, shop.files())
            refresh(lake, day, day)
            held[day] = digests(lake, day)
    for day in LIVED:
        write_state(lake, day)
    return settings, lake, held


def everyday(lived):
    """The files of the lake of everyday, and when they changed."""
    found = (file for file in lived[1].root.rglob("*") if "_staging" not in file.parts)
    return {file: file.stat().st_mtime_ns for file in found}


@pytest.fixture(scope="module")
def ranged(lived):
    """The lake as known then of that shop, all days of which were computed at once, and how."""
    before = everyday(lived)
    lake = known.opened(lived[0].model_copy(update={"known": "then"}))
    steps = refresh_then(lake, LIVED[0], LAST)
    assert everyday(lived) == before
    return lake, steps


@pytest.fixture
def then(ranged, tmp_path):
    """A copy of it, to go on with."""
    note, copied = known.noted(ranged[0]), tmp_path / "lake"
    shutil.copytree(ranged[0].root, copied)
    lake = Lake(copied, threads=2)
    known.note(lake, replace(note, landing=str(landing_root(ranged[0]))))
    return lake


def test_a_range_gives_each_days_state_as_it_was_with_a_run_for_each_time_something_came_in_late(lived, ranged):
    (_settings, _lake, held), (then, steps) = lived, ranged
    assert [(step.days[0].day, step.days[1].day) for step in steps] == [(9, 9), (10, 10), (11, 12)]
    assert [[day.day for day in step.late] for step in steps] == [[], [6, 9], [6, 8, 10]]
    assert [(step.logs[0].day, step.logs[1].day) for step in steps] == [(5, 8), (6, 9), (6, 10)]
    for day in LIVED:
        assert digests(then, LAST)[STATE.name, day] == held[day][STATE.name, day], day
    assert digests(then, LAST) == held[LAST]


def test_a_day_alone_has_the_bytes_that_the_lake_held_right_after_its_refresh_and_only_what_differs_is_written(
    lived, then
):
    day = date(2026, 1, 10)
    steps = refresh_then(then, day, day)
    assert [(step.logs, step.late) for step in steps] == [
        ((date(2026, 1, 6), date(2026, 1, 9)), [date(2026, 1, 6), date(2026, 1, 9)])
    ]
    assert digests(then, day) == lived[2][day]


def test_as_known_now_differs_exactly_from_the_day_on_that_a_late_row_is_of(lived, ranged):
    seen, now = states(ranged[0], LIVED), states(lived[1], LIVED)
    # an order a day, of as many euros as the day; late: 100 of the 6th, 7 refunded on the 9th; the 6th corrected to 66, the 8th
    # not readable, and 5 of the stranger on the 10th
    assert {day.day: (seen[day]["cents"], now[day]["cents"]) for day in LIVED} == {
        9: (3500, 3500 + 10_000 - 700 + 6000 - 800),
        10: (4500 + 10_000 - 700, 4500 + 10_000 - 700 + 6000 - 800 + 500),
        11: (5600 + 10_000 - 700 + 6000 - 800 + 500,) * 2,
        12: (6800 + 10_000 - 700 + 6000 - 800 + 500,) * 2,
    }
    assert [seen[day]["opted_out"] for day in LIVED] == [0, 0, 1, 1]
    assert [now[day]["opted_out"] for day in LIVED] == [0, 1, 1, 1]


def test_a_run_that_died_is_done_again_from_where_it_began(lived, then):
    day = date(2026, 1, 9)
    step = next(arrivals.steps(then, day, day, LOG))
    assert step.logs == (date(2026, 1, 6), date(2026, 1, 8))
    refresh_then(then, day, day)
    assert digests(then, day) == lived[2][day]


def test_nothing_is_landed_in_it(lived, then):
    with pytest.raises(LandingError, match="as known then"):
        land(then, declare(then.root, ORDERS), put(then.root, orders=ORDERS_HEADER), lived[0], LAST)


def refreshed(lake, day, computed=None):
    """As if the state of a day had been computed, at a time in ns or just now."""
    lake.write(STATE, [day], pa.table({"cents": [0], "opted_out": [0], "days": [0]}))
    if computed is not None:
        lake.storage.put_text("newest_state", f"{day} {computed}")


def told(lake):
    """Of the landed orders: when each day was known from, and what is kept of earlier ones."""
    manifest = read_manifest(lake, "shop")
    (orders,) = (landed for landed in manifest.files.values() if landed.table == "orders")
    kept = [(gone.until, gone.days) for gone in manifest.replaced]
    return orders.known, kept


FIFTH, SIXTH, SEVENTH = ("2026-01-05", "2026-01-06", "2026-01-07")
TWO_DAYS = f"{ORDERS_HEADER}a,{FIFTH},c1,,1\nb,{SIXTH},c1,,2\n"
LATE_AND_CORRECTED = f"{ORDERS_HEADER}a,{FIFTH},c1,,3\nb,{SIXTH},c1,,2\nc,{SIXTH},c1,,4\nd,{SEVENTH},c1,,5\n"


@pytest.fixture
def orders(lake, settings, tmp_path):
    """Loads the orders of a shop from a text; the mapping may be another."""

    def loaded(text, mapping=ORDERS, **more):
        return land(lake, declare(tmp_path, mapping), put(tmp_path, orders=text), settings, date(2026, 1, 31), **more)

    return loaded


def test_what_is_loaded_before_the_first_refresh_was_known_all_along_and_is_not_kept_twice(lake, orders):
    orders(TWO_DAYS)
    orders(LATE_AND_CORRECTED)
    assert told(lake) == ({}, [])


def test_what_is_loaded_after_a_refresh_is_known_from_the_day_after_and_what_it_replaces_is_kept(lake, orders):
    orders(TWO_DAYS)
    refreshed(lake, date(2026, 1, 6))
    orders(LATE_AND_CORRECTED)
    assert told(lake) == (dict.fromkeys([FIFTH, SIXTH, SEVENTH], SEVENTH), [(SEVENTH, {FIFTH: None, SIXTH: None})])
    orders(TWO_DAYS)  # no refresh has seen what this replaces
    assert told(lake) == (dict.fromkeys([FIFTH, SIXTH, SEVENTH], SEVENTH), [(SEVENTH, {FIFTH: None, SIXTH: None})])


def test_a_day_that_was_not_over_when_it_was_refreshed_is_refreshed_once_more(lake, settings, orders):
    orders(TWO_DAYS)
    noon = int(settings.midnight(date(2026, 1, 6)).timestamp() * 1e9) + 12 * 3600 * 10**9
    refreshed(lake, date(2026, 1, 6), computed=noon)
    orders(LATE_AND_CORRECTED)
    assert told(lake) == (dict.fromkeys([FIFTH, SIXTH, SEVENTH], SIXTH), [(SIXTH, {FIFTH: None})])


def test_rows_that_a_changed_mapping_makes_are_known_as_those_before_were(lake, orders):
    orders(TWO_DAYS)
    refreshed(lake, date(2026, 1, 5))
    orders(f"{TWO_DAYS}c,{SIXTH},c1,,4\n")
    before = told(lake)
    assert before == ({SIXTH: SIXTH}, [])
    refreshed(lake, date(2026, 1, 9))
    orders(f"{TWO_DAYS}c,{SIXTH},c1,,4\n", mapping=ORDERS.replace("cents(total)", "cents(total) * 2"))
    assert told(lake) == before


def test_rows_that_only_stand_in_other_lines_are_not_late_and_not_kept_twice(lake, orders):
    orders(TWO_DAYS)
    refreshed(lake, date(2026, 1, 6))
    first, *rows = TWO_DAYS.splitlines()
    orders("\n".join([first, f"d,{SEVENTH},c1,,5", *reversed(rows)]) + "\n")
    assert told(lake) == ({SEVENTH: SEVENTH}, [])


def test_history_was_known_all_along_whenever_it_is_loaded(lake, orders):
    orders(TWO_DAYS)
    refreshed(lake, date(2026, 1, 6))
    orders(LATE_AND_CORRECTED, history=True)
    assert told(lake) == ({}, [])


def test_rows_whose_day_comes_later_are_told_apart_from_those_refused_before(lake, settings, tmp_path):
    mapping, files = declare(tmp_path, ORDERS), put(tmp_path, orders=f"{TWO_DAYS}c,{SEVENTH},c1,,4\n")
    land(lake, mapping, files, settings, date(2026, 1, 6))
    refreshed(lake, date(2026, 1, 6))
    land(lake, mapping, files, settings, date(2026, 1, 7))
    assert told(lake) == ({SIXTH: SEVENTH, SEVENTH: SEVENTH}, [(SEVENTH, {SIXTH: None})])
    (kept,) = landing_root(lake).rglob("*.until-2026-01-07.quarantine.parquet")
    assert lake.con.read_parquet(str(kept)).to_pyarrow()["reason"].to_pylist() == ["in the future"]


def test_the_landing_keeps_what_was_replaced_through_the_next_loads(lake, orders):
    orders(TWO_DAYS)
    refreshed(lake, date(2026, 1, 6))
    orders(LATE_AND_CORRECTED)
    refreshed(lake, date(2026, 1, 7))
    for more in ("e", "f"):
        orders(f"{LATE_AND_CORRECTED}{more},2026-01-08,c1,,5\n")
    files = {file.name for file in landing_root(lake).rglob("*.parquet")}
    kept = {name for name in files if ".until-" in name}
    assert len(files) - len(kept) == 4, "the newest landing and the one before it, each with what was refused"
    (first,) = (name for name in kept if "quarantine" not in name)
    (path,) = landing_root(lake).rglob(first)
    rows = lake.con.read_parquet(str(path)).to_pyarrow().to_pylist()
    assert [(row["order_id"], row["total_cents"], row["source_row"]) for row in rows] == [("a", 100, 1), ("b", 200, 2)]


def test_before_older_rows_came_in_there_were_no_days_of_theirs(lake, settings, orders, tmp_path):
    orders(TWO_DAYS)
    refreshed(lake, date(2026, 1, 6))
    orders(f"{TWO_DAYS}old,2025-12-01,c1,,1\nc,{SEVENTH},c1,,4\n")
    then = known.opened(settings.model_copy(update={"known": "then"}))
    days = [date(2026, 1, 6), date(2026, 1, 7)]
    assert [step.logs for step in arrivals.steps(then, *days, LOG)] == [
        (date(2026, 1, 5), date(2026, 1, 5)),
        (date(2025, 12, 1), date(2026, 1, 6)),
    ]


def test_where_the_lake_of_everyday_is_another_one_now_its_rows_are_read_and_all_logs_written_again(
    lake, settings, orders, tmp_path
):
    orders(TWO_DAYS)
    refreshed(lake, date(2026, 1, 6))
    at = settings.model_copy(update={"known": "then"})
    days = [date(2026, 1, 6), date(2026, 1, 6)]
    assert [step.logs for step in arrivals.steps(known.opened(at), *days, LOG)] == [(date(2026, 1, 5),) * 2]
    shutil.copytree(lake.root, tmp_path / "elsewhere")
    then = known.opened(at.model_copy(update={"lake": str(tmp_path / "elsewhere")}))
    assert landing_root(then) == tmp_path / "elsewhere" / "landing"
    then.write(LOG, [date(2026, 1, 5)], pa.table({"orders": [1], "cents": [1]}))
    assert [step.logs for step in arrivals.steps(then, *days, LOG)] == [(date(2026, 1, 5),) * 2]


def test_rows_that_stood_in_one_line_at_different_times_are_not_taken_for_each_other(lake, settings, tmp_path):
    mapping, days = declare(tmp_path, CUSTOMERS, ORDERS), [date(2026, 1, 6), date(2026, 1, 7)]
    customers = f"id,changed_at,created_at,email\nc1,{FIFTH},,\n"
    rows = [f"b,{SIXTH},stranger,,2", f"a,{FIFTH},c1,,1"]
    load(lake, settings, mapping, put(tmp_path, customers=customers, orders=ORDERS_HEADER + "\n".join(rows)))
    refreshed(lake, days[0])
    rows = [f"c,{SEVENTH},c1,,4", rows[0], f"a,{FIFTH},c1,,3"]  # b stands where a stood, which has been corrected
    load(lake, settings, mapping, put(tmp_path, customers=customers, orders=ORDERS_HEADER + "\n".join(rows)))
    then = known.opened(settings.model_copy(update={"known": "then"}))
    seen = []
    for _step in arrivals.steps(then, *days, LOG):
        found = (
            raw.accepted(then, tables.ORDERS, date(2026, 1, 5), days[1]).order_by("order_id").to_pyarrow().to_pylist()
        )
        seen.append([(row["order_id"], row["total_cents"], row["source_row"]) for row in found])
    assert seen == [[("a", 100, 2)], [("a", 300, 3), ("c", 400, 1)]]


@pytest.fixture
def shop_orders(lake, settings, tmp_path):
    """Loads the orders of a shop of one customer, where tables of all kinds are declared."""
    heads = HEADS | {"customers": f"{HEADS['customers']}c1,{FIFTH},2025-11-01,\n"}

    def loaded(text, mapping=ORDERS, **more):
        declared = declare(tmp_path, CUSTOMERS, mapping, REFUNDS, CONSENTS)
        return land(lake, declared, put(tmp_path, **heads | {"orders": text}), settings, date(2026, 1, 31), **more)

    return loaded


@pytest.fixture
def paid_then(lake, settings):
    """Computes a January day as known then: what had been paid by it, cents."""

    def computed(day):
        then = known.opened(settings.model_copy(update={"known": "then"}))
        refresh_then(then, date(2026, 1, day), date(2026, 1, day))
        return states(then, [date(2026, 1, day)])[date(2026, 1, day)]["cents"]

    return computed


THREE_DAYS = f"{TWO_DAYS}c,{SEVENTH},c1,,4\n"


def test_history_that_is_told_after_its_days_were_computed_reaches_their_logs(lake, shop_orders, paid_then):
    shop_orders(THREE_DAYS)
    refreshed(lake, date(2026, 1, 7))
    assert paid_then(7) == 700
    shop_orders(f"{THREE_DAYS}x,{FIFTH},c1,,1000\n", history=True)
    assert paid_then(7) == 100_700


def test_a_mapping_that_is_changed_after_days_were_computed_reaches_their_logs(lake, shop_orders, paid_then):
    shop_orders(THREE_DAYS)
    refreshed(lake, date(2026, 1, 7))
    assert paid_then(7) == 700
    shop_orders(THREE_DAYS, mapping=ORDERS.replace("cents(total)", "cents(total) * 2"))
    assert paid_then(7) == 1400


def test_the_rest_of_a_day_that_was_computed_before_it_was_over_reaches_its_log(lake, settings, shop_orders, paid_then):
    shop_orders(TWO_DAYS)
    noon = int(settings.midnight(date(2026, 1, 6)).timestamp() * 1e9) + 12 * 3600 * 10**9
    refreshed(lake, date(2026, 1, 6), computed=noon)
    assert paid_then(6) == 300
    shop_orders(f"{TWO_DAYS}b2,{SIXTH},c1,,1000\nc,{SEVENTH},c1,,4\n")
    refreshed(lake, date(2026, 1, 7))
    assert paid_then(7) == 100_700


def test_the_log_of_a_table_that_no_source_feeds_any_more_stays_and_makes_no_other_one_anew(
    lake, settings, shop_orders, paid_then, monkeypatch
):
    shop_orders(THREE_DAYS)
    refreshed(lake, date(2026, 1, 7))
    assert paid_then(7) == 700
    shop_orders(THREE_DAYS, mapping=ORDERS.replace("cents(total)", "cents(total) * 2"))
    left = [table for table in tables.RAW_TABLES if table != tables.ORDERS]
    monkeypatch.setattr(arrivals, "computed_tables", lambda _sources: left)
    then = known.opened(settings.model_copy(update={"known": "then"}))
    then.write(tables.QUARANTINE, days_between(date(2026, 1, 5), date(2026, 1, 7)), raw.rejected(then, FIRST, LAST))
    assert [step.logs for step in arrivals.steps(then, date(2026, 1, 7), date(2026, 1, 7), LOG)] == [None]


def test_going_back_to_a_day_before_older_history_came_in_empties_the_logs_of_it(lake, shop_orders, paid_then):
    shop_orders(TWO_DAYS)
    refreshed(lake, date(2026, 1, 6))
    shop_orders(f"{TWO_DAYS}old,2025-12-01,c1,,1000\nc,{SEVENTH},c1,,4\n")
    assert [paid_then(6), paid_then(7), paid_then(6)] == [300, 100_700, 300]


def test_of_a_file_that_goes_back_to_what_it_was_all_that_is_replaced_is_kept(lake, shop_orders, paid_then):
    shop_orders(TWO_DAYS)
    refreshed(lake, date(2026, 1, 6))
    for text in (TWO_DAYS.replace("c1,,1", "c1,,10"), TWO_DAYS, TWO_DAYS.replace("c1,,2", "c1,,20")):
        shop_orders(text)
    assert len({gone.landing for gone in read_manifest(lake, "shop").replaced}) == 2
    assert paid_then(6) == 300


def test_a_row_without_a_day_makes_no_day_late_when_the_file_grows(lake, settings, shop_orders):
    days = days_between(date(2026, 1, 5), date(2026, 1, 9))
    text = f"{ORDERS_HEADER}bad,not a date,c1,,1\n"
    for day in days:
        text += f"o{day.day},{day},c1,,1\nbad{day.day},not a date,c1,,1\n"
        shop_orders(text)
        refreshed(lake, day)
    assert told(lake)[1] == []
    then = known.opened(settings.model_copy(update={"known": "then"}))
    assert [step.days for step in arrivals.steps(then, days[0], days[-1], LOG)] == [(days[0], days[-1])]


def test_orders_are_judged_by_customers_from_the_day_on_that_customers_were_told_of(lake, settings, orders, tmp_path):
    orders(TWO_DAYS)
    refreshed(lake, date(2026, 1, 6))
    files = put(
        tmp_path, orders=f"{TWO_DAYS}c,{SEVENTH},c1,,4\n", customers=f"id,changed_at,created_at,email\nc2,{SEVENTH},,\n"
    )
    load(lake, settings, declare(tmp_path, CUSTOMERS, ORDERS), files)
    then = known.opened(settings.model_copy(update={"known": "then"}))
    seen = []
    for step in arrivals.steps(then, date(2026, 1, 5), date(2026, 1, 7), LOG):
        seen.append((step.days[0].day, raw.accepted(then, tables.ORDERS, *step.days).count().execute()))
    assert seen == [(5, 2), (7, 0)]


def test_the_command_for_days_that_are_missing_stays_within_the_data_and_names_the_right_lake(lake, settings, tmp_path):
    days = days_between(date(2026, 1, 5), date(2026, 1, 9))
    an_order_a_day(lake, settings, tmp_path, days)()
    data = "there is data from 2026-01-05 to 2026-01-09"
    assert how_to_compute(lake, days[1], days[1]) == "run `shopauto refresh --day 2026-01-06`"
    early = how_to_compute(lake, date(2025, 1, 1), days[2])
    assert early == f"run `shopauto refresh --from 2026-01-05 --to 2026-01-07`; {data}"
    assert how_to_compute(lake, date(2026, 2, 1), date(2026, 2, 3)) == data
    then = known.opened(settings.model_copy(update={"known": "then"}))
    assert how_to_compute(then, days[0], days[4]) == (
        "run `shopauto --known then refresh --from 2026-01-05 --to 2026-01-09`"
    )
    with pytest.raises(MissingPartition, match="run `shopauto --known then refresh --day 2026-01-05`"):
        then.on(tables.ORDERS, days[0])

"""Tables that all campaigns of a day share: made once, and anew where what they are made of was written since."""

from datetime import date, timedelta

import ibis.expr.types as ir
import pytest

from shopauto_pipelines.campaigns import shared
from shopauto_pipelines.features.tables import CUSTOMER_360
from shopauto_pipelines.platform.lake import Lake
from shopauto_pipelines_tests.campaigns.conftest import TODAY, lake_rows

DAYS = [TODAY - timedelta(days=n) for n in range(3)]


@pytest.fixture
def lake(tmp_path) -> Lake:
    """A lake with two people on each of some days."""
    lake = Lake(tmp_path / "lake", threads=1)
    for day in DAYS:
        _write(lake, day, "a", "b")
    return lake


def _write(lake: Lake, day: date, *who: str) -> None:
    lake.write(CUSTOMER_360, [day], lake_rows(CUSTOMER_360, *({"customer_id": each} for each in who)))


class _People:
    """The people of a day, shared; ``made`` are the days for which they were read."""

    def __init__(self, lake: Lake) -> None:
        self.lake, self.made = lake, list[date]()

    def of(self, day: date, what: str = "people") -> list[str]:
        def make(name: str) -> ir.Table:
            self.made.append(day)
            return self.lake.con.create_table(
                name, self.lake.on(CUSTOMER_360, day).select("customer_id"), temp=True, overwrite=True
            )

        rows = shared.shared(self.lake, day, (what, shared.stamps(self.lake, day, CUSTOMER_360)), make)
        return sorted(self.lake.con.to_pyarrow(rows)["customer_id"].to_pylist())


def test_a_table_is_made_once_and_anew_where_its_partition_was_written_since(lake):
    people = _People(lake)
    assert [people.of(day) for day in (*DAYS, *DAYS)] == [["a", "b"]] * 6
    assert people.made == DAYS
    _write(lake, DAYS[1], "a", "c")
    assert [people.of(day) for day in DAYS] == [["a", "b"], ["a", "c"], ["a", "b"]]
    assert people.made == [*DAYS, DAYS[1]]


def test_where_they_hold_too_many_people_those_of_other_days_go_and_those_of_the_day_stay(lake, monkeypatch):
    monkeypatch.setattr(shared, "ROWS", 4)
    monkeypatch.setattr(shared, "FEWEST", 0)
    people = _People(lake)
    people.of(DAYS[2])
    for what in ("people", "consent", "hours"):
        people.of(DAYS[0], what)
    assert people.made == [DAYS[2], *DAYS[:1] * 3]
    for what in ("people", "consent", "hours"):
        people.of(DAYS[0], what)
    assert people.made == [DAYS[2], *DAYS[:1] * 3], "the day's are all there"
    people.of(DAYS[2])
    assert people.made[-1] == DAYS[2]


def test_tables_of_a_few_people_each_are_not_kept_by_the_thousand(lake, monkeypatch):
    monkeypatch.setattr(shared, "ROWS", 2 * shared.FEWEST)
    people = _People(lake)
    assert [people.of(day) for day in (*DAYS, DAYS[0])] == [["a", "b"]] * 4
    assert people.made == [*DAYS, DAYS[0]], "of three days with two people each, two days are kept"


def test_no_fewer_days_are_looked_at_than_are_needed():
    assert all(days <= shared.span(days) for days in range(1, 800))
    assert len({shared.span(days) for days in range(1, 367)}) == 3

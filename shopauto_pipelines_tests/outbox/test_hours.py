"""Messages wait for their hour: what a reservation leaves planned, and what makes a sensor ask for a run."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

import dagster as dg
import pytest
import sqlalchemy as sa
from hypothesis import HealthCheck, given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from shopauto_pipelines.campaigns.tables import audience
from shopauto_pipelines.outbox import controls, hours, ledger
from shopauto_pipelines.outbox.channels.inbox import LocalInbox
from shopauto_pipelines.outbox.dispatch import dispatch
from shopauto_pipelines.outbox.hours import Hours
from shopauto_pipelines.outbox.sensors import messages_in_their_hour
from shopauto_pipelines.platform.clock import FixedClock
from shopauto_pipelines.platform.dagster.resources import LakeResource, SettingsResource
from shopauto_pipelines.profiles.cleaning import time_zone_of_country
from shopauto_pipelines.profiles.tables import CUSTOMERS
from shopauto_pipelines.sources.tables import ORDERS
from shopauto_pipelines_tests.outbox.conftest import DAY, reserve, rows
from shopauto_pipelines_tests.outbox.shop import campaign, fill, write_shop

NIGHT = Hours(21, 8, "UTC")


def _at(hour: int, minute: int = 0, day: int = 4) -> datetime:
    return datetime(2026, 1, day, hour, minute, tzinfo=UTC)


def _plan(engine, *messages: dict) -> None:
    with engine.begin() as connection:
        for number, more in enumerate(messages):
            ledger.plan(connection, rows(1, start=number, **more), run_id=None, at=_at(0))


def _taken(engine, at: datetime, wanted: Hours | None = NIGHT, **more) -> list[str]:
    with engine.begin() as connection:
        return [m.key.customer_id[-1] for m in reserve(connection, at=at, hours=wanted, **more).messages]


def test_a_message_leaves_from_its_hour_on_and_not_in_quiet_hours(engine):
    _plan(engine, {"send_from": _at(10)}, {"send_from": _at(20)}, {})
    assert _taken(engine, _at(9, 59)) == ["2"], "what has no hour leaves at once"
    assert _taken(engine, _at(10)) == ["0"]
    assert _taken(engine, _at(21)) == [], "it came too late for its hour: the night is quiet"
    assert _taken(engine, _at(7, 59, day=5)) == []
    assert _taken(engine, _at(8, day=5)) == ["1"]


def test_quiet_hours_are_those_of_the_persons_clock_else_of_the_shops(engine):
    _plan(engine, {"send_from": _at(0), "time_zone": "Asia/Tokyo"}, {"send_from": _at(0)})
    assert _taken(engine, _at(7), Hours(21, 8, "Europe/London")) == ["0"], "16:00 in Tokyo, 07:00 in London"
    assert _taken(engine, _at(12), Hours(21, 8, "Europe/London")) == ["1"]


def test_what_keeps_its_day_does_not_leave_on_the_next_one(engine):
    wishes = Hours(21, 8, "UTC", keeps_day=True)
    _plan(engine, {"send_from": _at(8), "time_zone": "Asia/Tokyo"}, {"send_from": _at(8)}, {})
    assert _taken(engine, _at(13), wishes) == ["1", "2"], "22:00 in Tokyo: quiet"
    assert _taken(engine, _at(23), wishes) == [], "the next morning there"
    with engine.connect() as connection:
        assert ledger.counts(connection, "welcome", DAY)["suppressed", "no_hour"] == 1
    _plan(engine, *[{}] * 3, {"send_from": _at(8)})
    assert _taken(engine, _at(9, day=5), NIGHT) == ["3"], "what does not keep its day is late and leaves"


def test_without_hours_all_leave_at_once_and_the_same_hour_twice_means_none_is_quiet(engine):
    _plan(engine, {"send_from": _at(20)}, {"send_from": _at(2)})
    assert _taken(engine, _at(3), Hours(8, 8, "UTC")) == ["1"]
    assert _taken(engine, _at(3), None) == ["0"]


def test_those_who_wait_do_not_keep_others_from_leaving(engine):
    _plan(engine, *[{"send_from": _at(20)}] * 5, {"send_from": _at(9)})
    assert _taken(engine, _at(10), limit=2) == ["5"]
    with engine.connect() as connection:
        assert hours.waiting(connection, "welcome", DAY, NIGHT, _at(10)) == (5, _at(20))
        assert hours.waiting(connection, "welcome", DAY, NIGHT, _at(22)) == (5, None)
        assert hours.waiting(connection, "welcome", DAY, None, _at(10)) == (0, None)


def test_a_day_that_takes_a_message_over_brings_its_own_hour(engine):
    _plan(engine, {"send_from": _at(20)})
    later = rows(1, as_of=DAY + timedelta(days=1), send_from=_at(9, day=5), time_zone="Asia/Tokyo")
    with engine.begin() as connection:
        assert ledger.plan(connection, later, run_id=None, at=_at(5, day=5)) == 1
    assert _taken(engine, _at(10, day=5), as_of=DAY + timedelta(days=1)) == ["0"]


@hypothesis_settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    quiet=st.tuples(st.integers(0, 23), st.integers(0, 23)),
    at=st.datetimes(datetime(2026, 3, 27), datetime(2026, 3, 31), timezones=st.just(UTC)),
    zones=st.lists(st.sampled_from(["Europe/London", "Asia/Kathmandu", "America/New_York", None]), max_size=4),
)
def test_whatever_the_clock_nothing_leaves_in_quiet_hours_and_all_else_does(engine, quiet, at, zones):
    with engine.begin() as connection:
        connection.execute(sa.text("truncate shopauto.messages, shopauto.open_messages cascade"))
    _plan(engine, *({"send_from": _at(0), "time_zone": zone} for zone in zones))
    start, end = quiet

    def is_quiet(zone: str | None) -> bool:
        hour = at.astimezone(ZoneInfo(zone or "America/Sao_Paulo")).hour
        return start <= hour < end if start <= end else hour >= start or hour < end

    taken = _taken(engine, at, Hours(start, end, "America/Sao_Paulo"))
    assert taken == [str(n) for n, zone in enumerate(zones) if not is_quiet(zone)]


@pytest.fixture
def live(settings):
    return settings.model_copy(update={"live": True, "rollout_from": 100, "timezone": "UTC"})


def _planned_for(lake, *times: datetime) -> None:
    """Customers to be welcomed, each from one of the times on, the first of them in Tokyo."""
    write_shop(lake, len(times))
    table = audience("welcome")
    told = lake.con.to_pyarrow(lake.on(table, DAY)).to_pylist()
    fill(lake, table, DAY, [
        row | {"send_from": at.replace(tzinfo=None)} for row, at in zip(told, times, strict=True)
    ])  # fmt: skip
    people = lake.con.to_pyarrow(lake.on(CUSTOMERS, DAY)).to_pylist()
    people[0]["time_zone"] = "Asia/Tokyo"
    fill(lake, CUSTOMERS, DAY, people)


def test_in_live_mode_the_next_run_sends_those_whose_hour_has_come_and_each_once(engine, lake, live):
    _planned_for(lake, _at(6), _at(9), _at(20))

    def run(at: datetime):
        return dispatch(engine, lake.session(), live, campaign(), DAY, clock=FixedClock(at), channel=LocalInbox(live))

    first = run(_at(6))
    assert (first.sent, first.waiting) == (1, (2, _at(9)))
    assert (run(_at(8)).sent, run(_at(9)).sent, run(_at(9)).sent) == (0, 1, 0)
    last = run(_at(20))
    assert (last.sent, last.count("sent"), last.waiting.messages) == (1, 3, 0)


def test_with_live_mode_off_the_inbox_gets_all_at_once(engine, lake, settings):
    _planned_for(lake, _at(6), _at(9), _at(20))
    assert dispatch(engine, lake, settings, campaign(), DAY, clock=FixedClock(_at(3))).sent == 3


def test_of_a_campaign_every_day_with_messages_whose_hour_has_come_is_found(engine):
    tomorrow = DAY + timedelta(days=1)
    _plan(engine, {"send_from": _at(8)}, {"send_from": _at(8, day=5), "as_of": tomorrow})
    with engine.connect() as connection:
        assert hours.come(connection, NIGHT, _at(9)) == [("welcome", DAY, 1)], "the newer day holds nothing back"
        assert hours.come(connection, NIGHT, _at(9, day=5)) == [("welcome", DAY, 1), ("welcome", tomorrow, 1)]


def test_the_sensor_asks_for_a_run_when_an_hour_has_come(engine, lake, live, monkeypatch):
    fill(lake, ORDERS, DAY, [])
    _plan(engine, {"send_from": _at(10)}, {"send_from": _at(10)}, {"send_from": _at(12)})

    def asked(at: datetime, chosen=live) -> list:
        monkeypatch.setattr("shopauto_pipelines.outbox.sensors.engine", lambda _: engine)
        monkeypatch.setattr(SettingsResource, "settings", chosen)
        monkeypatch.setattr(SettingsResource, "clock", FixedClock(at))
        monkeypatch.setattr(LakeResource, "lake", lambda _: lake)
        resource = SettingsResource()
        resources = {"settings": resource, "lake": LakeResource(settings=resource)}
        with dg.build_sensor_context(resources=resources) as context:
            return [said for said in messages_in_their_hour(context) if isinstance(said, dg.RunRequest)]

    assert asked(_at(9)) == []
    (run,) = asked(_at(10))
    assert (run.partition_key, run.run_key) == (str(DAY), f"welcome:{DAY}:hour:2026-01-04T10:00")
    assert run.asset_selection == [dg.AssetKey(["outbox", "welcome"])]
    (again,) = asked(_at(10, 44))
    assert again.run_key.endswith("T10:30"), "hours begin with a half in some time zones"
    assert asked(_at(10), live.model_copy(update={"live": False})) == []
    assert _taken(engine, _at(10)) == ["0", "1"]
    assert asked(_at(11)) == []
    assert len(asked(_at(12))) == 1
    assert asked(_at(12, day=6)) == [], "its day has been over for too long"
    with engine.begin() as connection:
        controls.pause(connection, "welcome", "a wrong price", "me", _at(12))
    assert asked(_at(12)) == []
    with engine.begin() as connection:
        controls.resume(connection, "welcome", "me", at=_at(12))
    assert len(asked(_at(12))) == 1
    fill(lake, ORDERS, DAY + timedelta(days=1), [])
    assert len(asked(_at(12))) == 1, "the newer day has only begun"
    assert len(asked(_at(23))) == 0, "at night hours are quiet"
    assert asked(_at(11, day=5)) == [], "a newer day has closed this one"


def test_every_time_zone_that_a_country_may_give_a_person_is_known_to_the_database_and_no_abbreviation(engine):
    from babel.core import get_global

    zones = {time_zone_of_country(country) for country in get_global("territory_zones")} - {None}
    with engine.connect() as connection:
        known = set(connection.execute(sa.text("select name from pg_timezone_names")).scalars())
        abbreviations = set(connection.execute(sa.text("select abbrev from pg_timezone_abbrevs")).scalars())
    assert zones <= known, sorted(zones - known)
    assert not {zone.upper() for zone in zones} & abbreviations, "these have no summer time"

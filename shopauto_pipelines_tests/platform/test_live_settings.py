"""A cap changed in the database holds for whatever begins afterwards; a wrong value never gets there."""

from __future__ import annotations

import json
from datetime import timedelta
from functools import partial

import pytest
import sqlalchemy as sa

from shopauto_pipelines.cli.doctor import examine
from shopauto_pipelines.outbox import ledger
from shopauto_pipelines.outbox.channels.inbox import LocalInbox
from shopauto_pipelines.outbox.dispatch import dispatch
from shopauto_pipelines.platform import live_settings, postgres
from shopauto_pipelines.platform.clock import FixedClock
from shopauto_pipelines.platform.live_settings import Change
from shopauto_pipelines.platform.settings import Settings, SettingsError
from shopauto_pipelines_tests.outbox.conftest import AT, DAY, database_home, engine, reserve, rows, shared_engine
from shopauto_pipelines_tests.outbox.shop import campaign, write_shop

__all__ = ["database_home", "engine", "shared_engine"]


@pytest.fixture
def change(engine, settings):
    """Changes a setting as the command does; returns whether that was a change."""

    def changed(name: str, value: str | None, minute: int = 0) -> bool:
        wanted = Change(name, value, "sale week", "Eva", AT + timedelta(minutes=minute))
        with engine.begin() as connection:
            return live_settings.change(connection, settings, wanted)

    return changed


@pytest.fixture
def command(engine, database_home, shopauto, monkeypatch):
    """Runs ``shopauto live-settings`` on the test's database."""
    monkeypatch.setenv("SHOPAUTO_HOME", str(database_home))
    monkeypatch.setenv("COLUMNS", "160")
    return partial(shopauto, "live-settings")


def test_what_is_set_holds_until_it_is_given_back_to_the_environment(engine, settings, change):
    assert live_settings.current(engine, settings) is settings
    assert change("cap_messages", "5")
    assert change("rollout_percent", "2.5")
    current = live_settings.current(engine, settings)
    assert (current.cap_messages, current.rollout_percent, current.cap_days) == (5, 2.5, settings.cap_days)
    assert current.home == settings.home
    assert not change("cap_messages", "5")
    assert change("cap_messages", None)
    assert not change("cap_messages", None)
    assert live_settings.current(engine, settings).cap_messages == settings.cap_messages


def test_other_settings_and_secrets_are_those_of_the_process_not_of_the_environment(
    engine, tmp_path, monkeypatch, change
):
    own = Settings(home=tmp_path, secret_key="one", timezone="Europe/London", _env_file=None)
    monkeypatch.setenv("SHOPAUTO_SECRET_KEY", "another")
    monkeypatch.setenv("SHOPAUTO_TIMEZONE", "Asia/Tokyo")
    monkeypatch.setenv("SHOPAUTO_CAP_DAYS", "99")
    change("cap_messages", "5")
    current = live_settings.current(engine, own)
    assert (current.hash_key, current.timezone, current.cap_days) == (own.hash_key, "Europe/London", 7)


def test_settings_that_differ_in_what_was_changed_share_their_connections(engine, settings, change, monkeypatch):
    monkeypatch.setattr(postgres, "_engine", lambda _: sa.create_engine("postgresql+psycopg://"))
    change("cap_messages", "5")
    assert postgres.engine(live_settings.current(engine, settings)) is postgres.engine(settings)


@pytest.mark.parametrize(
    ("name", "value", "told"),
    [
        ("cap_messages", "0", "cap_messages = 0: Input should be greater than or equal to 1"),
        ("cap_messages", "many", "cap_messages = many: Input should be a valid integer"),
        ("cap_messages", "", "cap_messages = : Input should be a valid integer"),
        ("breaker_bounce_percent", "nan", "breaker_bounce_percent = nan: Input should be"),
        ("rollout_percent", "101", "rollout_percent = 101: Input should be less than or equal to 100"),
        ("live", "true", "live is read when a process starts: set SHOPAUTO_LIVE, and start it again"),
        ("cap_mesages", "3", "cap_mesages is no setting; did you mean cap_messages?"),
        ("colour", "3", "colour is no setting"),
    ],
)
def test_a_wrong_value_and_a_setting_that_cannot_change_are_refused_with_words(
    engine, settings, change, name, value, told
):
    with pytest.raises(SettingsError) as refused:
        change(name, value)
    assert told in str(refused.value)
    with engine.connect() as connection:
        assert live_settings.changes(connection) == []


def test_every_change_is_kept_with_who_made_it_and_why(engine, change):
    change("cap_messages", "5")
    change("cap_messages", "4", minute=1)
    change("cap_messages", None, minute=2)
    with engine.connect() as connection:
        assert live_settings.changed(connection) == {}
        assert live_settings.changes(connection, limit=2) == [
            Change("cap_messages", None, "sale week", "Eva", AT + timedelta(minutes=2)),
            Change("cap_messages", "4", "sale week", "Eva", AT + timedelta(minutes=1)),
        ]


def _write(engine: sa.Engine, name: str, value: str) -> None:
    """A row that the program would not have written: by hand, or by another version."""
    with engine.begin() as connection:
        connection.execute(sa.insert(live_settings.table).values(name=name, value=value, by="psql", at=AT))


@pytest.mark.parametrize(
    ("name", "value"), [("cap_messages", "none"), ("cap_of_an_old_version", "3"), ("live", "true")]
)
def test_a_row_that_is_no_setting_stops_what_would_obey_it_and_can_be_taken_away(engine, settings, change, name, value):
    _write(engine, name, value)
    with pytest.raises(SettingsError, match=f"(?s){name}.*live-settings unset"):
        live_settings.current(engine, settings)
    assert change(name, None)
    assert live_settings.current(engine, settings) == settings


def test_a_cap_lowered_while_a_campaign_is_being_sent_holds_from_the_next_batch_on(engine, lake, settings, change):
    class LoweredMeanwhile(LocalInbox):
        batch_size = calls_at_once = 1

        def send(self, envelopes):
            change("cap_messages", "1")
            return super().send(envelopes)

    write_shop(lake, people=8)
    with engine.begin() as connection:  # everybody has had another message this week
        ledger.plan(connection, rows(8, campaign="earlier"), run_id=None, at=AT)
        sent = [ledger.Settled(m.id, "sent") for m in reserve(connection, campaign="earlier").messages]
        ledger.settle(connection, sent, by="me", at=AT)
    result = dispatch(engine, lake, settings, campaign(), DAY, clock=FixedClock(AT), channel=LoweredMeanwhile(settings))
    assert 1 <= result.states["sent", ""] <= 3  # what was reserved already
    assert result.states["sent", ""] + result.states["suppressed", "cap"] == 8


def test_the_command_sets_shows_and_unsets(command):
    assert "cap_messages is 5 from now on." in command("set", "SHOPAUTO_CAP_MESSAGES", "5", "--why", "sale [week]")
    assert "is 5 already" in command("set", "cap-messages", "5", "--why", "again")
    shown = " ".join(command("list").split())  # whatever the width: the console keeps that of its first use
    assert "cap_messages 5 3 " in shown
    assert "sale [week]" in shown
    told = json.loads(command("list", "--json"))
    assert {"value": 5, "environment": 3, "why": "sale [week]"}.items() <= told["cap_messages"].items()
    assert told["cap_days"] == {"value": 7, "environment": 7}
    assert "cap_messages is 3, the environment's from now on." in command("unset", "cap_messages")
    (newest, oldest) = json.loads(command("history", "--json"))
    assert (newest["value"], oldest["value"], oldest["why"]) == (None, "5", "sale [week]")
    assert "(the environment's)" in command("history")


@pytest.mark.parametrize("name", ["list", "set", "unset", "history"])
def test_every_command_teaches_itself(command, name):
    shown = command(name, "--help")
    assert f"Usage: shopauto live-settings {name}" in shown
    assert len(shown.split()) > 25


def test_the_command_says_why_not(command):
    assert "Input should be greater than or equal to 1" in command("set", "cap_messages", "0", "--why", "x", code=1)
    assert "say why" in command("set", "cap_messages", "2", "--why", " ", code=2)
    assert "SHOPAUTO_LIVE" in command("set", "live", "true", "--why", "x", code=1)


def test_the_doctor_shows_what_was_changed_and_what_cannot_be_read(engine, command, change):
    change("cap_messages", "5")
    _write(engine, "cap_days", "soon")
    found = [finding for finding in examine() if finding.subject == "live settings"]
    assert [finding.level for finding in found] == ["note", "note", "problem"]
    assert "cap_messages is 5 since 2026-01-04 05:00 UTC, by Eva: sale week" in {finding.text for finding in found}
    assert found[0].remedy == "shopauto live-settings unset cap_days"
    assert "cap_days = soon" in found[2].text

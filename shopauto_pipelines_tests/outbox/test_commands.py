"""``shopauto outbox`` as an operator meets it."""

from __future__ import annotations

import json
from functools import partial

import pytest
from rich.console import Console

from shopauto_pipelines.cli import outbox as outbox_commands
from shopauto_pipelines.cli.doctor import examine
from shopauto_pipelines.outbox import controls, ledger
from shopauto_pipelines_tests.outbox.conftest import AT, DAY, reserve, rows


@pytest.fixture
def outbox(engine, database_home, shopauto, monkeypatch):
    """Runs ``shopauto outbox`` on the test's database, as ``shopauto`` does."""
    monkeypatch.setenv("SHOPAUTO_HOME", str(database_home))
    monkeypatch.setenv("COLUMNS", "200")
    return partial(shopauto, "outbox")


@pytest.fixture
def under_way(engine) -> list[int]:
    """Ten messages of the campaign ``welcome``: two sent, two unclear, one failed, the rest planned; ids of the unclear."""
    with engine.begin() as connection:
        ledger.plan(connection, rows(10), run_id=None, at=AT)
        a, b, c, d, e = (message.id for message in reserve(connection, limit=5).messages)
        outcomes = [
            (a, "sent"),
            (b, "sent"),
            (c, "unknown", "time-out"),
            (d, "unknown", "HTTP 500"),
            (e, "failed", "HTTP 400"),
        ]
        ledger.settle(connection, [ledger.Settled(*outcome) for outcome in outcomes], by="me", at=AT)
    return [c, d]


def _states(engine) -> dict[tuple[str, str], int]:
    with engine.connect() as connection:
        return ledger.counts(connection, "welcome", DAY)


@pytest.mark.parametrize(
    "command",
    [
        "status",
        "pause",
        "resume",
        "stop",
        "start",
        "overrule",
        "unknown",
        "resolve",
        "retry",
        "suppress import",
        "suppress export",
    ],
)
def test_every_command_teaches_itself(outbox, command):
    shown = outbox(*command.split(), "--help")
    assert f"Usage: shopauto outbox {command}" in shown
    assert len(shown.split()) > 25


def test_status_shows_where_messages_are_what_is_paused_and_what_to_do_in_a_narrow_window(
    outbox, under_way, monkeypatch
):
    monkeypatch.setattr(outbox_commands, "console", Console(highlight=False, width=80))
    outbox("pause", "welcome", "--why", "wrong [price] in the second picture, the one with the shoes")
    outbox("stop", "--why", "shop down")
    first, second, _, heads, _, *lines = outbox("status").splitlines()
    assert first.startswith("Everything is stopped since 20")
    assert first.endswith(": shop down")
    assert "outbox start" in second
    assert heads.split() == ["campaign", "day", "planned", "sent", "failed", "unknown"]
    assert ["welcome", "2026-01-03", "5", "2", "1", "2"] in [line.split() for line in lines]
    assert any(line.startswith("welcome is paused since") and "wrong [price] in the second" in line for line in lines)
    assert "2 messages of all days are unclear: `shopauto outbox unknown`" in lines[-1]
    shown = outbox("unknown")
    assert "c000002" in shown
    assert "2026-01-03" in shown


def test_status_in_json_is_for_scripts(outbox, under_way):
    told = json.loads(outbox("status", "--json"))
    assert (told["stopped"], told["unknown"]) == (None, 2)
    (welcome,) = (campaign for campaign in told["campaigns"] if campaign["campaign"] == "welcome")
    assert welcome == {
        "campaign": "welcome",
        "day": "2026-01-03",
        "paused": None,
        "planned": 5,
        "reserved": 0,
        "sent": 2,
        "failed": 1,
        "unknown": 2,
        "suppressed": 0,
    }


def test_pausing_and_resuming_is_obeyed_and_says_what_it_did(outbox, engine, under_way):
    assert "welcome is paused." in outbox("pause", "welcome", "--why", "wrong price")
    assert "nothing was changed" in outbox("pause", "welcome", "--why", "again")
    with engine.begin() as connection:
        assert "wrong price" in reserve(connection).stopped
    assert "Everything is stopped." in outbox("stop", "--why", "shop down")
    assert "But everything is stopped" in outbox("resume", "welcome", "--why", "mended")
    assert "Everything goes on." in outbox("start")
    with engine.begin() as connection:
        assert len(reserve(connection).messages) == 5
        assert [(c.scope, c.paused, c.why) for c in controls.changes(connection)] == [
            ("*", False, ""),
            ("welcome", False, "mended"),
            ("*", True, "shop down"),
            ("welcome", True, "wrong price"),
        ]


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (
            ["pause", "welcom", "--why", "x"],
            "there is no campaign 'welcom'; there are abandoned_cart, birthday, ",
        ),
        (["pause", "welcome"], "Missing option '--why'"),
        (["pause", "welcome", "--why", " "], "say why"),
        (["resolve", "--as", "sent", "--why", "x"], "say which messages"),
        (["resolve", "3", "--all", "--as", "sent", "--why", "x"], "say which messages"),
        (["resolve", "3", "--as", "lost", "--why", "x"], "'lost' is not one of"),
        (["resolve", "three", "--as", "sent", "--why", "x"], "should be a valid integer"),
        (["retry", "welcome"], "Missing option '--day'"),
        (["retry", "welcome", "--day", "soon"], "write it like 2026-06-30"),
        (["suppress", "import", "/nowhere.csv"], "No such file"),
    ],
)
def test_wrong_arguments_are_named_and_nothing_is_changed(outbox, engine, under_way, arguments, says):
    before = _states(engine)
    shown = " ".join(outbox(*arguments, code=2).replace("│", " ").split())
    assert says in shown
    assert _states(engine) == before
    with engine.connect() as connection:
        assert controls.controls(connection) == []


def test_unclear_messages_are_listed_with_what_is_known_of_them(outbox, under_way):
    shown = outbox("unknown", "--limit", "1")
    assert str(under_way[0]) in shown
    assert "time-out" in shown
    assert "The oldest 1 of 2" in shown
    assert "welcome of 2026-01-03: 2" in shown
    told = json.loads(outbox("unknown", "--campaign", "welcome", "--json"))
    assert [message["id"] for message in told] == under_way
    assert told[1] | {"id": 0} == {
        "id": 0,
        "campaign": "welcome",
        "step": "hello",
        "customer_id": "c000003",
        "occasion": "2026-01-03",
        "via": "inbox",
        "day": "2026-01-03",
        "since": "2026-01-04T05:00:00+00:00",
        "reason": "HTTP 500",
    }
    assert "Nothing is unclear." in outbox("unknown", "--campaign", "win_back")


def test_resolving_by_hand_settles_what_was_named_and_says_what_was_not_unclear(outbox, engine, under_way):
    shown = outbox("resolve", under_way[0], 10**9, "--as", "sent", "--why", "in their activity feed")
    assert "1 messages are settled as sent." in shown
    assert "1 of the ids are not unclear" in shown
    assert "1 messages are settled as failed." in outbox(
        "resolve", "--campaign", "welcome", "--day", DAY, "--as", "failed", "--why", "x"
    )
    states = _states(engine)
    assert sum(n for (state, _), n in states.items() if state == "sent") == 3
    assert any(reason.endswith("in their activity feed") for state, reason in states if state == "sent")
    assert "2 messages of welcome of 2026-01-03 are planned again." in outbox("retry", "welcome", "--day", DAY)
    assert _states(engine)["planned", "retry"] == 2


def test_suppression_lists_go_in_and_out(outbox, tmp_path):
    file = tmp_path / "list.csv"
    file.write_text("\ufeffEmail,why\na@example.com,x\nb@example.com,x\n", encoding="utf-8")
    assert "2 addresses are suppressed now, 0 were already." in outbox(
        "suppress", "import", file, "--reason", "unsubscribe"
    )
    exported = outbox("suppress", "export")
    assert exported.splitlines()[0] == "hash,channel,reason,at"
    assert exported.count(",email,unsubscribe,") == 2
    assert "2 suppressed addresses are in" in outbox("suppress", "export", tmp_path / "out.csv")
    assert (tmp_path / "out.csv").read_text() == exported
    assert "0 addresses are suppressed now, 2 were already." in outbox("suppress", "import", "-", stdin=exported)
    assert "line 2: not an e-mail address" in outbox("suppress", "import", "-", stdin="email\nnobody\n", code=1)
    assert "one of them `email`, `phone` or `hash`" in outbox("suppress", "import", "-", stdin="nobody\n", code=1)


def test_everything_can_be_stopped_while_the_playbook_is_broken(outbox, monkeypatch):
    def broken(component: str) -> None:
        raise PlaybookError("defs.yaml:3: no")

    from shopauto_pipelines.platform import playbook
    from shopauto_pipelines.platform.playbook import PlaybookError

    monkeypatch.setattr(playbook, "declarations", broken)
    assert "Everything is stopped." in outbox("stop", "--why", "x")
    assert "welcome is paused." in outbox("pause", "welcome", "--why", "x")


def test_the_doctor_names_what_is_unclear_and_what_is_stopped_with_the_remedy(outbox, under_way):
    outbox("stop", "--why", "shop down")
    outbox("pause", "welcome", "--why", "wrong price")
    findings = [(f.text, f.remedy) for f in examine() if f.subject == "outbox"][1:]
    assert findings == [
        ("2 messages have an unclear outcome; they are never sent again by themselves", "shopauto outbox unknown"),
        ("everything is stopped: shop down", "shopauto outbox start"),
        ("welcome is paused: wrong price", "shopauto outbox resume welcome"),
    ]


def test_what_the_gate_holds_is_overruled_with_a_cause_that_is_kept(outbox, engine, shopauto):
    told = outbox("overrule", "welcome", "--day", DAY, "--why", "a public holiday")
    assert f"welcome of {DAY} now leaves whatever the gate says." in told
    assert f"Next: shopauto refresh --day {DAY}" in told
    assert "left already" in outbox("overrule", "welcome", "--day", DAY, "--why", "again")
    assert "a public holiday" in shopauto("live-settings", "history")
    assert "say why" in outbox("overrule", "welcome", "--day", DAY, "--why", " ", code=2)
    assert "there is no campaign" in outbox("overrule", "wellcome", "--day", DAY, "--why", "x", code=2)

"""The command, on a home with a database: it tells everything and leaves no trace."""

import json
from pathlib import Path

import pytest
import sqlalchemy as sa

from shopauto_pipelines.outbox import ledger
from shopauto_pipelines.platform.postgres import SCHEMA
from shopauto_pipelines_tests.outbox.conftest import AT, rows
from shopauto_pipelines_tests.replay.conftest import DAYS, make_lake


def _database(engine: sa.Engine) -> dict[str, list]:
    """Every row of every table."""
    with engine.connect() as connection:
        names = sa.inspect(connection).get_table_names(SCHEMA)
        return {name: connection.execute(sa.text(f"select * from {SCHEMA}.{name}")).fetchall() for name in names}


def _files(lake: Path) -> dict[Path, tuple[int, int]]:
    """Every file of the lake that is there to stay."""
    files = (path for path in lake.rglob("*") if path.is_file() and "_staging" not in path.parts)
    return {path: (path.stat().st_size, path.stat().st_mtime_ns) for path in files}


@pytest.mark.slow
def test_a_replay_prints_what_would_have_been_and_leaves_no_row_and_no_file(shopauto, tmp_path, monkeypatch, engine):
    monkeypatch.setenv("SHOPAUTO_POSTGRES_URL", engine.url.set(drivername="postgresql").render_as_string(False))
    monkeypatch.setenv("SHOPAUTO_HOLDOUT_PERCENT", "0")
    monkeypatch.setenv("SHOPAUTO_SECRET_KEY", "k" * 32)
    home = tmp_path / "home"
    make_lake(home / "lake")
    with engine.begin() as connection:
        ledger.plan(connection, rows(2), run_id=None, at=AT)
    database, files = _database(engine), _files(home / "lake")
    page = tmp_path / "page.html"
    shown = shopauto("replay", "welcome", "--from", DAYS[0], "--to", DAYS[3], "--html", page)
    assert "favourites" in shown
    assert "Nothing was sent." in shown
    assert "It is no effect of the messages." in " ".join(shown.split())
    assert str(page) in shown
    assert "<svg" in page.read_text(encoding="utf-8")
    told, _end = json.JSONDecoder().raw_decode(
        shopauto("replay", "welcome", "--from", DAYS[0], "--to", DAYS[0], "--json")
    )
    assert told["outcomes"][0]["messages"] == 1
    assert _database(engine) == database
    assert _files(home / "lake") == files
    assert not (home / "inbox").exists()


def test_wrong_names_and_days_are_told_in_words(shopauto, tmp_path):
    (tmp_path / "home" / "lake").mkdir(parents=True)
    nowhere = shopauto(
        "replay", "welcome", "--from", DAYS[0], "--to", DAYS[3], "--html", tmp_path / "no" / "p.html", code=2
    )
    assert "there is no folder" in nowhere
    told = shopauto("replay", "welcom", "--from", DAYS[0], "--to", DAYS[3], code=1)
    assert "there is no campaign 'welcom': did you mean welcome?" in told
    told = shopauto("replay", "welcome", "--from", DAYS[0], "--to", DAYS[3], code=1)
    assert f"{DAYS[0]} to {DAYS[3]} cannot be replayed" in told

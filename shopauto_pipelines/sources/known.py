"""A lake as known then: which day's knowledge its tables are computed with, and whose landed rows it reads.

Such a lake stands beside the one of everyday, which is as known now. A note in its root says what it is, so whoever opens it
sees the right rows, and nobody can land anything in it. What each landed row was known from is in ``landing``, which rows
were visible when is found in ``arrivals``.
"""

from __future__ import annotations

import fcntl
import json
import os
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import date, timedelta
from pathlib import Path

from shopauto_pipelines.platform.lake import KNOWN_THEN, Lake, storage_of
from shopauto_pipelines.platform.postgres import locked
from shopauto_pipelines.platform.settings import Settings


@dataclass(frozen=True)
class Cut:
    """The rows that the refresh of ``end`` could know of.

    From ``start`` to it no rows came in late, so the refresh of each of these days could know of all of them that are of that
    day or before: one cut serves the range.
    """

    start: date
    end: date

    def shows(self, known: date, until: date) -> bool:
        """Whether rows are visible that were known from a day on, and better from another."""
        return known <= self.end < until


@dataclass(frozen=True)
class Then:
    """What the note of a lake as known then says.

    ``landing``: folder of the landed rows, relative to the lake. ``cut``: what its daily tables were computed with last, up to
    the day before ``behind`` where a run did not finish. Before the first run there is none.
    """

    landing: str
    cut: Cut | None = None
    behind: date | None = None


def noted(lake: Lake) -> Then | None:
    """What a lake as known then notes of itself; ``None`` for the lake of everyday."""
    return _read(lake.root) if (lake.root / KNOWN_THEN).exists() else None


def _read(root: Path) -> Then:
    known = json.loads((root / KNOWN_THEN).read_text())
    start, end, behind = (known[name] and date.fromisoformat(known[name]) for name in ("start", "end", "behind"))
    return Then(known["landing"], Cut(start, end) if start else None, behind)


def note(lake: Lake, then: Then) -> None:
    """Make ``lake`` one as known then, or note what is computed with which knowledge from now on."""
    told = {
        "landing": then.landing,
        "start": then.cut and then.cut.start.isoformat(),
        "end": then.cut and then.cut.end.isoformat(),
        "behind": then.behind and then.behind.isoformat(),
    }
    staged = lake.root / "_staging" / f"{KNOWN_THEN}-{uuid.uuid4().hex}"
    staged.write_text(json.dumps(told))
    os.replace(staged, lake.root / KNOWN_THEN)


def opened(settings: Settings) -> Lake:
    """The lake as known then of a home, made where there is none, beside the one of everyday."""
    everyday = settings.model_copy(update={"known": "now"})
    lake = Lake(settings.lake_path, settings.engine_threads, settings.engine_memory)
    landing, before = os.path.relpath(everyday.lake_path / "landing", lake.root), noted(lake)
    if before is None:
        note(lake, Then(landing))
    elif before.landing != landing:  # the lake of everyday is another one, or was moved: all logs are written again
        note(lake, Then(landing, behind=date.min))
    loaded = storage_of(everyday)
    loaded.pull("landing")
    first = Lake.first_day(loaded)
    if first:
        lake.note_first_day(first)
    return lake


@contextmanager
def alone(lake: Lake, settings: Settings) -> Iterator[None]:
    """One computation at a time: another one would change the knowledge under the first."""
    with (lake.root / ".known_then.lock").open("a") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        with locked(settings, "known then"):
            yield


def told(settings: Settings) -> str:
    """What to tell of the lake as known then, before something in it is shown."""
    lake = settings.lake_path
    if not (lake / KNOWN_THEN).exists():
        return "Nothing has been computed as known then: `shopauto --known then refresh --from DAY --to DAY`."
    then = _read(lake)
    logs = f" Logs and rollups are as known with the refresh of {then.cut.end}." if then.cut else ""
    return f"As known that day, in {settings.computed_path}: each day from what had been loaded when it was refreshed.{logs}"


def told_from(lake: Lake, settings: Settings, latest: date | None) -> date | None:
    """The first day whose refresh can know of rows that are landed at this moment; ``None``: every day's can.

    It is the day after the newest one that was refreshed, once that day was over, and never before ``latest``, the same day of
    the load before. Before the first refresh nobody has looked, so what is loaded until then counts as known all along.
    """
    refreshed = lake.newest_state()
    if refreshed is None:
        return latest
    day, computed = refreshed
    over = settings.midnight(day + timedelta(days=1)).timestamp() * 1e9 <= computed
    first = day + timedelta(days=1) if over else day
    return max(first, latest) if latest else first


def landing_folder(lake: Lake) -> Path:
    """The folder of the landed rows that a lake's tables are made of."""
    then = noted(lake)
    return lake.root / "landing" if then is None else (lake.root / then.landing).resolve()

"""``shopauto segments`` as a person and as a CI meet it."""

import json
import shutil
from datetime import date

import pyarrow as pa
import pytest

from shopauto_pipelines.cli import segments_shown
from shopauto_pipelines.features.tables import CUSTOMER_360
from shopauto_pipelines.platform.lake import Lake
from shopauto_pipelines.predictions.tables import SCORES
from shopauto_pipelines.segments.tables import MEMBERSHIP, OVERLAP, SIZES

DAY = date(2026, 3, 31)
_ZERO = {"string": "", "int64": 0, "float64": 0.0, "boolean": False}
SEGMENT = (
    "type: shopauto_pipelines.segments.component.Segment\nattributes:\n  name: {}\n  description: d\n  where: {}\n"
)


@pytest.fixture
def home(tmp_path):
    """A home whose lake has one computed day: twenty buyers, the more revenue the higher the number."""
    lake = Lake(tmp_path / "home" / "lake", threads=1)
    empty = {c.name: _ZERO.get(c.type) if c.required else None for c in CUSTOMER_360.columns}
    people = [
        empty | {"customer_id": f"c{n:02}", "orders": 2, "orders_365d": 2, "revenue_cents_365d": 100 * n}
        for n in range(1, 21)
    ]
    lake.write(CUSTOMER_360, [DAY], pa.Table.from_pylist(people, CUSTOMER_360.arrow_schema))
    lake.write(SCORES, [DAY], SCORES.arrow_schema.empty_table())
    member = {"segment": "vip", "customer_id": "c20", "entered_on": DAY}
    lake.write(MEMBERSHIP, [DAY], pa.Table.from_pylist([member], MEMBERSHIP.arrow_schema))
    count = {"segment": "vip", "size": 1, "entered": 1, "left": 0, "standing_in": 0}
    lake.write(SIZES, [DAY], pa.Table.from_pylist([count], SIZES.arrow_schema))
    pair = {
        "segment": "active",
        "other": "vip",
        "size": 9,
        "other_size": 1,
        "both": 1,
        "share_of_smaller": 1.0,
        "lift": 2.2,
    }
    lake.write(OVERLAP, [DAY], pa.Table.from_pylist([pair], OVERLAP.arrow_schema))
    return tmp_path / "home"


@pytest.fixture
def playbooks(tmp_path):
    """Two playbooks of one segment: everybody, and those of more revenue."""
    for name, least in (("old", 0), ("new", 500)):
        folder = tmp_path / name / "rich"
        folder.mkdir(parents=True)
        (folder / "defs.yaml").write_text(SEGMENT.format("rich", f"revenue_cents_365d > {least}"))
    return tmp_path / "old", tmp_path / "new"


@pytest.mark.usefixtures("home")
def test_a_day_is_looked_at(shopauto, monkeypatch):
    monkeypatch.setattr(segments_shown.console, "width", 80)
    listed = shopauto("segments", "list")
    assert "The top 5 % of the last year's buyers" in listed
    assert max(map(len, listed.splitlines())) <= 80
    told = json.loads(shopauto("segments", "list", "--json"))
    assert [(s["size"], s["entered"], s["left"]) for s in told["segments"] if s["segment"] == "vip"] == [(1, 1, 0)]
    shown = shopauto("segments", "show", "vip")
    assert "1 person as of 2026-03-31, 1 came and 0 went on the day" in shown
    assert "✓ revenue_percentile >= 95  revenue_percentile: 100" in shown
    assert "active" in shopauto("segments", "overlap", "vip")


@pytest.mark.usefixtures("home")
def test_a_person_is_explained(shopauto):
    shown = shopauto("segments", "why", "c19", "vip")
    assert "c19 as of 2026-03-31: in 0 of 1 segments" in shown
    assert "✗ revenue_percentile >= 95  revenue_percentile: 94.736842" in shown
    told = json.loads(shopauto("segments", "why", "c20", "vip", "--json"))
    assert told["segments"][0]["member"] == "vip"


@pytest.mark.usefixtures("home")
def test_a_difference_fails_a_build_only_where_it_is_asked_to(shopauto, playbooks):
    old, new = playbooks
    compare = ("segments", "diff", "--against", old, "--playbook", new)
    shown = shopauto(*compare)
    assert "1 segment differs, 0 are the same; 20 people as of 2026-03-31." in shown
    assert "5 went: the new condition keeps them out by revenue_cents_365d > 500" in shown
    shopauto(*compare, "--fail-over", 25)
    assert "Over 24.9 % move: rich (25 %)" in shopauto(*compare, "--fail-over", 24.9, "--format", "markdown", code=3)
    told = json.loads(shopauto(*compare, "--format", "json", "--who", 1))
    assert [(m["customer_id"], m["now"]) for m in told["segments"][0]["people"]] == [("c05", None)]


@pytest.mark.usefixtures("home")
def test_a_playbook_to_compare_with_is_not_a_folder_that_is_there_by_chance(shopauto, playbooks, tmp_path, monkeypatch):
    _old, new = playbooks
    monkeypatch.chdir(tmp_path)
    (tmp_path / "main").mkdir()
    compare = ("segments", "diff", "--playbook", new, "--fail-over", 10, "--against")
    assert "git" in shopauto(*compare, "main", code=1)
    assert "./main declares no segment: there is nothing to compare" in shopauto(*compare, "./main", code=1)
    assert "1 segment differs" in shopauto(*compare, "old", code=3)
    shutil.rmtree(new / "rich")
    assert "new declares no segment" in shopauto(*compare, "old", code=1).replace("\n", "")


def test_mistakes_are_answered_with_what_there_is(shopauto, home, playbooks):
    for arguments, said, code in (
        (("show", "vpi"), "did you mean 'vip'?", 1),
        (("show", "vip", "--as-of", "2026-04-02"), "the nearest computed day is 2026-03-31", 1),
        (("why", "c2O", "vip"), "no customer 'c2O' as of 2026-03-31; did you mean 'c20'?", 1),
        (("overlap", "fans_off"), "did you mean 'fans_of'?", 1),
        (("diff", "--against", "no-such-branch"), "", 1),
        (("diff", "--against", playbooks[0], "--playbook", playbooks[0] / "nowhere"), "there is no folder", 2),
        (("diff",), "--against", 2),
        (("check", playbooks[0] / "nowhere"), "there is no folder", 2),
    ):
        assert said in shopauto("segments", *arguments, code=code)
    shutil.rmtree(home / "lake" / "segments")
    assert "no day has been computed: run `shopauto refresh`" in shopauto("segments", "list", code=1)
    shutil.rmtree(home / "lake")
    assert "run `shopauto demo`" in shopauto("segments", "why", "c20", code=1)
    assert not (home / "lake").exists()


def test_a_playbook_is_checked_without_data(shopauto, playbooks):
    old, _new = playbooks
    assert "1 segments and 0 campaigns, all valid" in shopauto("segments", "check", old)
    (old / "rich" / "defs.yaml").write_text(SEGMENT.format("rich", "revenue_cent_365d > 0"))
    said = shopauto("segments", "check", old, code=1)
    assert "defs.yaml:5:" in said
    assert "did you mean `revenue_cents_365d`?" in said
    shutil.rmtree(old / "rich")
    assert "declares no segment and no campaign" in shopauto("segments", "check", old, code=1)

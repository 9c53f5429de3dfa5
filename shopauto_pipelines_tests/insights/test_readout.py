"""The assets by a real run, and what the command line says of them."""

from __future__ import annotations

import json
from datetime import date, timedelta
from pathlib import Path

import dagster as dg
import pyarrow as pa
import pytest

from shopauto_pipelines.campaigns.declaration import load_campaigns
from shopauto_pipelines.campaigns.tables import audience
from shopauto_pipelines.features.tables import DAILY_ACTIVITY
from shopauto_pipelines.insights import report
from shopauto_pipelines.insights.assets import ASSETS
from shopauto_pipelines.insights.tables import ASSIGNMENTS, CAMPAIGN_EFFECTS
from shopauto_pipelines.platform.dagster.assets import spec_arguments
from shopauto_pipelines.platform.dagster.io_manager import LakeIOManager
from shopauto_pipelines.platform.dagster.resources import LakeResource, SettingsResource
from shopauto_pipelines.platform.dagster.runs import range_tags
from shopauto_pipelines.platform.lake import Lake
from shopauto_pipelines.platform.settings import Settings, load_settings
from shopauto_pipelines.platform.tables import Table
from shopauto_pipelines.profiles.tables import IDENTITIES
from shopauto_pipelines.sources.tables import MESSAGE_EVENTS

DAY = date(2026, 3, 1)
TODAY = DAY + timedelta(days=14)
PEOPLE = 400


def fill(lake: Lake, table: Table, day: date, rows: list[dict]) -> None:
    zero = {"int64": 0, "string": "", "boolean": False, "date": day}
    blank = {c.name: zero.get(c.type) if c.required else None for c in table.columns}
    lake.write(table, [day], pa.Table.from_pylist([blank | row for row in rows], schema=table.arrow_schema))


def upstream(table: Table) -> dg.AssetSpec:
    told = spec_arguments(table, "upstream")
    return dg.AssetSpec(told["key"], partitions_def=told["partitions_def"]).with_io_manager_key("lake_io")


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    """A shop whose welcome worked: three in ten order, of those held out one in ten; nothing else was ever sent."""
    folder = tmp_path_factory.mktemp("home")
    lake, campaigns = Lake(folder / "lake", 1), load_campaigns()
    days = (TODAY - timedelta(days=1), TODAY)
    for name in campaigns:
        for day in days:
            fill(lake, audience(name), day, [])
    arms = {n: "campaign" if n < PEOPLE else "campaign_holdout" for n in range(2 * PEOPLE)}
    told = {"campaign": "welcome", "comparison": "*", "occasion": "o"}
    fill(lake, ASSIGNMENTS, DAY, [told | {"customer_id": f"c{n}", "arm": arm} for n, arm in arms.items()])
    for n in (365, 366):  # began before what counts
        at_the_edge = [told | {"customer_id": "long", "arm": "campaign_holdout"}]
        fill(lake, ASSIGNMENTS, TODAY - timedelta(days=n), at_the_edge)
    today = [
        {"customer_id": reason, "reason": reason, "explanation": "{}"}
        for reason in ("due", "cap", "holdout", "opted_out")
    ]
    fill(lake, audience("welcome"), TODAY, today)
    orders = [n for n, arm in arms.items() if n % 10 < (3 if arm == "campaign" else 1)]
    bought = [{"shop_customer_id": f"c{n}", "orders": 1, "revenue_cents": 2000 + n} for n in orders]
    fill(lake, DAILY_ACTIVITY, DAY + timedelta(days=2), bought)
    for day in days:
        fill(lake, IDENTITIES, day, [])
    sent = {"event_id": "1", "type": "sent", "campaign": "welcome", "message_id": "welcome:hello:c1:o"}
    fill(lake, MESSAGE_EVENTS, DAY + timedelta(days=1), [sent])
    patch = pytest.MonkeyPatch()
    patch.setenv("SHOPAUTO_HOME", str(folder))
    settings = SettingsResource()
    resource = LakeResource(settings=settings)
    given = [DAILY_ACTIVITY, IDENTITIES, MESSAGE_EVENTS, *(audience(name) for name in campaigns)]
    with dg.DagsterInstance.ephemeral() as instance:
        run = dg.materialize(
            [*ASSETS, *map(upstream, given)],
            selection=ASSETS,
            instance=instance,
            resources={"settings": settings, "lake": resource, "lake_io": LakeIOManager(lake=resource)},
            tags=range_tags(*days),
        )
    patch.undo()
    return folder, run


def test_the_effects_are_known_once_the_days_are_over_and_are_shown_in_the_ui(home):
    folder, run = home
    assigned = Lake(folder / "lake", 1).on(ASSIGNMENTS, TODAY).order_by("customer_id").to_pyarrow().to_pylist()
    assert [(row["customer_id"], row["arm"]) for row in assigned] == [
        ("cap", "campaign"),
        ("due", "campaign"),
        ("holdout", "global_holdout"),
    ]
    assert welcomes(folder, TODAY - timedelta(days=1)) == []
    ordered, revenue = welcomes(folder, TODAY)
    assert (ordered["value"], ordered["control_value"], ordered["lift"]) == (0.3, 0.1, 0.2)
    assert (ordered["verdict"], revenue["verdict"]) == ("better", "better")
    assert 0.1 < ordered["lift_low"] < 0.2 < ordered["lift_high"] < 0.3
    shown = {
        event.partition: event.metadata for event in run.asset_materializations_for_node("insights__campaign_effects")
    }
    assert "effects" not in shown[str(TODAY - timedelta(days=1))]
    text = shown[str(TODAY)]["effects"].value
    assert text.startswith("![effects of the campaigns](data:image/svg+xml;base64,")
    assert "| welcome against its holdout | ordered, 14 days | 400 | 400 | 30.00 % | 10.00 % | +20.00 (+200%) |" in text
    assert shown[str(TODAY)]["better"].value == 2


def test_the_command_says_what_came_of_a_campaign(home, shopauto, monkeypatch):
    monkeypatch.setattr("shopauto_pipelines.cli.readout.load_settings", lambda: _settings(home[0]))
    told = shopauto("readout", "welcome")
    assert "Effects as of 2026-03-15" in told
    assert "welcome against its holdout: 400 people against 400, 14 days" in told
    assert "30.00 %" in told
    assert "better" in told
    rows = json.loads(shopauto("readout", "welcome", "--json", "--as-of", TODAY))
    assert [(row["campaign"], row["metric"], row["as_of"]) for row in rows] == [
        ("welcome", "ordered", "2026-03-15"),
        ("welcome", "revenue", "2026-03-15"),
    ]
    assert "Nothing to compare yet" in shopauto("readout", "welcome", "--as-of", TODAY - timedelta(days=1))
    assert "insights/campaign_effects has not been computed for 2026-05-01" in shopauto(
        "readout", "--as-of", "2026-05-01", code=1
    )
    assert "there is no campaign 'wellcome': did you mean welcome?" in shopauto("readout", "wellcome", code=1)


def test_before_anything_is_computed_the_command_says_what_to_do_and_makes_no_lake(shopauto):
    assert "run `shopauto refresh`" in shopauto("readout", code=1)
    assert not load_settings().lake_path.exists()


def test_the_plot_shows_a_line_a_comparison_and_survives_names_from_anywhere(home):
    rows = welcomes(home[0], TODAY)
    drawing = report.drawing([row | {"comparison": "<x>&y"} for row in rows])
    assert drawing.count("<rect") == 1 + len(rows)
    assert "&lt;x&gt;&amp;y" in drawing
    assert report.forest_plot([row | {"control_value": 0.0} for row in rows]) == ""


def welcomes(folder: Path, day: date) -> list[dict]:
    """The rows of the welcome campaign; an experiment of another one has rows, without people, from the start."""
    rows = Lake(folder / "lake", 1).on(CAMPAIGN_EFFECTS, day).order_by("metric").to_pyarrow().to_pylist()
    return [row for row in rows if row["campaign"] == "welcome"]


def _settings(folder: Path) -> Settings:
    return Settings(home=folder, _env_file=None)

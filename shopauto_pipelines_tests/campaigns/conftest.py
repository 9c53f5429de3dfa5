"""What the campaigns' tests share: small tables, and a playbook in a temporary folder that a test may spoil."""

import shutil
from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import date
from itertools import zip_longest
from pathlib import Path
from typing import Any

import ibis
import pyarrow as pa
import pytest
import yaml

from shopauto_pipelines.campaigns.asked import asked
from shopauto_pipelines.campaigns.declaration import Campaign, Step, load_campaigns
from shopauto_pipelines.campaigns.planner import SCHEMAS as SCHEMAS_OF_ALL
from shopauto_pipelines.campaigns.planner import Rules
from shopauto_pipelines.campaigns.planning import given_name, statement, told
from shopauto_pipelines.platform.playbook import PLAYBOOK
from shopauto_pipelines.platform.tables import Table
from shopauto_pipelines_tests.outbox.conftest import database_home, engine, shared_engine  # noqa: F401

#: The day most tests plan for.
TODAY = date(2026, 6, 30)

#: The order in which tests name the columns of people; whoever names fewer does not know the others.
_PEOPLE = (
    *("customer_id", "email_known", "language", "last_order_on", "churn_probability", "phone_known", "time_zone"),
    *("best_hour", "ticket_open", "last_ticket_on", "last_seen_on", "unmet"),
)

SCHEMAS: dict[str, Mapping[str, Any]] = {
    name: dict(SCHEMAS_OF_ALL[name].items()) for name in ("triggers", "consent", "membership", "history", "planned")
}
SCHEMAS["people"] = {name: SCHEMAS_OF_ALL["people"][name] for name in _PEOPLE}

RULES = Rules(cap_messages=3, cap_days=7, holdout_percent=0.0, language="en", hash_key=b"k" * 32)


def table(name: str, rows: Iterable[Sequence[Any]]) -> pa.Table:
    """A planner input out of tuples; values that a tuple leaves out at its end are null."""
    schema = SCHEMAS[name]
    arrow = ibis.schema(schema).to_pyarrow()
    return pa.Table.from_pylist([dict(zip_longest(schema, row)) for row in rows], schema=arrow)


def lake_rows(table: Table, *rows: dict[str, Any]) -> pa.Table:
    """Rows of a lake table; required columns that are not given are empty, 0 or false."""
    blank = {"string": "", "int64": 0, "boolean": False, "float64": 0.0}
    default = {c.name: blank.get(c.type) if c.required else None for c in table.columns}
    return pa.Table.from_pylist([default | row for row in rows], schema=table.arrow_schema)


def inputs(**rows: Iterable[Sequence[Any]]) -> dict[str, pa.Table]:
    """Planner inputs; what is not given is empty."""
    return {name: table(name, rows.get(name, ())) for name in SCHEMAS}


def declared(**changes: Any) -> Campaign:
    """A campaign of two steps, on the day of sign-up and three days later."""
    attributes = {
        "name": "hello",
        "description": "A campaign.",
        "goal": "A goal.",
        "owner": "team:data",
        "trigger": {"signed_up": {}},
        "steps": [
            Step(name="first", wait_days=0, subject={"en": "Hi", "pt-BR": "Oi"}, template="first"),
            Step(name="second", wait_days=3, subject={"en": "Hi again"}, template="second"),
        ],
    }
    return Campaign.model_validate({**attributes, **changes})


@pytest.fixture(scope="module")
def decide() -> Callable[..., list[dict[str, Any]]]:
    """``decide(campaign, inputs, rules, as_of)``: the planner's rows, in order of their key.

    The planner is compiled once and run on many inputs: it is an expression over tables it has not seen.
    """
    con = ibis.duckdb.connect(threads=1)

    def run(
        campaign: Campaign, given: Mapping[str, pa.Table], rules: Rules = RULES, as_of: date = TODAY
    ) -> list[dict[str, Any]]:
        for name, rows in {**given, **asked(campaign, rules, as_of)}.items():
            con.con.register(given_name(name), rows)
        for name in ("sent", "received", "hours"):
            con.con.execute(f"create or replace temp view {given_name(name)} as {told(name).statement}")
        rows = con.con.sql(statement(of_carts=False).statement).to_arrow_table().to_pylist()
        return sorted(rows, key=lambda row: (row["step"], row["customer_id"], row["occasion"]))

    return run


#: Of the copied playbook: campaigns, one of each kind, and segments, those that they are about. Each is checked at every load.
FEW = {
    "campaigns": ("abandoned_cart", "newsletter", "welcome", "win_back"),
    "segments": ("active", "engaged", "fans_of", "lapsed", "sunset_candidates", "vip"),
}


@pytest.fixture
def playbook(tmp_path) -> Path:
    """A copy of the shipped playbook, with a :data:`FEW` of its campaigns and segments."""

    def others(folder: str, names: list[str]) -> list[str]:
        few = FEW.get(Path(folder).name, ()) if Path(folder).parent == PLAYBOOK else ()
        return [name for name in names if few and name not in few and (Path(folder) / name / "defs.yaml").exists()]

    return Path(shutil.copytree(PLAYBOOK, tmp_path / "defs", ignore=others))


@pytest.fixture
def change(playbook) -> Callable[[str, Mapping[str, Any]], Path]:
    """``change("welcome", {"priority": 3})``: set (or, by ``None``, remove) attributes of a shipped campaign.

    The other campaigns are taken out of the playbook: what is said of this one does not depend on them.
    """

    def apply(campaign: str, changes: Mapping[str, Any]) -> Path:
        file = playbook / "campaigns" / campaign / "defs.yaml"
        document = yaml.safe_load(file.read_text(encoding="utf-8"))
        document["attributes"].update(changes)
        document["attributes"] = {name: value for name, value in document["attributes"].items() if value is not None}
        for other in (playbook / "campaigns").glob("*/defs.yaml"):
            other.unlink()
        file.write_text(yaml.safe_dump(document, allow_unicode=True, sort_keys=False), encoding="utf-8")
        return file

    return apply


@pytest.fixture(scope="session")
def shipped() -> dict[str, Campaign]:
    return load_campaigns()

"""The fan example of ``docs/segments.md`` is run: its data, its files, and the answers it prints."""

import csv
import io
import re
from datetime import date, datetime

import ibis
import pyarrow as pa
import pytest

from shopauto_pipelines.features.rollups import daily_products
from shopauto_pipelines.features.tables import CUSTOMER_360, DAILY_PRODUCTS
from shopauto_pipelines.platform.settings import PROJECT_ROOT
from shopauto_pipelines.predictions.tables import SCORES
from shopauto_pipelines.profiles.tables import IDENTITIES
from shopauto_pipelines.segments import why
from shopauto_pipelines.segments.declaration import load_segments
from shopauto_pipelines.segments.events import EVENTS
from shopauto_pipelines.segments.inputs import Inputs
from shopauto_pipelines.segments.membership import evaluated, membership
from shopauto_pipelines.sources import tables as raw

DOCUMENT = (PROJECT_ROOT / "docs" / "segments.md").read_text()
CATEGORIES = {"red": "red club", "blue": "blue club", "football": "balls"}


def blocks(kind):
    """The code blocks of a kind in the tutorial's section."""
    section = DOCUMENT.partition("## The fan example")[2].partition("\n## ")[0]
    return re.findall(rf"^```{kind}\n(.*?)^```", section, re.MULTILINE | re.DOTALL)


def raw_rows(table, rows):
    """Rows of a raw table with their day; what is not told is empty."""
    empty = {"string": "", "int64": 0, "boolean": False}
    defaults = {c.name: empty.get(c.type) if c.required else None for c in table.columns}
    schema = table.arrow_schema.append(pa.field("day", pa.date32()))
    return ibis.memtable(pa.Table.from_pylist([defaults | row for row in rows], schema))


@pytest.fixture(scope="module")
def told():
    """What the document's people did: raw rows of products, order lines and events, rolled up as every day."""
    people = list(csv.DictReader(io.StringIO(blocks("csv")[0])))
    for row in people:
        row["at"] = datetime.fromisoformat(row["day"])
    lines = [
        {"order_id": f"o{n}", "line_number": 1, "kind": "product", "ordered_at": row["at"], "day": row["at"].date(),
         "shop_customer_id": row["customer"], "product_id": row["product"], "quantity": 1, "amount_cents": 2500}
        for n, row in enumerate(people) if row["what"] == "bought"
    ]  # fmt: skip
    events = [
        {"event_id": f"e{n}", "type": "product_view", "happened_at": row["at"], "day": row["at"].date(),
         "shop_customer_id": row["customer"], "product_id": row["product"]}
        for n, row in enumerate(people) if row["what"] == "viewed"
    ]  # fmt: skip
    first = datetime(2025, 1, 1)
    products = [
        {
            "product_id": name,
            "name": name,
            "category": CATEGORIES[name.split()[0]],
            "changed_at": first,
            "day": first.date(),
        }
        for name in sorted({row["product"] for row in people})
    ]
    rollup = daily_products(
        raw_rows(raw.ORDER_LINES, lines), raw_rows(raw.EVENTS, events), raw_rows(raw.PRODUCTS, products)
    )
    rows = rollup.to_pyarrow()
    return sorted({row["customer"] for row in people}), rows


@pytest.fixture
def inputs(told, customers_rows, scores_rows):
    """Inputs of the segments as of any day."""
    people, products = told
    identities = [
        {"shop_customer_id": who, "customer_id": who, "rule": "shop_id", "rules_version": 1} for who in people
    ]
    rollups = {event.rollup.name: raw_rows(event.rollup, []) for event in EVENTS.values()}
    return Inputs(
        ibis.memtable(customers_rows({who: {} for who in people})),
        ibis.memtable(scores_rows({})),
        ibis.memtable(pa.Table.from_pylist(identities, IDENTITIES.arrow_schema)),
        rollups | {DAILY_PRODUCTS.name: ibis.memtable(products)},
    )


@pytest.fixture
def playbook(tmp_path):
    """The document's three files, each where it belongs."""
    for text in blocks("yaml"):
        name = re.search(r"name: (\w+)", text)[1]
        file = tmp_path / "segments" / name / "defs.yaml"
        file.parent.mkdir(parents=True)
        file.write_text(text)
    return load_segments(tmp_path)


def members(inputs, playbook, as_of):
    """``segment: member, member``, a line per segment, as the document prints it."""
    found = {}
    for row in membership(inputs, None, playbook, as_of).order_by("segment", "customer_id").to_pyarrow().to_pylist():
        found.setdefault(row["segment"], []).append(row["customer_id"])
    return "".join(f"{name}: {', '.join(people)}\n" for name, people in sorted(found.items()))


def test_the_fan_example_has_the_members_that_the_document_prints(inputs, playbook):
    printed = blocks("text")
    assert [segment.name for segment in playbook] == ["blue_fans", "only_red", "red_fans"]
    assert members(inputs, playbook, date(2026, 6, 30)) == printed[0]
    assert members(inputs, playbook, date(2026, 6, 29)) == printed[2]


def test_why_somebody_is_out_is_what_the_document_prints(inputs, playbook):
    as_of = date(2026, 6, 30)
    rows = evaluated(inputs, playbook, as_of).filter(ibis._.customer_id == "cid")
    found = why.explained(rows, playbook, as_of)["cid"]
    assert why.markdown([found["only_red"], found["red_fans"]]) + "\n" == blocks("text")[1]


def test_every_shipped_segment_is_in_the_document():
    listed = DOCUMENT.partition("## What is shipped")[2].partition("\n## ")[0]
    missing = [segment.name for segment in load_segments() if f"`{segment.name}" not in listed]
    assert missing == []


def test_every_event_and_its_columns_are_in_the_document():
    table = DOCUMENT.partition("### What people did")[2].partition("```sql")[0]
    rows = [line for line in table.splitlines() if line.startswith("| `")]
    for event in EVENTS.values():
        (row,) = [line for line in rows if f"`{event.name}`" in line.split("|")[1]]
        assert re.findall(r"`(\w+)`", row.split("|")[2]) == list(event.columns), event.name
    assert {CUSTOMER_360.name, SCORES.name} <= set(re.findall(r"\[([\w/]+)\]", DOCUMENT))

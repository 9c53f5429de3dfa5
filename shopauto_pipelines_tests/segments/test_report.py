import base64
from datetime import date, timedelta
from xml.etree import ElementTree

import pyarrow as pa
import pytest

from shopauto_pipelines.features.tables import CUSTOMER_360
from shopauto_pipelines.platform.lake import Lake, MissingPartition
from shopauto_pipelines.predictions.tables import SCORES
from shopauto_pipelines.segments import report
from shopauto_pipelines.segments.overlap import counted
from shopauto_pipelines.segments.report import (
    Count,
    Jump,
    Member,
    history,
    jumps,
    latest,
    latest_markdown,
    size_plot,
    sizes,
    sizes_markdown,
    total,
)
from shopauto_pipelines.segments.tables import CHANGES, MEMBERSHIP, SIZES
from shopauto_pipelines.segments.why import Reason, Why

D1, D2, D4, D5, D6 = (date(2025, 6, n) for n in (1, 2, 4, 5, 6))


@pytest.fixture(scope="module")
def lake(tmp_path_factory):
    """Three computed days, the third of June missing. Whoever writes takes a later day."""
    lake = Lake(tmp_path_factory.mktemp("report") / "lake", threads=2)

    def write(table, day, *rows):
        names = list(table.schema)
        rows = [row + (None,) * (len(names) - len(row)) for row in rows]
        lake.write(
            table, [day], pa.Table.from_pylist([dict(zip(names, r, strict=True)) for r in rows], table.arrow_schema)
        )

    write(MEMBERSHIP, D1, ("vip", "a", D1), ("of:x", "a", D1), ("of:y", "b", D1), ("often", "z", D1))
    write(MEMBERSHIP, D2, ("of:x", "a", D1), ("of:x", "b", D2), ("often", "z", D1))
    write(MEMBERSHIP, D4, ("vip", "a", D4), ("vip", "b", D4), ("vip", "c", D2), ("of:x", "b", D2))
    write(CHANGES, D1)
    write(CHANGES, D2, ("vip", "a", "left", D1), ("of:y", "b", "left", D1), ("of:x", "b", "entered", D2))
    write(CHANGES, D4, ("vip", "a", "entered", D4), ("vip", "b", "entered", D4), ("of:x", "a", "left", D1))
    for day in (D1, D2, D4):
        lake.write(SIZES, [day], counted(lake.on(MEMBERSHIP, day), lake.on(CHANGES, day)))
    return lake


def test_sizes_of_a_day(lake):
    assert sizes(lake, D1) == {"of:x": 1, "of:y": 1, "often": 1, "vip": 1}
    assert sizes(lake, D2) == {"of:x": 2, "often": 1}, "not those that have nobody any more"
    with pytest.raises(MissingPartition, match=r"segments/sizes has not been computed for 2025-06-03"):
        sizes(lake, D2 + timedelta(days=1))


def test_history_has_zeros_for_computed_days_and_nothing_for_others(lake):
    found = history(lake, D1, D4)
    assert found["vip"] == {D1: Count(1), D2: Count(0, left=1), D4: Count(3, entered=2)}
    assert found["of:x"] == {D1: Count(1), D2: Count(2, entered=1), D4: Count(1, left=1)}
    assert found["of:y"] == {D1: Count(1), D2: Count(0, left=1), D4: Count()}
    assert history(lake, D2, D2 + timedelta(days=1))["often"] == {D2: Count(1)}
    of = {name: line for name, line in found.items() if name.startswith("of:")}
    assert total(of) == {D1: Count(2), D2: Count(2, 1, 1), D4: Count(1, 0, 1)}


def test_of_every_segment_the_latest_members_are_listed_and_last_those_who_stand_in(lake):
    found = latest(lake, D4, limit=2)
    assert found["vip"] == [Member("vip", "a", D4, None), Member("vip", "b", D4, None)]
    rows = [("few", "a", D1, None), ("few", "b", D4, "active"), ("few", "c", D2, None)]
    schema = MEMBERSHIP.arrow_schema
    lake.write(MEMBERSHIP, [D5], pa.Table.from_pylist([dict(zip(schema.names, r, strict=True)) for r in rows], schema))
    assert [member.customer_id for member in latest(lake, D5)["few"]] == ["c", "a", "b"]
    assert latest_markdown(latest(lake, D5)["few"]).splitlines()[0::4] == [
        "| customer_id | entered_on | segment | stands in from |",
        "| b | 2025-06-04 | few | active |",
    ]
    counts = counted(lake.on(MEMBERSHIP, D5), lake.on(CHANGES, D1)).to_pyarrow().to_pylist()
    assert counts == [{"segment": "few", "size": 2, "entered": 0, "left": 0, "standing_in": 1}]


def test_what_was_read_for_one_page_serves_the_next_of_the_same_run_and_no_other(lake, monkeypatch):
    monkeypatch.setattr(report, "_whys", lambda *_: {})
    for table in (MEMBERSHIP, SIZES):
        lake.write(table, [D6], lake.on(table, D4))
    first = report.shown(lake, (), D1, D6, "one run")
    assert report.shown(lake, (), D1, D6, "one run") is first
    assert set(first.of("of")) == {"of:x", "of:y"}
    before = lake.on(SIZES, D1).to_pyarrow()
    lake.write(SIZES, [D1], SIZES.arrow_schema.empty_table())  # an earlier day, computed again
    try:
        assert report.shown(lake, (), D1, D6, "another").counts["vip"][D1] == Count()
        assert report.shown(lake, (), D1, D6) is not report.shown(lake, (), D1, D6), "no run, nothing is kept"
    finally:
        lake.write(SIZES, [D1], before)
    with pytest.raises(MissingPartition, match="segments/sizes has not been computed for 2025-06-03"):
        report.shown(lake, (), D1, D2 + timedelta(days=1))


def test_a_member_who_is_nobody_any_more_leaves_the_others_explained(lake, declare, customers_rows, scores_rows):
    day = date(2025, 7, 1)
    rows = [{"segment": "vip", "customer_id": who, "entered_on": D1, "through": None} for who in ("a", "merged")]
    lake.write(MEMBERSHIP, [day], pa.Table.from_pylist(rows, MEMBERSHIP.arrow_schema))
    lake.write(SIZES, [day], SIZES.arrow_schema.empty_table())
    lake.write(CUSTOMER_360, [day], customers_rows({"a": {"orders": 3}}))
    lake.write(SCORES, [day], scores_rows({}))
    (why,) = report.shown(lake, [declare("vip", "orders > 2")], day, day).whys["vip"]
    assert (why.customer_id, why.member) == ("a", "vip")


def test_reasons_that_rest_on_private_data_are_left_out_and_this_is_said():
    birthday = Reason("days_to_birthday between 1 and 7", True, {"days_to_birthday": "not shown"})
    orders = Reason("orders > 2", True, {"orders": "3"})
    (kept,), private = report.without_private([Why("soon", "a", "soon", (birthday, orders))])
    assert (kept.reasons, private) == ((orders,), True)
    assert report.without_private([kept]) == ([kept], False)


def test_a_size_that_doubles_or_halves_is_a_jump_where_it_is_about_many_people(lake):
    def sized(day, **sizes):
        rows = [{"segment": name, "size": n, "entered": 0, "left": 0, "standing_in": 0} for name, n in sizes.items()]
        lake.write(SIZES, [day], pa.Table.from_pylist(rows, SIZES.arrow_schema))

    first, second = date(2026, 1, 1), date(2026, 1, 5)
    sized(first, steady=500, grows=100, falls=200, few=4, gone=100, slowly=1000)
    sized(second, steady=600, grows=200, falls=100, few=99, came=100, slowly=1900)
    assert jumps(lake, second) == [
        Jump("came", 0, 100), Jump("falls", 200, 100), Jump("gone", 100, 0), Jump("grows", 100, 200)
    ]  # fmt: skip
    with pytest.raises(MissingPartition):
        jumps(lake, second + timedelta(days=1))
    assert jumps(lake, min(lake.days(SIZES))) == []


def test_markdown_is_not_broken_by_the_shops_own_words():
    text = latest_markdown([Member("of:a|b\n<b>", "id|1", D1, None)])
    assert text.splitlines()[-1] == "| id\\|1 | 2025-06-01 | of:a\\|b &lt;b&gt; |"
    assert latest_markdown([]) == "Nobody is in this segment."


def test_the_largest_values_are_listed_first_and_the_rest_is_counted():
    text = sizes_markdown({f"of:{n:02}": n for n in range(40)})
    assert text.splitlines()[2] == "| of:39 | 39 |"
    assert text.splitlines()[-1] == "10 more."
    assert "| of:09 | 9 |" not in text


def drawing(markdown):
    svg = base64.b64decode(markdown.removesuffix(")").partition("data:image/svg+xml;base64,")[2])
    return ElementTree.fromstring(svg)


def texts(markdown):
    return ["".join(node.itertext()) for node in drawing(markdown).iter("{http://www.w3.org/2000/svg}text")]


def test_a_plot_is_well_formed_whatever_the_names_and_the_same_for_the_same_sizes():
    lines = {
        f"of:{name}": {D1: 3, D2: n}
        for n, name in enumerate(["_x", "<b>&", "a very long name of a category", *"abcdefgh"])
    }
    assert size_plot(lines) == size_plot(lines)
    assert size_plot(lines) != size_plot({**lines, "of:a": {D1: 4, D2: 90}})
    said = texts(size_plot(lines))
    assert said[-8:] == ["h", "g", "f", "e", "d", "c", "b", "a"]
    assert "01 Jun" in said
    assert "10" in said
    assert "a very long name of a c…" in texts(size_plot({name: lines[name] for name in list(lines)[:3]}))
    assert "<b>&" in texts(size_plot({name: lines[name] for name in list(lines)[:3]}))


def test_a_single_line_has_no_legend_and_an_empty_shop_has_a_picture():
    assert texts(size_plot({"vip": {D1: 0}})) == ["0", "1", "01 Jun"]
    assert texts(size_plot({"vip": {}})) == []


def test_a_line_goes_up_where_the_size_does():
    (line,) = drawing(size_plot({"vip": {D1: 1, D2: 2, D4: 5}})).iter("{http://www.w3.org/2000/svg}polyline")
    points = [tuple(map(float, point.split(","))) for point in line.get("points").split()]
    across, heights = zip(*points, strict=True)
    assert heights[0] > heights[1] > heights[2]
    assert (across[2] - across[0]) == pytest.approx(3 * (across[1] - across[0]))

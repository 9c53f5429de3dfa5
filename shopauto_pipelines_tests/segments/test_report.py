import base64
import struct
from datetime import date, timedelta

import pyarrow as pa
import pytest

from shopauto_pipelines.platform.lake import MissingPartition
from shopauto_pipelines.segments.report import (
    Moves,
    history,
    moves,
    preview,
    preview_markdown,
    size_plot,
    sizes,
    sizes_markdown,
    total,
)
from shopauto_pipelines.segments.tables import CHANGES, MEMBERSHIP

D1, D2, D4 = date(2025, 6, 1), date(2025, 6, 2), date(2025, 6, 4)


@pytest.fixture
def lake(lake):
    """Three computed days, the third of June missing."""

    def write(table, day, *rows):
        names = list(table.schema)
        lake.write(
            table, [day], pa.Table.from_pylist([dict(zip(names, r, strict=True)) for r in rows], table.arrow_schema)
        )

    write(MEMBERSHIP, D1, ("vip", "a", D1), ("of:x", "a", D1), ("of:y", "b", D1), ("often", "z", D1))
    write(MEMBERSHIP, D2, ("of:x", "a", D1), ("of:x", "b", D2), ("often", "z", D1))
    write(MEMBERSHIP, D4, ("vip", "a", D4), ("vip", "b", D4), ("vip", "c", D2), ("of:x", "b", D2))
    write(CHANGES, D1)
    write(CHANGES, D2, ("vip", "a", "left", D1), ("of:y", "b", "left", D1), ("of:x", "b", "entered", D2))
    write(CHANGES, D4, ("vip", "a", "entered", D4), ("vip", "b", "entered", D4), ("of:x", "a", "left", D1))
    return lake


def test_sizes_of_a_day(lake):
    assert sizes(lake, D1) == {"of:x": 1, "of:y": 1, "often": 1, "vip": 1}
    with pytest.raises(MissingPartition, match=r"segments/membership has not been computed for 2025-06-03"):
        sizes(lake, D2 + timedelta(days=1))


def test_history_has_zeros_for_computed_days_and_nothing_for_others(lake):
    assert history(lake, "vip", D1, D4) == {"vip": {D1: 1, D2: 0, D4: 3}}
    assert history(lake, "of", D1, D4) == {"of:x": {D1: 1, D2: 2, D4: 1}, "of:y": {D1: 1, D2: 0, D4: 0}}
    assert history(lake, "nobody", D2, D4) == {"nobody": {D2: 0, D4: 0}}
    assert total(history(lake, "of", D1, D4)) == {D1: 2, D2: 2, D4: 1}


def test_moves_of_each_computed_day(lake):
    assert moves(lake, "vip", D1, D4) == {D1: Moves(0, 0), D2: Moves(0, 1), D4: Moves(2, 0)}
    assert moves(lake, "of", D2, D2) == {D2: Moves(1, 1)}


def test_a_preview_shows_the_latest_to_enter_first(lake):
    assert preview(lake, "vip", D4, limit=2) == [("vip", "a", D4), ("vip", "b", D4)]
    assert preview(lake, "vip", D4)[2] == ("vip", "c", D2)
    assert preview(lake, "of", D1) == [("of:x", "a", D1), ("of:y", "b", D1)]


def test_markdown_is_not_broken_by_the_shops_own_words():
    text = preview_markdown([("of:a|b\n<b>", "id|1", D1)])
    assert text.splitlines()[-1] == "| id\\|1 | 2025-06-01 | of:a\\|b &lt;b&gt; |"
    assert preview_markdown([]) == "Nobody is in this segment."


def test_the_largest_values_are_listed_first_and_the_rest_is_counted():
    text = sizes_markdown({f"of:{n:02}": n for n in range(40)})
    assert text.splitlines()[2] == "| of:39 | 39 |"
    assert text.splitlines()[-1] == "10 more."
    assert "| of:09 | 9 |" not in text


def width_and_height(markdown):
    png = base64.b64decode(markdown.removesuffix(")").partition("base64,")[2])
    assert png.startswith(b"\x89PNG")
    return struct.unpack(">II", png[16:24])


def test_a_plot_is_a_png_and_the_same_for_the_same_sizes():
    lines = {
        f"of:{name}": {D1: 3, D2: n}
        for n, name in enumerate(["_x", "$y$ z^", "a long name of a category", *"abcdefgh"])
    }
    assert size_plot(lines) == size_plot(lines)
    assert size_plot(lines) != size_plot({**lines, "of:a": {D1: 4, D2: 90}})
    assert width_and_height(size_plot(lines)) == (576, 208)
    assert width_and_height(size_plot({"vip": {D1: 0}})) == (576, 208)

import random
from datetime import date
from itertools import combinations

import ibis
import pyarrow as pa
import pytest

from shopauto_pipelines.segments.overlap import (
    SHOWN,
    Explored,
    Pair,
    counted,
    explore,
    markdown,
    overlap,
    pairs_markdown,
)
from shopauto_pipelines.segments.tables import CHANGES, MEMBERSHIP, OVERLAP, SIZES

DAY = date(2025, 6, 30)


def membership(who_by_segment, through=None):
    rows = [
        {"segment": name, "customer_id": who, "entered_on": DAY, "through": through}
        for name, people in who_by_segment.items()
        for who in people
    ]
    return pa.Table.from_pylist(rows, MEMBERSHIP.arrow_schema)


def everybody(count):
    return ibis.memtable(pa.table({"customer_id": [str(n) for n in range(count)]}))


def test_each_pair_has_its_sizes_common_members_share_and_lift():
    members = membership({"big": "abcd", "small": "cd", "alone": "e"})
    assert overlap(ibis.memtable(members), everybody(10)).to_pyarrow().to_pylist() == [
        {
            "segment": "big",
            "other": "small",
            "size": 4,
            "other_size": 2,
            "both": 2,
            "share_of_smaller": 1.0,
            "lift": 2.5,
        }
    ]


def test_counted_by_combinations_it_is_the_same_as_counted_one_by_one():
    dice = random.Random(3)
    people = {f"s{n}": {str(who) for who in range(60) if dice.random() < 0.1 * n} for n in range(1, 8)}
    rows = overlap(ibis.memtable(membership(people)), everybody(60)).to_pyarrow().to_pylist()
    found = {(row["segment"], row["other"]): (row["size"], row["other_size"], row["both"]) for row in rows}
    assert found == {
        (one, other): (len(people[one]), len(people[other]), len(people[one] & people[other]))
        for one, other in combinations(sorted(people), 2)
        if people[one] & people[other]
    }


def test_who_stands_in_for_a_segment_is_not_counted():
    members = pa.concat_tables([membership({"a": "x", "b": "x"}), membership({"a": "yz"}, through="b")])
    (row,) = overlap(ibis.memtable(members), everybody(3)).to_pyarrow().to_pylist()
    assert (row["size"], row["other_size"], row["both"]) == (1, 1, 1)


@pytest.fixture
def filled(lake):
    """A lake with three segments, one of them by value."""
    members = membership({"vip": "abcd", "of:tea": "abe", "of:<coffee>": "cfgh"})
    lake.write(MEMBERSHIP, [DAY], members)
    lake.write(CHANGES, [DAY], CHANGES.arrow_schema.empty_table())
    lake.write(SIZES, [DAY], counted(lake.on(MEMBERSHIP, DAY), lake.on(CHANGES, DAY)))
    lake.write(OVERLAP, [DAY], overlap(lake.on(MEMBERSHIP, DAY), everybody(20)))
    return lake


def test_explored_are_sizes_and_pairs_the_most_first(filled):
    found = explore(filled, DAY)
    assert list(found.sizes.items()) == [("of:<coffee>", 4), ("vip", 4), ("of:tea", 3)]
    assert [(pair.segment, pair.other, pair.both) for pair in found.pairs] == [
        ("of:tea", "vip", 2),
        ("of:<coffee>", "vip", 1),
    ]


def test_a_name_stands_for_all_its_values_and_a_pair_counts_with_either_side(filled):
    found = explore(filled, DAY, ["of"])
    assert set(found.sizes) == {"of:<coffee>", "of:tea"}
    assert len(found.pairs) == 2
    (pair,) = explore(filled, DAY, ["of:tea"]).pairs
    assert (pair.segment, pair.other, pair.size, pair.other_size) == ("of:tea", "vip", 3, 4)
    assert len(explore(filled, DAY, ["vip"]).pairs) == 2


def test_what_is_shown_is_the_heat_map_and_both_tables(filled):
    shown = markdown(explore(filled, DAY))
    assert shown["overlap"].startswith("Percent of the smaller segment that is in the other one too.\n\n![")
    assert "| of:&lt;coffee&gt; | 4 |" in shown["sizes"]
    assert "| of:tea | vip | 3 | 4 | 2 | 67 % | 3.33 |" in shown["pairs"]


def test_many_segments_are_cut_to_the_largest_and_the_rest_is_counted():
    names = [f"s{n:02}" for n in range(60)]
    pairs = tuple(Pair(one, other, 5, 5, 1, 0.2, 1.0) for one, other in combinations(names, 2))
    found = Explored(DAY, {name: 60 - n for n, name in enumerate(names)}, pairs)
    assert pairs_markdown(pairs).endswith("1740 more.")
    from base64 import b64decode

    picture = b64decode(markdown(found)["overlap"].partition("base64,")[2][:-1]).decode()
    assert f">{names[SHOWN - 1]}<" in picture
    assert f">{names[SHOWN]}<" not in picture
    assert pairs_markdown(()) == "No two segments have anybody in common."

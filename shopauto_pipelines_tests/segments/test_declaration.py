import re
import textwrap

import pytest

from shopauto_pipelines.platform.playbook import PLAYBOOK, PlaybookError
from shopauto_pipelines.segments.declaration import check_name, load_segments, segment_names


@pytest.fixture
def playbook(tmp_path):
    """Writes a playbook of files ``segments/<folder>/defs.yaml`` and returns its folder."""

    def write(**files):
        for folder, text in files.items():
            file = tmp_path / "segments" / folder / "defs.yaml"
            file.parent.mkdir(parents=True)
            file.write_text(textwrap.dedent(text).lstrip(), encoding="utf-8")
        return tmp_path

    return write


GOOD = """
    type: shopauto_pipelines.segments.component.Segment

    attributes:
      name: big_spenders
      description: Spent a lot.
      where: revenue_cents > 100000
"""


def test_segments_are_read_with_every_field_and_sorted_by_name(playbook):
    folder = playbook(
        z=GOOD,
        a=GOOD.replace("big_spenders", "spenders_of") + "      each: city\n      owner: team:crm\n",
        other="type: shopauto_pipelines.campaigns.component.Campaign\nattributes: {name: x}\n",
    )
    first, second = load_segments(folder)
    assert (first.name, first.each, first.owner) == ("big_spenders", None, None)
    assert (second.name, second.each, second.owner) == ("spenders_of", "city", "team:crm")
    assert second.columns == {"revenue_cents", "city"}
    assert segment_names(folder) == ("big_spenders", "spenders_of")


def test_several_segments_in_one_file_are_read_with_their_lines(playbook):
    folder = playbook(
        both=GOOD + "    ---" + GOOD.replace("big_spenders", "more").replace("revenue_cents", "revenu_cents")
    )
    with pytest.raises(PlaybookError, match=r"defs\.yaml:13:10: segment where: there is no column `revenu_cents`"):
        load_segments(folder)


def test_a_name_declared_twice_is_refused_with_both_places(playbook):
    with pytest.raises(
        PlaybookError, match=r"b/defs\.yaml:4:9: segment 'big_spenders' is already declared at a/defs\.yaml:4"
    ):
        load_segments(playbook(a=GOOD, b=GOOD))


RING = """
    type: shopauto_pipelines.segments.component.Segment
    attributes:
      name: {name}
      description: One of three.
      include: [{other}]
"""


def test_segments_that_refer_to_each_other_in_a_circle_are_refused_with_the_way_round(playbook):
    ring = {name: RING.format(name=name, other=other) for name, other in (("a", "b"), ("b", "c"), ("c", "a"))}
    with pytest.raises(PlaybookError) as error:
        load_segments(playbook(**ring))
    assert re.search(
        r"[abc]/defs\.yaml:5:13: segment '(\w)' rests on itself: '\1' refers to '\w' refers to", str(error.value)
    )


def test_a_segment_may_be_declared_by_others_alone_and_says_what_it_rests_on(playbook):
    folder = playbook(
        a=GOOD,
        b=RING.format(name="others", other="big_spenders") + "      exclude: [those]\n",
        c=RING.format(name="those", other="big_spenders"),
    )
    _big, others, _those = load_segments(folder)
    assert others.refers_to == {"big_spenders", "those"}
    assert others.predicate.sql == "in_segment('big_spenders') AND NOT in_segment('those')"


def test_each_shipped_segment_stands_in_a_folder_of_its_name():
    folders = {file.parent.name for file in (PLAYBOOK / "segments").rglob("defs.yaml")}
    assert set(segment_names()) == folders


@pytest.mark.parametrize("name", ["vip", "fans_of", "fans_of:camping", "fans_of:a:b"])
def test_names_that_other_rooms_may_use(name):
    check_name(name, load_segments())


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("vpi", "there is no segment 'vpi'; did you mean 'vip'?"),
        ("fan_of:camping", "did you mean 'fans_of'?"),
        ("vip:camping", "segment 'vip' has no values to choose from"),
        (
            "fans_of:",
            "segment 'fans_of:' names no value: write 'fans_of', or 'fans_of:' and a value of `favourite_category`",
        ),
        ("zzz", "there is no segment 'zzz'; there are about_to_sleep, active,"),
    ],
)
def test_a_name_that_is_no_segment_is_refused_with_the_nearest(name, message):
    with pytest.raises(ValueError, match="segment") as error:
        check_name(name, load_segments())
    assert message in str(error.value)

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
    with pytest.raises(PlaybookError, match=r"defs\.yaml:13: segment where: there is no column `revenu_cents`"):
        load_segments(folder)


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("revenue_cents >", "revenu_cents >", r"defs\.yaml:6: segment where: .*did you mean `revenue_cents`\?"),
        ("> 100000", "", r"defs\.yaml:6: segment where: the condition must be true or false"),
        ("revenue_cents > 100000", "5", r"defs\.yaml:6: segment where: Input should be a valid string"),
        ("big_spenders", "Big Spenders", r"defs\.yaml:4: segment name: 'Big Spenders' is not a name in snake_case"),
        ("big_spenders", "membership", r"defs\.yaml:4: segment name: 'membership' is used by the program itself"),
        ("big_spenders", "customer_id", r"defs\.yaml:4: segment name: 'customer_id' is used by the program itself"),
        ("Spent a lot.", "''", r"defs\.yaml:5: segment description: "),
        ("where:", "when:", r"defs\.yaml:4: segment where: Field required"),
        ("where:", "each: ctiy\n      where:", r"defs\.yaml:6: segment each: `ctiy` .*did you mean `city`\?"),
        ("where:", "each: email\n      where:", r"defs\.yaml:6: segment each: `email` is not a text column"),
        ("where:", "each: orders\n      where:", r"defs\.yaml:6: segment each: `orders` is not a text column"),
        (
            "where:",
            "each: customer_id\n      where:",
            r"defs\.yaml:6: segment each: `customer_id` is not a text column",
        ),
        ("where:", "owner: somebody\n      where:", r"defs\.yaml:6: segment owner: 'somebody' is neither team:"),
        ("where:", "size: 3\n      where:", r"defs\.yaml:6: segment size: Extra inputs are not permitted"),
    ],
)
def test_a_wrong_declaration_is_refused_with_file_and_line(playbook, old, new, message):
    with pytest.raises(PlaybookError, match=message):
        load_segments(playbook(one=GOOD.replace(old, new, 1)))


def test_a_name_declared_twice_is_refused_with_both_places(playbook):
    with pytest.raises(
        PlaybookError, match=r"b/defs\.yaml:4: segment 'big_spenders' is already declared at a/defs\.yaml:4"
    ):
        load_segments(playbook(a=GOOD, b=GOOD))


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
        ("fans_of:", "segment 'fans_of' has no values"),
        ("zzz", "there is no segment 'zzz'; there are about_to_sleep, active,"),
    ],
)
def test_a_name_that_is_no_segment_is_refused_with_the_nearest(name, message):
    with pytest.raises(ValueError, match="segment") as error:
        check_name(name, load_segments())
    assert message in str(error.value)

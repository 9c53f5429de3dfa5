"""Another version of a campaign from a file: what changes is merged onto the playbook's, and a mistake has its place."""

import pytest

from shopauto_pipelines.campaigns.declaration import load_campaigns
from shopauto_pipelines.platform.playbook import PLAYBOOK, PlaybookError
from shopauto_pipelines.replay.versions import ReplayError, changed_version


@pytest.fixture
def changed(tmp_path):
    """``changed(text)``: ``win_back`` of the shipped playbook as a file with the text has it."""

    def read(text: str, campaign: str = "win_back"):
        file = tmp_path / "changed.yaml"
        file.write_text(text, encoding="utf-8")
        return changed_version(load_campaigns()[campaign], file)

    return read


def test_only_what_the_file_says_changes(changed):
    now, other = load_campaigns()["win_back"], changed("holdout_percent: 25\nexperiment: null\n")
    assert (other.holdout_percent, other.experiment) == (25, None)
    assert other.steps == now.steps
    assert other.folder == now.folder


def test_steps_change_by_their_name(changed):
    now, other = (
        load_campaigns()["win_back"],
        changed("attributes:\n  steps: {invitation: {wait_days: 4, offer: null}}\n"),
    )
    assert [step.wait_days for step in other.steps] == [0, 4, 21]
    assert [step.offer for step in other.steps] == [None, None, None]
    assert other.steps[0] == now.steps[0]


def test_a_whole_declaration_takes_the_place_of_the_present_one(changed):
    whole = (PLAYBOOK / "campaigns" / "win_back" / "defs.yaml").read_text(encoding="utf-8")
    other = changed(whole.replace("sunset_days: 365", "sunset_days: 90"))
    assert other.model_copy(update={"sunset_days": 365}) == load_campaigns()["win_back"]


@pytest.mark.parametrize(
    ("text", "place", "says"),
    [
        ("holdout_percent: 99\n", "1:18", "holdout_percent"),
        ("priority: 3\nholdout: 5\n", "2:1", "there is no `holdout`; did you mean `holdout_percent`?"),
        ("steps:\n  last_word:\n    wait_days: soon\n", "3:16", "must be a whole number, not the text 'soon'"),
        ("steps: {last_wrod: {wait_days: 3}}\n", "1:20", "there is no step `last_wrod`; did you mean `last_word`?"),
        ("audience: {include: [lapst]}\n", "1:22", "lapst"),
        ("trigger: {signed_up: {}}\n", "1:1", "`exit_on: left_segment` needs the trigger `segment_entered`"),
        ("name: welcome\n", "1:7", "this is the campaign 'welcome', but 'win_back' is replayed"),
        ("steps: [\n", "2:1", "not valid YAML"),
        ("type: shopauto_pipelines.segments.component.Segment\nattributes: {name: x}\n", "2:13", "declares a Segment"),
    ],
)
def test_a_mistake_is_told_with_its_file_line_and_column(changed, tmp_path, text, place, says):
    with pytest.raises(PlaybookError) as wrong:
        changed(text)
    assert str(wrong.value).startswith(f"{tmp_path / 'changed.yaml'}:{place}: ")
    assert says in str(wrong.value)


def test_a_file_that_is_not_there_or_says_nothing_is_refused_in_words(changed, tmp_path):
    with pytest.raises(ReplayError, match=r"there is no file .*holdout_percent: 20"):
        changed_version(load_campaigns()["win_back"], tmp_path / "none.yaml")
    for nothing in ("", "- holdout_percent\n", "42\n"):
        with pytest.raises(
            ReplayError, match=r"changed.yaml has no fields with values: it holds what changes in win_back"
        ):
            changed(nothing)

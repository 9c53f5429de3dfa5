"""What loads, what does not, and what the error says."""

import re
from datetime import date

import pytest

from shopauto_pipelines.campaigns.declaration import Broadcast, load_campaigns, planned_before
from shopauto_pipelines.platform.playbook import PlaybookError


def _error(playbook) -> str:
    with pytest.raises(PlaybookError) as caught:
        load_campaigns(playbook)
    assert re.match(r".*/defs\.yaml:\d+: ", str(caught.value)), "an error begins with file and line"
    return str(caught.value)


def _line(file, text: str) -> int:
    return next(n for n, line in enumerate(file.read_text().splitlines(), start=1) if text in line)


def test_the_shipped_campaigns_load_in_the_order_they_are_planned(shipped):
    assert list(shipped) == ["welcome", "win_back", "newsletter"]
    assert [step.wait_days for step in shipped["welcome"].steps] == [0, 3, 7]
    assert shipped["win_back"].trigger.segment_entered == "lapsed"
    assert planned_before("newsletter", shipped) == ["welcome", "win_back"]
    assert planned_before("welcome", shipped) == []


@pytest.mark.parametrize("day", [date(2026, 6, 30), date(2010, 11, 30), date(2024, 2, 29)])
def test_the_newsletter_is_due_on_the_last_day_of_a_month(shipped, day):
    assert shipped["newsletter"].trigger.broadcast.days(day.replace(day=1), day) == [day]


def test_a_broadcast_names_one_day_or_a_day_of_every_month():
    assert Broadcast(on=date(2026, 6, 30)).days(date(2026, 6, 1), date(2026, 7, 31)) == [date(2026, 6, 30)]
    assert Broadcast(monthly=15).days(date(2026, 6, 1), date(2026, 7, 31)) == [date(2026, 6, 15), date(2026, 7, 15)]
    assert Broadcast(on=date(2026, 6, 30)).days(date(2026, 7, 1), date(2026, 7, 31)) == []


@pytest.mark.parametrize(
    ("missing", "says"),
    [
        ("steps", "does not say which message"),
        ("trigger", "does not say when"),
        ("goal", "`goal` is missing"),
        ("owner", "`owner` is missing"),
    ],
)
def test_a_campaign_that_leaves_out_what_it_must_say_does_not_load(playbook, change, missing, says):
    change("welcome", {missing: None})
    assert says in _error(playbook)


def test_a_broadcast_that_does_not_say_to_whom_does_not_load(playbook, change):
    change("newsletter", {"audience": None})
    assert "does not say to whom" in _error(playbook)


@pytest.mark.parametrize(
    ("field", "says"), [("wait_days", "does not say when"), ("template", "which message"), ("subject", "which message")]
)
def test_a_step_that_leaves_out_when_or_which_message_does_not_load(playbook, change, field, says):
    step = {"name": "hello", "wait_days": 0, "template": "hello", "subject": "Hi"}
    del step[field]
    change("welcome", {"steps": [step]})
    assert says in _error(playbook)


@pytest.mark.parametrize(
    ("changes", "says", "at"),
    [
        ({"trigger": {"signed_up": {}, "segment_entered": "lapsed"}}, "exactly one of", "signed_up"),
        (
            {"trigger": {"broadcast": {}}, "audience": {"include": ["everyone"]}},
            "exactly one of `on` and `monthly`",
            "broadcast: {}",
        ),
        ({"exit_on": ["left_segment"]}, "needs the trigger `segment_entered`", "name: welcome"),
        ({"exit_on": ["bored"]}, "exit_on", "bored"),
        ({"colour": "red"}, "`colour` is not known here", "red"),
        ({"priority": "high"}, "priority", "high"),
        ({"holdout_percent": 120}, "holdout_percent", "120"),
        ({"owner": "somebody"}, "owner", "somebody"),
        ({"name": "Big Sale"}, "name", "Big Sale"),
    ],
)
def test_a_wrong_attribute_is_named_with_its_line(playbook, change, changes, says, at):
    file = change("welcome", changes)
    error = _error(playbook)
    assert says in error
    assert f":{_line(file, at)}: " in error


def test_a_segment_that_does_not_exist_is_named_with_its_line_and_a_suggestion(playbook, change):
    file = change("win_back", {"trigger": {"segment_entered": "lapsd"}})
    error = _error(playbook)
    assert f":{_line(file, 'segment_entered')}: there is no segment 'lapsd'" in error
    assert "did you mean 'lapsed'?" in error


@pytest.mark.parametrize("side", ["include", "exclude"])
def test_the_audience_names_segments_that_exist(playbook, change, side):
    change("newsletter", {"audience": {"include": ["everyone"], side: ["nobody_knows"]}})
    assert "there is no segment 'nobody_knows'" in _error(playbook)


def test_everyone_can_be_included_but_not_excluded(playbook, change):
    change("newsletter", {"audience": {"exclude": ["everyone"]}})
    assert "there is no segment 'everyone'" in _error(playbook)


def test_a_value_of_a_segment_can_be_the_trigger(playbook, change):
    change("win_back", {"trigger": {"segment_entered": "fans_of:garden"}})
    assert load_campaigns(playbook)["win_back"].segments == ("fans_of:garden",)


def test_two_campaigns_cannot_have_the_same_name(playbook, change):
    change("win_back", {"name": "welcome"})
    assert "there is another campaign 'welcome'" in _error(playbook)


@pytest.mark.parametrize("suffix", ["mjml.j2", "txt.j2"])
def test_a_message_without_its_template_or_text_part_does_not_load(playbook, suffix):
    (playbook / f"campaigns/welcome/hello.{suffix}").unlink()
    assert f"there is no hello.{suffix}" in _error(playbook)


@pytest.mark.parametrize("suffix", ["mjml.j2", "txt.j2"])
@pytest.mark.parametrize(
    ("variable", "says"), [("links.unsubscribe", "unsubscribe link"), ("shop.postal_address", "postal address")]
)
def test_a_message_without_unsubscribe_link_or_postal_address_does_not_load(playbook, suffix, variable, says):
    layout = playbook / f"campaigns/layout.{suffix}"
    layout.write_text(layout.read_text().replace(f"{{{{ {variable} }}}}", ""))
    error = _error(playbook)
    assert says in error
    assert suffix in error


def test_a_text_that_a_language_lacks_does_not_load(playbook):
    texts = playbook / "campaigns/welcome/texts/ro.yaml"
    texts.write_text(texts.read_text().replace("  more:", "  less:"))
    assert "texts/ro.yaml, step help: there is no text 'more'" in _error(playbook)


def test_a_language_without_texts_does_not_load(playbook):
    (playbook / "campaigns/welcome/texts/ro.yaml").unlink()
    assert "there is no welcome/texts/ro.yaml" in _error(playbook)


def test_an_unknown_variable_does_not_load_even_where_only_one_person_in_two_would_see_it(playbook):
    template = playbook / "campaigns/welcome/hello.txt.j2"
    template.write_text(
        template.read_text().replace("{{ text.intro }}", "{% if person.first_name %}{{ discount }}{% endif %}")
    )
    assert "hello.txt.j2: 'discount' is undefined" in _error(playbook)


def test_a_subject_may_be_one_text_which_is_then_english(playbook, change):
    change("newsletter", {"steps": [{"name": "issue", "wait_days": 0, "template": "newsletter", "subject": "News"}]})
    assert load_campaigns(playbook)["newsletter"].step("issue").languages == ("en",)

"""What loads, what does not, and what the error says."""

import re
from datetime import date, timedelta

import pytest

from shopauto_pipelines.campaigns.declaration import Broadcast, Wait, load_campaigns, planned_before
from shopauto_pipelines.platform.playbook import PlaybookError


def _error(playbook) -> str:
    with pytest.raises(PlaybookError) as caught:
        load_campaigns(playbook)
    assert re.match(r".*/defs\.yaml:\d+:\d+: ", str(caught.value)), "an error begins with file, line and column"
    return str(caught.value)


def _line(file, text: str) -> int:
    return next(n for n, line in enumerate(file.read_text().splitlines(), start=1) if text in line)


def test_the_shipped_campaigns_load_in_the_order_they_are_planned(shipped):
    by_priority = [(-campaign.priority, name) for name, campaign in shipped.items()]
    assert by_priority == sorted(by_priority)
    assert [step.wait_days for step in shipped["welcome"].steps] == [0, 3, 7]
    assert shipped["win_back"].trigger.segment_entered == "lapsed"
    daily = [name for name, campaign in shipped.items() if not campaign.is_realtime]
    assert [planned_before(name, shipped) for name in daily] == [daily[:place] for place in range(len(daily))]
    assert planned_before("abandoned_cart", shipped) == [], "what is sent by the hour is planned on no day"


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
            "exactly one of `on`, `monthly` and `yearly`",
            "broadcast: {}",
        ),
        ({"exit_on": ["left_segment"]}, "needs the trigger `segment_entered`", "- left_segment"),
        ({"exit_on": ["bored"]}, "exit_on", "bored"),
        ({"colour": "red"}, "there is no `colour`", "red"),
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
    assert f":{_line(file, at)}:" in error


def test_a_segment_that_does_not_exist_is_named_with_its_line_and_a_suggestion(playbook, change):
    file = change("win_back", {"trigger": {"segment_entered": "lapsd"}})
    error = _error(playbook)
    assert f":{_line(file, 'segment_entered')}:22: there is no segment 'lapsd'" in error
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


def test_two_campaigns_cannot_have_the_same_name(playbook):
    file = playbook / "campaigns/win_back/defs.yaml"
    file.write_text(file.read_text().replace("name: win_back", "name: welcome", 1))
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
    words = texts.read_text()
    texts.write_text(words.replace("  more:", "  less:"))
    assert f"welcome/texts/ro.yaml:{_line(texts, 'less:')}: step help has no text 'less' in en.yaml" in _error(playbook)
    texts.write_text("".join(line for line in words.splitlines(keepends=True) if "  more:" not in line))
    assert "step help lacks the text 'more', which en.yaml has" in _error(playbook)
    texts.write_text(words.replace("  headline:", "  headlin:"))
    assert "step hello: there is no text 'headline', did you mean 'headlin'?" in _error(playbook)


def test_a_language_without_texts_does_not_load(playbook):
    (playbook / "campaigns/welcome/texts/ro.yaml").unlink()
    assert "there is no welcome/texts/ro.yaml" in _error(playbook)


def test_an_unknown_variable_does_not_load_even_where_only_one_person_in_two_would_see_it(playbook):
    template = playbook / "campaigns/welcome/hello.txt.j2"
    template.write_text(
        template.read_text().replace("{{ text.intro }}", "{% if person.first_name %}{{ discount }}{% endif %}")
    )
    assert "hello.txt.j2:8: 'discount' is undefined" in _error(playbook)


@pytest.mark.parametrize(
    ("file", "old", "new", "says"),
    [
        ("welcome/hello.mjml.j2", '[[ ui.words("intro") ]]', "<mj-image src='a' />", "<mj-image> has no text for those"),
        ("welcome/hello.mjml.j2", '[[ ui.words("intro") ]]', "<mj-image src='a'>", "<mj-image> has no text for those"),
        ("parts.mjml.j2", "{{ text.[[ name ]] }}</mj-button>", "<img src='a'></mj-button>", "<img> has no text for those"),
        ("layout.mjml.j2", "<mj-title>{{ subject }}</mj-title>", "<mj-title>{{ subject }}", "<mj-title> is not closed"),
        ("parts.mjml.j2", "<mj-button css-class", "<mj-buton css-class", "MJML has no <mj-buton>"),
        ("welcome/hello.mjml.j2", '[[ ui.words("intro") ]]', "</mj-text>", "</mj-text> closes nothing"),
        ("layout.mjml.j2", "{{ text.unsubscribe }}", "{{ text.unsubscribe", "unexpected '/'"),
        ("layout.mjml.j2", "{{ text.why_you_get_this }}", "{{ discount }}", "'discount' is undefined"),
        ("parts.mjml.j2", "{{ product.price or '' }}", "{{ product.colour.name }}", "has no attribute 'colour'"),
        ("welcome/hello.mjml.j2", '[[ ui.words("intro") ]]', '[[ ui.nothing("intro") ]]', "has no attribute 'nothing'"),
        ("welcome/hello.mjml.j2", "[% endblock %]", "[% endblok %]", "unknown tag 'endblok'"),
        ("welcome/hello.txt.j2", "{{ text.intro }}", "{{ text.intro | upper( }}", "unexpected '}'"),
        ("layout.txt.j2", "{{ text.why_you_get_this }}", "{{ discount }}", "'discount' is undefined"),
        ("welcome/hello.txt.j2", "{{ text.intro }}", "{{ text.introo }}", "there is no text 'introo'"),
    ],
)  # fmt: skip
def test_a_broken_template_is_named_with_the_line_at_fault(playbook, file, old, new, says):
    template = playbook / "campaigns" / file
    before = template.read_text()
    assert old in before
    template.write_text(before.replace(old, new))
    error = _error(playbook)
    assert says in error
    assert f" {template.name}:{_line(template, new)}: " in error


@pytest.mark.parametrize(
    ("file", "old", "new", "says"),
    [
        ("welcome/texts/ro.yaml", '  intro: "', '  intro: "{{ discount }} ', "step hello, text 'intro': 'discount' is undefined"),
        ("welcome/texts/ro.yaml", '  intro: "', '  intro: "{{ shop.name ', "step hello, text 'intro': "),
        ("texts/ro.yaml", 'greeting: "', 'greeting: "{{ 1 / 0 }}', "text 'greeting': ZeroDivisionError"),
    ],
)  # fmt: skip
def test_a_broken_text_is_named_with_its_line(playbook, file, old, new, says):
    texts = playbook / "campaigns" / file
    texts.write_text(texts.read_text().replace(old, new, 1))
    error = _error(playbook)
    assert says in error
    assert f"{'/'.join(texts.parts[-3:])}:{_line(texts, new)}, " in error


def test_a_broken_subject_is_named_with_its_line(playbook):
    file = playbook / "campaigns/newsletter/defs.yaml"
    file.write_text(
        file.read_text().replace("ro: Luna aceasta la {{ shop.name }}", "ro: Luna aceasta la {{ shop.nume }}")
    )
    error = _error(playbook)
    assert f"newsletter/defs.yaml:{_line(file, 'shop.nume')}:13: the subject of step issue (ro): " in error
    assert "no attribute 'nume'" in error


def test_a_decoration_needs_no_text_but_must_say_that_it_is_one(playbook):
    template = playbook / "campaigns/welcome/hello.mjml.j2"
    image = "<mj-section><mj-column><mj-image src='https://x.example/a.png' alt='' /></mj-column></mj-section>"
    template.write_text(template.read_text().replace("[[ ui.headline() ]]", image))
    assert "welcome" in load_campaigns(playbook)


def test_a_campaign_has_a_topic_to_choose_on_the_preference_page(playbook, change, shipped):
    change("win_back", {"topic": "offers"})
    assert load_campaigns(playbook)["win_back"].topic == "offers"
    assert (shipped["welcome"].topic, shipped["newsletter"].topic) == ("welcome", "news")


def test_a_subject_may_be_one_text_which_is_then_english(playbook, change):
    change("newsletter", {"steps": [{"name": "issue", "wait_days": 0, "template": "letter", "subject": "News"}]})
    assert load_campaigns(playbook)["newsletter"].step("issue").languages == ("en",)


def test_a_cart_campaign_waits_for_hours_and_the_first_step_for_the_threshold(shipped):
    campaign = shipped["abandoned_cart"]
    assert campaign.is_realtime
    assert not shipped["welcome"].is_realtime
    hour = timedelta(hours=1)
    assert campaign.waits(hour) == {
        "reminder": Wait(hour, 12 * hour),
        "help": Wait(24 * hour, 12 * hour),
        "last_call": Wait(72 * hour, 12 * hour),
    }
    assert campaign.waits(20 * hour)["reminder"] == Wait(20 * hour, 4 * hour), "then it is the next step's turn"
    assert campaign.waits(30 * hour)["reminder"] == Wait(30 * hour, timedelta()), "its turn never comes"


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"steps": [{"name": "a", "wait_days": 1}]}, "step `a` says when by `wait_hours`"),
        ({"steps": [{"name": "a", "wait_hours": 1, "wait_days": 1}]}, "step `a` says when by `wait_hours`"),
        ({"steps": [{"name": "a", "wait_hours": 24}, {"name": "b", "wait_hours": 24}]}, "waits longer"),
        ({"steps": [{"name": "a"}]}, "does not say when"),
        ({"trigger": {"signed_up": {}}}, "`exit_on: cart_emptied` needs the trigger"),
        ({"trigger": {"cart_abandoned": {}, "signed_up": {}}}, "exactly one"),
        ({"exit_on": ["left_segment"]}, "needs the trigger `segment_entered`"),
    ],
)
def test_a_cart_campaign_that_does_not_make_sense_does_not_load(playbook, change, changes, says):
    steps = [{"template": "cart", "subject": "Your cart"} | step for step in changes.get("steps", ())]
    file = change("abandoned_cart", changes | ({"steps": steps} if steps else {}))
    with pytest.raises(PlaybookError, match=says) as error:
        load_campaigns(playbook)
    assert str(error.value).startswith(f"{file}:")


def test_emptied_carts_belong_to_carts(playbook, change):
    step = {"name": "hello", "wait_days": 0, "template": "hello", "subject": "Hi"}
    change("welcome", {"steps": [step], "exit_on": ["cart_emptied"]})
    with pytest.raises(PlaybookError, match="needs the trigger `cart_abandoned`"):
        load_campaigns(playbook)


def test_a_trigger_and_an_offer_may_be_said_without_more(playbook, change):
    step = {"name": "help", "wait_hours": 2, "template": "cart", "subject": "Hi", "offer": None}
    change("abandoned_cart", {"trigger": {"cart_abandoned": None}, "steps": [step]})
    (loaded,) = load_campaigns(playbook)["abandoned_cart"].steps
    assert loaded.offer.valid_days == 7


@pytest.mark.parametrize("words", ["{{ offer.percent }}", "{{ cart[0].name }}", "{{ offer.code | upper }}"])
def test_a_cart_message_that_cannot_do_without_an_offer_or_a_cart_does_not_load(playbook, words):
    texts = playbook / "campaigns" / "abandoned_cart" / "texts" / "en.yaml"
    texts.write_text(texts.read_text().replace("You left something behind", words))
    with pytest.raises(PlaybookError, match=r"en\.yaml:\d+"):
        load_campaigns(playbook)

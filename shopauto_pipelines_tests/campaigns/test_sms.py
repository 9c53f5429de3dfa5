"""SMS as a step's channel: what loads, how long it is, and who is planned."""

from __future__ import annotations

import re
from dataclasses import replace

import pytest
import yaml

from shopauto_pipelines.campaigns import component
from shopauto_pipelines.campaigns.content import Renderer
from shopauto_pipelines.campaigns.declaration import load_campaigns
from shopauto_pipelines.campaigns.previews import examples, markdown, page
from shopauto_pipelines.campaigns.sms import says_how_to_stop, segments
from shopauto_pipelines.platform.playbook import PlaybookError
from shopauto_pipelines_tests.campaigns.conftest import RULES, TODAY, declared, inputs

LINKS = {"unsubscribe": "https://shop.example/u/1"}


@pytest.fixture
def nudge(playbook, change):
    """Adds the SMS `nudge` to the shipped win-back campaign and returns its template."""
    step = {"name": "nudge", "wait_days": 3, "channel": "sms", "template": "nudge", "languages": ["en", "ro"]}
    change("win_back", {"steps": [step], "experiment": None})
    folder = playbook / "campaigns/win_back"
    for language, words in (("en", "come back"), ("ro", "reveniți")):
        texts = folder / f"texts/{language}.yaml"
        texts.write_text(f"{texts.read_text()}nudge:\n  words: \"{{{{ person.first_name or 'you' }}}}, {words}.\"\n")
    template = folder / "nudge.sms.j2"
    template.write_text('{% extends "layout.sms.j2" %}\n{% block content %}{{ text.words }}{% endblock %}\n')
    return template


def test_an_sms_is_text_alone_in_each_of_its_languages(playbook, nudge, settings):
    campaign = load_campaigns(playbook)["win_back"]
    assert campaign.step("nudge").languages == ("en", "ro")
    renderer = Renderer(campaign, settings)
    message = renderer.render("nudge", "ro", {"first_name": "Ana"}, LINKS)
    assert (message.subject, message.html) == ("", "")
    assert message.text == "Sample Shop: Ana, reveniți. Raspundeti STOP pentru dezabonare."


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("{{ shop.name }}: {{ text.words }}", "nudge.sms.j2 (en) does not say how to end it"),
        ("{{ text.words }} {{ text.sms_opt_out }}", "nudge.sms.j2 (en) does not say who writes"),
        ("{{ shop.name }} STOP {{ 'word ' * 400 }}", "nudge.sms.j2 (en) is 14 SMS long, at most 10"),
        ("{{ shop.name }} STOP\n{{ discount }}", "nudge.sms.j2:2: 'discount' is undefined"),
        ("{{ shop.name }} STOP\n{{ text.words", "nudge.sms.j2:2: unexpected end"),
    ],
)
def test_an_sms_that_may_not_be_sent_does_not_load(playbook, nudge, text, says):
    nudge.write_text(text)
    with pytest.raises(PlaybookError, match=r"defs\.yaml:\d+:\d+: ") as caught:
        load_campaigns(playbook)
    assert says in str(caught.value)


def test_a_link_ends_an_sms_as_well_as_a_word(playbook, nudge):
    nudge.write_text("{{ shop.name }}: {{ text.words }} {{ links.unsubscribe }}")
    assert "win_back" in load_campaigns(playbook)


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"subject": "Hi"}, "an SMS has no subject"),
        ({"template": "nothing"}, "there is no nothing.sms.j2"),
        ({"channel": "fax"}, "steps.0.channel"),
        ({"languages": ["de"]}, "there is no campaigns/texts/de.yaml"),
    ],
)
def test_a_wrong_sms_step_is_named(playbook, nudge, change, changes, says):
    step = {"name": "nudge", "wait_days": 3, "channel": "sms", "template": "nudge", **changes}
    change("win_back", {"steps": [step], "experiment": None})
    with pytest.raises(PlaybookError) as caught:
        load_campaigns(playbook)
    assert says in str(caught.value)


@pytest.mark.parametrize(
    ("text", "count"),
    [
        ("", 1),
        ("a" * 160, 1),
        ("a" * 161, 2),
        ("a" * 306, 2),
        ("a" * 307, 3),
        ("€" * 80, 1),
        ("€" * 81, 2),
        ("ă" + "a" * 69, 1),
        ("ă" + "a" * 70, 2),
        ("🎉" * 35, 1),
        ("🎉" * 36, 2),
        ("ă" + "a" * 133, 2),
        ("ă" + "a" * 134, 3),
    ],
)
def test_an_sms_is_as_long_as_the_networks_count_it(text, count):
    assert segments(text) == count


@pytest.mark.parametrize(
    ("text", "says"),
    [("Reply STOP to end", True), ("Text STOP.", True), ("do not stop", False), ("NONSTOP sale", False), ("", False)],
)
def test_only_a_word_of_its_own_in_capitals_ends_an_sms(text, says):
    assert says_how_to_stop(text) is says


def _steps():
    sms = {"name": "text", "wait_days": 0, "channel": "sms", "template": "text", "languages": ["en", "ro"]}
    return [sms, {"name": "mail", "wait_days": 0, "subject": {"en": "Hi"}, "template": "mail"}]


@pytest.mark.parametrize(
    ("person", "agreed", "expected"),
    [
        ((True, True), ["sms", "email"], {"text": "due", "mail": "due"}),
        ((True, False), ["sms", "email"], {"text": "no_address", "mail": "due"}),
        ((False, True), ["sms", "email"], {"text": "due", "mail": "no_address"}),
        ((True, None), ["sms", "email"], {"text": "no_address", "mail": "due"}),
        ((True, True), ["email"], {"text": "no_consent", "mail": "due"}),
        ((True, True), ["sms"], {"text": "due", "mail": "no_consent"}),
    ],
)
def test_an_sms_needs_a_phone_number_and_consent_to_sms(decide, person, agreed, expected):
    email, phone = person
    given = inputs(
        triggers=[("ann", TODAY.isoformat(), TODAY)],
        people=[("ann", email, "ro", None, None, phone)],
        consent=[("ann", channel, "opted_in") for channel in agreed],
    )
    rows = decide(declared(steps=_steps()), given, replace(RULES, cap_day_messages=2))
    assert {row["step"]: row["reason"] for row in rows} == expected
    assert {row["step"]: (row["channel"], row["language"]) for row in rows} == {
        "text": ("sms", "ro"),
        "mail": ("email", "en"),
    }


def test_messages_of_all_channels_count_towards_one_cap(decide):
    given = inputs(
        triggers=[("ann", TODAY.isoformat(), TODAY)],
        people=[("ann", True, "en", None, None, True)],
        consent=[("ann", "sms", "opted_in"), ("ann", "email", "opted_in")],
    )
    rows = decide(declared(steps=_steps()), given, replace(RULES, cap_messages=1))
    assert {row["step"]: row["reason"] for row in rows} == {"text": "due", "mail": "cap"}


def test_the_asset_s_page_shows_an_sms_with_its_length(playbook, nudge, settings):
    campaign = load_campaigns(playbook)["win_back"]
    asset = component.audience_asset(campaign, ())
    assert "1. `nudge`: 3 days after the trigger, an SMS" in asset.descriptions_by_key[asset.key]
    shown = markdown(examples(campaign, settings))
    assert "**nudge** (ro): 1 SMS\n\n```\nSample Shop: Alex, reveniți." in shown


def test_beside_an_sms_the_e_mails_of_a_campaign_are_shown_on_phone_and_desktop(playbook, nudge, settings):
    declaration = playbook / "campaigns/win_back/defs.yaml"
    document = yaml.safe_load(declaration.read_text(encoding="utf-8"))
    mail = {"name": "last_word", "wait_days": 9, "template": "letter", "subject": {"en": "Shall we stay in touch?"}}
    document["attributes"]["steps"].append(mail)
    declaration.write_text(yaml.safe_dump(document), encoding="utf-8")
    campaign = load_campaigns(playbook)["win_back"]
    shown = page(campaign, examples(campaign, settings))
    frames = re.findall(r"<div class='frames'>(.*?)</div>", re.sub(r'srcdoc="[^"]*"', "", shown))
    assert [re.findall(r'class="(\w+)"', both) for both in frames] == [["phone", "desktop"]], (
        "the script counts on both"
    )

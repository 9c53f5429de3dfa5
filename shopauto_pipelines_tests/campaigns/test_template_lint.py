"""What stops a message that would reach people with a fault in it, and where it says that the fault is."""

import pytest

from shopauto_pipelines.campaigns.declaration import load_campaigns
from shopauto_pipelines.platform.playbook import PlaybookError

LAYOUT = "layout.mjml.j2"
LETTER = "letter.mjml.j2"
BUTTON = '[[ ui.button(leads_to="about[0].url if about else shop.url", optional=true) ]]'


@pytest.fixture
def spoil(playbook):
    """``spoil(file, old, new)``: change a shared file of the campaigns, and return what loading them says."""

    def run(file: str, old: str, new: str) -> str:
        path = playbook / "campaigns" / file
        text = path.read_text(encoding="utf-8")
        assert old in text
        path.write_text(text.replace(old, new, 1), encoding="utf-8")
        with pytest.raises(PlaybookError) as caught:
            load_campaigns(playbook)
        return str(caught.value)

    return run


def _line(playbook, file: str, what: str) -> int:
    lines = (playbook / "campaigns" / file).read_text(encoding="utf-8").splitlines()
    return next(n for n, line in enumerate(lines, start=1) if what in line)


@pytest.mark.parametrize(
    ("old", "new", "fault"),
    [
        ("{{ shop.url }}", "", "a link leads nowhere"),
        ("{{ shop.url }}", "#top", "a link leads nowhere"),
        ("{{ shop.url }}", "javascript:alert(1)", "which no mail program can open"),
        ("{{ shop.url }}", "www.shop.example", "which no mail program can open"),
        ("{{ shop.url }}", "https://", "which no mail program can open"),
        ("{{ shop.url }}", "https://[shop]/new", "which no mail program can open"),
        ('<a href="{{ shop.url }}">', "<a>", "<a> has no href"),
        ("{{ shop.name }}</a>", "</a>", "nothing to read in it"),
        ("{{ shop.name }}</a>", '<img src="https://x.example/a.png"></a>', "no text for those who do not see it"),
        ("{{ shop.name }}</a>", '<img src="https://x.example/a.png" alt=""></a>', "nothing to read in it"),
        ("{{ shop.name }}</a>", '<img src="logo.png" alt="Shop"></a>', "an image comes from 'logo.png'"),
    ],
)
def test_a_link_that_leads_nowhere_or_says_nothing_is_refused_with_its_line(playbook, spoil, old, new, fault):
    said = spoil(LAYOUT, old, new)
    assert fault in said
    assert f"{LAYOUT}:{_line(playbook, LAYOUT, new or 'href=' + chr(34) * 2)}:" in said


def test_a_link_beside_an_offer_is_looked_at_though_another_step_of_the_template_brings_none(playbook, spoil):
    said = spoil("parts.mjml.j2", "{{ offer.code }}", '<a href="">{{ offer.code }}</a>')
    assert f"parts.mjml.j2:{_line(playbook, 'parts.mjml.j2', 'offer.code')}: a link leads nowhere" in said


def test_a_button_without_words_is_refused_though_another_step_of_the_template_has_some(playbook, spoil):
    assert "a link has nothing to read in it" in spoil("welcome/texts/en.yaml", "See them all", "")


@pytest.mark.parametrize("words", ["{% if person.city %}", "Hello {{ person.city or '' }}"])
def test_words_between_blocks_which_mjml_would_leave_out_are_refused_with_their_line(playbook, spoil, words):
    said = spoil(
        LETTER, BUTTON, f"<mj-section>\n{words}<mj-column><mj-text>Hi</mj-text></mj-column></mj-section>{BUTTON}"
    )
    assert f"{LETTER}:{_line(playbook, LETTER, words)}: {words!r} stands between the tags of <mj-section>" in said


def test_a_link_of_ours_that_does_not_exist_is_refused_with_its_line(playbook, spoil):
    said = spoil(LAYOUT, "{{ links.preferences }}", "{{ links.settings }}")
    assert f"{LAYOUT}:{_line(playbook, LAYOUT, 'links.settings')}: 'dict object' has no attribute 'settings'" in said


def test_a_message_without_an_unsubscribe_link_is_refused_whichever_part_lacks_it(spoil):
    assert ".txt.j2 has no unsubscribe link" in spoil("layout.txt.j2", "{{ links.unsubscribe }}", "")


@pytest.mark.parametrize("file", ["hello.mjml.j2", "hello.txt.j2"])
def test_a_template_in_another_encoding_is_refused_by_its_name(playbook, file):
    template = playbook / "campaigns/welcome" / file
    template.write_bytes(template.read_bytes() + "é".encode("latin-1"))
    with pytest.raises(PlaybookError, match=rf"welcome/defs.yaml:\d+:\d+: {file} is not in UTF-8"):
        load_campaigns(playbook)


def test_what_would_print_none_for_somebody_is_refused_with_its_line(playbook, spoil):
    said = spoil(
        LETTER,
        BUTTON,
        f"<mj-section><mj-column><mj-text>In\n{{{{ person.city }}}}</mj-text></mj-column></mj-section>{BUTTON}",
    )
    assert f"{LETTER}:{_line(playbook, LETTER, 'person.city')}: what is printed here may be unknown" in said


@pytest.mark.parametrize("language", ["en", "ro"])
def test_a_text_that_one_language_lacks_is_refused_with_the_nearest_there_is(playbook, language):
    file = playbook / f"campaigns/welcome/texts/{language}.yaml"
    file.write_text(file.read_text(encoding="utf-8").replace("headline:", "headlin:", 1), encoding="utf-8")
    with pytest.raises(
        PlaybookError,
        match=rf"texts/{language}.yaml:\d+, step \w+: there is no text 'headline', did you mean 'headlin'",
    ):
        load_campaigns(playbook)


def test_a_text_whose_name_yaml_takes_for_no_text_is_refused(spoil):
    said = spoil("welcome/texts/ro.yaml", "  button:", "  no:")
    assert "texts/ro.yaml: the name False is not a text: put it in quotes" in said


def test_words_why_a_product_is_shown_are_checked_where_they_are_written(playbook, spoil):
    said = spoil("texts/ro.yaml", "{{ because }}", "{{ becuase }}")
    assert f"texts/ro.yaml:{_line(playbook, 'texts/ro.yaml', 'becuase')}: text 'reason_bought_together'" in said

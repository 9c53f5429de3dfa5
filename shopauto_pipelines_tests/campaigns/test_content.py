"""What messages look like, and what stops one that has a hole in it."""

import re

import pytest

from shopauto_pipelines.campaigns.content import ContentError, Renderer, match_language, previews, price
from shopauto_pipelines.campaigns.declaration import load_campaigns
from shopauto_pipelines.campaigns.products import Pick

LINKS = {"unsubscribe": "https://shop.example/u?t=1&k=2", "preferences": "https://shop.example/p?t=1&k=2"}
GOODS = [Pick("tent", "Tent & pole", "Camping", 123450), Pick("mug", "Mug")]


def _person(**known):
    return {"first_name": None, "last_name": None, "city": None, "country": None, **known}


@pytest.fixture
def render(shipped, settings):
    shop = settings.model_copy(update={"postal_address": "1 High Street", "currency": "BRL", "shop_name": "Tents & Co"})

    def run(campaign="welcome", step="hello", language="en", person=None, goods=GOODS, links=LINKS):
        renderer = Renderer(shipped[campaign], shop)
        return renderer.render(step, language, person or _person(), links, renderer.goods(goods, language))

    return run


def test_every_shipped_message_renders_in_every_language_with_both_parts(shipped, settings):
    for campaign in shipped.values():
        rendered = previews(campaign, settings)
        assert {language for _, language in rendered} == {"en", "pt-BR", "sr-Latn", "ro"}
        for (_step, language), message in rendered.items():
            assert f'lang="{language}"' in message.html
            for part in (message.subject, message.html, message.text):
                assert part.strip()
                assert not re.search(r"\{\{|\{%|\[\[|\[%", part), "a template's brackets are left over"
            for part in (message.html, message.text):
                assert "https://shop.example/unsubscribe" in part
                assert "postal address not set" in part
            assert "fonts.googleapis" not in message.html, "opening a message loads nothing from elsewhere"
            assert "prefers-color-scheme: dark" in message.html
            assert "max-width: 480px" in message.html
            assert len(message.html.encode()) < 100_000, "Gmail clips messages at 102 kB"


@pytest.mark.parametrize(
    ("language", "named", "nameless"),
    [
        ("en", "Hello Ana,", "Hello,"),
        ("pt-BR", "Olá, Ana!", "Olá!"),
        ("sr-Latn", "Zdravo, Ana!", "Zdravo!"),
        ("ro", "Bună, Ana!", "Bună!"),
    ],
)
def test_a_person_is_greeted_by_name_where_it_is_known(render, language, named, nameless):
    for person, greeting in ((_person(first_name="Ana"), named), (_person(), nameless)):
        message = render(language=language, person=person)
        assert f"{greeting}\n" in message.text
        assert f">{greeting}<" in message.html


@pytest.mark.parametrize(
    ("currency", "language", "written"),
    [
        ("BRL", "pt-BR", "R$ 1.234,50"),
        ("RSD", "sr-Latn", "1.235 RSD"),
        ("RON", "ro", "1.234,50 RON"),
        ("GBP", "en", "£1,234.50"),
        ("EUR", "xx-unknown", "€1,234.50"),
    ],
)
def test_prices_are_written_as_the_language_writes_them(currency, language, written):
    cents = 1235 if currency == "RSD" else 123450
    assert price(cents, currency, language).replace("\xa0", " ") == written


def test_products_are_listed_with_their_price_where_there_is_one(render):
    message = render("win_back", "we_miss_you", "pt-BR")
    assert "Tent &amp; pole" in message.html
    assert "- Tent & pole: R$\xa01.234,50\n- Mug\n" in message.text
    without = render("win_back", "we_miss_you", "pt-BR", goods=[])
    assert "O que outros adoram agora" not in without.text + without.html


def test_a_name_cannot_smuggle_markup_templates_or_headers_into_a_message(render):
    message = render(person=_person(first_name="<img src=x>{{ 7*7 }}\r\nBcc: all@example.com"))
    assert "<img" not in message.html
    assert "&lt;img src=x&gt;{{ 7*7 }}" in message.html
    assert "\n" not in message.subject
    assert "\r" not in message.subject


def test_links_are_escaped_in_html_and_plain_in_text(render):
    message = render()
    assert "https://shop.example/u?t=1&amp;k=2" in message.html
    assert "https://shop.example/u?t=1&k=2" in message.text


def test_a_missing_variable_names_template_and_variable_and_no_private_data(render):
    person = {"last_name": "Secretname"}
    with pytest.raises(ContentError, match=r"first_name") as caught:
        render(person=person)
    assert "Secretname" not in str(caught.value)
    with pytest.raises(ContentError, match=r"hello\.mjml\.j2.*preferences"):
        render(links={})


def test_a_template_cannot_reach_out_of_the_sandbox(playbook, settings):
    text = playbook / "campaigns/welcome/hello.txt.j2"
    text.write_text(text.read_text().replace("{{ text.intro }}", "{{ ''.__class__.__mro__ }}"))
    with pytest.raises(Exception, match="unsafe"):
        load_campaigns(playbook)


def test_a_language_the_step_is_not_written_in_is_refused(render):
    with pytest.raises(ContentError, match="not written in 'de'"):
        render(language="de")


def test_conditions_and_links_of_an_mjml_template_are_what_is_written_in_it(playbook, settings):
    template = playbook / "campaigns/welcome/hello.mjml.j2"
    block = "{% if (person.first_name or '') | length > 2 and 1 < 2 %}<b>{{ 'a & b' }}</b>{% endif %}"
    words = f"<mj-section><mj-column><mj-text>{block}</mj-text></mj-column></mj-section>[[ ui.rating() ]]"
    template.write_text(template.read_text().replace("[[ ui.headline() ]]", words))
    campaign = load_campaigns(playbook)["welcome"]
    renderer = Renderer(campaign, settings.model_copy(update={"shop_url": "https://shop.example/?from=mail"}))
    long, short = (renderer.render("hello", "en", _person(first_name=name), LINKS).html for name in ("Ana", "Al"))
    assert "<b>a &amp; b</b>" in long
    assert "<b>" not in short
    assert 'href="https://shop.example/?from=mail&amp;rating=5"' in long


def test_mjml_that_cannot_be_compiled_is_refused_with_the_template_s_name(playbook, settings):
    template = playbook / "campaigns/welcome/hello.mjml.j2"
    template.write_text(template.read_text().replace("[[ ui.headline() ]]", "<mj-class>x</mj-class>"))
    campaign = load_campaigns(playbook)["welcome"]
    with pytest.raises(ContentError, match=r"hello\.mjml\.j2 is not valid MJML"):
        previews(campaign, settings)


def test_languages_match_from_the_nearest_tag_to_the_default():
    available = ["en", "pt-BR", "sr-Latn", "ro"]
    assert [match_language(tag, available) for tag in ("sr", "sr-RS", "RO-md", "pt", "fr", None, "")] == [
        "sr-Latn", "sr-Latn", "ro", "pt-BR", "en", "en", "en",
    ]  # fmt: skip
    assert match_language("fr", ["ro", "sr-Latn"], default="de") == "ro"
    assert match_language("pt", ["pt-BR", "pt-PT", "pt"]) == "pt"

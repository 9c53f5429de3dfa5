"""Drafts: what comes out of a hole and a value is what the template gives, whatever the template does with a person."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from jinja2 import StrictUndefined
from jinja2.sandbox import SandboxedEnvironment

from shopauto_pipelines.campaigns.content import Rendered, Renderer
from shopauto_pipelines.campaigns.declaration import load_campaigns
from shopauto_pipelines.campaigns.drafts import MARK, Drafts, Own, Shown, printed
from shopauto_pipelines.campaigns.products import Product
from shopauto_pipelines.platform.settings import Settings

LINKS = {"unsubscribe": "https://shop.example/u/1", "preferences": "https://shop.example/p/1"}
GOODS = [
    {"name": "A cup & saucer", "category": "Kitchen", "price": "12.90", "url": "https://shop.example", "reason": None}
]


class _Template:
    """A step whose HTML and text are one template; counts how often it is rendered."""

    def __init__(self, source: str) -> None:
        kinds = {"undefined": StrictUndefined, "finalize": printed}
        self.page = SandboxedEnvironment(autoescape=True, **kinds).from_string(source)
        self.text = SandboxedEnvironment(**kinds).from_string(source)
        self.rendered = 0

    def render(self, step, language, person, links, *shown) -> Rendered:
        self.rendered += 1
        values = {"person": person, "links": links, **Shown(*shown)._asdict()}
        return Rendered(f"Issue {language}", self.page.render(values), self.text.render(values))


def _same(template, drafts: Drafts, person: dict, links=LINKS) -> bool:
    """Whether the draft filled in is what the template gives; true where it has holes."""
    draft, values = drafts.draft("step", "en", person, links, GOODS)
    truth = template.render("step", "en", person, links, GOODS)
    assert draft.fill(values) == (truth.subject, truth.html, truth.text)
    return bool(draft.names)


def _people(count: int) -> list[dict]:
    return [{"first_name": f"Ana{n}", "city": ("Lisbon", "Porto")[n % 2], "age": n % 3} for n in range(count)]


@pytest.mark.parametrize("campaign", load_campaigns().values(), ids=lambda c: c.name)
def test_every_shipped_message_is_rendered_once_for_all_who_have_a_name_and_once_for_those_who_have_none(campaign):
    rendered = []
    renderer = Renderer(campaign, Settings(_env_file=None))

    def render(*message):
        rendered.append(message)
        return renderer.render(*message)

    drafts = Drafts(render)
    for step in campaign.steps:
        for language in step.languages:
            seen = set()
            for name in ("Ana", "Žofia", "O'Neill & Söhne <b>", None, "", "Ben"):
                person = {"first_name": name, "last_name": "Example"}
                draft, values = drafts.draft(step.name, language, person, LINKS, GOODS)
                truth = renderer.render(step.name, language, person, LINKS, GOODS)
                assert draft.fill(values) == (truth.subject, truth.html, truth.text)
                seen.add(draft)
            assert len(seen) <= 3  # a name, none, and an empty one
    before = len(rendered)
    drafts.draft(campaign.steps[0].name, campaign.steps[0].languages[0], {"first_name": "New"}, LINKS, GOODS)
    assert len(rendered) == before


WARES = {
    "lamp": Product("Lamp <i>& shade</i>", "Light", 123456, None),
    "bulb": Product("Bulb", None, 990, None),
    "gift": Product("A  gift", "Odds", None, None),
    "nameless": Product(None, "Odds", 100, None),
}
CARTS = [{}, {"lamp": 1}, {"lamp": 3, "bulb": 1}, {"bulb": 2, "gift": 1, "nameless": 1}, {"lamp": 1, "bulb": 0}]
OFFERS = [
    None,
    {"kind": "none", "percent": None, "reason": "cap"},
    *({"kind": "percent", "percent": p, "code": f"CODE{p}", "expires_on": "2026-07-08"} for p in (5, 10)),
    {"kind": "free_shipping", "percent": None, "code": "SHIP", "expires_on": "2026-07-08"},
]


@pytest.mark.parametrize("language", ["en", "pt-BR"])
def test_carts_of_the_same_length_share_a_draft_whatever_is_in_them(language):
    renderer = Renderer(load_campaigns()["abandoned_cart"], Settings(_env_file=None, currency="BRL"))
    rendered = []

    def render(*message):
        rendered.append(message)
        return renderer.render(*message)

    drafts = Drafts(render)
    messages = [
        (
            step,
            language,
            {"first_name": name, "last_name": "X"},
            LINKS,
            (),
            Own(renderer.cart(contents, WARES, language)),
            offer,
        )
        for step in ("reminder", "help")
        for contents in CARTS
        for offer in (renderer.offer(told, language) for told in OFFERS)
        for name in ("Ana", "Zoë")
    ]
    for message in messages:
        draft, values = drafts.draft(*message)
        truth = renderer.render(*message)
        assert draft.fill(values) == (truth.subject, truth.html, truth.text)
    for _ in range(2):  # what a template asks for is known after the first time
        rendered.clear()
        for message in messages:
            drafts.draft(*message)
    odd = [message for message in messages if any("  " in product["label"] for product in message[5])]
    assert [message[:7] for message in rendered] == odd, "only what has two spaces in its name is rendered by itself"


def test_an_amount_keeps_its_tied_space_in_a_hole_and_is_rendered_where_it_stands_in_the_subject():
    class InSubject(_Template):
        def render(self, *message) -> Rendered:
            made = super().render(*message)
            return Rendered(" ".join(made.text.split()), made.html, made.text)

    cart = [{"price": "R$\u00a01.234,50"}]
    for kind, holes in ((_Template, True), (InSubject, False)):
        template = kind("For {{ cart[0].price }}, {{ person.first_name }}")
        draft, values = Drafts(template.render).draft("step", "en", {"first_name": "Ana"}, LINKS, (), cart)
        truth = template.render("step", "en", {"first_name": "Ana"}, LINKS, (), cart)
        assert draft.fill(values) == (truth.subject, truth.html, truth.text)
        assert bool(draft.names) == holes


@pytest.mark.parametrize(
    "source",
    [
        "{% for item in cart %}{{ item.name | upper }}{% endfor %}",
        "{% for item in cart %}{{ item.items() | list }}{% endfor %}",
        "{{ cart | map(attribute='name') | join(', ') }}",
        "{{ cart[-1].name }} {{ offer.code[0] }} {% if offer.kind == 'percent' %}{{ offer.code }}{% endif %}",
        "{% if offer %}{{ offer | length }}{% endif %}{% if cart %}{{ cart[0] }}{% endif %}",
    ],
)
def test_whatever_a_template_does_with_a_cart_comes_out_as_it_would_by_itself(source):
    template = _Template(source)
    drafts = Drafts(template.render)
    for n in range(6):
        cart = [{"name": f"<{place}{n}>", "pieces": n} for place in range(1 + n % 3)]
        message = ("step", "en", {}, LINKS, (), cart, {"code": f"C{n}", "kind": ("percent", "free_shipping")[n % 2]})
        draft, values = drafts.draft(*message)
        truth = template.render(*message)
        assert draft.fill(values) == (truth.subject, truth.html, truth.text)


@pytest.mark.parametrize(
    "source",
    [
        "Hello {{ person.first_name }}, {{ links.unsubscribe }}",
        "{% if person.first_name %}Hello {{ person.first_name }}{% else %}Hello{% endif %}",
        "{{ person.first_name or 'friend' }} {% set name = person.first_name %}{{ name }}",
        "{{ person.first_name | default('friend') }}",
        "{% if person.city == 'Porto' %}Olá{% else %}Hello{% endif %} {{ person.first_name }}",
        "{{ person.age }} {{ person.first_name }} {% if person.age > 1 %}{{ person.city }}{% endif %}",
    ],
)
def test_people_who_get_the_same_text_around_the_holes_share_a_draft(source):
    template = _Template(source)
    drafts = Drafts(template.render)
    assert all([_same(template, drafts, person) for person in _people(60)])
    assert template.rendered <= 60 + 40  # 60 times by the comparison


@pytest.mark.parametrize(
    "source",
    [
        "{{ person.first_name | upper }}",
        "{{ person.first_name[0] }}. {{ person.first_name | length }}",
        "{{ 'Dear ' ~ person.first_name }}",
        "{{ 'Dear %s' % person.first_name }}",
        "{% for letter in person.first_name %}{{ letter }}-{% endfor %}",
        "{% if 'na' in person.first_name %}yes{% endif %}",
        "{% if person.first_name is string %}yes{% endif %}",
        "{{ person.first_name | safe }}",
        "{{ person.first_name.upper() }}",
        "{% for field in person %}{{ field }}: {{ person[field] }}{% endfor %}",
        "{{ person.items() | list }}",
        "{{ links.unsubscribe | urlencode }}",
        f"{{{{ person.first_name }}}} pays {MARK}person.first_name%",
    ],
)
def test_whatever_else_a_template_does_with_a_value_comes_out_as_it_would_by_itself(source):
    template = _Template(source)
    drafts = Drafts(template.render)
    for person in [*_people(5), {"first_name": "<b>Zoë</b>", "city": "Á", "age": 0}]:
        _same(template, drafts, person)


@given(
    st.lists(
        st.fixed_dictionaries(
            {
                "first_name": st.none() | st.text("a &<>'\"%{}\n:sap.on;é😀", max_size=12),
                "city": st.none() | st.sampled_from(["Porto", "Lisbon", "", f"{MARK}person.city%"]),
                "age": st.integers(0, 3),
            }
        ),
        max_size=8,
    )
)
def test_no_value_comes_out_otherwise_than_the_template_prints_it(people):
    template = _Template(
        "{{ person.first_name or '' }} {% if person.city == 'Porto' %}{{ person.city }}{% endif %} {{ person.age }}"
    )
    drafts = Drafts(template.render)
    for person in people:
        _same(template, drafts, person)


def test_a_link_that_needs_escaping_is_escaped_in_html():
    template = _Template("<a href='{{ links.unsubscribe }}'>{{ links.unsubscribe }}</a>")
    assert _same(template, Drafts(template.render), {}, {"unsubscribe": "https://shop.example/u?a=1&b=2"})
    assert _same(template, Drafts(template.render), {}, {"unsubscribe": "https://shop.example/u/1"})


def test_what_is_wrong_with_a_template_is_said_as_without_drafts():
    template = _Template("{{ person.nickname }}")
    with pytest.raises(Exception, match="nickname"):
        Drafts(template.render).draft("step", "en", {"first_name": "Ana"}, LINKS, GOODS)


def test_values_that_never_repeat_do_not_fill_the_memory():
    template = _Template("{{ person.first_name | upper }}")
    drafts = Drafts(template.render)
    for n in range(2000):
        drafts.draft("step", "en", {"first_name": f"Ana{n}"}, LINKS, GOODS)
    (memo,) = drafts._memos.values()
    assert len(memo._entries) <= 512

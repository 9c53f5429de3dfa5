"""Wrong campaigns, written by hand and made from right ones: each is refused when loaded, with its place and what to do."""

import copy
import re
from collections.abc import Iterator
from typing import Any

import pytest
import yaml

from shopauto_pipelines.campaigns.declaration import load_campaigns
from shopauto_pipelines.platform.playbook import PlaybookError
from shopauto_pipelines.platform.words import nearest

TYPE = "shopauto_pipelines.campaigns.component.Campaign"
_PARTS = "{{ text.words }} {{ links.unsubscribe }} {{ shop.postal_address }}"
_MJML = "<mjml><mj-body><mj-section><mj-column><mj-text>%s</mj-text></mj-column></mj-section></mj-body></mjml>"
TEMPLATES = {
    "note.mjml.j2": _MJML % _PARTS,
    "note.txt.j2": _PARTS,
    "note.sms.j2": "{{ shop.name }}: {{ text.words }} Reply STOP to end these messages.",
    "texts/en.yaml": "first: {words: Hello}\nsecond: {words: Hello}\nshort: {words: Hello}\n",
    "../texts/en.yaml": "{}\n",
}

#: A campaign that says about everything there is to say, and one about carts.
RIGHT = yaml.safe_load("""
    name: thanks
    description: A thank-you after an order.
    goal: One in ten orders again within a month.
    owner: team:crm
    enabled: true
    kind: marketing
    topic: offers
    priority: 100
    trigger:
      ordered: {first: false, category: tents}
    audience:
      include: [active, everyone]
      exclude: [seekers]
    steps:
      - name: first
        wait_days: 1
        when: orders > 1 and country = 'DE'
        offer: {valid_days: 14, kind: free_shipping}
        products: complements
        hour: 9
        template: note
        subject: {en: Thank you}
      - {name: second, wait_days: 5, template: note, subject: {en: "How is it?"}}
      - {name: short, wait_days: 9, channel: sms, template: note, languages: [en]}
    exit_on: [ordered, unsubscribed]
    pause_while_ticket_open: true
    sunset_days: 90
    experiment:
      name: shorter
      step: first
      variants:
        control: {weight: 50}
        short: {weight: 50, subject: {en: Thanks}, hour: best}
      metric: clicked
      within_days: 7
      sample_size: 500
    holdout_percent: 10
    valid_days: 3
""")
CARTS = yaml.safe_load("""
    name: carts
    description: A reminder of a cart.
    goal: One cart in ten is bought.
    owner: team:crm
    trigger: {cart_abandoned: {}}
    steps:
      - {name: first, wait_hours: 0, template: note, subject: {en: Your cart}}
      - {name: second, wait_hours: 24, template: note, subject: {en: Your cart}, offer: {valid_days: 7}}
    exit_on: [ordered, cart_emptied]
    valid_hours: 12
""")

#: What a test may do to them: the path, and what stands there instead.
Path_ = tuple[str | int, ...]
GONE = object()


@pytest.fixture
def load(tmp_path):
    """``load(attributes)``: the message of what is wrong with it; it must begin with file, line and column."""
    folder = tmp_path / "campaigns" / "it"
    for name, text in TEMPLATES.items():
        file = (folder / name).resolve()
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)
    for name in ("active", "seekers"):
        segment = tmp_path / "segments" / name / "defs.yaml"
        segment.parent.mkdir(parents=True)
        where = {"name": name, "description": "Some people.", "where": "orders > 0"}
        segment.write_text(
            yaml.safe_dump({"type": "shopauto_pipelines.segments.component.Segment", "attributes": where})
        )

    def loaded(attributes: Any) -> tuple[str, int, int, list[str]]:
        text = attributes if isinstance(attributes, str) else yaml.safe_dump(attributes, sort_keys=False)
        lines = [f"type: {TYPE}", "attributes:", *(f"  {line}" for line in text.splitlines())]
        (folder / "defs.yaml").write_text("\n".join(lines) + "\n")
        with pytest.raises(PlaybookError) as caught:
            load_campaigns(tmp_path)
        found = re.fullmatch(r".*/it/defs\.yaml:(\d+):(\d+): (.*)", str(caught.value), re.DOTALL)
        assert found, f"no place: {caught.value}"
        return found[3], int(found[1]), int(found[2]), lines

    loaded.folder = tmp_path  # type: ignore[attr-defined]
    return loaded


def _with(right: dict[str, Any], *path: str | int, to: Any = GONE) -> dict[str, Any]:
    """The campaign with something else, or nothing, at the path."""
    changed = copy.deepcopy(right)
    *parents, last = path
    there: Any = changed
    for step in parents:
        there = there[step]
    if to is GONE:
        del there[last]
    else:
        there[last] = to
    return changed


def _misspelt(right: dict[str, Any], *path: str | int, as_: str) -> dict[str, Any]:
    """The campaign with the last name of the path written otherwise, where it stood."""
    changed = copy.deepcopy(right)
    there: Any = changed
    for step in path[:-1]:
        there = there[step]
    items = list(there.items())
    there.clear()
    there.update((as_ if name == path[-1] else name, said) for name, said in items)
    return changed


def test_both_campaigns_are_right(load):
    for right in (RIGHT, CARTS):
        with pytest.raises(BaseException, match="DID NOT RAISE"):
            load(right)
    assert load_campaigns(load.folder)["carts"].is_realtime


#: Subjects that only some people spoil.
_FOR_WOMEN = "Hello{% if person.gender == 'female' %} {{ text.madam }}{% endif %}"
_FOR_MEN = "Hello{% if person.gender == 'male' %} Mr {{ person.last_name }}{% endif %}"
_FROM_PRICE = "Hello{% if products %}, from {{ products[0].price }}{% endif %}"
_WITH_BOTH_NAMES = "Hello{% if person.first_name %} {{ person.first_name }} {{ person.last_name }}{% endif %}"

BY_HAND: list[tuple[dict[str, Any], str, str]] = [
    # which message, to whom, when
    (_with(RIGHT, "steps"), "does not say which message: declare `steps`", "name:"),
    (_with(RIGHT, "steps", to=[]), "steps", "steps:"),
    (_with(RIGHT, "trigger"), "does not say when: declare a `trigger`", "name:"),
    (_with(RIGHT, "trigger", to={}), "exactly one of signed_up", "trigger:"),
    (_with(RIGHT, "trigger", "browsed", to={}), "exactly one of signed_up", "ordered:"),
    (_with(RIGHT, "steps", 1, "template"), "does not say which message: name the `template`", "name: second"),
    (_with(RIGHT, "steps", 1, "subject"), "does not say which message: give it a `subject`", "name: second"),
    (_with(RIGHT, "steps", 1, "wait_days"), "does not say when: give `wait_days`", "name: second"),
    (_with(_with(RIGHT, "trigger", to={"broadcast": {"yearly": "12-24"}}), "audience"), "does not say to whom", "name:"),
    # a name that is misspelt is said before what it leaves out
    (_misspelt(RIGHT, "steps", 1, "wait_days", as_="wait_dayz"), "no `steps.1.wait_dayz`; did you mean `wait_days`?", "dayz"),
    (_misspelt(RIGHT, "steps", 1, "subject", as_="subjct"), "there is no `steps.1.subjct`; did you mean `subject`?", "subjct"),
    (_misspelt(RIGHT, "steps", 1, "template", as_="templat"), "did you mean `template`?", "templat:"),
    (_misspelt(RIGHT, "trigger", as_="triger"), "there is no `triger`; did you mean `trigger`?", "triger:"),
    (_misspelt(RIGHT, "experiment", "sample_size", as_="samples"), "did you mean `sample_size`?", "samples:"),
    # triggers
    (_with(RIGHT, "trigger", to={"orderd": {}}), "there is no `trigger.orderd`; did you mean `ordered`?", "orderd"),
    (_with(RIGHT, "trigger", to={"birthday": {"days_before": -1}}), "greater than or equal to 0", "days_before"),
    (_with(RIGHT, "trigger", to={"birthday": {"day_before": 1}}), "did you mean `days_before`?", "day_before"),
    (_with(RIGHT, "trigger", to={"next_order": {"days_before": 0}}), "greater than or equal to 1", "days_before"),
    (_with(RIGHT, "trigger", to={"submitted": {}}), "`trigger.submitted.form` is missing", "submitted"),
    (_with(RIGHT, "trigger", to={"submitted": None}), "exactly one of", "submitted"),
    (_with(RIGHT, "trigger", to={"used_up": {"days": 3}}), "there is no `trigger.used_up.days`; remove it", "days"),
    (_with(RIGHT, "trigger", to={"broadcast": {}}), "exactly one of `on`, `monthly` and `yearly`", "broadcast"),
    (_with(RIGHT, "trigger", to={"broadcast": {"yearly": "24.12."}}), "write month and day, such as \"12-24\"", "yearly"),
    (_with(RIGHT, "trigger", to={"broadcast": {"yearly": "13-01"}}), "'13-01' is not a day of the year", "yearly"),
    (_with(RIGHT, "trigger", to={"broadcast": {"monthly": 31}}), "write 1 to 28, or last", "monthly"),
    (_with(RIGHT, "trigger", to={"broadcast": {"monthly": "first"}}), "write 1 to 28, or last", "monthly"),
    (_with(RIGHT, "trigger", to={"broadcast": {"on": "soon"}}), "valid date", "on"),
    (_with(RIGHT, "trigger", to={"segment_entered": "actve"}), "there is no segment 'actve'; did you mean 'active'?", "actve"),
    (_with(RIGHT, "trigger", "ordered", "first", to="maybe"), "must be true or false", "first:"),
    # audience
    (_with(RIGHT, "audience", "include", 0, to="nobody"), "there is no segment 'nobody'", "nobody"),
    (_with(RIGHT, "audience", "exclude", 0, to="seeker"), "did you mean 'seekers'?", "seeker"),
    (_with(RIGHT, "audience", "exclude", 0, to="everyone"), "there is no segment 'everyone'", "- everyone"),
    (_with(RIGHT, "audience", "include", 0, to="Active People"), "is not the name of a segment", "Active People"),
    (_with(RIGHT, "audience", "include", 0, to="active:eu"), "active", "active:eu"),
    (_with(RIGHT, "audience", "include", to=[]), "audience.include", "include: []"),
    # steps
    (_with(RIGHT, "steps", 0, "when", to="orderz > 1"), "there is no column `orderz`; did you mean `orders`?", "orderz"),
    (_with(RIGHT, "steps", 0, "when", to="country = 5"), "a number and a text do not go together", "country"),
    (_with(RIGHT, "steps", 0, "when", to="orders >"), "not valid SQL", "orders >"),
    (_with(RIGHT, "steps", 0, "when", to="orders"), "true or false", "when: orders"),
    (_with(RIGHT, "steps", 0, "when", to="birthday is null"), "private data", "birthday"),
    (_with(RIGHT, "steps", 0, "when", to="did('ordered')"), "did", "did"),
    (_with(RIGHT, "steps", 0, "hour", to=24), "24 is not an hour: write 0 to 23, or best", "hour: 24"),
    (_with(RIGHT, "steps", 0, "hour", to="noon"), "'noon' is not an hour", "noon"),
    (_with(RIGHT, "steps", 0, "products", to="bestsellers"), "did you mean 'best_sellers'?", "bestsellers"),
    (_with(RIGHT, "steps", 0, "products", to="nwe"), "'replenishment' or 'new'; did you mean 'new'?", "nwe"),
    (_with(RIGHT, "steps", 0, "offer", "kind", to="gift"), "'free_shipping'", "gift"),
    (_with(RIGHT, "steps", 0, "offer", "valid_days", to=0), "greater than or equal to 1", "valid_days: 0"),
    (_with(RIGHT, "steps", 0, "template", to="note.mjml"), "leave its endings out", "note.mjml"),
    (_with(RIGHT, "steps", 0, "template", to="nota"), "there is no nota", "nota"),
    (_with(RIGHT, "steps", 0, "subject", to={"english": "Hi"}), "is not a language tag", "english"),
    (_with(RIGHT, "steps", 0, "subject", "en", to=""), "is not a text: it is empty", "en: ''"),
    (_with(RIGHT, "steps", 0, "subject", "en", to="{{ person.name }}"), "person.name; did you mean `last_name`", "person.name"),
    (_with(RIGHT, "steps", 0, "subject", "en", to="{{ person.email }}"), "there are city, country, first_name", "person.email"),
    (_with(RIGHT, "steps", 0, "subject", "en", to=_FOR_WOMEN), "there is no text 'madam'", "text.madam"),
    (_with(RIGHT, "steps", 0, "subject", "en", to=_WITH_BOTH_NAMES), "may be unknown", "last_name"),
    (_with(RIGHT, "steps", 0, "subject", "en", to=_FROM_PRICE), "may be unknown", "price"),
    (_with(RIGHT, "steps", 0, "subject", "en", to=_FOR_MEN), "may be unknown", "person.last_name"),
    (_with(RIGHT, "steps", 1, "subject", to={"fr": "Merci"}), "texts/fr.yaml", "template: note"),
    (_with(RIGHT, "steps", 2, "subject", to="Hi"), "an SMS has no subject: name its `languages`", "name: short"),
    (_with(RIGHT, "steps", 1, "name", to="first"), "two steps have the same name, `first`", "name: first"),
    (_with(RIGHT, "steps", 1, "wait_hours", to=3), "by `wait_days`, as the trigger is `ordered:again:tents`", "wait_hours"),
    (_with(RIGHT, "steps", 1, "wait_days", to=-1), "greater than or equal to 0", "wait_days: -1"),
    # the rest
    (_with(RIGHT, "owner", to="crm"), "'crm' is not team:<name> or an e-mail address", "owner"),
    (_with(RIGHT, "name", to="Big Sale"), "'Big Sale' is not a name in snake_case, such as spring_sale", "Big Sale"),
    (_with(RIGHT, "name", to="lapsed_visitor"), "choose another name", "lapsed_visitor"),
    (_with(RIGHT, "kind", to="promotion"), "must be 'marketing' or 'transactional'", "promotion"),
    (_with(RIGHT, "exit_on", 0, to="bored"), "exit_on.0: must be 'ordered'", "bored"),
    (_with(RIGHT, "exit_on", 0, to="left_segment"), "needs the trigger `segment_entered`", "left_segment"),
    (_with(RIGHT, "exit_on", 0, to="cart_emptied"), "needs the trigger `cart_abandoned`", "cart_emptied"),
    (_with(RIGHT, "holdout_percent", to=120), "less than or equal to 90", "120"),
    (_with(RIGHT, "sunset_days", to=0), "greater than or equal to 1", "sunset_days"),
    # experiments
    (_with(RIGHT, "experiment", "step", to="frist"), "there is no step `frist`; did you mean `first`?", "frist"),
    (_with(RIGHT, "experiment", "variants", "control"), "at least 2 items", "variants"),
    (_with(RIGHT, "experiment", "variants", to={"a": {"hour": 2}, "b": {"hour": 3}}), "is called `control`", "experiment"),
    (_with(RIGHT, "experiment", "variants", "control", "hour", to=3), "it changes nothing but its weight", "hour: 3"),
    (_with(RIGHT, "experiment", "variants", "short", to={"weight": 5}), "changes nothing: give it", "weight: 5"),
    (_with(RIGHT, "experiment", "variants", "short", "subject", to={"pt": "Oi"}), "but step `first` is written in en", "pt: Oi"),
    (_with(RIGHT, "experiment", "variants", "short", "template", to="nota"), "there is no nota", "nota"),
    (_with(RIGHT, "experiment", "sample_size"), "`experiment.sample_size` is missing", "name: shorter"),
    (_with(RIGHT, "experiment", "metric", to="opened"), "'clicked' or 'revenue'", "opened"),
    # carts
    (_with(CARTS, "steps", 1, "wait_hours", to=0), "each step waits longer than the one before it", "wait_hours: 0"),
    (_with(CARTS, "steps", 1, "wait_days", to=1), "says when by `wait_hours`", "wait_days"),
    (_with(CARTS, "steps", 1, "when", to="orders > 1"), "use `audience`", "orders > 1"),
    (_with(CARTS, "steps", 1, "hour", to=9), "it leaves when it is due", "hour: 9"),
    (_with(CARTS, "steps", 1, "products", to="new"), "it shows the cart", "products: new"),
    (_with(CARTS, "steps", 1, "offer", "kind", to="free_shipping"), "leave `kind` out", "free_shipping"),
    (_with(CARTS, "sunset_days", to=30), "is for campaigns by the day", "sunset_days"),
]  # fmt: skip


@pytest.mark.parametrize(("wrong", "says", "at"), BY_HAND, ids=[f"{n}-{case[1]}" for n, case in enumerate(BY_HAND)])
def test_a_wrong_declaration_is_refused_with_its_place_and_the_mend(load, wrong, says, at):
    message, line, column, lines = load(wrong)
    assert says in message, message
    place = next(n for n, text in enumerate(lines, start=1) if at in text and n > 2)
    last = max(n for n, text in enumerate(lines, start=1) if at in text)
    assert place <= line <= last + 1, f"line {line} rather than {place}: {message}"
    assert 1 <= column <= len(lines[line - 1]) + 1


def _fields(value: Any, path: Path_ = ()) -> Iterator[tuple[Path_, Any]]:
    """Every field of a declaration by its path, but what stands under names of its own (languages, variants)."""
    if isinstance(value, dict):
        for name, inner in value.items():
            yield (*path, name), inner
            yield from _fields(inner, (*path, name))
    elif isinstance(value, list):
        for place, inner in enumerate(value):
            yield from _fields(inner, (*path, place))


_FREE = {"subject", "variants"}  # their keys are names of the shop's own
_FIELDS = [
    (kind, right, path)
    for kind, right in (("daily", RIGHT), ("carts", CARTS))
    for path, _value in _fields(right)
    if len(path) < 2 or path[-2] not in _FREE
]
_NEEDED = {"name", "description", "goal", "owner", "trigger", "steps", "template", "sample_size", "step", "variants"}


@pytest.mark.parametrize(
    ("kind", "right", "path"), _FIELDS, ids=[f"{k}-{'.'.join(map(str, p))}" for k, _r, p in _FIELDS]
)
def test_a_field_that_is_misspelt_of_the_wrong_type_or_gone_is_named(load, kind, right, path):
    *parents, name = path
    value = copy.deepcopy(right)
    there = value
    for step in parents:
        there = there[step]
    said = there[name]

    there.pop(name)
    there[f"{name}x"] = said
    message, line, _column, lines = load(value)
    misspelt = f"there is no `{'.'.join(map(str, [*parents, f'{name}x']))}`"
    assert misspelt in message, message
    assert nearest(f"{name}x", [name]) in message
    assert f"{name}x" in lines[line - 1]

    mistyped: Any = [["?"]] if not isinstance(said, list) else {"?": 1}
    message, line, _column, lines = load(_with(right, *path, to=mistyped))
    assert name in message or name in lines[line - 1] or name in lines[line - 2], message

    if name in _NEEDED:
        message, *_ = load(_with(right, *path))
        assert name in message or "does not say" in message or "exactly one" in message


@pytest.mark.parametrize(
    ("text", "says", "line"),
    [
        ("name: a\nname: b", "`name` is already there in line 3", 4),
        ("name: [a", "not valid YAML", None),
        ("- a", "must be fields with values, not a list", None),
    ],
)
def test_what_is_not_a_declaration_at_all_is_refused(load, text, says, line):
    message, found, _column, _lines = load(text)
    assert says in message
    assert line is None or found == line

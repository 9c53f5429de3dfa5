"""Wrong declarations of segments: each is refused when it is loaded, with its place and the mend in words.

The place that the error must name is marked by ``▶`` in the declaration.
"""

import textwrap

import pytest

from shopauto_pipelines.platform.playbook import PlaybookError
from shopauto_pipelines.segments.declaration import load_segments
from shopauto_pipelines.segments.events import EVENTS
from shopauto_pipelines.segments.people import COLUMNS

TYPE = "type: shopauto_pipelines.segments.component.Segment"
SOUND = f"""\
{TYPE}
attributes: {{name: vip, description: The best., where: revenue_percentile >= 90}}
---
{TYPE}
attributes: {{name: fans_of, description: Fans., where: orders > 1, each: favourite_category}}
"""


@pytest.fixture
def refusal(tmp_path):
    """``refusal(attributes)``: the error of a playbook with two sound segments and this one, and the place marked in it."""

    def of(attributes: str) -> tuple[str, str]:
        text = f"{TYPE}\nattributes:\n{textwrap.indent(textwrap.dedent(attributes).strip(), '  ')}\n"
        before, mark, _after = text.partition("▶")
        assert mark, "the place is marked"
        for folder, written in (("sound", SOUND), ("wrong", text.replace("▶", ""))):
            (tmp_path / folder).mkdir()
            (tmp_path / folder / "defs.yaml").write_text(written, encoding="utf-8")
        with pytest.raises(PlaybookError) as error:
            load_segments(tmp_path)
        line = before.count("\n") + 1
        return str(error.value), f"wrong/defs.yaml:{line}:{len(before) - before.rfind(chr(10))}: "

    return of


def where(condition: str, more: str = "") -> str:
    return f"name: tent_buyers\ndescription: Tents.\nwhere: {condition}\n{more}"


BLOCK = """\
name: tent_buyers
description: Tents.
where: |
  orders_365d >= 2

  and did('bought', category = 'tents',
          at_least => 2, within => 90)   -- a comment
  and {}
owner: team:crm
"""

WRONG = [
    # names: columns, functions, events, their columns, segments, parameters
    (where("orders > 1 and ▶ordrs_90d > 3"), "there is no column `ordrs_90d`; did you mean `orders_90d`?"),
    (where("▶zzz > 3"), "there is no column `zzz`; there are "),
    (where("▶email = 'x'"), "`email` holds private data"),
    (where("month(▶birthday) = 6"), "use `days_to_birthday`"),
    (where("▶customers.orders > 3"), "write the column's name alone"),
    (where("▶days_sinse(last_order_on) > 3"), "this function is not allowed; did you mean `days_since`?"),
    (where("▶read_csv('/etc/passwd') is null"), "this function is not allowed; there are abs,"),
    (where("orders > 1 or ▶getenv('HOME') = 'x'"), "this function is not allowed"),
    (where("orders > ▶random()"), "this function is not allowed"),
    (where("did(▶'bougt')"), "there is no event 'bougt'; did you mean 'bought'?"),
    (where("did(▶'zzz')"), "there is no event 'zzz'; there are asked_for_help, bought,"),
    (where("▶did(bought)"), "did begins with an event in quotes; there are "),
    (where("▶did()"), "did begins with an event in quotes"),
    (where("did('bought', ▶categry = 'tents')"), "`bought` has no column `categry`; did you mean `category`?"),
    (where("did('bought', ▶orders > 3)"), "`bought` has no column `orders`; there are amount_cents,"),
    (where("did('visited', ▶category = 'tents')"), "`visited` has no column `category`; it has none to filter by"),
    (where("did('bought', ▶at_last => 2)"), "did has no `at_last =>`; did you mean `at_least`?"),
    (where("did('bought', ▶days => 2)"), "did has no `days =>`; there are at_least, within"),
    (where("orders > 1 and in_segment(▶'vpi')"), "there is no segment 'vpi'; did you mean 'vip'?"),
    (where("in_segment('vip', ▶'fan_of:tea')"), "there is no segment 'fan_of:tea'; did you mean 'fans_of'?"),
    (where("in_segment(▶'vip:tea')"), "segment 'vip' has no values to choose from: write 'vip' alone"),
    (where("in_segment(▶'fans_of:')"), "names no value: write 'fans_of'"),
    (where("▶in_segment(vip)"), "in_segment takes names of segments in quotes"),
    (where("▶in_segment()"), "in_segment takes names of segments in quotes"),
    (where("orders > ▶:ordrs", "parameters: {orders: 3}"), "no parameter `:ordrs`; did you mean `orders`?"),
    (where("orders > ▶:orders"), "there is no parameter `:orders`; declare it under `parameters`"),
    (where("orders > ▶?"), "a parameter is written `:name`"),
    (where("orders > 3", "parameters: {orders: ▶3}"), "`orders` is not used: write `:orders` in `where`"),
    ("include: [vip, ▶vpi]\nname: x\ndescription: d", "there is no segment 'vpi'; did you mean 'vip'?"),
    ("include: [vip]\nexclude:\n- ▶zzz\nname: x\ndescription: d", "there is no segment 'zzz'; there are fans_of,"),
    (where("'true'", "minimum_size: 9\nfallback: ▶vpi"), "there is no segment 'vpi'; did you mean 'vip'?"),
    (where("'true'", "each: ▶favorite_category"), "did you mean `favourite_category`?"),
    (where("'true'", "each: ▶orders"), "`orders` is not a text column that segments can be made from"),
    (where("'true'", "each: ▶email"), "`email` is not a text column that segments can be made from"),
    (where("'true'", "▶ownr: team:crm"), "there is no `ownr`; did you mean `owner`?"),
    ("name: x\ndescription: d\n▶were: orders > 3", "there is no `were`; did you mean `where`?"),
    # values of did and of parameters
    (where("did('bought', within => ▶0)"), "within is a whole number from 1 to"),
    (where("did('bought', within => ▶'30')"), "within is a whole number from 1 to"),
    (where("did('bought', at_least => ▶1.5)"), "at_least is a whole number from 1 to"),
    (where("did('bought', at_least => ▶orders)"), "at_least is a whole number from 1 to"),
    (where("did('bought', within => ▶99999999)"), "within is a whole number from 1 to"),
    (where("did('bought', within => 3, ▶within => 4)"), "`within =>` is there twice"),
    (where("did('bought', ▶within = 30)"), "write `within => 30`"),
    (where("did('bought', ▶at_least := 2)"), "write `at_least => 2`"),
    (where("did('bought', ▶category)"), "is a text: a filter of did is a condition"),
    (where("did('bought', ▶quantity = 'two')"), "a number and a text do not go together"),
    (where("did('bought', ▶did('viewed'))"), "did cannot be used in a filter on `bought`"),
    (where("did('bought', ▶in_segment('vip'))"), "in_segment cannot be used in a filter on `bought`"),
    (where("did('bought', quantity > (▶select 1))"), "queries are not allowed"),
    (where("orders > :n", "parameters: {n: ▶[3]}"), "parameters.n: must be a text, a number, true or false, or a date"),
    (
        where("orders > :n", "parameters: {n: ▶.inf}"),
        "parameters.n: must be a text, a number, true or false, or a date",
    ),
    (where("orders > :n", "parameters: ▶[n]"), "must be fields with values, not a list"),
    (where("▶orders > :n", "parameters: {n: many}"), "a number and a text do not go together"),
    (where("last_order_on > :n", "parameters: {n: ▶2025-02-30}"), "not valid YAML: day is out of range"),
    # what is not a condition on one person
    (where("▶orders"), "the condition must be true or false, but `orders` is a number"),
    (where("▶orders = '1'"), "a number and a text do not go together"),
    (where("discount_seeker and ▶orders"), "`orders` is a number, but must be true or false here"),
    (where("upper(▶orders) = 'X'"), "`orders` is a number, but must be a text here"),
    (where("▶country = null"), "write `is null`"),
    (where("last_order_on > date ▶'2025-02-30'"), "'2025-02-30' is not a date"),
    (where("exists (▶select 1)"), "queries are not allowed"),
    (where("▶orders in (select 1)"), "queries are not allowed"),
    (where("orders > 1; ▶drop table x"), "must be exactly one SQL expression"),
    (where("orders > (▶1"), "not valid SQL near `1`: a parenthesis is not closed"),
    (where("did('bought') ▶'tents'"), "not valid SQL near `'tents'`: this does not belong here"),
    (where("▶did('bought') >= 3"), "how often is said inside did: `at_least => 3`"),
    (where("▶orders is 3"), "`is` goes with null, true and false alone; write `=`"),
    (where("city = ▶Tirana"), "a text is written in quotes: 'tirana'"),
    (where("orders > :no", "parameters: {▶no: 3}"), "the name `no` is true or false: put it in quotes"),
    (where("orders > :n", "parameters: {N-N: ▶3}"), "'N-N' is not a name in snake_case"),
    (where("orders >= ▶and true"), "not valid SQL near `and`: something is missing here"),
    (where("orders > 1 ▶limit 5"), "not valid SQL near `limit`"),
    (where('"city = ▶\'open"'), "what begins here, a text perhaps, has no end"),
    (where("▶''"), "must be exactly one SQL expression"),
    (where("▶true"), "must be a text, not true or false: put it in quotes"),
    (where("▶5"), "must be a text, not the number 5: put it in quotes"),
    (where("▶{orders: 5}"), "must be a text, not fields with values"),
    # what does not go together
    ("▶name: x\ndescription: d", "`where` is missing: say who is in it by a condition, or by `include`"),
    ("▶name: x\nwhere: orders > 3", "`description` is missing"),
    ("▶description: d\nwhere: orders > 3", "`name` is missing"),
    (where("'true'", "exclude: ▶vip"), "must be a list, not the text 'vip'"),
    (where("'true'", "include: [vip]\nexclude: [▶vip]"), "`vip` is included, too: nobody would be in the segment"),
    (where("'true'", "include: [vip, ▶vip]"), "`vip` is there twice"),
    (where("'true'", "fallback: ▶vip"), "`minimum_size` is missing"),
    (where("'true'", "minimum_size: ▶9"), "`fallback` is missing: the segment that stands in"),
    (where("'true'", "minimum_size: ▶0\nfallback: vip"), "must be greater than or equal to 1"),
    (where("'true'", "minimum_size: ▶many\nfallback: vip"), "must be a whole number, not the text 'many'"),
    (where("'true'", "minimum_size: ▶9\nfallback: vip\neach: city"), "a segment with `each` has no minimum size"),
    (where("'true'", "minimum_size: 9\nfallback: ▶fans_of"), "is many segments: name one, fans_of:<value>"),
    (where("'true'", "minimum_size: 9\nfallback: ▶tent_buyers"), "'tent_buyers' falls back on 'tent_buyers'"),
    (where("in_segment(▶'tent_buyers')"), "'tent_buyers' refers to 'tent_buyers'"),
    (where("'true'", "exclude: [vip, ▶tent_buyers]"), "'tent_buyers' refers to 'tent_buyers'"),
    # names and YAML
    ("name: ▶Tent Buyers\ndescription: d\nwhere: 'true'", "'Tent Buyers' is not a name in snake_case"),
    ("name: ▶membership\ndescription: d\nwhere: 'true'", "is used by the program itself"),
    ("name: x\ndescription: ▶''\nwhere: 'true'", "should have at least 1 character"),
    (where("'true'", "owner: ▶somebody"), "is neither team:<name> nor an e-mail address"),
    (where("'true'", "▶name: y"), "`name` is already there in line 3: remove one of the two"),
    ("name: x\ndescription: d\nwhere: 'true'\n ▶bad: indent", "not valid YAML"),
    # however the text is written
    (BLOCK.format("▶ordrs_90d > 3"), "did you mean `orders_90d`?"),
    (BLOCK.format("in_segment(▶'vpi')"), "did you mean 'vip'?"),
    (BLOCK.replace("|", "|-  # how").format("▶ordrs_90d > 3"), "did you mean `orders_90d`?"),
    (BLOCK.replace(" -- a comment", "").replace("|", ">").format("▶ordrs_90d > 3"), "did you mean `orders_90d`?"),
    (BLOCK.replace("|", "&same |").format("▶ordrs_90d > 3"), "did you mean `orders_90d`?"),
    (where("'city = ''Île'' and ▶ordrs_90d > 3'"), "did you mean `orders_90d`?"),
    (where("\"city = 'a\\u00e9\\tb' and\n   ▶ordrs_90d > 3\""), "did you mean `orders_90d`?"),
    (where("orders > 1\n   and city = 'tea'\n   and ▶ordrs_90d > 3"), "did you mean `orders_90d`?"),
]


@pytest.mark.parametrize(("attributes", "words"), WRONG, ids=range(len(WRONG)))
def test_a_wrong_declaration_is_refused_with_its_place_and_the_mend(refusal, attributes, words):
    error, place = refusal(attributes)
    assert place in error
    assert words in error


def _typo(name: str, n: int) -> str:
    """A name with a letter too few, two letters swapped, or one doubled."""
    at = 1 + n % max(1, len(name) - 2)
    return (
        name[:at] + name[at + 1 :],
        name[: at - 1] + name[at] + name[at - 1] + name[at + 1 :],
        name[:at] + name[at] + name[at:],
    )[n % 3]


_PUBLIC = sorted(name for name, column in COLUMNS.items() if not column.private and len(name) > 6)
_STYLES = (
    "where: {}",
    "where: |\n  orders > 1\n  and {}",
    "where: >\n  city is null and\n  {}",
    "where: 'city = ''x'' or {}'",
    "where: \"city = '\\t' or\n  {}\"",
)


@pytest.mark.parametrize("n", range(0, len(_PUBLIC), 4))
def test_a_misspelt_column_is_found_in_any_style_of_text(refusal, n):
    wrong = _typo(_PUBLIC[n], n)
    condition = _STYLES[n % len(_STYLES)].format(f"▶{wrong} is null")
    error, place = refusal(f"name: x\ndescription: d\n{condition}")
    if wrong in COLUMNS:
        pytest.skip("the misspelt name is another column")
    assert place in error
    assert f"there is no column `{wrong}`; did you mean `" in error


@pytest.mark.parametrize("event", sorted(EVENTS))
def test_a_misspelt_event_and_its_misspelt_column_are_found(refusal, event, tmp_path):
    column = next(iter(EVENTS[event].columns), None)
    if column:
        error, place = refusal(where(f"orders > 1 and did('{event}', ▶{column}s is null, within => 3)"))
        assert f"`{event}` has no column `{column}s`; did you mean `{column}`?" in error
    else:
        error, place = refusal(where(f"orders > 1 and did(▶'{event[:-1]}', within => 3)"))
        assert f"there is no event '{event[:-1]}'; did you mean '" in error
    assert place in error

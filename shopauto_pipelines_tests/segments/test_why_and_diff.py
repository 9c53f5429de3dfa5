"""Why people are in segments, and what a change of declarations does to them, on a lake of a few people."""

import json
import subprocess
from datetime import date

import ibis
import pytest

from shopauto_pipelines.features.tables import CUSTOMER_360, DAILY_PRODUCTS
from shopauto_pipelines.platform.lake import MissingPartition
from shopauto_pipelines.platform.playbook import PlaybookError
from shopauto_pipelines.predictions.tables import SCORES
from shopauto_pipelines.profiles.tables import IDENTITIES
from shopauto_pipelines.segments import diff_report, inputs
from shopauto_pipelines.segments.declaration import load_segments
from shopauto_pipelines.segments.diff import Moved, diff
from shopauto_pipelines.segments.membership import membership
from shopauto_pipelines.segments.revision import RevisionError, at_revision
from shopauto_pipelines.segments.why import MARKS, NobodyThere, code, markdown, why

DAY = date(2025, 6, 30)
#: Orders and revenue of a year, country, favourite category.
PEOPLE = {
    "ann": (5, 50_000, "DE", "tents"),
    "bob": (2, 30_000, "DE", None),
    "cat": (1, 15_000, "FR", "boots"),
    "dan": (0, 0, None, None),
    "eve": (3, 5_000, "FR", "tents"),
}


@pytest.fixture(scope="module")
def lake(tmp_path_factory, customers_rows, scores_rows):
    """One computed day; ann has seen tents three times."""
    from shopauto_pipelines.platform.lake import Lake

    lake = Lake(tmp_path_factory.mktemp("why") / "lake", threads=1)
    people = {
        who: {
            "orders_365d": orders,
            "revenue_cents_365d": revenue,
            "country": country,
            "favourite_category": favourite,
            "birthday": date(1990, 7, 4),
            "email": f"{who}@example.com",
        }
        for who, (orders, revenue, country, favourite) in PEOPLE.items()
    }
    lake.write(CUSTOMER_360, [DAY], customers_rows(people))
    lake.write(SCORES, [DAY], scores_rows({}))
    lake.write(IDENTITIES, [DAY], IDENTITIES.arrow_schema.empty_table())
    seen = {name: 0 for name, kind in DAILY_PRODUCTS.schema.items() if kind.is_integer()}
    seen |= {"shop_customer_id": "ann", "product_id": "p1", "category": "tents", "views": 3}
    lake.write(DAILY_PRODUCTS, [DAY], ibis.memtable([seen]))
    return lake


@pytest.fixture
def told(lake, declare):
    """``told(who, where, …)``: why the person is in the segment ``s`` of that condition, or is not."""

    def tell(who, where=None, others=(), **more):
        return why(lake, DAY, [declare("s", where, **more), *others], [who], {"s"})[0]

    return tell


@pytest.fixture
def compared(lake):
    """The difference as ``{segment: SegmentDiff}``."""
    return lambda before, after, **more: {s.name: s for s in diff(lake, DAY, before, after, **more).segments}


def test_each_part_of_a_condition_is_told_with_its_values(told):
    answer = told(
        "bob", "orders_365d >= :least and country = 'DE' and churn_probability < 0.5", parameters={"least": 3}
    )
    assert answer.member is None
    assert [(r.text, r.holds, r.words) for r in answer.reasons] == [
        ("orders_365d >= 3", False, "orders_365d: 2"),
        ("country = 'DE'", True, "country: 'DE'"),
        ("churn_probability < 0.5", None, "churn_probability: not known"),
    ]
    assert [r.text for r in answer.failing] == ["orders_365d >= 3", "churn_probability < 0.5"]


def test_parts_joined_by_or_are_told_below_the_one_they_make(told):
    (whole,) = told("ann", "orders_365d > 9 or (country = 'DE' and orders_365d > 4)").reasons
    assert whole.holds
    assert whole.joined == "or"
    assert [(depth, part.text, part.holds) for depth, part in whole.lines()][1:] == [
        (1, "orders_365d > 9", False),
        (1, "country = 'DE' and orders_365d > 4", True),
        (2, "country = 'DE'", True),
        (2, "orders_365d > 4", True),
    ]


def test_what_is_joined_by_or_inside_an_and_keeps_its_parentheses(told):
    (whole,) = told("eve", "country = 'US' or ((orders_365d > 9 or country = 'FR') and orders_365d > 4)").reasons
    assert [(depth, part.text, part.holds) for depth, part in whole.lines()] == [
        (0, "country = 'US' or (orders_365d > 9 or country = 'FR') and orders_365d > 4", False),
        (1, "country = 'US'", False),
        (1, "(orders_365d > 9 or country = 'FR') and orders_365d > 4", False),
        (2, "orders_365d > 9 or country = 'FR'", True),
        (3, "orders_365d > 9", False),
        (3, "country = 'FR'", True),
        (2, "orders_365d > 4", False),
    ]


def test_what_a_person_did_is_counted(told):
    where = "did('viewed', category = 'tents', at_least => 2, within => 30)"
    assert [told(who, where).reasons[0].words.rpartition(": ")[2] for who in ("ann", "bob")] == ["3 times", "never"]
    assert told("ann", where).member == "s"


def test_other_segments_are_reasons_too(told, declare):
    others = [declare("german", "country = 'DE'"), declare("fans", "orders_365d >= 2", each="favourite_category")]
    answer = told("ann", "orders_365d > 1", others, include=["fans"], exclude=["german"])
    assert [(r.holds, r.words) for r in answer.reasons] == [
        (True, "orders_365d: 5"),
        (True, "fans: fans:tents"),
        (False, ""),
    ]
    assert "german" in answer.reasons[2].text


def test_a_segment_with_values_asks_for_one(told):
    answer = told("bob", "orders_365d >= 2", each="favourite_category")
    assert [(r.text, r.holds) for r in answer.failing] == [("favourite_category is known", False)]
    assert told("eve", "orders_365d >= 2", each="favourite_category").member == "s:tents"


def test_nothing_private_is_told(told):
    shown = markdown([told("ann", "days_to_birthday <= 7 and orders_365d > 1")])
    assert "days_to_birthday: not shown" in shown
    assert "1990" not in shown
    assert "@example.com" not in shown
    assert shown.splitlines()[0] == "`ann` is in `s`"
    assert sum(mark in shown for mark in MARKS.values()) == 1


def test_no_reason_that_rests_on_private_data_is_told_of_a_person_in_a_difference(lake, declare, compared):
    before, after = (
        [declare("s", f"days_to_birthday <= {days} and orders_365d > {n}")] for days, n in ((3, 0), (7, 4))
    )
    s = compared(before, after)["s"]
    assert (s.entered, s.let_in_by) == (1, {"days_to_birthday <= 3": 1})
    assert [(m.customer_id, m.because) for m in s.people] == [("ann", ())]
    added = compared([declare("t", "true")], [declare("t", "true"), *after])["s"]
    assert [r.words for r in added.people[0].because] == ["orders_365d: 5"]


def test_somebody_unknown_is_told_with_the_nearest_and_a_day_with_the_command(told, lake, declare):
    with pytest.raises(NobodyThere, match=r"no customer 'anm' as of 2025-06-30; did you mean 'ann'\?"):
        told("anm", "orders_365d > 1")
    with pytest.raises(MissingPartition, match="shopauto refresh --day 2025-06-29"):
        why(lake, date(2025, 6, 29), [declare("s", "orders_365d > 1")], ["ann"])


def test_a_difference_says_who_comes_and_goes_and_why(compared, declare):
    before = [declare("s", "orders_365d >= 3"), declare("same", "country = 'DE'")]
    after = [declare("s", "orders_365d >= 1 and country = 'FR'"), declare("same", "  country  =  'DE' ")]
    found = compared(before, after)
    assert set(found) == {"s"}, "another layout of the same condition differs in nothing"
    s = found["s"]
    assert (s.state, s.before, s.after, s.entered, s.left) == ("changed", 2, 2, 1, 1)
    assert (s.entered_revenue_percent, s.left_revenue_percent) == (15.0, 50.0)
    assert s.let_in_by == {"orders_365d >= 3": 1}
    assert s.put_out_by == {"country = 'FR'": 1}
    assert [(m.customer_id, m.was, m.now, [r.words for r in m.because]) for m in s.people] == [
        ("cat", None, "s", ["orders_365d: 1"]),
        ("ann", "s", None, ["country: 'DE'"]),
    ]
    assert s.moved_percent == 100.0


def test_a_part_that_is_the_same_for_everybody_is_counted_as_well(compared, declare):
    before, after = ([declare("s", f"orders_365d >= 3 and month(as_of) = {month}")] for month in (12, 6))
    assert compared(before, after)["s"].let_in_by == {"month(as_of) = 12": 2}
    assert compared(after, before)["s"].put_out_by == {"month(as_of) = 12": 2}


def test_a_comment_in_a_condition_is_no_difference_and_no_reason(compared, told, declare):
    commented = "ORDERS_365d >= 3 -- often\n and did('viewed', /* or tea */ Category = 'tents')"
    before = [declare("s", "orders_365d >= 3 and did('viewed', category = 'tents')")]
    assert compared(before, [declare("s", commented)]) == {}
    renamed = compared(before, [declare("t", commented)])["t"]
    assert (renamed.state, renamed.was) == ("renamed", "s")
    assert [(r.text, r.words) for r in told("ann", commented).reasons] == [
        ("orders_365d >= 3", "orders_365d: 5"),
        ("did('viewed', category = 'tents')", "viewed where category = 'tents' ever: 3 times"),
    ]


def test_moves_are_those_of_membership_computed_twice(lake, declare, compared):
    before = [
        declare("a", "orders_365d >= 2", each="favourite_category"),
        declare("b", "in_segment('a')"),
        declare("c", "orders_365d = 0"),
    ]
    after = [
        declare("a", "orders_365d >= 1", each="country"),
        declare("b", "in_segment('a')"),
        declare("d", "orders_365d = 5"),
    ]

    def members(segments):
        rows = membership(inputs.read(lake, segments, DAY), None, segments, DAY).to_pyarrow().to_pylist()
        return {(row["segment"].partition(":")[0], row["customer_id"]): row["segment"] for row in rows}

    old, new, found = members(before), members(after), compared(before, after)
    assert {name: segment.state for name, segment in found.items()} == {
        "a": "changed",
        "b": "affected",
        "c": "removed",
        "d": "added",
    }
    for name, segment in found.items():
        was, now = ({key[1]: value for key, value in side.items() if key[0] == name} for side in (old, new))
        assert segment.entered == len(now.keys() - was.keys())
        assert segment.left == len(was.keys() - now.keys())
        assert segment.other_value == sum(was[who] != now[who] for who in was.keys() & now.keys())
        assert (segment.before or 0, segment.after or 0) == (len(was), len(now))
    assert found["a"].other_value == 2
    assert found["a"].people[-1].was == "a:tents"


def test_a_new_name_alone_moves_nobody(compared, declare):
    found = compared([declare("old", "orders_365d > 1")], [declare("new", "orders_365d > 1")])
    assert (found["new"].state, found["new"].was, found["new"].before, found["new"].after) == (
        "renamed",
        "old",
        4 - 1,
        3,
    )
    assert (found["new"].entered, found["new"].left, found["new"].people) == (0, 0, ())


def test_a_segment_that_asks_about_a_changed_one_is_told_only_where_somebody_moves(lake, declare):
    before, after = ([declare("a", where), declare("b", "in_segment('a') and country = 'FR'")] for where in (
        "orders_365d >= 3", "orders_365d in (3, 5)"
    ))  # fmt: skip
    found = diff(lake, DAY, before, after)
    assert [(segment.name, segment.entered + segment.left) for segment in found.segments] == [("a", 0)]
    assert found.same == 1


def test_who_begins_to_stand_in_moves_as_well(lake, declare, compared):
    others = [declare("french", "country = 'FR'"), declare("german", "country = 'DE'")]
    few = {"minimum_size": 1, "fallback": "french"}
    before = [declare("s", "orders_365d = 5", **few), *others]
    s = compared(before, [declare("s", "orders_365d = 5", **few | {"minimum_size": 9}), *others])["s"]
    assert (s.entered, s.left) == (0, 0)
    assert (s.standing_in_before, s.standing_in_after, s.standing_in_moved) == (0, 2, 2)
    assert s.moved_percent == 200.0
    few["minimum_size"] = 9
    before = [declare("s", "orders_365d = 5", **few), *others]
    s = compared(before, [declare("s", "orders_365d = 5", **few | {"fallback": "german"}), *others])["s"]
    assert (s.before, s.standing_in_before, s.standing_in_after, s.standing_in_moved) == (1, 2, 1, 3)
    assert s.moved_percent == 100.0
    wider = [declare("french", "country = 'FR' and orders_365d > 1"), others[1]]
    found = compared(before, [before[0], *wider])
    assert (found["s"].state, found["s"].standing_in_moved, found["s"].moved_percent) == ("affected", 1, 33.33)
    page = diff_report.markdown(diff(lake, DAY, before, [before[0], *wider]), over=30)
    assert "- 2 stood in before, 1 do after: the fallback's members, 1 of whom begin or cease to" in page
    assert "| `s` ⚠️ | affected | 1 | 1 |" in page


def test_who_stood_in_and_becomes_an_own_member_comes_and_counts_once(declare, compared):
    few, other = {"minimum_size": 9, "fallback": "french"}, declare("french", "country = 'FR'")
    s = compared(
        [declare("s", "orders_365d = 5", **few), other], [declare("s", "orders_365d in (3, 5)", **few), other]
    )["s"]
    assert (s.entered, s.standing_in_before, s.standing_in_after, s.standing_in_moved) == (1, 2, 1, 0)


def test_what_stands_in_the_data_or_the_condition_leaves_the_page_whole(lake, declare):
    was = {"customer_id": "ann", "revenue_cents_365d": 0, "because": ()}
    assert diff_report.person(Moved(was="s:a|b", now="s:c", **was), code) == "`s:a\\|b` → `s:c`"
    found = diff(lake, DAY, [declare("s", "country = '```'", each="country")], [declare("s", "country = 'DE'")])
    page = diff_report.markdown(found)
    assert "````diff\n" in page
    assert page.count("````") == 2


def test_a_comparison_leaves_no_table_behind_where_it_fails(lake, declare, monkeypatch):
    def fails(*_arguments):
        raise RuntimeError("on the way")

    there = set(lake.con.list_tables())
    monkeypatch.setattr("shopauto_pipelines.segments.diff._changed_lines", fails)
    with pytest.raises(RuntimeError, match="on the way"):
        diff(lake, DAY, [declare("s", "orders_365d > 1")], [declare("s", "orders_365d > 2")])
    assert set(lake.con.list_tables()) == there


def test_a_difference_is_written_for_pull_requests_and_scripts(lake, declare):
    before = [declare("s", "orders_365d >= 3")]
    found = diff(
        lake, DAY, before, [declare("s", "orders_365d >= 1"), declare("t", "country = 'DE'")], ("main", "here")
    )
    page = diff_report.markdown(found, over=50)
    assert page.startswith(
        "### Segments: `main` → `here`\n\n2 segments differ, 0 are the same; 5 people as of 2025-06-30.\n"
    )
    assert "| `s` ⚠️ | changed | 2 | 4 | +2 | −0 | 45.00 % | 0.00 % |" in page
    assert "| `t` | added | – | 2 | +2 | −0 |" in page
    assert "-  orders_365d >= 3\n+  orders_365d >= 1\n" in page
    assert "- 2 came: the old condition kept them out by `orders_365d >= 3`" in page
    assert page.count("<details>") == page.count("</details>") == 2
    told = json.loads(json.dumps(diff_report.as_dict(found)))
    assert [(s["segment"], s["entered"], s["moved_percent"]) for s in told["segments"]] == [
        ("s", 2, 100.0),
        ("t", 2, 0.0),
    ]
    assert diff_report.markdown(diff(lake, DAY, before, before)).endswith(
        "No segment differs, 1 is the same; 5 people as of 2025-06-30.\n"
    )


@pytest.fixture
def repository(tmp_path):
    """A repository whose first commit has one segment, and whose work tree has it changed."""
    file = tmp_path / "repository" / "shop" / "segments" / "s" / "defs.yaml"
    file.parent.mkdir(parents=True)
    text = "type: shopauto_pipelines.segments.component.Segment\nattributes:\n  name: s\n  description: d\n  where: orders > {}\n"

    def git(*arguments):
        author = ["-c", "user.name=n", "-c", "user.email=e@example.com", "-c", "commit.gpgsign=false"]
        subprocess.run(["git", *author, *arguments], cwd=tmp_path / "repository", check=True, capture_output=True)

    git("init", "--quiet", "--initial-branch", "main")
    for number in ("1", "wrong", "2"):
        file.write_text(text.format(number))
        git("add", "--all")
        git("commit", "--quiet", "--message", number)
    file.write_text(text.format(3))
    return tmp_path / "repository" / "shop"


def test_a_playbook_is_read_as_it_was_at_a_revision(repository):
    with at_revision("main~2", repository) as folder:
        assert load_segments(folder)[0].where == "orders > 1"
    assert not folder.exists()
    assert load_segments(repository)[0].where == "orders > 3"


def test_a_mistake_of_a_revision_is_told_with_the_revision(repository):
    with (
        pytest.raises(PlaybookError, match=r"^main~1:shop/segments/s/defs\.yaml:5:\d+: .*`wrong`"),
        at_revision("main~1", repository) as folder,
    ):
        load_segments(folder)


def test_a_revision_that_is_not_there_is_told_with_the_nearest(repository, tmp_path):
    for ref, said in (("mian", "did you mean main"), ("zzz", "there are main"), ("-p", "not a revision")):
        with pytest.raises(RevisionError, match=said), at_revision(ref, repository):
            pass
    (tmp_path / "elsewhere").mkdir()
    with pytest.raises(RevisionError, match="not a git repository"), at_revision("main", tmp_path / "elsewhere"):
        pass
    (repository / "new").mkdir()
    with pytest.raises(RevisionError, match=r"main has no folder shop/new/"), at_revision("main", repository / "new"):
        pass

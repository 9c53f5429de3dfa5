from datetime import date, timedelta
from itertools import product

import duckdb
import ibis
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from shopauto_pipelines.features.tables import CUSTOMER_360, DAILY_ACTIVITY, DAILY_FORMS, DAILY_PRODUCTS
from shopauto_pipelines.platform.prepared import compiled, unseen
from shopauto_pipelines.predictions.tables import SCORES
from shopauto_pipelines.segments.inputs import Inputs
from shopauto_pipelines.segments.membership import membership
from shopauto_pipelines.segments.people import people

AS_OF = date(2025, 6, 30)
LIFECYCLE = ["lead", "new", "active", "cooling", "lapsed"]
RFM = [
    "champions",
    "loyal",
    "potential_loyalists",
    "recent_buyers",
    "promising",
    "need_attention",
    "about_to_sleep",
    "slipping",
    "cannot_lose",
    "hibernating",
]


def test_the_lifecycle_follows_the_churn_factor(inside, shipped):
    def customer(orders, tenure, recency, factor):
        return {"orders": orders, "tenure_days": tenure, "recency_days": recency, "churn_factor": factor}

    found = inside(
        [shipped[name] for name in LIFECYCLE],
        {
            "never ordered": {},
            "first order": customer(1, 30, 30, 5.0),
            "first order a while ago": customer(1, 31, 31, 0.9),
            "second order": customer(2, 20, 3, 0.2),
            "due": customer(5, 300, 30, 1.0),
            "late": customer(5, 300, 31, 1.01),
            "three intervals": customer(5, 900, 540, 3.0),
            "gone": customer(5, 900, 541, 3.01),
            "weekly buyer on holiday": customer(50, 400, 30, 4.3),
            "weekly buyer gone": customer(50, 400, 31, 4.4),
            "no interval known, late": customer(1, 200, 91, None),
            "no interval known, gone": customer(1, 271, 271, None),
        },
    )
    assert found == {
        "lead": {"never ordered"},
        "new": {"first order"},
        "active": {"first order a while ago", "second order", "due"},
        "cooling": {"late", "three intervals", "weekly buyer on holiday", "no interval known, late"},
        "lapsed": {"gone", "weekly buyer gone", "no interval known, gone"},
    }


_person = st.builds(
    lambda orders, tenure, recency, factor: {
        "orders": orders,
        "tenure_days": tenure if orders else None,
        "recency_days": min(recency, tenure) if orders > 1 else tenure if orders else None,
        "churn_factor": factor if orders else None,
        "revenue_cents": 100 * tenure,
    },
    st.integers(0, 4),
    st.integers(0, 500),
    st.integers(0, 500),
    st.none() | st.floats(0, 12),
)


@settings(max_examples=25, deadline=None)
@given(st.lists(_person, min_size=1, max_size=40))
def test_every_person_is_in_one_stage_and_every_customer_in_one_rfm_group(stages_and_groups, rows):
    found = stages_and_groups({str(n): row for n, row in enumerate(rows)})
    everybody = {str(n) for n in range(len(rows))}
    customers = {str(n) for n, row in enumerate(rows) if row["orders"]}
    for names, expected in ((LIFECYCLE, everybody), (RFM, customers)):
        members = [who for name in names for who in found.get(name, ())]
        assert sorted(members) == sorted(expected)


@pytest.fixture(scope="module")
def stages_and_groups(shipped, customers_rows):
    """Who is in which stage and RFM group, as ``inside``: compiled once, run on the people of many examples."""
    inputs = Inputs(unseen(CUSTOMER_360, "customers"), unseen(SCORES, "scores"))
    statement = compiled(membership(inputs, None, [shipped[name] for name in LIFECYCLE + RFM], AS_OF))
    con = duckdb.connect()
    con.register("scores", SCORES.arrow_schema.empty_table())

    def compute(people):
        con.register("customers", customers_rows(people))
        found = {}
        for row in con.sql(statement).to_arrow_table().to_pylist():
            found.setdefault(row["segment"], set()).add(row["customer_id"])
        return found

    return compute


def test_the_rfm_groups_cover_the_grid_of_recency_and_frequency_once(inside, shipped):
    # 125 customers: every combination of five recencies, frequencies and values, so that every score is met 25 times
    shop = {
        f"{r}{f}{m}": {"orders": f, "recency_days": 10 * (6 - r), "revenue_cents": 1000 * m}
        for r, f, m in product(range(1, 6), repeat=3)
    }
    found = inside([shipped[name] for name in RFM], shop)
    cells = {name: {who[:2] for who in members} for name, members in found.items()}
    assert cells == {
        "champions": {"54", "55"},
        "loyal": {"34", "35", "44", "45"},
        "potential_loyalists": {"42", "43", "52", "53"},
        "recent_buyers": {"51"},
        "promising": {"41"},
        "need_attention": {"33"},
        "about_to_sleep": {"31", "32"},
        "slipping": {"13", "14", "23", "24"},
        "cannot_lose": {"15", "25"},
        "hibernating": {"11", "12", "21", "22"},
    }


def rfm(customers_rows, scores_rows, shop):
    columns = ["rfm_recency", "rfm_frequency", "rfm_monetary"]
    rows = people(ibis.memtable(customers_rows(shop)), ibis.memtable(scores_rows({})), date(2025, 6, 30), columns)
    return {row["customer_id"]: tuple(row[c] for c in columns) for row in rows.to_pyarrow().to_pylist()}


def test_rfm_scores_are_fifths_of_those_who_ordered(customers_rows, scores_rows):
    shop = {str(n): {"orders": n, "recency_days": 100 - n, "revenue_cents": 10 * n} for n in range(1, 11)}
    shop["lead"] = {}
    scores = rfm(customers_rows, scores_rows, shop)
    assert scores.pop("lead") == (None, None, None)
    assert scores == {str(n): ((n + 1) // 2,) * 3 for n in range(1, 11)}


def test_customers_who_do_not_differ_get_the_same_rfm_score(customers_rows, scores_rows):
    shop = {str(n): {"orders": 1 if n < 6 else n, "recency_days": 5, "revenue_cents": 0} for n in range(10)}
    scores = rfm(customers_rows, scores_rows, shop)
    assert [scores[str(n)][1] for n in range(10)] == [1, 1, 1, 1, 1, 1, 4, 4, 5, 5]
    assert {score[0] for score in scores.values()} == {1}


def test_refunds_count_against_the_monetary_score(customers_rows, scores_rows):
    shop = {str(n): {"orders": 1, "recency_days": 5, "revenue_cents": 100 * n} for n in range(1, 6)}
    shop["5"]["refund_cents"] = 500
    assert [rfm(customers_rows, scores_rows, shop)[str(n)][2] for n in range(1, 6)] == [2, 3, 4, 5, 1]


def test_vip_are_the_top_twentieth_of_the_years_buyers_by_revenue(inside, shipped):
    shop = {f"buyer {n}": {"orders": 1, "revenue_cents_365d": 1000 + n} for n in range(100)}
    shop |= {f"bought nothing {n}": {"orders": 3, "revenue_cents": 10**9} for n in range(100)}
    assert inside([shipped["vip"]], shop) == {"vip": {f"buyer {n}" for n in range(95, 100)}}


def test_equal_revenue_is_equally_vip_and_a_lone_buyer_is_none(inside, shipped):
    shop = {str(n): {"orders": 1, "revenue_cents_365d": 1000 if n < 96 else 5000} for n in range(100)}
    assert inside([shipped["vip"]], shop) == {"vip": {"96", "97", "98", "99"}}
    assert inside([shipped["vip"]], {"one": {"orders": 1, "revenue_cents_365d": 5}}) == {}


def test_at_risk_are_good_customers_by_score_or_where_there_is_none_by_churn_factor(inside, shipped):
    good = {"orders": 9, "recency_days": 50, "revenue_cents": 90_000}
    shop = {f"other {n}": {"orders": 1, "recency_days": 50, "revenue_cents": 100} for n in range(30)}
    shop |= {
        "likely": good | {"churn_factor": 0.1},
        "unlikely": good | {"churn_factor": 9.0},
        "no score, overdue": good | {"churn_factor": 2.0},
        "no score, in time": good | {"churn_factor": 1.9},
        "no score, no factor": good,
        "not in scores": good | {"churn_factor": 2.5},
    }
    scores = {
        "likely": {"churn_probability": 0.5},
        "unlikely": {"churn_probability": 0.49},
        "other 1": {"churn_probability": 0.99},
        "no score, overdue": {"note": "not enough data"},
        "no score, in time": {"note": "not enough data"},
        "no score, no factor": {"note": "not enough data"},
    }
    found = inside([shipped["at_risk"]], shop, scores)
    assert found == {"at_risk": {"likely", "no score, overdue", "not in scores"}}


@pytest.mark.parametrize(
    ("as_of", "birthday", "days"),
    [
        (date(2025, 6, 30), date(1990, 6, 30), 0),
        (date(2025, 6, 30), date(1990, 7, 1), 1),
        (date(2025, 6, 30), date(1990, 7, 7), 7),
        (date(2025, 6, 30), date(1990, 6, 29), 364),
        (date(2025, 12, 28), date(1990, 1, 3), 6),
        (date(2023, 12, 31), date(1990, 12, 30), 365),
        # 29 February: on 28 February in a year without one
        (date(2025, 2, 21), date(2000, 2, 29), 7),
        (date(2025, 2, 28), date(2000, 2, 29), 0),
        (date(2025, 3, 1), date(2000, 2, 29), 364),
        (date(2024, 2, 28), date(2000, 2, 29), 1),
        (date(2024, 2, 29), date(2000, 2, 29), 0),
        (date(2024, 2, 29), date(2000, 2, 28), 365),
        (date(2024, 3, 1), date(2000, 2, 29), 364),
        (date(2023, 3, 1), date(2000, 2, 29), 365),
        (date(2024, 2, 29), date(1990, 3, 1), 1),
        (date(2025, 6, 30), None, None),
    ],
)
def test_days_to_the_next_birthday(customers_rows, scores_rows, inside, shipped, as_of, birthday, days):
    shop = {"a": {"birthday": birthday}}
    rows = people(ibis.memtable(customers_rows(shop)), ibis.memtable(scores_rows({})), as_of, ["days_to_birthday"])
    assert rows.to_pyarrow().to_pylist() == [{"customer_id": "a", "days_to_birthday": days}]
    expected = {"birthday": {"a"}} if days is not None and 1 <= days <= 7 else {}
    assert inside([shipped["birthday"]], shop, as_of=as_of) == expected


def test_every_birthday_comes_up_in_seven_refreshes_a_year(inside, shipped):
    born = {"28": date(2000, 2, 28), "29": date(2000, 2, 29), "1": date(2000, 3, 1)}
    shop = {who: {"birthday": birthday} for who, birthday in born.items()}
    for year in (2024, 2025):
        days = [date(year, 2, 20) + timedelta(days=n) for n in range(11)]
        found = [inside([shipped["birthday"]], shop, as_of=day).get("birthday", set()) for day in days]
        before = [[day for day, members in zip(days, found, strict=True) if who in members] for who in born]
        celebrated = [date(year, 2, 28), date(year, 2, 29 if year == 2024 else 28), date(year, 3, 1)]
        for refreshes, day in zip(before, celebrated, strict=True):
            assert refreshes == [d for d in days if day - timedelta(days=7) <= d < day]


def test_fans_are_repeat_buyers_one_segment_per_category(inside, shipped):
    found = inside(
        [shipped["fans_of"]],
        {
            "a": {"orders_365d": 2, "favourite_category": "Camping"},
            "b": {"orders_365d": 5, "favourite_category": "Camping"},
            "c": {"orders_365d": 2, "favourite_category": "Home & Garden: 'x'"},
            "once": {"orders_365d": 1, "favourite_category": "Camping"},
            "no favourite": {"orders_365d": 2},
            "nameless": {"orders_365d": 2, "favourite_category": ""},
        },
    )
    assert found == {"fans_of:Camping": {"a", "b"}, "fans_of:Home & Garden: 'x'": {"c"}}


def test_gender_and_discount_seekers(inside, shipped):
    found = inside(
        [shipped["gender"], shipped["discount_seekers"]],
        {"a": {"gender": "female"}, "b": {"gender": "other", "discount_seeker": True}, "c": {}},
    )
    assert found == {"gender:female": {"a"}, "gender:other": {"b"}, "discount_seekers": {"b"}}


def did(table, who, days_ago, **values):
    """``{rollup: [row]}`` of what somebody did so many days before the day."""
    return {table: [{"shop_customer_id": who, "day": AS_OF - timedelta(days=days_ago), **values}]}


def all_of(*told):
    """The rows of several, by rollup."""
    rows = {}
    for one in told:
        for table, of_table in one.items():
            rows.setdefault(table, []).extend(of_table)
    return rows


def test_interests_and_behaviour_have_a_segment_per_value(inside, shipped):
    found = inside(
        [shipped["interested_in"], shipped["behaviour"]],
        {"a": {"top_interest": "tents", "cluster": "frequent_buyers"}, "b": {"top_interest": "tents"}, "c": {}},
    )
    assert found == {"interested_in:tents": {"a", "b"}, "behaviour:frequent_buyers": {"a"}}


def test_one_order_day_makes_a_first_time_buyer_and_two_a_repeat_buyer(inside, shipped):
    shop = {"lead": {}, "first": {"orders": 1, "tenure_days": 400}, "second": {"orders": 2}}
    found = inside([shipped["first_time_buyers"], shipped["repeat_buyers"]], shop)
    assert found == {"first_time_buyers": {"first"}, "repeat_buyers": {"second"}}


def test_big_customers_are_the_fifth_that_brought_most(inside, shipped):
    shop = {str(n): {"orders": 1, "revenue_cents": 100 * n, "refund_cents": 900 * (n == 9)} for n in range(10)}
    assert inside([shipped["big_customers"]], shop) == {"big_customers": {"7", "8"}}


def test_carts_and_visits_without_an_order_make_abandoners_and_browsers(inside, shipped):
    people = {who: {} for who in ("cart", "bought since", "old cart", "looked", "looked once", "looked and carted")}
    found = inside(
        [shipped["cart_abandoners"], shipped["browsers"]],
        people,
        did=all_of(
            did(DAILY_PRODUCTS, "cart", 6, carted=1),
            did(DAILY_PRODUCTS, "bought since", 5, carted=1),
            did(DAILY_ACTIVITY, "bought since", 4, orders=1),
            did(DAILY_PRODUCTS, "old cart", 7, carted=1),
            did(DAILY_PRODUCTS, "looked", 13, views=3),
            did(DAILY_PRODUCTS, "looked once", 1, views=2),
            did(DAILY_PRODUCTS, "looked and carted", 1, views=5, carted=1),
        ),
    )
    assert found == {"cart_abandoners": {"cart", "looked and carted"}, "browsers": {"looked"}}


def test_the_engaged_are_no_sunset_candidates_however_often_they_are_written_to(inside, shipped):
    written = {"emails_sent_90d": 4}
    shop = {
        "silent": written,
        "silent, seldom written to": {"emails_sent_90d": 3},
        "visits": written | {"visits_90d": 1},
        "opens": written | {"opens_90d": 1},
        "only a machine opens": written | {"machine_opens_90d": 4},
        "buys by phone": written | {"orders_90d": 1},
    }
    found = inside([shipped["engaged"], shipped["sunset_candidates"]], shop)
    assert found == {
        "engaged": {"visits", "opens", "buys by phone"},
        "sunset_candidates": {"silent", "only a machine opens"},
    }


def test_reviews_are_asked_of_those_who_kept_the_goods_for_a_while_and_wait_for_nothing(inside, shipped):
    bought = {"orders": 1, "recency_days": 14}
    shop = {
        "kept": bought,
        "too early": bought | {"recency_days": 9},
        "too late": bought | {"recency_days": 31},
        "sent back": bought,
        "waits": bought | {"ticket_open": True},
    }
    found = inside(
        [shipped["review_candidates"], shipped["waiting_for_support"], shipped["often_refunded"]],
        shop,
        did=all_of(did(DAILY_ACTIVITY, "sent back", 3, refunds=2)),
    )
    assert found == {
        "review_candidates": {"kept"},
        "waiting_for_support": {"waits"},
        "often_refunded": {"sent back"},
    }


def test_leads_are_warm_and_lapsed_people_back_by_what_they_did_lately(inside, shipped):
    gone = {"orders": 3, "churn_factor": 9.0, "recency_days": 400}
    shop = {"form": {}, "looks": {}, "looked long ago": {}, "buyer": {"orders": 1}, "back": gone, "away": gone}
    found = inside(
        [shipped[name] for name in ("lead", "lapsed", "warm_leads", "back_again")],
        shop,
        did=all_of(
            did(DAILY_FORMS, "form", 29, form="newsletter", submissions=1),
            did(DAILY_PRODUCTS, "looks", 1, views=2),
            did(DAILY_PRODUCTS, "looked long ago", 30, views=9),
            did(DAILY_PRODUCTS, "buyer", 1, views=9),
            did(DAILY_ACTIVITY, "back", 6, visits=1),
            did(DAILY_ACTIVITY, "away", 7, visits=1),
        ),
    )
    assert found["warm_leads"] == {"form", "looks"}
    assert found["back_again"] == {"back"}


def test_whose_next_order_is_expected_within_a_week_is_due_soon(inside, shipped):
    when = {"today": 0, "in a week": 7, "later": 8, "yesterday": -1}
    found = inside(
        [shipped["due_soon"]],
        {who: {} for who in (*when, "no score")},
        {who: {"next_order_on": AS_OF + timedelta(days=days)} for who, days in when.items()},
    )
    assert found == {"due_soon": {"today", "in a week"}}


def test_an_empty_shop_has_no_members(inside, shipped):
    assert inside(list(shipped.values()), {}) == {}

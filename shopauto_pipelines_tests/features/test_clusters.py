"""Labels stay with their people: from day to day, whatever the order of rows, the seed, and the number of threads."""

from datetime import date, timedelta

import ibis
import numpy as np
import pyarrow as pa
import pytest
from threadpoolctl import threadpool_limits

from shopauto_pipelines.features import clusters, tables
from shopauto_pipelines.features.clusters import TRAITS, Model, assigned, model

DAY = date(2025, 6, 30)

#: Kinds of customers: how many, and the mean of what each does.
KINDS = {
    "loyal": (90, {"recency_days": 8, "orders": 14, "typical_order_cents": 5_000, "visits_90d": 20}),
    "rich": (60, {"recency_days": 60, "orders": 3, "typical_order_cents": 60_000, "visits_90d": 3}),
    "bargains": (80, {"recency_days": 60, "orders": 3, "typical_order_cents": 4_000, "visits_90d": 4, "coupons": 3}),
    "gone": (170, {"recency_days": 500, "orders": 1, "typical_order_cents": 4_000, "visits_90d": 0}),
}
MOST = len(KINDS)


def shop(days: int = 0, seed: int = 1) -> list[dict]:
    """Rows of ``features/customer_features``, each customer with habits of its own; ``days`` later some have ordered."""
    random, today = np.random.default_rng(seed), np.random.default_rng(days + 1000)
    rows = []
    for kind, (count, means) in KINDS.items():
        for n in range(count):
            spread = np.exp(random.normal(0, 0.25, 4))
            orders = max(1, round(means["orders"] * spread[0]))
            ordered = days > 0 and today.random() < days * 0.5 / means["recency_days"]
            row = dict.fromkeys(("opens_90d", "clicks_90d", "coupon_orders_365d"), 0) | {
                "customer_id": f"{kind} {n:03}",
                "recency_days": 0 if ordered else round(means["recency_days"] * spread[1]) + days,
                "orders": orders + ordered,
                "orders_365d": min(orders, 9) + ordered,
                "typical_order_cents": round(means["typical_order_cents"] * spread[2]),
                "visits_90d": round(means["visits_90d"] * spread[3]),
            }
            rows.append(row | {"coupon_orders_365d": means.get("coupons", 0)})
    return [
        *rows,
        dict.fromkeys(rows[0], 0) | {"customer_id": "lead", "recency_days": None, "typical_order_cents": None},
    ]


def features(rows: list[dict]) -> ibis.Table:
    return ibis.memtable(pa.Table.from_pylist(rows).cast(columns_of(rows)))


def columns_of(rows):
    return pa.schema([(name, tables.CUSTOMER_FEATURES.arrow_schema.field(name).type) for name in rows[0]])


def labels(rows, in_force):
    """``{customer_id: cluster}``."""
    found = assigned(features(rows), in_force).to_pyarrow().to_pylist()
    assert len({row["customer_id"] for row in found}) == len(found)
    return {row["customer_id"]: row["cluster"] for row in found}


@pytest.fixture(scope="module")
def first() -> list[dict]:
    """The model of the first day."""
    return model(features(shop()), [], DAY, MOST, 28).to_pylist()


def same(left, right):
    """Share of the people in both who have the same label."""
    both = left.keys() & right.keys()
    return sum(left[who] == right[who] for who in both) / len(both)


def test_kinds_of_customers_are_found_and_named_by_what_stands_out(first):
    found = labels(shop(), first)
    assert "lead" not in found
    by_kind = {
        kind: {
            label: sum(found[who] == label for who in found if who.startswith(kind)) for label in set(found.values())
        }
        for kind in KINDS
    }
    usual = {kind: max(counts, key=counts.get) for kind, counts in by_kind.items()}
    assert usual["loyal"] == "frequent_curious_buyers"
    assert usual["rich"].endswith("high_spenders")
    assert "coupon" in usual["bargains"]
    assert usual["gone"] != "average_buyers"
    assert all(by_kind[kind][usual[kind]] >= 0.95 * KINDS[kind][0] for kind in KINDS)
    assert len(set(usual.values())) == len(KINDS)
    described = {row["cluster"]: row["described"] for row in first}
    assert described[usual["rich"]].startswith("typical order: 6")


def test_from_day_to_day_people_are_assigned_and_nothing_is_fitted(first, monkeypatch):
    def refuse(*_arguments):
        raise AssertionError("fitted again")

    monkeypatch.setattr(clusters, "fitted", refuse)
    before, in_force = labels(shop(), first), first
    for days in range(1, 8):
        in_force = model(features(shop(days)), in_force, DAY + timedelta(days=days), MOST, 28).to_pylist()
        assert in_force == first
        today = labels(shop(days), in_force)
        assert same(before, today) > 0.97
        before = today


def test_labels_stay_with_their_people_when_clusters_are_fitted_again(first):
    later = shop(28)
    fitted = model(features(later), first, DAY + timedelta(days=28), MOST, 28).to_pylist()
    assert {row["fitted_on"] for row in fitted} == {DAY + timedelta(days=28)}
    assert {row["cluster"] for row in fitted} == {row["cluster"] for row in first}
    assert same(labels(later, first), labels(later, fitted)) > 0.95


def test_the_order_of_rows_changes_nothing(first):
    shuffled = shop()
    np.random.default_rng(5).shuffle(shuffled)
    assert model(features(shuffled), [], DAY, MOST, 28).to_pylist() == first
    assert labels(shuffled, first) == labels(shop(), first)


def test_the_number_of_threads_changes_nothing(first):
    with threadpool_limits(limits=4):
        assert model(features(shop()), [], DAY, MOST, 28).to_pylist() == first


@pytest.mark.parametrize("seed", [11, 12, 13])
def test_another_random_beginning_finds_the_same_people_under_the_same_labels(first, seed):
    fresh = model(features(shop()), [], DAY, MOST, 28, seed=seed).to_pylist()
    assert same(labels(shop(), first), labels(shop(), fresh)) > 0.95
    refitted = model(features(shop()), first, DAY + timedelta(days=28), MOST, 28, seed=seed).to_pylist()
    assert same(labels(shop(), first), labels(shop(), refitted)) > 0.95


def test_a_group_that_is_new_gets_a_label_of_its_own(first):
    """All rich customers go, and people come who look at everything: no label of the others moves."""
    rows = [row for row in shop() if not row["customer_id"].startswith("rich")]
    one = next(row for row in rows if row["customer_id"].startswith("gone"))
    rows += [one | {"customer_id": f"reader {n:02}", "opens_90d": 60, "clicks_90d": 30} for n in range(60)]
    fitted = model(features(rows), first, DAY + timedelta(days=28), MOST, 28).to_pylist()
    found = labels(rows, fitted)
    readers = {found[who] for who in found if who.startswith("reader")}
    assert len(readers) == 1
    assert "engaged" in readers.pop()
    before = labels(shop(), first)
    for kind in ("loyal", "gone"):
        members = [who for who in found if who.startswith(kind)]
        assert sum(found[who] == before[who] for who in members) > 0.9 * len(members), kind


def test_a_small_shop_has_fewer_clusters_or_none():
    few = [row for row in shop() if row["customer_id"].endswith(("00", "01", "02"))]
    empty = model(features(few), [], DAY, MOST, 28)
    assert empty.num_rows == 0
    assert empty.schema == tables.CLUSTER_MODELS.arrow_schema
    assert labels(few, empty.to_pylist()) == {}
    some = [row for row in shop() if row["customer_id"].startswith("gone")][:60]
    assert model(features(some), [], DAY, MOST, 28).num_rows == 2


def test_a_large_shop_is_fitted_on_the_same_part_of_its_people_every_day(monkeypatch):
    monkeypatch.setattr(clusters, "SAMPLE", 100)
    sampled = clusters.sample(features(shop()))
    assert 60 < len(sampled) < 140
    assert np.array_equal(sampled, clusters.sample(features(shop()[::-1])))


def test_people_who_do_not_differ_make_no_clusters():
    alike = [shop()[0] | {"customer_id": str(n)} for n in range(80)]
    assert model(features(alike), [], DAY, MOST, 28).num_rows == 0


def test_a_model_of_other_traits_is_not_used(first):
    old = [row | {"scale": '{"height": [1, 1]}'} for row in first]
    assert Model.of(old) is None
    assert model(features(shop()), old, DAY + timedelta(days=1), MOST, 28).to_pylist()[0]["fitted_on"] > DAY


def test_a_model_reads_back_as_it_was_written(first):
    assert Model.of(first).rows().to_pylist() == first


def test_traits_are_told_in_what_people_count_in():
    features = {"recency_days": 12, "orders": 3, "visits_90d": 4, "opens_90d": 1, "clicks_90d": 1}
    features |= {"coupon_orders_365d": 1, "orders_365d": 4, "typical_order_cents": 4_999}
    row = ibis.memtable(pa.Table.from_pylist([features]))
    values = row.select(**{trait.name: trait.value.cast("float64") for trait in TRAITS}).to_pyarrow().to_pylist()[0]
    told = {trait.name: trait.shown(values[trait.name]) for trait in TRAITS}
    assert told == {
        "recency": "12 days ago", "orders": "3", "visits": "4", "mail": "2", "coupons": "25 %", "spend": "50"
    }  # fmt: skip

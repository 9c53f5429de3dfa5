"""What is served of people: the newest computed day, whole, and nobody who is active."""

from __future__ import annotations

from datetime import timedelta

import dagster as dg
import pytest
import sqlalchemy as sa

from shopauto_pipelines.campaigns.holdout import GLOBAL, holdout_key, is_held_out
from shopauto_pipelines.campaigns.offers import ONSITE
from shopauto_pipelines.features.tables import CUSTOMER_360, CUSTOMER_FEATURES, DAILY_PRODUCTS
from shopauto_pipelines.outbox import links
from shopauto_pipelines.platform.dagster.resources import LakeResource, SettingsResource
from shopauto_pipelines.platform.dagster.runs import range_tags
from shopauto_pipelines.platform.lake import MissingPartition
from shopauto_pipelines.realtime import assets, checks, schema, serving
from shopauto_pipelines_tests.outbox.conftest import AT, DAY
from shopauto_pipelines_tests.outbox.shop import fill
from shopauto_pipelines_tests.realtime.people import everything_served, person, product, write_people


@pytest.fixture
def settings(settings):
    """Nobody is held out."""
    return settings.model_copy(update={"holdout_percent": 0.0})


def publish(engine, lake, settings, day=DAY):
    return serving.publish(engine, lake, settings, day, at=AT)


def leaks(engine, lake, settings):
    with engine.connect() as connection:
        return {what: n for what, n in serving.leaks(connection, lake, settings).items() if n}


def test_people_are_served_as_features_segments_and_identities_have_them(engine, lake, settings):
    write_people(lake, person("a", ids=["a2"]), person("b", "active", churn_factor=0.5, recency_days=15, email=None))
    done = publish(engine, lake, settings)
    assert done == serving.Published(DAY, 2, 3, lapsed=1, held_out=0, discount_seekers=0, changed=6, removed=0)
    people, ids = everything_served(engine)
    last = DAY - timedelta(days=150)
    address = links.address_hash(settings.hash_key, "email", "a@example.com")
    assert people == [
        ("a", DAY, address, True, False, False, last, 5.0, "camping", 9000, 5000),
        ("b", DAY, None, False, False, False, last, 0.5, "camping", 9000, 5000),
    ]
    assert ids == [("a", "a"), ("a2", "a"), ("b", "b")]


def test_a_basket_of_a_category_is_what_is_in_the_catalogue_and_what_was_sold(engine, lake, settings):
    write_people(
        lake,
        products=[
            product("tent", 20_000, 12_000),
            product("rope", 1_000, 400),
            product("gift", 5_000, None),
            product("free", None, 100),
            product("lamp", 3_000, None, "home"),
            product("loose", 3_000, 1_000, None),
        ],
    )
    fill(lake, DAILY_PRODUCTS, DAY, [{"shop_customer_id": n, "product_id": "rope", "quantity": 4} for n in ("a", "b")])
    long_ago = DAY - timedelta(days=365)
    fill(lake, DAILY_PRODUCTS, long_ago, [{"shop_customer_id": "a", "product_id": "tent", "quantity": 9}])
    publish(engine, lake, settings)
    with engine.connect() as connection:
        found = connection.execute(sa.select(schema.categories).order_by("category")).all()
    assert [tuple(row) for row in found] == [
        ("camping", 20_000 + 9 * 1_000, 12_000 + 9 * 400, 5_000),
        ("home", 0, 0, 3_000),
    ]


def test_publishing_again_changes_nothing(engine, lake, settings):
    write_people(lake, person("a"), person("b"))
    publish(engine, lake, settings)
    before = everything_served(engine)
    done = publish(engine, lake, settings)
    assert (done.changed, done.removed) == (0, 0)
    assert everything_served(engine) == before


def test_a_new_day_replaces_the_one_before_and_who_was_merged_is_gone(engine, lake, settings):
    write_people(lake, person("a"), person("b"))
    publish(engine, lake, settings)
    write_people(lake, person("a", ids=["b"]), person("c"), day=DAY + timedelta(days=1))
    done = publish(engine, lake, settings, DAY + timedelta(days=1))
    people, ids = everything_served(engine)
    assert [row[:2] for row in people] == [("a", DAY + timedelta(days=1)), ("c", DAY + timedelta(days=1))]
    assert ids == [("a", "a"), ("b", "a"), ("c", "c")]
    assert done.removed == 1


def test_a_reader_sees_one_day_and_never_waits(engine, lake, settings):
    write_people(lake, person("a"))
    publish(engine, lake, settings)
    write_people(lake, person("a"), person("b"), day=DAY + timedelta(days=1))
    count = sa.select(sa.func.count()).select_from(schema.people)
    with engine.connect() as reader, engine.connect() as publisher:
        reader.execute(sa.text("set statement_timeout = '2s'"))
        transaction = publisher.begin()
        serving._replace(publisher, schema.people, serving._people(lake, settings, DAY + timedelta(days=1)))
        assert reader.execute(count).scalar() == 1
        transaction.commit()
        assert reader.execute(count).scalar() == 2


def test_the_newest_day_is_the_newest_of_which_everything_is_there(lake):
    assert serving.newest_day(lake) is None
    write_people(lake, person("a"))
    fill(lake, CUSTOMER_360, DAY + timedelta(days=1), [])
    assert serving.newest_day(lake) == DAY


def test_a_day_that_has_not_been_computed_is_not_published(engine, lake, settings):
    with pytest.raises(MissingPartition):
        publish(engine, lake, settings)


def test_who_is_held_out_of_everything_or_of_this_offer_is_served_so(engine, lake, settings):
    held = settings.model_copy(update={"holdout_percent": 20.0, "onsite_holdout_percent": 30.0})
    ids = [f"c{n:03}" for n in range(100)]
    write_people(lake, *(person(n) for n in ids))
    publish(engine, lake, held)
    everywhere, here = holdout_key(held.hash_key, GLOBAL), holdout_key(held.hash_key, ONSITE)
    expected = {n for n in ids if is_held_out(n, everywhere, 20.0) or is_held_out(n, here, 30.0)}
    assert 20 < len(expected) < 70
    assert {row[0] for row in everything_served(engine)[0] if row[4]} == expected


@pytest.mark.parametrize(
    ("wrong", "kind"),
    [
        (person("a", "lapsed", "active"), "active"),
        (person("a", "lapsed", "new"), "active"),
        (person("a", churn_factor=1.0), "active"),
        (person("a", churn_factor=None, recency_days=60), "active"),
        (person("a", last_order_on=DAY + timedelta(days=1)), "bought since"),
        (person("a", last_order_on=None), "bought since"),
    ],
)
def test_nothing_is_published_where_one_who_is_active_would_be_called_lapsed(engine, lake, settings, wrong, kind):
    write_people(lake, person("b"), day=DAY - timedelta(days=1))
    publish(engine, lake, settings, DAY - timedelta(days=1))
    before = everything_served(engine)
    write_people(lake, wrong, person("b"))
    with pytest.raises(serving.LeakError, match=f"the day before is served on: 1 {kind}$"):
        publish(engine, lake, settings)
    assert everything_served(engine) == before


def test_features_that_differ_from_the_360_view_are_noticed(engine, lake, settings):
    write_people(lake, person("a"), person("b"))
    fill(lake, CUSTOMER_FEATURES, DAY, [{"customer_id": "a", "churn_factor": 5.0, "discount_seeker": True}])
    with pytest.raises(serving.LeakError, match="2 bought since, 1 discount seekers"):
        publish(engine, lake, settings)


@pytest.mark.parametrize(
    ("change", "kind"),
    [
        ({"customer_id": "stranger"}, "not in the segment"),
        ({"as_of": DAY - timedelta(days=1)}, "of another day"),
    ],
)
def test_what_was_changed_after_it_was_published_is_found(engine, lake, settings, change, kind):
    write_people(lake, person("a"), person("b"))
    publish(engine, lake, settings)
    assert leaks(engine, lake, settings) == {}
    with engine.begin() as connection:
        connection.execute(sa.update(schema.people).where(schema.people.c.customer_id == "a").values(change))
    assert leaks(engine, lake, settings)[kind] == 1


def test_a_holdout_that_is_not_served_is_found(engine, lake, settings):
    write_people(lake, *(person(f"c{n:03}") for n in range(50)))
    publish(engine, lake, settings)
    held = settings.model_copy(update={"onsite_holdout_percent": 50.0})
    key = holdout_key(held.hash_key, ONSITE)
    expected = sum(is_held_out(f"c{n:03}", key, 50.0) for n in range(50))
    assert leaks(engine, lake, held) == {"in a holdout": expected}


def test_a_shop_without_customers_is_served_and_leaks_nothing(engine, lake, settings):
    write_people(lake)
    assert publish(engine, lake, settings).people == 0
    assert leaks(engine, lake, settings) == {}


def test_counted_answers_are_forgotten_after_a_while(engine, lake, settings):
    write_people(lake)
    with engine.begin() as connection:
        for days in (89, 91):
            row = {"at": AT - timedelta(days=days), "offered": False, "reason": "unknown"}
            connection.execute(sa.insert(schema.decisions).values(row))
    publish(engine, lake, settings)
    with engine.connect() as connection:
        assert connection.execute(sa.select(schema.decisions.c.at)).scalars().all() == [AT - timedelta(days=89)]


@pytest.fixture
def run(engine, monkeypatch, tmp_path):
    """Runs the asset and its check for a range of days, or the check alone."""
    monkeypatch.setenv("SHOPAUTO_HOME", str(tmp_path))
    monkeypatch.setenv("SHOPAUTO_HOLDOUT_PERCENT", "0")
    for face in (assets, checks):
        monkeypatch.setattr(face, "engine", lambda _: engine)

    def run(start, end, selection=None):
        declared = SettingsResource()
        return dg.materialize(
            [assets.people, checks.left_alone],
            selection=selection,
            resources={"settings": declared, "lake": LakeResource(settings=declared)},
            tags=range_tags(start, end),
            raise_on_error=False,
        )

    return run


def test_a_run_publishes_the_newest_day_where_it_is_among_its_own(run, engine, lake):
    days = [DAY, DAY + timedelta(days=1), DAY + timedelta(days=2)]
    for n, day in enumerate(days):
        write_people(lake, *(person(f"c{i}") for i in range(n + 1)), day=day)
    result = run(days[0], days[1])
    assert result.success
    assert everything_served(engine) == ([], [])
    made = result.asset_materializations_for_node("realtime__people")
    assert made[-1].metadata["served"].value == f"not changed: {days[2]} is the newest day that has been computed"

    result = run(days[1], days[2])
    assert result.success
    assert {row[:2] for row in everything_served(engine)[0]} == {(f"c{i}", days[2]) for i in range(3)}
    made = result.asset_materializations_for_node("realtime__people")
    assert [made[0].metadata, made[1].metadata["people"].value, made[1].metadata["lapsed"].value] == [{}, 3, 3]
    assert [check.passed for check in result.get_asset_check_evaluations()] == [True]


def test_the_check_stops_a_run_where_somebody_active_is_served_as_lapsed(run, engine, lake):
    write_people(lake, person("a"), person("b", "active", churn_factor=0.5))
    assert run(DAY, DAY).success
    with engine.begin() as connection:
        connection.execute(sa.update(schema.people).where(schema.people.c.customer_id == "b").values(lapsed=True))
    result = run(DAY, DAY, selection=dg.AssetSelection.checks(checks.left_alone))
    (evaluation,) = result.get_asset_check_evaluations()
    assert not result.success
    assert not evaluation.passed
    assert evaluation.description == (
        "realtime/people serves as lapsed who must be left alone: 1 not in the segment, 1 active"
    )
    assert checks.left_alone.get_spec_for_check_key(evaluation.asset_check_key).blocking

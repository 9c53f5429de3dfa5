"""A batch of carts from the queue to the local inbox: a real queue, a real lake, a real ledger."""

from __future__ import annotations

from collections import Counter
from datetime import UTC, datetime, timedelta

import dagster as dg
import pytest
import sqlalchemy as sa

from shopauto_pipelines.campaigns.declaration import load_campaigns
from shopauto_pipelines.campaigns.live import cart_waits, longest_valid
from shopauto_pipelines.outbox import ledger, links
from shopauto_pipelines.outbox.channels import Outcome
from shopauto_pipelines.outbox.channels.inbox import LocalInbox
from shopauto_pipelines.outbox.schema import messages, offers
from shopauto_pipelines.platform import postgres
from shopauto_pipelines.platform.clock import FixedClock
from shopauto_pipelines.platform.dagster.resources import LakeResource, SettingsResource
from shopauto_pipelines.platform.settings import Settings
from shopauto_pipelines.predictions.tables import SCORES
from shopauto_pipelines.profiles.tables import CUSTOMERS
from shopauto_pipelines.realtime import abandoned_carts, carts, sensors
from shopauto_pipelines.realtime.batch import Batch, Row
from shopauto_pipelines.realtime.collected import store
from shopauto_pipelines.sources.tables import ORDERS
from shopauto_pipelines_tests.outbox.conftest import DAY
from shopauto_pipelines_tests.outbox.shop import fill
from shopauto_pipelines_tests.realtime.collecting import bearer, collecting
from shopauto_pipelines_tests.realtime.people import person, write_people
from shopauto_pipelines_tests.realtime.shop_events import people, take

NOW = datetime(2026, 1, 4, 12, tzinfo=UTC)
HOUR = timedelta(hours=1)
CAMPAIGN = load_campaigns()["abandoned_cart"].model_copy(update={"holdout_percent": 0.0})


@pytest.fixture
def settings(tmp_path) -> Settings:
    return Settings(home=tmp_path, secret_key="k", holdout_percent=0, _env_file=None)


class Shop:
    """Customers ann, bob and eve of a day in the lake; carts that they leave."""

    def __init__(self, engine, lake, settings) -> None:
        self.engine, self.lake, self.settings, self.now, self.done = engine, lake, settings, NOW, 0
        people = [person(name, "active", email_consent="opted_in", churn_factor=2.5) for name in ("ann", "bob", "eve")]
        write_people(lake, *people)
        named = {name: f"{name}@example.com" for name in ("ann", "bob", "eve")}
        fill(lake, CUSTOMERS, DAY, [{"customer_id": n, "email": at, "shop_ids": 1} for n, at in named.items()])
        fill(lake, SCORES, DAY, [{"customer_id": n, "churn_probability": 0.5} for n in named])
        fill(lake, ORDERS, DAY, [])

    def event(self, customer: str, cart: str, ago: timedelta = HOUR, kind: str = "add_to_cart", **more) -> None:
        """Something happens to a cart."""
        at = self.now - ago
        row = {"event_id": f"{cart}-{at}-{kind}", "type": kind, "happened_at": at.replace(tzinfo=None).isoformat()}
        row |= {"shop_customer_id": customer, "product_id": "tent", "quantity": 1, "cart_id": cart} | more
        with self.engine.begin() as connection:
            store(connection, Batch(rows=[Row("raw/events", row["event_id"], at, cart, row)]), at=self.now)

    def order(self, customer: str, cart: str) -> None:
        """A cart is ordered now."""
        row = {"order_id": f"o-{cart}", "shop_customer_id": customer, "cart_id": cart}
        with self.engine.begin() as connection:
            store(connection, Batch(rows=[Row("raw/orders", f"o-{cart}", self.now, cart, row)]), at=self.now)

    def queue(self) -> tuple[int, int]:
        """Queue what is due; the range of what was not queued before."""
        waits, valid = cart_waits([CAMPAIGN], self.settings), longest_valid([CAMPAIGN])
        with self.engine.begin() as connection:
            carts.queue_due(connection, waits, at=self.now, valid=valid, limit=1000)
            return carts.batch(connection, self.done, 1000) or (self.done + 1, self.done)

    def handle(self, channel=None) -> abandoned_carts.Handled:
        """Queue and handle what is due."""
        first, last = self.queue()
        handled = self.run(first, last, channel)
        self.done = last
        return handled

    def run(self, first: int, last: int, channel=None) -> abandoned_carts.Handled:
        return abandoned_carts.handle(
            self.engine, self.lake, self.settings, [CAMPAIGN], first, last, clock=FixedClock(self.now), channel=channel
        )

    def states(self) -> dict[tuple[str, str, str], str]:
        """State and reason of each message by customer, cart and step."""
        wanted = sa.select(messages).order_by(messages.c.id)
        with self.engine.connect() as connection:
            return {
                (m.customer_id, m.occasion, m.step): " ".join(filter(None, (m.state, m.reason)))
                for m in connection.execute(wanted)
            }

    def inbox(self) -> Counter[str]:
        """How many messages each reader has."""
        return Counter(path.read_text().partition("\nTo: ")[2].partition("@")[0] for path in self._files())

    def _files(self):
        return self.settings.inbox_path.glob("**/*.eml")


@pytest.fixture
def shop(engine, lake, settings) -> Shop:
    return Shop(engine, lake, settings)


def test_the_owner_of_a_cart_left_for_an_hour_is_written_to_once(shop):
    shop.event("ann", "c1")
    handled = shop.handle()
    assert (handled.carts, handled.planned, handled.sent, handled.refused) == (1, 1, 1, {})
    assert shop.run(1, 1).sent == 0
    assert shop.states() == {("ann", "c1", "reminder"): "sent"}
    assert sum(shop.inbox().values()) == 1


@pytest.mark.parametrize(("later", "sent"), [(timedelta(hours=1), 1), (timedelta(days=90), 0)])
def test_carts_that_a_sensor_without_its_cursor_asks_for_again_send_nothing_twice_and_nothing_late(shop, later, sent):
    shop.event("ann", "c1")
    assert shop.handle().sent == 1
    shop.event("bob", "c2")
    _, last = shop.queue()
    shop.now += later
    assert [shop.run(1, last).sent for _ in range(2)] == [sent, 0]


def test_a_message_stands_in_the_ledger_under_the_day_before_and_says_what_it_was_about(shop):
    shop.event("ann", "c1")
    shop.handle()
    with shop.engine.connect() as connection:
        found = connection.execute(sa.select(messages)).one()
    assert found.as_of == (NOW - timedelta(days=1)).date()
    assert found.triggered_at == NOW - HOUR
    assert found.exit_on == list(CAMPAIGN.exit_on)
    assert found.explanation["cart"] == {"tent": 1}


def test_the_steps_follow_each_other_and_the_offer_of_the_second_is_the_one_of_the_third(shop):
    shop.event("ann", "c1")
    shop.handle()
    for hours in (23, 48):
        shop.now += timedelta(hours=hours)
        shop.handle()
    assert shop.states() == {("ann", "c1", step): "sent" for step in ("reminder", "help", "last_call")}
    with shop.engine.connect() as connection:
        (offer,) = connection.execute(sa.select(offers)).all()
        told = connection.execute(sa.select(messages.c.explanation).order_by(messages.c.id)).scalars().all()
    assert [each.get("offer", {}).get("code") for each in told] == [None, offer.code, offer.code]


def test_a_cart_of_nobody_we_know_is_counted(shop):
    shop.event("", "c1", shop_customer_id=None)
    shop.event("ann", "c2")
    handled = shop.handle()
    assert (handled.carts, handled.sent, handled.refused) == (2, 1, {"unknown_visitor": 1})


def test_a_cart_that_was_ordered_or_filled_while_it_stood_in_the_queue_is_left_alone(shop):
    shop.event("ann", "ordered")
    shop.event("bob", "filled")
    shop.queue()
    shop.order("ann", "ordered")
    shop.event("bob", "filled", timedelta(0))
    handled = shop.handle()
    assert (handled.sent, handled.refused) == (0, {"ordered": 1, "cart_changed": 1})
    shop.now += HOUR
    assert shop.handle().sent == 1
    assert shop.states() == {("bob", "filled", "reminder"): "sent"}


def test_an_order_after_the_decision_takes_the_message_back(shop, monkeypatch):
    shop.event("ann", "c1")
    decided = abandoned_carts.decide

    def decide_and_order(*arguments, **more):
        rows = decided(*arguments, **more)
        shop.order("ann", "c1")
        return rows

    monkeypatch.setattr(abandoned_carts, "decide", decide_and_order)
    assert shop.handle().sent == 0
    assert shop.states() == {("ann", "c1", "reminder"): "suppressed ordered"}


def decide_but_for(monkeypatch, *bad: str) -> None:
    """The decision fails where one of these carts is among those asked about."""
    decided = abandoned_carts.decide

    def decide(campaign, triggers, *arguments, **more):
        if {trigger.occasion for trigger in triggers} & {*bad}:
            raise OverflowError
        return decided(campaign, triggers, *arguments, **more)

    monkeypatch.setattr(abandoned_carts, "decide", decide)


def _consent(who: str, state: str, at: datetime, channel: str = "email") -> Row:
    row = {
        "shop_customer_id": who,
        "channel": channel,
        "state": state,
        "changed_at": at.replace(tzinfo=None).isoformat(),
    }
    return Row("raw/consents", f"{who}:{channel}:{at}", at, None, row)


def test_who_has_told_the_shop_that_they_want_no_more_is_not_written_to_unless_they_told_it_otherwise_since(shop):
    told = {
        "ann": [("opted_out", HOUR / 2)],
        "bob": [("opted_out", HOUR / 2), ("opted_in", HOUR / 4)],
        "eve": [("opted_in", HOUR / 2), ("opted_out", HOUR / 2)],
    }
    for who, said in told.items():
        shop.event(who, who)
        for state, ago in reversed(said):  # in any order
            take(
                shop.engine, _consent(who, state, shop.now - ago - timedelta(seconds=state == "opted_in")), at=shop.now
            )
    take(shop.engine, _consent("bob", "opted_out", shop.now, channel="sms"), at=shop.now)
    assert shop.handle().sent == 1
    states = {who: state for (who, _, _), state in shop.states().items()}
    assert states == {"ann": "suppressed opted_out", "bob": "sent", "eve": "suppressed opted_out"}


def test_what_was_told_to_the_shop_long_before_is_the_planner_s_to_know(shop):
    shop.event("ann", "c1")
    take(shop.engine, _consent("ann", "opted_out", shop.now - timedelta(days=9)), at=shop.now)
    assert shop.handle().sent == 1


def test_an_order_of_a_new_account_takes_back_what_its_address_is_sent(shop, monkeypatch, tmp_path):
    key, where = shop.settings.hash_key, {"ann": "ann@example.com", "bob": "bob@example.com"}
    people(
        shop.engine, {"ann": "ann", "bob": "bob"}, {n: links.address_hash(key, "email", at) for n, at in where.items()}
    )
    for who in where:
        shop.event(who, who)
    with collecting(shop.engine, monkeypatch, tmp_path, shop.now, secret_key="k") as client:
        order = {"order_id": "o1", "shop_customer_id": "new", "email": "Ann@example.com", "total_cents": 100}
        assert client.post("/orders", json=order, headers=bearer()).status_code == 200
    assert shop.handle().sent == 1
    shop.event("new", "a cart of the new account")
    assert shop.handle().sent == 0, "whose it is, is not known before the next refresh"
    assert shop.states() == {("ann", "ann", "reminder"): "suppressed ordered", ("bob", "bob", "reminder"): "sent"}


def test_a_cart_that_cannot_be_decided_on_does_not_hold_the_others_up(shop, monkeypatch):
    for number, owner in enumerate(("ann", "bob", "eve")):
        shop.event(owner, f"c{number}")
    decide_but_for(monkeypatch, "c1")
    handled = shop.handle()
    assert (handled.sent, handled.refused) == (2, {"undecidable": 1})


def test_where_no_cart_can_be_decided_on_the_batch_fails(shop, monkeypatch):
    carts_left = [f"c{number}" for number in range(20)]
    for cart in carts_left:
        shop.event("ann", cart)
    decide_but_for(monkeypatch, *carts_left)
    with pytest.raises(OverflowError):
        shop.handle()


class Down(LocalInbox):
    """An inbox that takes nothing now."""

    def send(self, batch):
        return [Outcome("deferred", "the provider is down")] * len(batch)


def test_what_the_provider_did_not_take_fails_the_batch_and_is_sent_when_it_is_tried_again(shop):
    shop.event("ann", "c1")
    first, last = shop.queue()
    handled = shop.run(first, last, Down(shop.settings))
    assert handled.complaints == ["abandoned_cart: the provider is down"]
    assert shop.run(first, last).sent == 1
    assert sum(shop.inbox().values()) == 1


def test_what_was_left_over_is_sent_on_the_next_day_while_it_is_valid_and_given_up_afterwards(shop):
    shop.now = datetime(2026, 1, 4, 23, 50, tzinfo=UTC)
    shop.event("ann", "c1")
    shop.event("bob", "c2", HOUR + timedelta(hours=11))
    first, last = shop.queue()
    shop.run(first, last, Down(shop.settings))
    shop.now += timedelta(hours=2)
    shop.run(first, last)
    assert shop.states() == {
        ("ann", "c1", "reminder"): "sent",
        ("bob", "c2", "reminder"): "suppressed window_closed",
    }


def test_what_a_dead_dispatcher_had_reserved_is_sent_by_the_next_batch(shop):
    shop.event("ann", "c1")
    first, last = shop.queue()
    shop.run(first, last, Down(shop.settings))
    with shop.engine.begin() as connection:
        cap, day = ledger.Cap(3, 7, 30), (NOW - timedelta(days=1)).date()
        ledger.reserve(
            connection, campaign=CAMPAIGN.name, as_of=day, limit=9, by="0" * 32, via="inbox", cap=cap, at=NOW
        )
    handled = shop.run(first, last)
    assert (handled.recovered, handled.sent) == (1, 1)


def test_in_live_mode_nobody_is_written_to_on_old_profiles(shop, tmp_path):
    live = {
        **{"live": True, "sendgrid_api_key": "k", "sendgrid_webhook_key": "k", "secret_key": "k", "home": tmp_path},
        **{"from_email": "a@shop.test.org", "postal_address": "1 Road", "shop_url": "https://s.org"},
        **{"base_url": "https://mail.s.org", "realtime_profile_days": 3},
    }
    shop.settings = Settings(_env_file=None, **live)
    shop.now = datetime(2026, 1, 7, 12, tzinfo=UTC)
    with pytest.raises(abandoned_carts.ProfileError, match="the newest computed day is 2026-01-03, 4 days ago"):
        shop.run(1, 0)
    shop.now = datetime(2026, 1, 2, 12, tzinfo=UTC)
    with pytest.raises(abandoned_carts.ProfileError, match="2026-01-03 has been computed: the clock has been set back"):
        shop.run(1, 0)
    shop.now = datetime(2026, 1, 6, 12, tzinfo=UTC)
    assert shop.run(1, 0, LocalInbox(shop.settings)).sent == 0


def test_before_anything_is_computed_it_says_what_to_do(engine, lake, settings):
    with pytest.raises(abandoned_carts.ProfileError, match="run `shopauto refresh`"):
        abandoned_carts.handle(engine, lake, settings, [CAMPAIGN], 1, 1, clock=FixedClock(NOW))


def test_the_asset_says_how_many_carts_messages_and_refusals_there_were(shop, monkeypatch):
    from shopauto_pipelines.realtime import assets

    shop.event("ann", "c1")
    shop.event("", "c2", shop_customer_id=None)
    first, last = shop.queue()
    monkeypatch.setattr(assets, "engine", lambda _: shop.engine)
    monkeypatch.setattr(assets, "load_campaigns", lambda: {CAMPAIGN.name: CAMPAIGN})
    monkeypatch.setattr(postgres, "engine", lambda _: shop.engine)
    monkeypatch.setattr(SettingsResource, "settings", shop.settings)
    monkeypatch.setattr(SettingsResource, "clock", FixedClock(NOW))
    result = dg.materialize(
        [assets.abandoned_carts],
        selection=[assets.abandoned_carts],
        resources={"settings": (settings := SettingsResource()), "lake": LakeResource(settings=settings)},
        run_config={"ops": {"realtime__abandoned_carts": {"config": {"first_id": first, "last_id": last}}}},
    )
    (made,) = result.asset_materializations_for_node("realtime__abandoned_carts")
    shown = {name: value.value for name, value in made.metadata.items()}
    assert {name: shown[name] for name in ("carts", "planned", "sent", "profile_day")} == {
        "carts": 2,
        "planned": 1,
        "sent": 1,
        "profile_day": "2026-01-03",
    }
    assert shown["refused"].splitlines()[2:] == ["| unknown_visitor | 1 |"]
    assert shown["seconds_after_due_median"] == 0.0


@pytest.fixture
def at_night(shop):
    """The shop in live mode, where quiet hours count, at eleven in the evening."""
    shop.settings = shop.settings.model_copy(update={"live": True})
    shop.now = datetime(2026, 1, 4, 23, tzinfo=UTC)
    return shop


def test_what_is_due_in_quiet_hours_is_held_to_the_morning_and_leaves_once(at_night):
    inbox = LocalInbox(at_night.settings)
    at_night.event("ann", "c")
    first = at_night.handle(inbox)
    assert (first.planned, first.sent, dict(first.refused)) == (1, 0, {})
    for hours, sent in ((1.5, 0), (8.9, 0), (9, 1), (9.1, 0)):
        at_night.now = datetime(2026, 1, 4, 23, tzinfo=UTC) + hours * HOUR
        assert at_night.run(0, 0, inbox).sent == sent, f"{at_night.now:%H:%M}"


def test_what_was_due_before_the_night_and_is_decided_in_it_is_held_to_the_morning(at_night):
    inbox = LocalInbox(at_night.settings)
    at_night.now = datetime(2026, 1, 4, 21, 30, tzinfo=UTC)
    at_night.event("ann", "c", ago=1.6 * HOUR)  # due at 20:54
    first = at_night.handle(inbox)
    assert (first.planned, first.sent, dict(first.refused)) == (1, 0, {})
    at_night.now = datetime(2026, 1, 5, 8, tzinfo=UTC)
    assert at_night.run(0, 0, inbox).sent == 1
    assert set(at_night.states().values()) == {"sent"}


def test_what_is_not_valid_any_more_in_the_morning_is_refused_and_says_so(at_night):
    brief = CAMPAIGN.model_copy(update={"valid_hours": 8.0})
    at_night.event("ann", "c")
    night = at_night
    handled = abandoned_carts.handle(
        night.engine, night.lake, night.settings, [brief], *night.queue(), clock=FixedClock(night.now),
        channel=LocalInbox(night.settings),
    )  # fmt: skip
    assert (handled.planned, dict(handled.refused)) == (0, {"quiet_hours": 1})


def test_an_order_in_the_night_takes_back_what_is_held(at_night):
    inbox = LocalInbox(at_night.settings)
    at_night.event("ann", "c")
    at_night.handle(inbox)
    at_night.now += 2 * HOUR
    at_night.order("ann", "c")
    at_night.now += 7 * HOUR
    assert at_night.run(0, 0, inbox).sent == 0
    assert set(at_night.states().values()) == {"suppressed ordered"}


def test_the_sensor_has_what_is_held_sent_when_the_night_is_over(at_night, monkeypatch):
    at_night.event("ann", "c")
    at_night.handle(LocalInbox(at_night.settings))

    def asked(hours: float) -> bool:
        monkeypatch.setattr(SettingsResource, "settings", at_night.settings)
        monkeypatch.setattr(SettingsResource, "clock", FixedClock(at_night.now + hours * HOUR))
        monkeypatch.setattr(sensors, "engine", lambda _: at_night.engine)
        return isinstance(sensors.carts_after_quiet_hours(settings=SettingsResource()), dg.RunRequest)

    assert [asked(hours) for hours in (0, 8.9, 9)] == [False, False, True]

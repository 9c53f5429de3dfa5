"""The sample shop: the same bytes every time, books that balance, and the habits that the truth file tells."""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass
from datetime import date
from pathlib import Path

import numpy as np
import pandas as pd
import phonenumbers
import pytest
import yaml

import shopauto_pipelines
from shopauto_pipelines.sources import sample
from shopauto_pipelines.sources.tables import CORE_TABLES

END = pd.Timestamp("2026-07-01", tz="UTC")


@dataclass(frozen=True)
class Shop:
    path: Path
    summary: sample.Summary

    def read(self, name: str, *times: str) -> pd.DataFrame:
        frame = pd.read_csv(self.path / f"{name}.csv", dtype=str, keep_default_na=False).replace("", None)
        for column in times:
            frame[column] = pd.to_datetime(frame[column], utc=True)
        return frame


@pytest.fixture(scope="module")
def shop(tmp_path_factory: pytest.TempPathFactory) -> Shop:
    path = tmp_path_factory.mktemp("shop")
    return Shop(path, sample.generate(path, customers=2000))


@pytest.fixture(scope="module")
def truth(shop: Shop) -> pd.DataFrame:
    """One row per customer, with what the customer really did before and after the end."""
    frame = shop.read("truth/customers").set_index("shop_customer_id")
    for column in ("interval_days", "mail_responsiveness", "expected_orders_90d", "probability_no_order_90d"):
        frame[column] = frame[column].astype(float)
    future = shop.read("truth/future_orders").groupby("shop_customer_id").size()
    frame["future_orders"] = future.reindex(frame.index).fillna(0)
    return frame


def cents(amounts: pd.Series) -> pd.Series:
    """Decimal text to cents, without floats."""
    return amounts.str.replace(".", "").astype("int64")


def persons(shop: Shop, ids: pd.Series) -> pd.Series:
    """The first account of the person an account belongs to."""
    pairs = shop.read("truth/customers").dropna(subset="other_shop_customer_id")
    return ids.replace(dict(zip(pairs.other_shop_customer_id, pairs.shop_customer_id, strict=True)))


def digest(path: Path) -> dict[str, str]:
    return {name: hashlib.sha256((path / name).read_bytes()).hexdigest() for name in sample.FILES}


def test_the_same_seed_gives_the_same_bytes_and_another_seed_does_not(tmp_path: Path) -> None:
    for name, seed in (("a", 1), ("b", 1), ("c", 2)):
        sample.generate(tmp_path / name, customers=150, months=4, seed=seed)
    first, second, third = (digest(tmp_path / name) for name in "abc")
    assert first == second
    assert all(first[name] != third[name] for name in sample.FILES)


def test_a_shop_of_several_blocks_has_unique_keys_and_reports_progress(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sample, "BLOCK", 100)
    calls: list[tuple[str, int, int]] = []
    summary = sample.generate(
        tmp_path, customers=250, months=5, progress=lambda stage, done, total: calls.append((stage, done, total))
    )
    assert calls == [("customers", 100, 250), ("customers", 200, 250), ("customers", 250, 250)]
    shop = Shop(tmp_path, summary)
    for table in CORE_TABLES:
        name = table.name.removeprefix("raw/")
        frame = shop.read(name)
        assert len(frame) == summary.rows[f"{name}.csv"] > 0
        assert not frame.duplicated(list(table.key)).any(), name
    emails = shop.read("customers").drop_duplicates("shop_customer_id").email.dropna().str.strip().str.lower()
    twice = emails[emails.duplicated() & emails.str.contains("@example.", regex=False)]
    assert len(twice) <= shop.read("truth/customers").other_shop_customer_id.notna().sum()


@pytest.mark.parametrize(("customers", "months"), [(1, 1), (3, 40), (40, 1)])
def test_tiny_shops_can_be_made(tmp_path: Path, customers: int, months: int) -> None:
    summary = sample.generate(tmp_path, customers=customers, months=months, end=date(2024, 2, 29))
    assert summary.rows["truth/customers.csv"] == customers
    assert not list(tmp_path.rglob("*.part"))


def test_a_shop_without_customers_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="at least 1 customer"):
        sample.generate(tmp_path, customers=0)


def test_a_failure_leaves_the_files_of_before_untouched(tmp_path: Path) -> None:
    sample.generate(tmp_path, customers=50, months=2)
    before = digest(tmp_path)

    def stop(*_: object) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        sample.generate(tmp_path, customers=60, months=2, progress=stop)
    assert digest(tmp_path) == before
    assert not list(tmp_path.rglob("*.part"))


def test_every_order_total_is_its_lines_less_discount_plus_shipping(shop: Shop) -> None:
    orders, lines = shop.read("orders").set_index("order_id"), shop.read("order_lines")
    amounts = cents(lines.amount)
    assert (amounts == lines.quantity.astype(int) * cents(lines.unit_price)).all()
    sums = amounts.groupby(lines.order_id).sum()
    assert (cents(orders.total) == sums.reindex(orders.index) - cents(orders.discount) + cents(orders.shipping)).all()
    assert (cents(orders.total) > 0).all()


def test_refunds_give_back_at_most_what_was_paid_for_the_line(shop: Shop) -> None:
    refunds, lines = shop.read("refunds", "refunded_at"), shop.read("order_lines", "ordered_at")
    joined = refunds.merge(lines, on=["order_id", "product_id"], suffixes=("", "_line"), validate="one_to_one")
    assert len(joined) == len(refunds)
    assert (cents(joined.amount) <= cents(joined.amount_line)).all()
    assert (joined.refunded_at > joined.ordered_at).all()
    assert 0.03 < len(refunds) / (lines.kind == "product").sum() < 0.07


def test_nothing_lies_outside_the_exported_days_or_before_the_account(shop: Shop) -> None:
    assert (shop.summary.start, shop.summary.end) == (date(2025, 1, 1), date(2026, 6, 30))
    created = shop.read("customers", "created_at").groupby("shop_customer_id").created_at.min()
    for name, column in (
        ("customers", "changed_at"),
        ("consents", "changed_at"),
        ("orders", "ordered_at"),
        ("refunds", "refunded_at"),
        ("events", "happened_at"),
        ("message_events", "happened_at"),
    ):
        frame = shop.read(name, column)
        assert frame[column].between(pd.Timestamp("2025-01-01", tz="UTC"), END, inclusive="left").all(), name
        known = frame.dropna(subset="shop_customer_id")
        assert (known[column] >= known.shop_customer_id.map(created)).all(), name
    assert shop.read("truth/future_orders", "ordered_at").ordered_at.between(END, END + pd.Timedelta(days=90)).all()


def test_addresses_are_at_example_domains_and_most_phones_are_valid(shop: Shop) -> None:
    typed = pd.concat([shop.read(name).email.dropna() for name in ("customers", "orders", "truth/future_orders")])
    good = typed.str.strip().str.fullmatch(r"[a-z0-9._']+@example\.(com|org|net)", flags=re.IGNORECASE)
    assert good.mean() > 0.98
    assert typed[~good].str.fullmatch(r"n/a|[\w.]+@|[\w.]+@@?example(\.\w+)?|[\w.]+example\.\w+").all()
    customers = shop.read("customers").dropna(subset=["phone", "country"])
    codes = {"United States": "US", "Brazil": "BR", "Serbia": "RS", "Romania": "RO", "Germany": "DE"}
    valid = 0
    for phone, country in zip(customers.phone, customers.country, strict=True):
        try:
            valid += phonenumbers.is_valid_number(
                phonenumbers.parse(phone, codes.get(country, "GB" if "King" in country else country))
            )
        except phonenumbers.NumberParseException:
            continue
    assert 0.97 < valid / len(customers) < 1


def test_people_with_two_accounts_can_be_recognised(shop: Shop) -> None:
    accounts = shop.read("customers").drop_duplicates("shop_customer_id").set_index("shop_customer_id")
    pairs = shop.read("truth/customers").dropna(subset="other_shop_customer_id")
    assert len(pairs) > 15
    first, second = accounts.loc[pairs.shop_customer_id], accounts.loc[pairs.other_shop_customer_id]

    def tail(phones: pd.Series) -> list[str]:
        return phones.fillna("").str.replace(r"\D", "", regex=True).str[-7:].tolist()

    by_phone = [bool(a) and a == b for a, b in zip(tail(first.phone), tail(second.phone), strict=True)]
    mails = [frame.email.fillna("").str.strip().str.lower().tolist() for frame in (first, second)]
    by_mail = [bool(a) and a == b for a, b in zip(*mails, strict=True)]
    assert sum(by_phone) > 2
    assert sum(by_mail) > 5
    assert np.mean([a or b for a, b in zip(by_phone, by_mail, strict=True)]) > 0.9


def test_true_chances_agree_with_the_orders_that_follow(truth: pd.DataFrame) -> None:
    chance, none = truth.probability_no_order_90d, truth.future_orders == 0
    assert abs(chance.mean() - none.mean()) < 0.02
    assert abs(truth.expected_orders_90d.mean() / truth.future_orders.mean() - 1) < 0.06
    open_cases = truth[(chance > 0.001) & (chance < 0.999)]
    bins = pd.cut(open_cases.probability_no_order_90d, [0, 0.1, 0.3, 0.6, 1])
    for _, part in open_cases.groupby(bins, observed=True):
        sigma = (part.probability_no_order_90d * (1 - part.probability_no_order_90d)).sum() ** 0.5 / len(part)
        assert abs(part.probability_no_order_90d.mean() - (part.future_orders == 0).mean()) < 4 * sigma
    assert (truth.future_orders[chance == 1] == 0).all()
    assert ((chance == 1) == (truth.expected_orders_90d == 0)).all()


def test_people_who_left_never_order_again(shop: Shop, truth: pd.DataFrame) -> None:
    left = pd.to_datetime(truth.dropped_out_at, utc=True).dropna()
    orders = shop.read("orders", "ordered_at")
    last = orders.ordered_at.groupby(persons(shop, orders.shop_customer_id)).max()
    both = pd.concat([left, last], axis=1, join="inner")
    assert len(both) > 500
    assert (both.ordered_at <= both.dropped_out_at).all()
    assert (truth.alive[left.index] == "false").all()


def test_the_shop_is_as_busy_as_meant(shop: Shop, truth: pd.DataFrame) -> None:
    orders = shop.read("orders", "ordered_at")
    who = persons(shop, orders.shop_customer_id)
    assert 3 < len(orders) / 2000 < 4.7
    recent = who[orders.ordered_at >= END - pd.Timedelta(days=365)].dropna().unique()
    assert 0.4 < (truth.future_orders.reindex(recent) > 0).mean() < 0.6
    assert (who.value_counts() == 1).sum() > 200
    assert len(shop.read("events")) / 2000 < 40


def test_the_own_rhythm_shows_in_the_orders(shop: Shop, truth: pd.DataFrame) -> None:
    orders = shop.read("orders", "ordered_at")
    who = persons(shop, orders.shop_customer_id)
    days = orders.ordered_at.groupby(who).agg(["min", "max", "size"])
    often = days[days["size"] >= 5]
    own = (often["max"] - often["min"]).dt.total_seconds() / 86_400 / (often["size"] - 1)
    assert own.corr(truth.interval_days.reindex(own.index), method="spearman") > 0.75


def test_december_is_the_peak_and_summer_the_dip(shop: Shop) -> None:
    orders = shop.read("orders", "ordered_at")
    monthly = orders.groupby(orders.ordered_at.dt.strftime("%Y-%m")).size()
    assert monthly["2025-12"] > 1.5 * monthly["2025-10"]
    assert monthly["2025-08"] < 0.95 * monthly["2025-10"]
    lines = shop.read("order_lines").merge(shop.read("products").drop_duplicates("product_id"), on="product_id")
    month = lines.ordered_at.str[5:7]
    garden = lines[lines.category == "garden"].groupby(month).size()
    assert garden["04"] > 4 * garden["12"]


def test_customers_buy_mostly_what_they_love(shop: Shop, truth: pd.DataFrame) -> None:
    lines = shop.read("order_lines").merge(shop.read("products").drop_duplicates("product_id"), on="product_id")
    favourite = persons(shop, lines.shop_customer_id).map(truth.favourite_category)
    assert (lines.category == favourite)[favourite.notna()].mean() > 0.4  # by chance: one in eight


def test_discount_seekers_leave_carts_and_come_back_with_a_coupon(shop: Shop, truth: pd.DataFrame) -> None:
    orders = shop.read("orders", "ordered_at")
    events = shop.read("events", "happened_at")
    first_added = events[events.type == "add_to_cart"].groupby("cart_id").happened_at.min()
    waited = orders.ordered_at - orders.cart_id.map(first_added)
    seeker = persons(shop, orders.shop_customer_id).map(truth.discount_seeker) == "true"
    left_then_coupon = (waited > pd.Timedelta(hours=4)) & orders.coupon_code.notna()
    assert orders.coupon_code[seeker].notna().mean() > 0.6
    assert orders.coupon_code[~seeker].notna().mean() < 0.12
    assert left_then_coupon[seeker].mean() > 0.5
    assert left_then_coupon[~seeker].mean() < 0.02


def test_events_of_a_cart_come_before_its_order_and_some_carts_are_never_bought(shop: Shop) -> None:
    orders, events = shop.read("orders", "ordered_at"), shop.read("events", "happened_at")
    last = events.dropna(subset="cart_id").groupby("cart_id").happened_at.max()
    bought = orders.dropna(subset="cart_id")
    assert not bought.cart_id.duplicated().any()
    assert (bought.cart_id.map(last) < bought.ordered_at).all()
    carts = events.loc[events.type == "add_to_cart", "cart_id"]
    assert carts.notna().all()
    assert 0.15 < 1 - carts.drop_duplicates().isin(bought.cart_id).mean() < 0.6
    whose = events.groupby("session_id")[["shop_customer_id", "anonymous_id"]].nunique()
    assert (whose <= 1).all().all()
    assert (events.shop_customer_id.notna() | events.anonymous_id.notna()).all()


def test_people_who_answer_mail_visit_more_after_one(shop: Shop, truth: pd.DataFrame) -> None:
    messages = shop.read("message_events", "happened_at")
    sent = messages[(messages.type == "sent") & (messages.channel == "email")]
    events = shop.read("events", "happened_at").dropna(subset="shop_customer_id")
    visits = events.drop_duplicates("session_id")[["shop_customer_id", "happened_at"]]
    pairs = sent.merge(visits, on="shop_customer_id", suffixes=("", "_visit"))
    gap = (pairs.happened_at_visit - pairs.happened_at) / pd.Timedelta(days=1)
    responsive = truth.mail_responsiveness > truth.mail_responsiveness.quantile(0.75)

    def lift(who: pd.Series) -> float:
        chosen = pairs.shop_customer_id.map(who)
        return float(((gap > 0) & (gap <= 2) & chosen).sum() / ((gap < 0) & (gap >= -2) & chosen).sum())

    assert lift(responsive) > 1.5
    assert lift(responsive) > 1.2 * lift(~responsive)


def test_mail_goes_only_to_subscribers_and_stops_at_unsubscribing(shop: Shop) -> None:
    messages = shop.read("message_events", "happened_at")
    email = messages[messages.channel == "email"]
    sent = email[email.type == "sent"]
    consents = shop.read("consents", "changed_at")
    opted = consents[(consents.state == "opted_in") & (consents.channel == "email")]
    since = sent.shop_customer_id.map(opted.groupby("shop_customer_id").changed_at.min())
    assert (since < sent.happened_at).all()
    opted_out = consents[consents.state == "opted_out"].groupby("shop_customer_id").changed_at.min()
    assert (sent.shop_customer_id.map(opted_out).fillna(END) > sent.happened_at).all()
    unsubscribed = email[email.type == "unsubscribe"].groupby("shop_customer_id").happened_at.min()
    assert len(unsubscribed) > 10
    assert (sent.shop_customer_id.map(unsubscribed).fillna(END) > sent.happened_at).all()
    assert set(email.type) == {"sent", "delivered", "open", "click", "bounce", "unsubscribe", "spam_report"}
    assert (messages.is_machine.notna() == (messages.type == "open")).all()


def test_the_mapping_declares_every_required_column_and_only_columns_of_the_files() -> None:
    path = Path(shopauto_pipelines.__file__).parent / "defs" / "sources" / "sample" / "defs.yaml"
    tables = yaml.safe_load(path.read_text())["attributes"]["tables"]
    assert {f"raw/{name}" for name in tables} == {table.name for table in CORE_TABLES}
    for table in CORE_TABLES:
        declared = tables[table.name.removeprefix("raw/")]
        lineage = {"source", "source_file", "source_row"}
        assert set(declared["columns"]) == {column.name for column in table.columns} - lineage
        used = {re.sub(r"^cents\((\w+)\)$", r"\1", expression) for expression in declared["columns"].values()}
        assert used == set(sample.FILES[declared["files"]])

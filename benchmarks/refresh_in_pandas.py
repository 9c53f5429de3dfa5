"""What a refresh makes of raw rows, in pandas: rollups in memory, features, 360° view, segments.

Written as one writes pandas: whole columns and groups, no loops over rows, only the columns that are needed, strings kept in
Arrow. The numbers are those of the lake's tables up to six digits. Nothing is measured here.
"""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path

import numpy as np
import pandas as pd
from refresh_by_hand import RAW, Given
from refresh_segments import CATEGORY, SEGMENTS

_TICKETS = ("ticket_opened", "ticket_closed")
_CART = {"add_to_cart": 1, "remove_from_cart": -1, "checkout_started": 0}
_KEYS = ["day", "shop_customer_id"]


def features_and_segments(given: Given, previous: Path, target: Path) -> None:
    """Features, 360° view and membership of the day, from the raw tables."""
    today = pd.Timestamp(given.day)
    orders, lines, refunds, events, messages, products = (
        _read(given, table) for table in ("orders", "order_lines", "refunds", "events", "message_events", "products")
    )
    identities = pd.read_parquet(given.partition("profiles/identities"), columns=["shop_customer_id", "customer_id"])
    person = identities.set_index("shop_customer_id")["customer_id"]
    activity = _of_person(_activity(orders, lines, refunds, events, messages), person)
    goods = _of_person(_products(lines, events, products), person)
    carts = _of_person(_carts(events, orders), person)
    del orders, lines, refunds, events, products
    features, order_days = _features(given, today, activity, goods, carts, identities)
    customers = pd.read_parquet(given.partition("profiles/customers"))
    view = customers.merge(features, on="customer_id", how="left").merge(
        pd.read_parquet(given.more), on="customer_id", how="left"
    )
    counts = _counts(today, activity, goods, order_days, _of_person(_messages(messages), person))
    scores = pd.read_parquet(
        given.partition("predictions/scores"), columns=["customer_id", "churn_probability", "value_cents_365d"]
    )
    features.sort_values("customer_id").to_parquet(target / "customer_features.parquet", index=False)
    view.sort_values("customer_id").to_parquet(target / "customer_360.parquet", index=False)
    known = view.merge(scores, on="customer_id", how="left").merge(counts, on="customer_id", how="left")
    known[counts.columns[1:]] = known[counts.columns[1:]].fillna(0)
    members = _members(known)
    earlier = pd.read_parquet(previous, columns=["segment", "customer_id", "entered_on"])
    members = members.merge(earlier, on=["segment", "customer_id"], how="left")
    members["entered_on"] = pd.to_datetime(members["entered_on"]).fillna(today).dt.date
    members["through"] = pd.Series(None, index=members.index, dtype="str")
    members.sort_values(["segment", "customer_id"]).to_parquet(target / "membership.parquet", index=False)


def _read(given: Given, table: str) -> pd.DataFrame:
    rows = pd.read_parquet(
        given.lake / "raw" / table, columns=[*RAW[table], "day"], filters=[("day", "<=", str(given.day))]
    )
    rows["day"] = pd.to_datetime(rows["day"].astype(str))
    return rows


def _of_person(rows: pd.DataFrame, person: pd.Series) -> pd.DataFrame:
    return rows.assign(customer_id=rows["shop_customer_id"].map(person).fillna(rows["shop_customer_id"]))


def _activity(
    orders: pd.DataFrame, lines: pd.DataFrame, refunds: pd.DataFrame, events: pd.DataFrame, messages: pd.DataFrame
) -> pd.DataFrame:
    bought = orders.groupby(_KEYS).agg(
        orders=("order_id", "size"),
        revenue_cents=("total_cents", "sum"),
        coupon_orders=("coupon_code", "count"),
    )
    items = lines[lines["kind"] == "product"].groupby(_KEYS)["quantity"].sum().rename("items")
    back = refunds.groupby(_KEYS)["amount_cents"].sum().rename("refund_cents")
    of_tickets = events["type"].isin(_TICKETS)
    seen = events[~of_tickets]
    kind = seen["type"]
    seen = seen[[*_KEYS, "session_id", "happened_at"]].assign(
        pages=kind.isin(["page_view", "product_view"]), goods=kind == "product_view", searches=kind == "search"
    )
    sessions = seen.groupby([*_KEYS, "session_id"], dropna=False).agg(
        page_views=("pages", "sum"),
        product_views=("goods", "sum"),
        searches=("searches", "sum"),
        begin=("happened_at", "min"),
        end=("happened_at", "max"),
    )
    sessions = sessions.reset_index()
    length = (sessions["end"].dt.floor("s") - sessions["begin"].dt.floor("s")).dt.total_seconds()
    sessions["seconds_on_site"] = length.where(sessions["session_id"].notna(), 0)
    visits = (
        sessions.assign(visits=1)
        .groupby(_KEYS)[["visits", "page_views", "product_views", "searches", "seconds_on_site"]]
        .sum()
    )
    machine = messages["is_machine"].fillna(False).astype(bool)
    email, sms = messages["channel"] == "email", messages["channel"] == "sms"
    sent, opened, clicked = (messages["type"] == kind for kind in ("sent", "open", "click"))
    reactions = messages[_KEYS].assign(
        emails_sent=email & sent,
        opens=email & opened & ~machine,
        machine_opens=email & opened & machine,
        clicks=email & clicked & ~machine,
        sms_sent=sms & sent,
        sms_clicks=sms & clicked & ~machine,
    )
    reactions = reactions[email | sms].groupby(_KEYS).sum()
    tickets = events.loc[of_tickets, [*_KEYS, "type", "happened_at"]]
    last = tickets.pivot_table(index=_KEYS, columns="type", values="happened_at", aggfunc="max")
    last = last.reindex(columns=list(_TICKETS))
    asked = pd.DataFrame(
        {
            "tickets_opened": tickets[tickets["type"] == _TICKETS[0]].groupby(_KEYS).size(),
            "tickets_closed": tickets[tickets["type"] == _TICKETS[1]].groupby(_KEYS).size(),
            "tickets_left_open": (last[_TICKETS[0]].notna() & ~(last[_TICKETS[0]] <= last[_TICKETS[1]])).astype(
                "int64"
            ),
        }
    )
    parts = [part for part in (bought, items, back, visits, reactions, asked) if len(part)]
    return (
        pd.concat(parts, axis=1)
        .fillna(0)
        .astype("int64")
        .reset_index()
        .reindex(columns=[*_KEYS, *bought, "items", "refund_cents", *visits, *reactions, *asked], fill_value=0)
    )


def _products(lines: pd.DataFrame, events: pd.DataFrame, products: pd.DataFrame) -> pd.DataFrame:
    keys = [*_KEYS, "product_id"]
    bought = (
        lines[(lines["kind"] == "product") & lines["product_id"].notna()]
        .groupby(keys)
        .agg(orders=("order_id", "nunique"), quantity=("quantity", "sum"), revenue_cents=("amount_cents", "sum"))
    )
    seen = events[events["type"].isin(["product_view", "add_to_cart"]) & events["product_id"].notna()]
    views = seen[keys].assign(views=seen["type"] == "product_view", carted=seen["type"] == "add_to_cart")
    rows = pd.concat([bought, views.groupby(keys).sum()], axis=1).fillna(0).astype("int64").reset_index()
    known = products.sort_values(["changed_at", "source", "source_file", "source_row"])
    known = known.drop_duplicates(["product_id", "day"], keep="last")[["product_id", "day", "category"]]
    return pd.merge_asof(
        rows.sort_values("day", kind="stable"), known.sort_values("day", kind="stable"), on="day", by="product_id"
    )


def _carts(events: pd.DataFrame, orders: pd.DataFrame) -> pd.DataFrame:
    touched = events[events["type"].isin(list(_CART)) & events["cart_id"].notna()]
    touched = touched[["day", "cart_id"]].assign(
        owner=touched["shop_customer_id"], event_at=touched["happened_at"], moment=touched["happened_at"]
    )
    placed = orders[orders["cart_id"].notna()]
    placed = placed[["day", "cart_id"]].assign(
        owner=placed["shop_customer_id"],
        moment=placed["ordered_at"],
        ordered_at=placed["ordered_at"],
        coupon=placed["coupon_code"].notna(),
    )
    steps = pd.concat([touched, placed], ignore_index=True)
    steps["is_order"] = steps["ordered_at"].notna()
    steps = steps.sort_values(["day", "cart_id", "moment", "is_order"], kind="stable")
    cart = steps.groupby(["day", "cart_id"])
    first = cart["owner"].transform("min")
    buyer = steps["owner"].where(steps["is_order"]).groupby([steps["day"], steps["cart_id"]]).transform("min")
    steps["shop_customer_id"] = steps["owner"].fillna(buyer).fillna(first)
    same = (steps["cart_id"] == steps["cart_id"].shift()) & (steps["day"] == steps["day"].shift())
    ordered_before = cart["is_order"].cumsum() - steps["is_order"]
    last_event = cart["event_at"].ffill().shift().where(same)
    pause = (steps["moment"].dt.floor("s") - last_event.dt.floor("s")).dt.total_seconds()
    steps["pause"] = pause.where(ordered_before == 0)
    steps["coupon"] = steps["coupon"].fillna(False).astype(bool)
    return (
        steps[steps["shop_customer_id"].notna()]
        .groupby(["day", "cart_id", "shop_customer_id"], as_index=False)
        .agg(
            first_at=("event_at", "min"),
            last_at=("event_at", "max"),
            pause=("pause", "max"),
            ordered_at=("ordered_at", "min"),
            coupon=("coupon", "any"),
        )
    )


def _messages(messages: pd.DataFrame) -> pd.DataFrame:
    person = ~messages["is_machine"].fillna(False).astype(bool)
    kind = messages["type"]
    rows = messages[_KEYS].assign(
        sent=kind == "sent", opens=(kind == "open") & person, clicks=(kind == "click") & person
    )
    return rows.groupby(_KEYS, as_index=False).sum()


def _weight(age: pd.Series, half_life: int = 180) -> pd.Series:
    return _whole(0.5 ** (age / half_life) * 1_000_000)


def _whole(values: pd.Series) -> pd.Series:
    """Rounded as money is: a half away from zero."""
    return np.floor(values.astype("float64") + 0.5)


def _features(
    given: Given,
    today: pd.Timestamp,
    activity: pd.DataFrame,
    goods: pd.DataFrame,
    carts: pd.DataFrame,
    identities: pd.DataFrame,
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """The features, and the days on which people have ordered."""
    age = (today - activity["day"]).dt.days
    person = activity["customer_id"]
    columns = {name: activity[name] for name in ("revenue_cents", "refund_cents")}
    for days, names in {
        30: ("revenue_cents", "visits", "product_views"),
        90: (
            *("revenue_cents", "visits", "page_views", "product_views", "seconds_on_site", "emails_sent", "opens"),
            *("machine_opens", "clicks", "sms_sent", "sms_clicks"),
        ),
        365: ("revenue_cents", "items", "coupon_orders", "visits", "orders"),
    }.items():
        lately = age < days
        columns |= {f"{name}_{days}d": activity[name].where(lately, 0) for name in names}
    sums = pd.DataFrame(columns).groupby(person).sum().rename(columns={"orders_365d": "placed_365d"})
    for name, happened in {
        "last_visit_on": activity["visits"] > 0,
        "last_click_on": activity["clicks"] + activity["sms_clicks"] > 0,
        "last_ticket_on": activity["tickets_opened"] > 0,
        "left_open_on": (age < 14) & (activity["tickets_left_open"] > 0),
        "ticket_on": activity["tickets_opened"] + activity["tickets_closed"] > 0,
    }.items():
        sums[name] = activity[happened].groupby("customer_id")["day"].max()
    sums["ticket_open"] = sums["left_open_on"].notna() & (sums["left_open_on"] == sums["ticket_on"])

    ordered = activity[activity["orders"] > 0]
    order_days = ordered.groupby(["customer_id", "day"], as_index=False).agg(
        cents=("revenue_cents", "sum"), coupons=("coupon_orders", "sum")
    )
    rhythm = _rhythm(today, order_days)
    everybody = pd.Index(identities["customer_id"]).union(sums.index).unique()
    rows = (
        pd.DataFrame(index=everybody)
        .join(sums)
        .join(rhythm)
        .join(_favourites(today, goods))
        .join(_cart_behaviour(given, today, carts))
    )
    repeat = rows[rows["orders"] > 1]
    usual = repeat.groupby("cohort")["own_interval"].agg(["size", "median"])
    usual = usual.loc[usual["size"] >= 10, "median"].round(6)
    interval = rows["own_interval"].fillna(rows["cohort"].map(usual)).fillna(repeat["own_interval"].median())
    interval = interval.where(rows["orders"] > 0)
    rows["mean_interval_days"] = interval
    rows["interval_imputed"] = (rows["orders"] == 1).astype("boolean").where(interval.notna())
    rows["recency_days"] = (today - rows["last_order_on"]).dt.days
    rows["tenure_days"] = (today - rows["first_order_on"]).dt.days
    rows["churn_factor"] = rows["recency_days"] / interval
    rows["average_order_cents"] = _whole(rows["revenue_cents"] / rows["orders"])
    rows["pages_per_visit_90d"] = rows["page_views_90d"] / rows["visits_90d"].where(rows["visits_90d"] > 0)
    recovered = rows["carts_recovered_with_coupon_365d"]
    rows["discount_seeker"] = (recovered >= 2) & (2 * rows["coupon_orders_365d"] >= rows["placed_365d"])
    zero = [name for name in rows if name.endswith("d") and not name.startswith(("orders_weighted", "pages_per_visit"))]
    zero = [name for name in zero if rows[name].dtype.kind in "if"] + ["orders", "revenue_cents", "refund_cents"]
    rows[zero] = rows[zero].fillna(0).astype("int64")
    rows["ticket_open"] = rows["ticket_open"].fillna(False).astype(bool)
    for name in _WHOLE:
        rows[name] = rows[name].astype("Int64")
    for name in ("first_order_on", "last_order_on", "last_visit_on", "last_click_on", "last_ticket_on"):
        rows[name] = rows[name].dt.date
    unwanted = ["placed_365d", "left_open_on", "ticket_on", "cohort", "own_interval"]
    return rows.drop(columns=unwanted).rename_axis("customer_id").reset_index(), order_days


_WHOLE = (
    *(
        "recency_days",
        "tenure_days",
        "average_order_cents",
        "typical_order_cents",
        "first_order_cents",
        "last_order_cents",
    ),
    *("last_interval_days", "favourite_category_order_cents", "category_average_order_cents"),
)


def _rhythm(today: pd.Timestamp, order_days: pd.DataFrame) -> pd.DataFrame:
    days = order_days.sort_values(["customer_id", "day"])
    person = days.groupby("customer_id")
    age = (today - days["day"]).dt.days
    gap = person["day"].diff().dt.days
    days = days.assign(
        gap=gap,
        squares=gap * gap,
        logs=_whole(np.log(days["cents"].clip(lower=1)) * 1_000_000),
        **{f"orders_{n}d": age < n for n in (30, 90, 365)},
        **{f"orders_weighted_{n}d": _weight(age, n) for n in (30, 120, 240)},
    )
    summed = ["squares", "logs", *(f"orders_{n}d" for n in (30, 90, 365))]
    weighted = [f"orders_weighted_{n}d" for n in (30, 120, 240)]
    person = days.groupby("customer_id")
    rows = person[[*summed, *weighted]].sum()
    rows[weighted] /= 1_000_000
    rows["orders"] = person.size()
    rows["first_order_on"], rows["last_order_on"] = person["day"].min(), person["day"].max()
    rows["cohort"] = rows["first_order_on"].dt.to_period("M")
    rows["first_order_cents"], rows["last_order_cents"] = person["cents"].first(), person["cents"].last()
    rows["last_interval_days"] = person["gap"].last()
    intervals = (rows["orders"] - 1).where(rows["orders"] > 1)
    mean = (rows["last_order_on"] - rows["first_order_on"]).dt.days / intervals
    rows["own_interval"] = mean.round(6)
    rows["interval_variation"] = np.sqrt((rows["squares"] / intervals - mean * mean).clip(lower=0)) / mean
    rows["typical_order_cents"] = _whole(np.exp(rows["logs"] / rows["orders"] / 1_000_000))
    return rows.drop(columns=["squares", "logs"])


def _favourites(today: pd.Timestamp, goods: pd.DataFrame) -> pd.DataFrame:
    bought = goods[goods["orders"] > 0]
    weight = _weight((today - bought["day"]).dt.days)
    bought = bought.assign(money=weight * bought["revenue_cents"], pieces=weight * bought["quantity"])
    spent = bought.groupby(["customer_id", "category"], as_index=False).agg(
        weight=("money", "sum"), cents=("revenue_cents", "sum"), days=("day", "nunique")
    )
    totals = spent.groupby("category")[["cents", "days"]].sum()
    usual = _whole(totals["cents"] / totals["days"])
    best = spent.sort_values(["customer_id", "weight", "category"], ascending=[True, False, True])
    best = best.drop_duplicates("customer_id").set_index("customer_id")
    pieces = bought.groupby(["customer_id", "product_id"], as_index=False)["pieces"].sum()
    product = pieces.sort_values(["customer_id", "pieces", "product_id"], ascending=[True, False, True])
    product = product.drop_duplicates("customer_id").set_index("customer_id")["product_id"]
    return pd.DataFrame(
        {
            "favourite_category": best["category"],
            "favourite_category_order_cents": _whole(best["cents"] / best["days"]),
            "category_average_order_cents": best["category"].map(usual),
            "favourite_product_id": product,
        }
    )


def _cart_behaviour(given: Given, today: pd.Timestamp, carts: pd.DataFrame) -> pd.DataFrame:
    buyer = carts["customer_id"].where(carts["ordered_at"].notna())
    days = (
        carts.assign(buyer=buyer)
        .groupby(["cart_id", "day"], as_index=False)
        .agg(
            first_at=("first_at", "min"),
            last_at=("last_at", "max"),
            pause=("pause", "max"),
            ordered_at=("ordered_at", "min"),
            coupon=("coupon", "any"),
            buyer=("buyer", "min"),
            visitor=("customer_id", "min"),
        )
        .sort_values(["cart_id", "day"])
    )
    cart = days.groupby("cart_id")
    begin = days[["first_at", "ordered_at"]].min(axis=1)
    days["away"] = (begin.dt.floor("s") - cart["last_at"].shift().dt.floor("s")).dt.total_seconds()
    bought_on = days["day"].where(days["ordered_at"].notna()).groupby(days["cart_id"]).transform("min")
    counts = bought_on.isna() | (days["day"] <= bought_on)
    days["longest"] = days[["pause", "away"]].max(axis=1).where(counts)
    days["began"] = days["day"].where(days["first_at"].notna())
    days["bought"] = days["ordered_at"].notna()
    each = days.groupby("cart_id").agg(
        buyer=("buyer", "min"),
        visitor=("visitor", "min"),
        began=("began", "min"),
        last_at=("last_at", "max"),
        longest=("longest", "max"),
        bought=("bought", "any"),
        coupon=("coupon", "any"),
    )
    each = each[each["began"] > today - timedelta(days=365)]
    left_at = pd.Timestamp(given.day_end) - timedelta(minutes=given.cart_minutes)
    abandoned = (each["longest"] >= 60 * given.cart_minutes) | (~each["bought"] & (each["last_at"] <= left_at))
    each = pd.DataFrame(
        {
            "customer_id": each["buyer"].fillna(each["visitor"]),
            "carts_started_365d": 1,
            "carts_abandoned_365d": abandoned,
            "carts_recovered_with_coupon_365d": abandoned & each["bought"] & each["coupon"],
        }
    )
    return each.groupby("customer_id").sum()


def _counts(
    today: pd.Timestamp, activity: pd.DataFrame, goods: pd.DataFrame, order_days: pd.DataFrame, messages: pd.DataFrame
) -> pd.DataFrame:
    """The numbers that segments ask for and features do not have."""

    def summed(rows: pd.DataFrame, **columns: pd.Series) -> pd.DataFrame:
        return pd.DataFrame(columns).groupby(rows["customer_id"]).sum()

    age = (today - activity["day"]).dt.days
    parts = [
        summed(
            activity,
            visited_14d=activity["visits"].where(age < 14, 0),
            searched_180d=activity["searches"].where(age < 180, 0),
        )
    ]
    parts.append(
        summed(
            order_days,
            order_days=order_days["cents"].notna(),
            coupon_days=order_days["coupons"] > 0,
            large_days=order_days["cents"] >= 10_000,
        )
    )
    bought = goods[(goods["orders"] > 0) & (goods["category"] == CATEGORY)]
    bought = bought.drop_duplicates(["customer_id", "day", "product_id"])
    age = (today - bought["day"]).dt.days
    parts.append(summed(bought, camping_bought_365d=age < 365, camping_bought_90d=age < 90))
    lately = goods[(today - goods["day"]).dt.days < 90]
    parts.append(
        summed(
            lately,
            camping_viewed_90d=lately["views"].where(lately["category"] == CATEGORY, 0),
            carted_90d=lately["carted"],
        )
    )
    age = (today - messages["day"]).dt.days
    parts.append(
        summed(
            messages,
            mailed_60d=messages["sent"].where(age < 60, 0),
            opened_60d=messages["opens"].where(age < 60, 0),
            clicked_45d=messages["clicks"].where(age < 45, 0),
        )
    )
    return pd.concat(parts, axis=1).fillna(0).rename_axis("customer_id").reset_index()


def _members(known: pd.DataFrame) -> pd.DataFrame:
    """``segment`` and ``customer_id`` of all members."""
    ranked = known["orders"] > 0

    def fifth(value: pd.Series) -> pd.Series:
        value = value.where(ranked).astype("float64")
        return 1 + (5 * (value.rank(method="min") - 1)) // value.count()

    known["rfm_recency"] = fifth(-known["recency_days"])
    known["rfm_frequency"] = fifth(known["orders"])
    known["rfm_monetary"] = fifth(known["revenue_cents"] - known["refund_cents"])
    revenue = known["revenue_cents_365d"].where(known["revenue_cents_365d"] > 0)
    known["revenue_percentile"] = (100 * (revenue.rank(method="min") - 1) / max(revenue.count() - 1, 1)).round(6)
    found = []
    for said in SEGMENTS:
        inside = said.pandas(known).fillna(False).astype(bool)
        if said.each:
            value = known[said.each]
            inside &= value.notna() & (value != "")
            names = said.name + ":" + value[inside]
        else:
            names = said.name
        found.append(pd.DataFrame({"customer_id": known.loc[inside, "customer_id"], "segment": names}))
    return pd.concat(found, ignore_index=True)

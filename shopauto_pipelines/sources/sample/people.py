"""Who the customers of the sample shop are: their habits, names, addresses, phones and accounts."""

from __future__ import annotations

import unicodedata
from dataclasses import dataclass
from datetime import date, timedelta
from functools import lru_cache
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from shopauto_pipelines.sources.sample.files import FILES, Bools, Floats, Ints, times
from shopauto_pipelines.sources.sample.lists import COUNTRIES, GENDERS, Country
from shopauto_pipelines.sources.sample.shop import CATEGORIES, DAY, NEVER, Counters, Shop


@dataclass
class People:
    """One entry per person of the block; the last ones only ever check out as guests."""

    number: Ints  # 1-based over the whole shop; guests have their own numbers
    guest: Bools
    country: Ints
    signup: Ints  # seconds
    season: Ints
    buyer: Bools
    interval: Floats  # mean days between purchases
    regularity: Floats  # shape of the gamma distribution
    first_drop: Floats  # probability to leave after the first purchase
    drop: Floats  # … after each later one
    love: Floats  # [person, category] shares
    taste: Floats  # 0 buys the cheapest of a category, 1 the dearest
    basket: Floats  # mean of further lines per order
    seeker: Bools
    response: Floats  # 0 never opens a mail, 1 nearly always
    machine: Bools  # mail is opened by a proxy
    returns: Floats  # probability that a line comes back
    second_from: Ints  # seconds when a second account was opened, ``NEVER`` where none
    reachable: Bools  # the e-mail address exists

    def __len__(self) -> int:
        return len(self.number)


def draw_people(rng: np.random.Generator, shop: Shop, first: int, count: int) -> People:
    """The habits of customers ``first`` … ``first + count``, and of one guest for every 25 of them."""
    guests = (first + count) // 25 - first // 25
    n = count + guests
    number = np.concatenate([np.arange(first, first + count), np.arange(first // 25, first // 25 + guests)]) + 1
    guest = np.arange(n) >= count
    place = np.concatenate([(np.arange(first, first + count) + rng.random(count)) / shop.customers, rng.random(guests)])
    day = np.interp(place, shop.signup_clock, np.arange(len(shop.signup_clock)))
    country = rng.choice(len(COUNTRIES), n, p=[c.share for c in COUNTRIES])
    signup = shop.to_seconds(
        np.zeros(n, np.int64),
        country,
        shop.season_clock[0][0] + np.interp(day, np.arange(shop.season_clock.shape[1]), shop.season_clock[0]),
    )
    love = rng.gamma(0.45, size=(n, len(CATEGORIES))) * np.array([1.1, 0.9, 1.3, 1.0, 1.0, 0.9, 1.0, 1.1]) + 1e-3
    love /= love.sum(axis=1, keepdims=True)
    favourite = love.argmax(axis=1)
    outdoor = np.isin(favourite, [CATEGORIES.index("garden"), CATEGORIES.index("camping")])
    draw = rng.random(n)
    season = np.where(
        draw < np.where(outdoor, 0.55, 0.03),
        1,
        np.where(draw > np.where(favourite == CATEGORIES.index("kids"), 0.7, 0.9), 2, 0),
    )
    return People(
        number=number,
        guest=guest,
        country=country,
        signup=signup,
        season=season,
        buyer=guest | (rng.random(n) < 0.9),
        interval=np.clip(np.exp(rng.normal(np.log(50), 0.82, n)), 12, 300),
        regularity=rng.uniform(1.0, 4.0, n),
        first_drop=np.where(guest, 0.7, rng.beta(2.0, 5.0, n)),
        drop=rng.beta(1.2, 14.0, n),
        love=love,
        taste=rng.beta(1.6, 2.2, n),
        basket=rng.gamma(1.6, 0.45, n),
        seeker=~guest & (rng.random(n) < 0.15),
        response=rng.beta(1.1, 3.4, n),
        machine=rng.random(n) < 0.34,
        returns=np.where(rng.random(n) < 0.08, 0.22, 0.036),
        second_from=_second_accounts(rng, shop, signup, guest),
        reachable=rng.random(n) >= 0.022,
    )


def _second_accounts(rng: np.random.Generator, shop: Shop, signup: Ints, guest: Bools) -> Ints:
    """When the people who have two accounts opened the second: some weeks after the first, in the exported time."""
    earliest = np.maximum(signup, shop.opens) + 20 * DAY
    chosen = (rng.random(len(signup)) < 0.03) & ~guest & (earliest < shop.closes - 5 * DAY)
    at = earliest + (rng.random(len(signup)) * np.maximum(shop.closes - DAY - earliest, 1)).astype(np.int64)
    return np.where(chosen, at, NEVER)


@dataclass
class Ids:
    """How the shop knows the block's people."""

    shop: pa.Array  # null for guests
    second: pa.Array  # the second account, null where none
    second_from: Ints
    email: pa.Array  # as first typed
    retyped: pa.Array  # the same address, typed another way
    has_phone: Bools

    def account_at(self, person: Ints, seconds: Ints, known: Bools) -> pa.Array:
        """The account in use: people with two take turns by the month."""
        takes_second = (seconds >= self.second_from[person]) & ((seconds // (30 * DAY) + person) % 2 == 0)
        index = np.where(takes_second, person + len(self.shop), person)
        return pa.concat_arrays([self.shop, self.second]).take(pa.array(index, mask=~known))

    def typed_email(self, person: Ints, chosen: Bools) -> pa.Array:
        """The e-mail typed at a guest checkout, null elsewhere."""
        typed = pc.if_else(
            pa.array(person % 3 == 0), self.retyped.take(pa.array(person)), self.email.take(pa.array(person))
        )
        return pc.if_else(pa.array(chosen), typed, pa.scalar(None, pa.string()))


_LATIN = str.maketrans({"đ": "dj", "Đ": "Dj", "ß": "ss", "ö": "oe", "ü": "ue", "ä": "ae", "'": ""})


@lru_cache(maxsize=1024)
def _ascii(name: str) -> str:
    """How the name is typed into an e-mail address."""
    return unicodedata.normalize("NFKD", name.translate(_LATIN)).encode("ascii", "ignore").decode().lower()


def _phone(country: int, number: int) -> str | None:
    """The ``number``-th national number of the country's range, mixed; None past its end: no two people share one."""
    place = COUNTRIES[country]
    each = 10**place.phone_digits
    size = each * len(place.phone_prefixes)
    if number >= size:
        return None
    prefix, rest = divmod(number * 7919 % size, each)
    return f"{place.phone_prefixes[prefix]}{rest:0{place.phone_digits}d}"


def _type_phone(country: int, national: str, style: int) -> str:
    place = COUNTRIES[country]
    b, c = place.phone_split
    shape = place.phone_styles[style % len(place.phone_styles)]
    return shape.format(a=national[:b], b=national[b:c], c=national[c:], n=national)


def _type_email(email: str, style: int) -> str:
    return (email.upper(), f" {email}", f"{email} ", email.title(), email.capitalize())[style % 5]


def _spoil_email(email: str, style: int) -> str:
    name, _, domain = email.partition("@")
    return (f"{name}@", f"{name}{domain}", f"{name}@@{domain}", f"{name}@example", "n/a")[style % 5]


def draw_records(
    rng: np.random.Generator, shop: Shop, people: People, counters: Counters
) -> tuple[Ids, dict[str, Any]]:
    """Names, addresses and phones of the block; its rows of customers.csv, one per account and per later change."""
    n = len(people)
    chance = {name: rng.random(n).tolist() for name in _CHANCES}
    styles = rng.integers(0, 10**6, (n, 8)).tolist()
    women, ages = rng.random(n) < 0.56, np.clip(rng.normal(43, 13, n), 18, 88)
    width = max(5, len(str(shop.customers + shop.customers // 10)))
    emails, retyped, has_phone = [], [], np.zeros(n, bool)
    second: list[str | None] = [None] * n
    records: list[dict[str, Any]] = []
    for i in range(n):
        draw, style = {name: values[i] for name, values in chance.items()}, styles[i]
        country, number, guest = int(people.country[i]), int(people.number[i]), bool(people.guest[i])
        place = COUNTRIES[country]
        first = (place.women if women[i] else place.men)[style[0] % 15]
        family = place.families[style[1] % len(place.families)]
        mark = f"g{number}" if guest else str(number)
        email = _address(first, family, mark, style[2], style[3])
        emails.append(email)
        retyped.append(_type_email(email, style[4]))
        if guest:
            continue
        national = None
        if draw["phone"] < 0.62:
            national = _phone(country, counters.take(f"phone {place.code}", 1) - 1)
        has_phone[i] = national is not None
        created = int(people.signup[i])
        record = {
            "shop_customer_id": f"c{number:0{width}d}",
            "changed_at": max(created, shop.opens),
            "created_at": created,
            "email": _typed_email(email, retyped[i], draw["email"], style[4], bool(national)),
            "phone": _typed_phone(country, national, draw["phone"], style[5]),
            "first_name": _typed_name(first, draw["case"]),
            "last_name": _typed_name(family, draw["case"]),
            "gender": _gender("f" if women[i] else "m", draw["gender"], style[6]),
            "birthday": _birthday(shop, float(ages[i]), draw["leap"], style[7]) if draw["birthday"] < 0.55 else None,
            "country": _country(place, draw["country"]),
            "city": place.cities[style[7] % len(place.cities)],
            "language": _language(place.language, draw["language"]),
        }
        records.append(record)
        at = record["changed_at"] + DAY + int(draw["when"] * (shop.closes - record["changed_at"]))
        if at < shop.closes and draw["change"] < 0.05:
            if draw["change"] < 0.025:
                moved = {"city": place.cities[(style[7] + 1) % len(place.cities)]}
            elif draw["change"] < 0.04:
                moved = {"email": f"{_ascii(family)}.{mark}@example.org"}
            else:
                fresh = _phone(country, counters.take(f"phone {place.code}", 1) - 1)
                moved = {"phone": _typed_phone(country, fresh, 1.0, style[5])}
            records.append({**record, "changed_at": at, **moved})
        opened = int(people.second_from[i])
        if opened < NEVER:
            second[i] = f"c{shop.customers + counters.take('second account', 1):0{width}d}"
            again = {"shop_customer_id": second[i], "changed_at": opened, "created_at": opened}
            if national and style[4] % 5 < 2:
                again["email"] = f"{_ascii(family)}.shop{number}@example.net"
                again["phone"] = _typed_phone(country, national, 1.0, style[5] + 1)
            else:
                again |= {"email": retyped[i], "phone": None}
            records.append({**record, "gender": None, "birthday": None, **again})
    records.sort(key=lambda record: (record["changed_at"], record["shop_customer_id"]))
    rows: dict[str, Any] = {name: [record[name] for record in records] for name in FILES["customers.csv"]}
    for name in ("changed_at", "created_at"):
        rows[name] = times(np.array(rows[name], np.int64))
    people.reachable &= np.array(chance["email"]) >= _MISTYPED_EMAIL
    text = pa.string()
    own = pa.array([None if people.guest[i] else f"c{people.number[i]:0{width}d}" for i in range(n)], text)
    ids = Ids(
        own, pa.array(second, text), people.second_from, pa.array(emails, text), pa.array(retyped, text), has_phone
    )
    return ids, rows


_CHANCES = ("email", "phone", "gender", "birthday", "leap", "country", "language", "change", "when", "case")
_SPOILED_EMAIL, _MISTYPED_EMAIL = 0.012, 0.027  # up to the first it is no address, up to the second mostly missing


def _address(first: str, family: str, mark: str, shape: int, domain: int) -> str:
    first, family = _ascii(first), _ascii(family)
    name = (f"{first}.{family}{mark}", f"{first[0]}{family}{mark}", f"{family}_{mark}")[shape % 3]
    return f"{name}@example.{('com', 'com', 'org', 'net')[domain % 4]}"


def _typed_email(email: str, retyped: str, draw: float, style: int, has_phone: bool) -> str | None:
    if draw < _SPOILED_EMAIL:
        return _spoil_email(email, style)
    if draw < _MISTYPED_EMAIL and has_phone:
        return None
    return retyped if draw < 0.08 else email


def _typed_phone(country: int, national: str | None, draw: float, style: int) -> str | None:
    if national is None:
        return None
    phone = _type_phone(country, national, style)
    return (phone[:-3], f"{phone}00000000", "12345", "none")[style % 4] if draw < 0.008 else phone


def _typed_name(name: str, draw: float) -> str:
    return name.upper() if draw < 0.03 else f"{name.lower()} " if draw < 0.05 else name


def _gender(gender: str, draw: float, style: int) -> str | None:
    if draw > 0.8:
        return None
    words = GENDERS["o" if draw > 0.785 else gender]
    return words[style % len(words)]


def _country(place: Country, draw: float) -> str | None:
    return None if draw < 0.02 else place.english if draw < 0.16 else place.code


def _birthday(shop: Shop, age: float, leap: float, day: int) -> str:
    if leap < 0.012:
        return f"{(shop.end.year - int(age)) // 4 * 4}-02-29"
    return (date(shop.end.year - int(age), 1, 1) + timedelta(days=day % 365)).isoformat()


def _language(tag: str, draw: float) -> str | None:
    if draw < 0.05:
        return None
    return tag.replace("-", "_") if draw < 0.1 else tag.upper() if draw < 0.12 else tag

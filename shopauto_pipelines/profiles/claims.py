"""What sources claim about customers, one row per field, cleaned: the table ``profiles/claims``.

A record of ``raw/customers`` claims each of its fields; an order of a guest claims the e-mail given at the checkout. How a
field is cleaned is in ``cleaning``; which claim is in force for a person is decided in ``customers``.
"""

from __future__ import annotations

import ibis
import ibis.expr.types as ir
from ibis import Deferred, _

from shopauto_pipelines.profiles import cleaning

#: Why a declared value was not usable, by field. Never quotes the value: it may be private.
PROBLEMS = {
    "email": "not an e-mail address",
    "phone": "not a phone number of any country, or not one of the customer's",
    "first_name": "not a name",
    "last_name": "not a name",
    "gender": "not a gender by any known word",
    "birthday": "1900-01-01 or before, or after the record",
    "country": "not a country",
    "city": "not the name of a place",
    "language": "not a language",
    "created_on": "after the record",
}

#: What an inferred value rests on, as the claim's source; the country someone declared is the better ground.
FROM_COUNTRY, FROM_PHONE = "country", "phone"

#: Inferred rows: the field and its value, each only where nothing usable was declared.
_INFERRED = {
    "country from phone": ("country", ibis.cases((_.country.isnull(), _.phone_country))),
    "language from country": ("language", ibis.cases((_.language.isnull(), _.home_language))),
    "time zone from country": ("time_zone", _.home_time_zone),
}

_COLUMNS = ("day", "shop_customer_id", "field", "value", "kind", "source", "at", "problem")

_email = cleaning.lift(cleaning.clean_email)
_phone = cleaning.lift(cleaning.clean_phone)
_country_of_phone = cleaning.lift(cleaning.country_of_phone)
_name = cleaning.lift(cleaning.clean_name)
_place = cleaning.lift(cleaning.clean_place)
_gender = cleaning.lift(cleaning.clean_gender)
_country = cleaning.lift(cleaning.clean_country)
_language = cleaning.lift(cleaning.clean_language)
_language_of_country = cleaning.lift(cleaning.language_of_country)
_time_zone_of_country = cleaning.lift(cleaning.time_zone_of_country)


def claims(customers: ir.Table, orders: ir.Table, country: str, timezone: str = "UTC") -> ir.Table:
    """The claims of the days in ``customers`` and ``orders`` (``raw/customers`` and ``raw/orders`` with their ``day``).

    ``country`` (ISO alpha-2) is where local phone numbers are read where the record names no country; ``timezone`` (IANA)
    tells on which day an account was created. Columns: those of ``profiles/claims`` and ``day``. Empty fields claim nothing;
    a field that is not usable gives a row with ``problem`` and no value. Each record gives a row at most per field and kind.
    """
    return ibis.union(_customer_claims(customers, country, timezone), _guest_claims(orders, customers))


def _customer_claims(customers: ir.Table, country: str, timezone: str) -> ir.Table:
    # In steps, so that each cleaner runs once per record: own fields, what needs the country, what follows from it.
    own = customers.select(
        "day",
        "shop_customer_id",
        "source",
        "phone",
        at=_.changed_at,
        email_said=_said(_.email),
        email=_email(_.email),
        phone_said=_said(_.phone),
        first_name_said=_said(_.first_name),
        first_name=_name(_.first_name),
        last_name_said=_said(_.last_name),
        last_name=_name(_.last_name),
        gender_said=_said(_.gender),
        gender=_gender(_.gender),
        birthday_said=_.birthday.notnull(),
        birthday=ibis.cases((_.birthday.between(cleaning.EARLIEST_BIRTHDAY, _.day), _.birthday.cast("string"))),
        country_said=_said(_.country),
        country=_country(_.country),
        city_said=_said(_.city),
        city=_place(_.city),
        language_said=_said(_.language),
        language=_language(_.language),
        created_on_said=_.created_at.notnull(),
        created_on=cleaning.local_day(_.created_at, ibis.literal(timezone)),
    )
    placed = own.mutate(
        phone=_phone(_.phone, _.country.fill_null(country)),
        created_on=ibis.cases((_.created_on <= _.day, _.created_on.cast("string"))),
        phone_country=_country_of_phone(_.phone, _.country.fill_null(country)),
    ).mutate(home=_.country.fill_null(_.phone_country))
    whole = placed.mutate(home_language=_language_of_country(_.home), home_time_zone=_time_zone_of_country(_.home))
    rows = whole.mutate(slot=ibis.array([*PROBLEMS, *_INFERRED]).unnest())
    ground = ibis.ifelse(_.country.notnull(), FROM_COUNTRY, FROM_PHONE)
    inferred = _.slot.isin(list(_INFERRED))
    return (
        rows.select(
            "day",
            "shop_customer_id",
            field=_chosen({slot: ibis.literal(field) for slot, (field, _value) in _INFERRED.items()}).fill_null(_.slot),
            value=_chosen(
                {field: _[field] for field in PROBLEMS} | {slot: value for slot, (_field, value) in _INFERRED.items()}
            ),
            kind=ibis.ifelse(inferred, "inferred", "declared"),
            source=ibis.ifelse(inferred, ground, _.source),
            at="at",
            problem=_chosen(
                {field: ibis.cases((_[f"{field}_said"] & _[field].isnull(), text)) for field, text in PROBLEMS.items()}
            ),
        )
        .filter(_.value.notnull() | _.problem.notnull())
        .select(*_COLUMNS)
    )


def _guest_claims(orders: ir.Table, customers: ir.Table) -> ir.Table:
    """The e-mail of each guest's first order of the day, where no record of the guest names one on that day."""
    recorded = customers.filter(_said(_.email)).select("day", "shop_customer_id")
    first = (
        orders.filter(_.shop_customer_id.startswith("guest:"), _said(_.email))
        .group_by("day", "shop_customer_id")
        .agg(row=ibis.struct({"at": _.ordered_at, "order_id": _.order_id, "email": _.email, "source": _.source}).min())
        .anti_join(recorded, ["day", "shop_customer_id"])
    )
    return (
        first.select("day", "shop_customer_id", at=_.row["at"], source=_.row["source"], value=_email(_.row["email"]))
        .mutate(
            field=ibis.literal("email"),
            kind=ibis.literal("declared"),
            problem=ibis.cases((_.value.isnull(), PROBLEMS["email"])),
        )
        .select(*_COLUMNS)
    )


def _said(text: Deferred) -> Deferred:
    return text.strip().length() > 0


def _chosen(by_slot: dict[str, ir.Value]) -> ir.Value:
    return ibis.cases(*((_.slot == slot, value) for slot, value in by_slot.items()))

"""Languages: which one a person reads, and how each writes amounts, percentages and days."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import date
from decimal import Decimal
from functools import lru_cache

from babel import Locale, UnknownLocaleError
from babel.dates import format_date
from babel.numbers import format_currency, format_percent, get_currency_precision

#: Language of a subject that names none, and of people whose language no text is written in.
FALLBACK_LANGUAGE = "en"


def match_language(wanted: str | None, available: Sequence[str], default: str = FALLBACK_LANGUAGE) -> str:
    """The language of ``available`` for a person who reads ``wanted``: pt-PT → pt-PT, pt, any other pt, the default, en.

    Tags compare without regard to case. Where not even ``en`` is available it is the first one.
    """
    for tag in (wanted, default, FALLBACK_LANGUAGE):
        for candidate in available:
            if tag and candidate.lower() == tag.lower():
                return candidate
        base = (tag or "").split("-")[0].lower()
        for candidate in sorted(available, key=lambda c: (len(c.split("-")), c)):
            if base and candidate.split("-")[0].lower() == base:
                return candidate
    return available[0]


@lru_cache(maxsize=65_536)
def price(cents: int | None, currency: str, language: str) -> str | None:
    """An amount of minor units as ``language`` writes it, e.g. ``R$ 1.234,50``; ``None`` where there is no price."""
    if cents is None:
        return None
    amount = Decimal(int(cents)).scaleb(-get_currency_precision(currency))
    return format_currency(amount, currency, locale=locale_of(language))


@lru_cache
def percentage(percent: int, language: str) -> str:
    """A percentage as ``language`` writes it, e.g. ``5 %``."""
    return format_percent(Decimal(percent) / 100, locale=locale_of(language))


#: Languages in which a day is not written out: the month's name would have to be in another case.
_DAY_FORMATS = {"sr": "medium"}


@lru_cache
def day_in_words(day: str, language: str) -> str:
    """A day, ISO, as ``language`` writes it within a sentence."""
    locale = locale_of(language)
    return format_date(date.fromisoformat(day), _DAY_FORMATS.get(locale.language, "long"), locale=locale)


@lru_cache
def locale_of(language: str) -> Locale:
    """The conventions of a language; those of English where nobody knows it."""
    try:
        return Locale.parse(language, sep="-")
    except (UnknownLocaleError, ValueError):
        return Locale.parse(FALLBACK_LANGUAGE)

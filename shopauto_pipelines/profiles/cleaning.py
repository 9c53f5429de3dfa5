"""How a field as typed becomes a value to rely on: one pure function per kind of field.

A cleaner takes the text as typed and returns the cleaned text, or ``None`` where the text cannot be used; it never raises
and never looks anything up on the network. :func:`lift` makes it a function of columns, so that the engine calls it on
bounded batches. What is claimed, by whom and when is not decided here: see ``claims``.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Callable
from contextlib import suppress
from datetime import date
from functools import cache, lru_cache, wraps
from inspect import signature
from typing import Any

import ibis
import ibis.expr.types as ir
import pyarrow as pa
import pyarrow.compute as pc

#: No birthday before this day is believed. The day before it is what some databases write where none is known.
EARLIEST_BIRTHDAY = date(1900, 1, 2)

#: Longest text that is looked at, characters: an e-mail address has at most 254, and nobody's name has more than this.
LONGEST = 320

#: Names of countries, besides CLDR's English ones, that shops are known to write. Empty: a region of several countries.
_COUNTRY_ALIASES = {
    "eire": "IE",
    "republic of ireland": "IE",
    "rsa": "ZA",
    "great britain": "GB",
    "britain": "GB",
    "england": "GB",
    "scotland": "GB",
    "wales": "GB",
    "northern ireland": "GB",
    "united states of america": "US",
    "america": "US",
    "el": "GR",
    "holland": "NL",
    "the netherlands": "NL",
    "czech republic": "CZ",
    "korea": "KR",
    "republic of korea": "KR",
    "russian federation": "RU",
    "hong kong": "HK",
    "macau": "MO",
    "macao": "MO",
    "turkey": "TR",
    "burma": "MM",
    "ivory coast": "CI",
    "swaziland": "SZ",
    "macedonia": "MK",
    "vatican": "VA",
    "palestine": "PS",
    "uae": "AE",
    "viet nam": "VN",
    "congo": "CG",
    "canary islands": "ES",
    "deutschland": "DE",
    "osterreich": "AT",
    "schweiz": "CH",
    "espana": "ES",
    "italia": "IT",
    "brasil": "BR",
}

#: Codes CLDR lists that are no country's: Antarctica has no shops' customers, the others are groups, tests and reserves.
_NO_COUNTRIES = {"AC", "AQ", "CP", "CQ", "DG", "EA", "EU", "EZ", "IC", "QO", "TA", "UN", "XA", "XB", "ZZ"}

#: The zone most people live in, for countries with several.
_MAIN_ZONES = {
    "AR": "America/Argentina/Buenos_Aires",
    "AU": "Australia/Sydney",
    "BR": "America/Sao_Paulo",
    "CA": "America/Toronto",
    "CD": "Africa/Kinshasa",
    "CL": "America/Santiago",
    "CN": "Asia/Shanghai",
    "CY": "Asia/Nicosia",
    "DE": "Europe/Berlin",
    "EC": "America/Guayaquil",
    "ES": "Europe/Madrid",
    "FM": "Pacific/Chuuk",
    "GL": "America/Nuuk",
    "ID": "Asia/Jakarta",
    "KI": "Pacific/Tarawa",
    "KZ": "Asia/Almaty",
    "MH": "Pacific/Majuro",
    "MN": "Asia/Ulaanbaatar",
    "MX": "America/Mexico_City",
    "MY": "Asia/Kuala_Lumpur",
    "NZ": "Pacific/Auckland",
    "PF": "Pacific/Tahiti",
    "PG": "Pacific/Port_Moresby",
    "PS": "Asia/Gaza",
    "PT": "Europe/Lisbon",
    "RU": "Europe/Moscow",
    "UA": "Europe/Kyiv",
    "US": "America/New_York",
    "UZ": "Asia/Tashkent",
    "XK": "Europe/Belgrade",
}

_GENDERS = {
    "female": (
        "f female fem feminine woman girl mrs ms miss w weiblich frau fr mme madame mlle femme féminin "
        "feminin fille mujer femenino femenina sra señora senora feminino feminina mulher senhora femminile "
        "femmina donna sig.ra signora v vrouw vrouwelijk mevrouw mevr k kvinna kvinne kvinde kobieta kadın "
        "kadin žena zena nainen"
    ),
    "male": (
        "m male masc masculine man boy mr h mann männlich maennlich mannlich herr hr homme masculin monsieur "
        "garçon hombre masculino varón varon sr señor senor homem senhor maschile maschio uomo sig signor "
        "mannelijk dhr meneer e erkek mężczyzna mezczyzna muž muz mies"
    ),
    "other": (
        "o x d other diverse divers nonbinary nb enby genderqueer autre otro otra outro outra altro altra "
        "andere anders annat annet andet inna inny diğer diger muu third"
    ),
}

_PARTICLES = set(
    [
        "van",
        "von",
        "der",
        "den",
        "de",
        "del",
        "della",
        "di",
        "da",
        "dos",
        "das",
        "du",
        "la",
        "le",
        "ter",
        "ten",
        "zu",
        "zur",
    ]
)
_PLAIN_LOCAL = re.compile(r"[a-z0-9_+-]+(?:\.[a-z0-9_+-]+)*")
_WORD = re.compile(r"[^\W\d_]+")
_AS_NUMBER = re.compile(r"\+?\d+\.0")
_LANGUAGE_TAG = re.compile(r"([a-z]{2,3})(?:-([a-z]{4}))?(?:-([a-z]{2}|\d{3}))?", re.IGNORECASE)


def clean_email(text: str) -> str | None:
    """The address in lower case with an ASCII domain, as mail is delivered to it; ``None`` where it is none.

    Takes ``Anna <anna@shop.com>`` and ``mailto:`` too. Dots and ``+tags`` stay: whether they matter is the provider's
    affair. Local parts beyond ASCII are refused, as most mail systems refuse them.
    """
    text = _tidy(text).lower().removeprefix("mailto:")
    local, _, domain = text.rpartition("@")
    if len(local) <= 64 and len(text) <= 254 and _PLAIN_LOCAL.fullmatch(local):
        known = _domain(domain)  # most addresses differ in plain local parts only: 30 times faster
        if known and len(local) + 1 + len(known) <= 254:
            return f"{local}@{known}"
    return _validated_email(text)


def _validated_email(text: str) -> str | None:
    from email_validator import EmailNotValidError, validate_email

    if not text or len(text) > LONGEST:
        return None
    try:
        found = validate_email(
            text, check_deliverability=False, allow_smtputf8=False, allow_display_name=True, strict=True
        )
    except EmailNotValidError:
        return None
    return (found.ascii_email or "").lower() or None


@lru_cache(maxsize=65_536)
def _domain(domain: str) -> str | None:
    address = _validated_email(f"a@{domain}")
    return address and address.removeprefix("a@")


def clean_phone(text: str, country: str) -> str | None:
    """The number in E.164, read as dialled from ``country`` (ISO alpha-2) where it is not international.

    Takes ``491701234567.0`` too, as spreadsheets and data frames write numbers: with the nought it would be somebody else's.
    """
    return _phone(text, country)[0]


def country_of_phone(text: str, country: str) -> str | None:
    """Country (ISO alpha-2) a valid number belongs to; ``None`` for numbers of no country, such as +800."""
    return _phone(text, country)[1]


@lru_cache(maxsize=65_536)
def _phone(text: str, country: str) -> tuple[str | None, str | None]:
    import phonenumbers

    text = _tidy(text)
    if not text or len(text) > LONGEST:
        return None, None
    if _AS_NUMBER.fullmatch(text):
        text = text.removesuffix(".0")
    for spelling in _spellings(text, country):
        try:
            number = phonenumbers.parse(spelling, country)
        except phonenumbers.NumberParseException:
            continue
        region = phonenumbers.region_code_for_number(number)
        if region and phonenumbers.is_valid_number_for_region(number, region):
            known = region if region in _countries()[0] else None
            return phonenumbers.format_number(number, phonenumbers.PhoneNumberFormat.E164), known
    return None, None


def _spellings(text: str, country: str) -> tuple[str, ...]:
    """How to read a number, the likeliest first: a mobile phone's may lack its plus where one at home begins with a nought."""
    import phonenumbers

    if text.startswith("00"):
        return text, f"+{text[2:]}"
    home, trunk = phonenumbers.country_code_for_region(country), phonenumbers.ndd_prefix_for_region(country, True)
    if text.startswith(str(home)) and trunk == "0":
        with suppress(phonenumbers.NumberParseException):
            number = phonenumbers.parse(f"+{text}")
            if phonenumbers.number_type(number) == phonenumbers.PhoneNumberType.MOBILE:
                return f"+{text}", text
    return (text,)


def clean_name(text: str) -> str | None:
    """A person's name, trimmed; written all in capitals or all in small letters, its case is repaired.

    What holds no letter, an ``@`` or a web address is no name (such "names" are how spam gets into other people's mail).
    """
    text = _tidy(text)
    if len(text) > LONGEST or not _WORD.search(text) or re.search(r"@|://|www\.", text, re.IGNORECASE):
        return None
    return _repaired(text) if text in (text.upper(), text.lower()) else text


def clean_place(text: str) -> str | None:
    """A town's name, by the rules of :func:`clean_name`; it begins with a capital."""
    name = clean_name(text)
    return name and clean_name(name[0].upper() + name[1:])


def clean_gender(text: str) -> str | None:
    """``female``, ``male`` or ``other``, from the words, letters and salutations of the larger European languages."""
    return _genders().get(_tidy(text).lower().rstrip(".").replace("-", "")) if len(text) <= LONGEST else None


def clean_country(text: str) -> str | None:
    """ISO 3166-1 alpha-2 (and XK) from a code of two, three letters or digits, or from a common English name."""
    if len(text) > LONGEST:
        return None
    codes, names = _countries()
    key = _country_key(text)
    return key.upper() if key.upper() in codes else names.get(key)


def clean_language(text: str) -> str | None:
    """A language tag such as ``en``, ``pt-BR`` or ``zh-Hant``, from a tag, a POSIX locale or an English name."""
    if len(text) > LONGEST:
        return None
    text = re.split(r"[,;.@]", _tidy(text))[0].strip().replace("_", "-")
    languages = _languages()
    tag = _LANGUAGE_TAG.fullmatch(text)
    if tag is None or tag[1].lower() not in languages.values():
        return languages.get(text.lower())
    language, script, region = tag.groups()
    if region and not region.isdigit() and region.upper() not in _countries()[0]:
        return None
    return "-".join(part for part in (language.lower(), script and script.title(), region and region.upper()) if part)


@cache
def language_of_country(country: str) -> str | None:
    """Most likely language of a country (CLDR likely subtags), with its script where that is not the language's usual one."""
    from babel.core import get_global

    likely = get_global("likely_subtags")
    language, script, _ = likely.get(f"und_{country}", f"en_Latn_{country}").split("_")
    usual = likely.get(language, f"{language}_{script}_{country}").split("_")[1]
    return language if script == usual else f"{language}-{script}"


@cache
def time_zone_of_country(country: str) -> str | None:
    """IANA zone of a country; of several, the one most people live in."""
    from babel.core import get_global

    zones = get_global("territory_zones").get(country, [])
    return _MAIN_ZONES.get(country) or (zones[0] if zones else None)


def local_day(at: ir.Value, zone: str) -> ir.DateValue:
    """The date in ``zone`` (IANA) at a naive UTC time."""
    return _local_day(at, zone)  # type: ignore[no-any-return]


def _date_in_zone(at: Any, zone: Any) -> pa.Array:
    times = _whole(at)
    if not len(times):
        return pa.array([], pa.date32())
    local = pc.local_timestamp(pc.assume_timezone(times, "UTC").cast(pa.timestamp("us", _whole(zone)[0].as_py())))
    return local.cast(pa.date32())


_local_day = ibis.udf.scalar.pyarrow(
    _date_in_zone, name="local_day", signature=(("timestamp(6)", "string"), "date"), null_handling="special"
)


def lift(cleaner: Callable[..., str | None]) -> Callable[..., ir.StringValue]:
    """The cleaner as a function of string columns; null where one of them is null. Recent answers are remembered."""

    @wraps(cleaner)
    def column(*columns: Any) -> pa.Array:
        remembered = _remembering(cleaner)
        rows = zip(*(_whole(each).to_pylist() for each in columns), strict=True)
        return pa.array([None if None in row else remembered(*row) for row in rows], pa.string())

    arguments = ("string",) * len(signature(cleaner).parameters)
    return ibis.udf.scalar.pyarrow(column, signature=(arguments, "string"), null_handling="special")  # type: ignore[no-any-return]


@cache
def _remembering(cleaner: Callable[..., str | None]) -> Callable[..., str | None]:
    """The cleaner with the answers of this process, which the function itself may leave for another one."""
    return lru_cache(maxsize=65_536)(cleaner)


def _whole(column: Any) -> pa.Array:
    return column.combine_chunks() if isinstance(column, pa.ChunkedArray) else column


def _tidy(text: str) -> str:
    """Composed Unicode, without control and invisible characters, runs of white space as one blank."""
    if not (text.isascii() and text.isprintable()):
        composed = unicodedata.normalize("NFC", text)
        text = "".join(" " if c.isspace() else c for c in composed if c.isspace() or c.isprintable())
    return " ".join(text.split())


def _repaired(text: str) -> str:
    words = []
    for position, word in enumerate(text.lower().split(" ")):
        if word in _PARTICLES and " " in text and position < text.count(" "):
            words.append(word)
        else:
            word = _WORD.sub(lambda found: found[0].capitalize(), word)
            word = re.sub(r"(?<=[^\W\d_]{2}['’])S\b", "s", word)
            words.append(re.sub(r"\bMc([a-z])", lambda found: f"Mc{found[1].upper()}", word))
    return " ".join(words)


def _country_key(text: str) -> str:
    plain = "".join(c for c in unicodedata.normalize("NFKD", text.replace("ß", "ss")) if not unicodedata.combining(c))
    words = re.sub(r"[^a-z0-9]+", " ", re.sub(r"[.'’]", "", plain.lower().replace("&", " and "))).split()
    words = ["st" if word == "saint" else word for word in words]
    return " ".join(words[1:] if words[:1] == ["the"] and len(words) > 1 else words)


@cache
def _countries() -> tuple[frozenset[str], dict[str, str]]:
    """All codes, and code by other spellings: English name, alpha-3, number, alias."""
    from babel.core import Locale, get_global

    names = {code: name for code, name in Locale("en").territories.items() if len(code) == 2 and code.isalpha()}
    codes = frozenset(names) - _NO_COUNTRIES
    spellings = {_country_key(names[code]): code for code in sorted(codes)}
    for alias, now in get_global("territory_aliases").items():
        if len(now) == 1 and now[0] in codes:
            spellings.setdefault(alias.lower(), now[0])
    return codes, spellings | _COUNTRY_ALIASES


@cache
def _languages() -> dict[str, str]:
    """Language subtag by English name, lower case."""
    from babel.core import Locale

    names = {tag: name for tag, name in sorted(Locale("en").languages.items()) if re.fullmatch("[a-z]{2,3}", tag)}
    return {name.lower(): tag for tag, name in names.items() if tag not in ("und", "mul", "zxx")}


@cache
def _genders() -> dict[str, str]:
    return {word.replace("-", "").rstrip("."): gender for gender, words in _GENDERS.items() for word in words.split()}

"""Suppression lists as CSV files: what another tool exports, with addresses, and what this one does, with keyed hashes.

An address is made a keyed hash line by line and never kept. Hashes only mean something under the key they were made with:
a list exported here is for this shop, or for a move of it that takes the key along.
"""

from __future__ import annotations

import csv
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from itertools import chain, islice
from typing import TextIO

import sqlalchemy as sa

from shopauto_pipelines.outbox import consents, links
from shopauto_pipelines.platform.errors import ShopAutoError
from shopauto_pipelines.platform.settings import Settings
from shopauto_pipelines.profiles.cleaning import clean_email, clean_phone

#: Columns of an exported list. A list to import needs a column of addresses or ``hash``; the others are optional.
COLUMNS = ("hash", "channel", "reason", "at")

#: Names of a column of addresses, and the channel they are of.
ADDRESSES = {"email": "email", "e-mail": "email", "email address": "email", "phone": "sms", "phone number": "sms"}

_REASONS = ("unsubscribe", "bounce", "spam_report", "import")
_BATCH = 5_000
_HASH_DIGITS = 64
_SHOWN = 20


class SuppressionListError(ShopAutoError):
    """The file is no list that can be read; the text says what it must have."""


@dataclass
class Imported:
    """What an import did. ``refused``: the lines of the first that were no address or hash, and why, without the address."""

    new: int = 0
    known: int = 0
    refused_count: int = 0
    refused: list[tuple[int, str]] = field(default_factory=list)


def read(
    connection: sa.Connection, file: TextIO, settings: Settings, *, at: datetime, reason: str | None = None
) -> Imported:
    """Suppress every address of a CSV file with a header. What cannot be read is counted and left out.

    A column ``hash`` has this shop's keyed hashes, with ``channel``; columns ``email`` and ``phone``, one of them or both, have
    addresses, in any usual spelling. ``reason`` is what is kept for all of them; ``None``: what a column ``reason`` says, if it
    is one of ours, otherwise ``import``. Reading a list again changes nothing.
    """
    try:
        head = file.readline()
        rows = csv.DictReader(chain([head], file), delimiter=max(",;\t", key=head.count))
        names = {(name or "").strip().lower(): name for name in rows.fieldnames or ()}
    except (csv.Error, UnicodeDecodeError) as error:
        raise SuppressionListError(f"this is no CSV file in UTF-8: {error}") from None
    columns = ["hash"] if "hash" in names else [name for name in ADDRESSES if name in names]
    if not columns:
        raise SuppressionListError(
            "the list needs a first line that names its columns, one of them `email`, `phone` or `hash`; "
            f"columns found: {len(rows.fieldnames or ())}, none of these"  # not which: they may be addresses
        )
    done = Imported()

    def suppressions() -> Iterator[consents.Suppression]:
        for row in rows:
            cells = {name: (row.get(given) or "").strip() for name, given in names.items()}
            for column in [name for name in columns if cells[name]] or columns[:1]:
                try:
                    found = _suppression(cells, column, settings, reason, at)
                except ValueError as error:
                    done.refused_count += 1
                    if len(done.refused) < _SHOWN:
                        done.refused.append((rows.line_num, str(error)))
                else:
                    yield found

    wanted = suppressions()
    try:
        while part := list(islice(wanted, _BATCH)):
            new = consents.suppress_all(connection, part)
            done.new += new
            done.known += len(part) - new
    except (csv.Error, UnicodeDecodeError) as error:
        raise SuppressionListError(f"line {rows.line_num + 1} cannot be read: {error}; nothing was taken") from None
    return done


def write(found: Iterable[consents.Suppression], file: TextIO) -> int:
    """Write suppressions as a list :func:`read` takes; returns how many."""
    writer = csv.writer(file, lineterminator="\n")
    writer.writerow(COLUMNS)
    count = 0
    for count, one in enumerate(found, 1):  # noqa: B007  (the last value is the result)
        writer.writerow((one.address_hash.hex(), one.channel, one.reason, one.at.astimezone(UTC).isoformat()))
    return count


def _suppression(
    cells: dict[str, str], column: str, settings: Settings, reason: str | None, at: datetime
) -> consents.Suppression:
    """Raises :class:`ValueError` that says what is wrong, without the address."""
    said = cells.get("reason", "")
    kept = reason or (said if said in _REASONS else "import")
    if column == "hash":
        channel = cells.get("channel", "")
        if channel not in ("email", "sms"):
            raise ValueError("the channel is not `email` or `sms`")
        digits = cells["hash"].lower()
        if len(digits) != _HASH_DIGITS or set(digits) - set("0123456789abcdef"):
            raise ValueError(f"not a hash of {_HASH_DIGITS} hexadecimal digits")
        return consents.Suppression(bytes.fromhex(digits), channel, kept, _time(cells.get("at"), at))
    channel = ADDRESSES[column]
    text = cells[column]
    address = clean_email(text) if channel == "email" else clean_phone(text, settings.country)
    hashed = links.address_hash(settings.hash_key, channel, address)
    if hashed is None:
        raise ValueError("not an e-mail address" if channel == "email" else "not a phone number")
    return consents.Suppression(hashed, channel, kept, at)


def _time(text: str | None, usual: datetime) -> datetime:
    if not text:
        return usual
    try:
        found = datetime.fromisoformat(text)
    except ValueError:
        raise ValueError("the time is not written like 2026-06-30T08:00:00+00:00") from None
    return found if found.tzinfo else found.replace(tzinfo=UTC)

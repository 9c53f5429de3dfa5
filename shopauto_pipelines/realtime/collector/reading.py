"""What requests say → rows of the raw tables and logins, ready to be stored. Touches no database.

Everything is checked before the first row of an entry is added to a batch: a bad one leaves nothing behind. A refusal names
the field and what is wrong with it, never its value. Addresses are hashed as soon as they are read; the raw rows of forms,
orders and customers keep them as they were typed, as the files of a shop do.
"""

from __future__ import annotations

import hashlib
import hmac
import json
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from typing import Any

from pydantic import TypeAdapter, ValidationError

from shopauto_pipelines.outbox import links
from shopauto_pipelines.platform.settings import Settings
from shopauto_pipelines.platform.tables import Table
from shopauto_pipelines.profiles.cleaning import clean_email
from shopauto_pipelines.realtime.batch import Batch, Login, Row
from shopauto_pipelines.realtime.collector import models
from shopauto_pipelines.sources import tables as raw

#: A visitor's clock may be so much ahead of ours.
AHEAD = timedelta(minutes=5)

#: Older news changes days that are closed for good.
OLDEST = timedelta(days=40)

#: Fields of a form that, by these names, are taken over where its sender becomes known by it.
_OF_FORMS = ("first_name", "last_name", "language")

#: The row an entry became: its table and its key there.
Key = tuple[str, str]


class Unreadable(Exception):
    """An entry that is not taken; the text says why and quotes nothing."""


@dataclass(frozen=True)
class Reader:
    """Reads entries. ``trusted`` ones come from the shop's servers: they may name customers without a signature."""

    settings: Settings

    def event(self, batch: Batch, given: Any, now: datetime, *, trusted: bool) -> Key:
        """What a visitor did. A ``login`` says whose browser it is; ``ticket_opened`` ends reminders."""
        said = _checked(models.EVENT, given)
        kind, anonymous_id, customer = said["type"], said.get("anonymous_id"), said.get("shop_customer_id")
        at = said["happened_at"] = moment(said.get("happened_at"), now)
        email, signature = said.pop("email", None), said.pop("signature", None)
        if not trusted:
            if kind in models.SERVER_TYPES:
                raise Unreadable(f"type: {kind} is for the shop's servers, with SHOPAUTO_COLLECTOR_KEY")
            _refuse_made_ids(said)
            self._prove(customer, signature)
        if kind == "login":
            if anonymous_id is None or (customer is None and email is None):
                raise Unreadable("a login needs anonymous_id, and shop_customer_id or email")
            batch.logins.append(Login(anonymous_id, customer, self._address(email), at))
        elif email is not None:
            raise Unreadable("email: only of a login")
        if kind in models.SERVER_TYPES and customer is None:
            raise Unreadable("shop_customer_id: whose ticket it is, is missing")
        return _add(batch, raw.EVENTS, said)

    def order(self, batch: Batch, given: Any, now: datetime) -> Key:
        """A paid order with its lines. Who ordered as a guest is known by the hash of the address."""
        said = _checked(models.ORDER, given)
        lines = said.pop("lines", None) or []
        said["ordered_at"] = moment(said.get("ordered_at"), now)
        said["shop_customer_id"] = self.who(batch, said.get("shop_customer_id"), said.get("email"))
        shared = {name: said[name] for name in ("order_id", "ordered_at", "shop_customer_id")}
        numbered = [
            {"kind": "product"} | line | shared | {"line_number": line.get("line_number") or number}
            for number, line in enumerate(lines, start=1)
        ]
        if len({line["line_number"] for line in numbered}) < len(numbered):
            raise Unreadable("lines: a line_number is there twice")
        stored = _add(batch, raw.ORDERS, said)
        for line in numbered:
            _add(batch, raw.ORDER_LINES, line)
        return stored

    def ticket(self, batch: Batch, given: Any, now: datetime) -> Key:
        """A ticket of the shop's help desk, as an event of the shop; one with ``closed_at`` is settled, and opened before."""
        said = _checked(models.TICKET, given)
        customer = self.who(batch, said.get("shop_customer_id"), said.get("email"))
        if customer is None:
            raise Unreadable("shop_customer_id or email: who wrote is missing")
        event_id = models.MADE["event_id"] + said["ticket_id"]
        told = {"opened_at": (event_id, "ticket_opened"), "closed_at": (f"{event_id}.closed", "ticket_closed")}
        happened = [name for name in told if said.get(name) is not None] or ["opened_at"]
        rows = [
            {"event_id": told[name][0], "happened_at": moment(said.get(name), now), "type": told[name][1]}
            for name in happened
        ]
        return [_add(batch, raw.EVENTS, row | {"shop_customer_id": customer}) for row in rows][-1]

    def form(self, batch: Batch, given: Any, now: datetime, *, trusted: bool) -> Key:
        """A form, of the known customer or of whoever has the address; a ticked box is a consent, and makes them known."""
        said = _checked(models.FORM, given)
        at = said["submitted_at"] = moment(said.get("submitted_at"), now)
        if not trusted:
            _refuse_made_ids(said)
        email, customer, fields = said.get("email"), said.get("shop_customer_id"), said.get("fields")
        anonymous_id, consent, signature = (said.pop(name, None) for name in ("anonymous_id", "consent", "signature"))
        if not trusted:
            self._prove(customer, signature)
        if fields is not None:
            said["fields"] = _as_json(fields)
        owner = self.who(batch, customer, email)
        if consent:
            if owner is None:
                raise Unreadable("consent: of whom is missing, shop_customer_id or email")
            if consent.get("state") and not trusted:
                raise Unreadable("consent.state: only the shop's servers may say it")
            usual = "pending" if self.settings.form_double_opt_in else "opted_in"
            told = {"shop_customer_id": owner, "channel": consent["channel"], "wording": consent["wording"]}
            _add(batch, raw.CONSENTS, told | {"state": consent.get("state") or usual, "changed_at": at})
            if customer is None:
                told = {name: value for name in _OF_FORMS if isinstance(value := (fields or {}).get(name), str)}
                _add(batch, raw.CUSTOMERS, told | {"shop_customer_id": owner, "changed_at": at, "email": email})
        if owner:
            said["shop_customer_id"] = owner
        if anonymous_id and (customer or (email and clean_email(email))):
            batch.logins.append(Login(anonymous_id, customer, self.address_hash(email), at))
        return _add(batch, raw.FORM_SUBMISSIONS, said)

    def row(self, batch: Batch, table: Table, given: Mapping[str, Any], now: datetime) -> Key:
        """A row that a shop tells in its own words, checked as ours are."""
        said = _checked(models.ROWS[table.name], dict(given))
        said[raw.TIME_COLUMN[table.name]] = moment(said.get(raw.TIME_COLUMN[table.name]), now)
        return _add(batch, table, said)

    def who(self, batch: Batch, customer: str | None, email: str | None) -> str | None:
        """The shop's id of a customer, or of a guest the id made of the address.

        The address is noted as theirs: it tells who has just opened an account, and is known by the address alone.
        """
        who, address = customer or guest_id(email), self.address_hash(email)
        if who and address:
            batch.guests[who] = address
        return who

    def address_hash(self, email: str | None) -> bytes | None:
        """Keyed hash of the address as mail is delivered to it; ``None`` where it is none."""
        return links.address_hash(self.settings.hash_key, "email", clean_email(email)) if email else None

    def _address(self, email: str | None) -> bytes | None:
        if email is None:
            return None
        hashed = self.address_hash(email)
        if hashed is None:
            raise Unreadable("email: not an e-mail address")
        return hashed

    def _prove(self, customer: str | None, signature: str | None) -> None:
        """Who names a customer from a browser needs the shop's word for it."""
        if customer is None:
            return
        secret = self.settings.identity_secret
        if secret is None:
            if self.settings.live:
                raise Unreadable("shop_customer_id: cannot be checked, SHOPAUTO_IDENTITY_SECRET is not set")
            return
        if signature is None:
            raise Unreadable("signature: is missing; the shop's page has to sign shop_customer_id")
        expected = hmac.digest(secret.get_secret_value().encode(), customer.encode(), "sha256").hex()
        if not hmac.compare_digest(expected, signature):
            raise Unreadable("signature: is not that of shop_customer_id")


def moment(value: datetime | None, now: datetime) -> datetime:
    """When it happened, in UTC: now where it is not said. Raises :class:`Unreadable` for what cannot be."""
    if value is None:
        return now
    try:
        value = value.replace(tzinfo=UTC) if value.tzinfo is None else value.astimezone(UTC)
    except OverflowError:
        raise Unreadable("the time is outside the calendar") from None
    if value > now + AHEAD:
        raise Unreadable("the time is more than 5 minutes ahead")
    if value < now - OLDEST:
        raise Unreadable(f"the time is more than {OLDEST.days} days ago")
    return value


def guest_id(email: str | None) -> str | None:
    """The id of a customer without an account, as files get it too: a hash of the address as typed; none of ``n/a``."""
    typed = (email or "").strip(" ").lower()
    return "guest:" + hashlib.sha256(typed.encode()).hexdigest()[:16] if "@" in typed else None


def row_of(table: Table, values: Mapping[str, Any]) -> Row:
    """A row of ``table``; its time must be aware. Texts and numbers only, so that it can be kept as JSON."""
    row = {name: _plain(value) for name, value in values.items() if value is not None}
    key = ":".join(str(row[name]) for name in table.key)
    return Row(table.name, key, values[raw.TIME_COLUMN[table.name]], row.get("cart_id"), row)


def _add(batch: Batch, table: Table, values: Mapping[str, Any]) -> Key:
    row = row_of(table, values)
    batch.rows.append(row)
    return row.raw_table, row.key


def _plain(value: Any) -> Any:
    if isinstance(value, datetime):
        return value.astimezone(UTC).replace(tzinfo=None).isoformat(timespec="microseconds")
    return value.isoformat() if isinstance(value, date) else value


def _checked(adapter: TypeAdapter[Any], given: Any) -> dict[str, Any]:
    """The entry as its model reads it; what is empty is not said, as in files."""
    if isinstance(given, dict):
        given = {name: value for name, value in given.items() if value != ""}
    try:
        return adapter.validate_python(given)
    except ValidationError as error:
        first = error.errors(include_url=False, include_context=False, include_input=False)[0]
    where = ".".join(map(str, first["loc"]))[:100]
    raise Unreadable(f"{where}: {first['msg']}" if where else first["msg"])


def _refuse_made_ids(said: Mapping[str, Any]) -> None:
    """The first row with a key is kept, so a browser could take the place of what the shop says later."""
    for name, beginning in models.MADE.items():
        if (said.get(name) or "").startswith(beginning):
            raise Unreadable(
                f"{name}: what begins with {beginning} is for the shop's servers, with SHOPAUTO_COLLECTOR_KEY"
            )


def _as_json(fields: dict[str, Any]) -> str:
    try:
        text = json.dumps(fields, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
    except (ValueError, RecursionError):
        raise Unreadable("fields: cannot be written as JSON") from None
    if len(text) > models.LONGEST_FIELDS:
        raise Unreadable(f"fields: more than {models.LONGEST_FIELDS} characters")
    return text

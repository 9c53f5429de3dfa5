"""What the ledger has to know of people as of a day: where they are reached, and the shop ids that are one person.

Whom a message or an offer went to may have another id by now, where accounts were joined since: what counts for a person is what
went to all of their ids.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import date
from functools import cached_property
from typing import Any

from ibis import _

from shopauto_pipelines.platform.lake import Lake
from shopauto_pipelines.platform.lookup import Lookup
from shopauto_pipelines.profiles.tables import CUSTOMERS, IDENTITIES


class People:
    """Rows of ``profiles/customers``, and of ``profiles/identities`` those of people with several shop ids."""

    def __init__(self, lake: Lake, day: date) -> None:
        self._lake, self._day = lake, day
        self._customers = Lookup(lake, CUSTOMERS, day)

    def rows(self, people: Iterable[str]) -> dict[str, Mapping[str, Any]]:
        """Person → row, of those who are known."""
        return self._customers.rows(people)

    def persons(self, shop_ids: Iterable[str]) -> dict[str, str]:
        """Shop id → the person it belongs to; who is not known is a person of their own."""
        asked = set(shop_ids)
        known = self.rows(asked)
        return {each: each if each in known else self._persons.get(each, each) for each in asked}

    def other_ids(self, people: Iterable[str]) -> dict[str, list[str]]:
        """Person → their shop ids but the one they carry; those with a single one are left out."""
        several = [person for person, row in self.rows(people).items() if row["shop_ids"] > 1]
        return {person: self._others[person] for person in several}

    @cached_property
    def _persons(self) -> dict[str, str]:
        """Every shop id that is not the one its person carries; read once, and only where somebody has several."""
        others = self._lake.on(IDENTITIES, self._day).filter(_.shop_customer_id != _.customer_id)
        rows = self._lake.con.to_pyarrow(others.select("shop_customer_id", "customer_id"))
        return dict(zip(*(column.to_pylist() for column in rows.columns), strict=True))

    @cached_property
    def _others(self) -> dict[str, list[str]]:
        found: dict[str, list[str]] = {}
        for shop_id, person in sorted(self._persons.items()):
            found.setdefault(person, []).append(shop_id)
        return found

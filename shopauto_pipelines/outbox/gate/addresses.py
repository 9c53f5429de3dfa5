"""Whether addresses are planned that are known not to want anything."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import date

import pyarrow.compute as pc
import pyarrow.parquet as pq
import sqlalchemy as sa

from shopauto_pipelines.campaigns.declaration import Campaign
from shopauto_pipelines.campaigns.tables import audience
from shopauto_pipelines.outbox import links
from shopauto_pipelines.outbox.gate.verdicts import FEW, Finding
from shopauto_pipelines.outbox.schema import suppressions
from shopauto_pipelines.outbox.sending import ADDRESS
from shopauto_pipelines.platform.lake import Lake
from shopauto_pipelines.platform.lookup import Lookup
from shopauto_pipelines.platform.settings import Settings
from shopauto_pipelines.profiles.tables import CUSTOMERS

#: Addresses looked up at once.
_BATCH = 10_000


def suppression(connection: sa.Connection, lake: Lake, settings: Settings, campaign: Campaign, as_of: date) -> Finding:
    """How many of the planned addresses are suppressed. None of them is sent to, by the reservation.

    A few are people who unsubscribed today. Many say that the shop's consents, or the list, are not what they should be.
    """
    if not connection.execute(sa.select(sa.exists().select_from(suppressions))).scalar():
        return Finding("suppression", True, "no address is suppressed", {"suppressed": 0})
    found = total = 0
    for hashes in _address_hashes(lake, settings, campaign, as_of):
        told = sa.select(suppressions.c.channel, suppressions.c.address_hash).where(
            suppressions.c.address_hash == sa.any_(sa.cast(list(hashes), sa.ARRAY(sa.LargeBinary)))
        )
        found += sum(hashes.get(row.address_hash, {}).get(row.channel, 0) for row in connection.execute(told))
        total += sum(sum(channels.values()) for channels in hashes.values())
    figures = {"suppressed": found, "addresses": total}
    told_so = f"{found:,} of {total:,} planned addresses are suppressed and get nothing"
    if found < FEW or 100 * found <= settings.gate_suppressed_percent * total:
        return Finding("suppression", True, told_so, figures)
    advice = (
        f"{told_so}: more than {settings.gate_suppressed_percent:g} %. The shop's consents say yes for people who said no, or a "
        "list was imported that does not belong here. Compare raw/consents with what `shopauto outbox suppress export` holds"
    )
    return Finding("suppression", False, advice, figures)


def _address_hashes(
    lake: Lake, settings: Settings, campaign: Campaign, as_of: date
) -> Iterator[dict[bytes, dict[str, int]]]:
    """Keyed hashes of the planned addresses, in batches: for each the channels with how many messages."""
    people = Lookup(lake, CUSTOMERS, as_of)
    file = pq.ParquetFile(lake.path(audience(campaign.name), as_of))
    for batch in file.iter_batches(_BATCH, columns=["customer_id", "channel", "decision"]):
        rows = batch.filter(pc.equal(batch["decision"], "planned")).to_pylist()
        known = people.rows(row["customer_id"] for row in rows)
        hashes: dict[bytes, dict[str, int]] = {}
        for row in rows:
            address = known.get(row["customer_id"], {}).get(ADDRESS[row["channel"]])
            digest = links.address_hash(settings.hash_key, row["channel"], address)
            if digest:
                channels = hashes.setdefault(digest, {})
                channels[row["channel"]] = channels.get(row["channel"], 0) + 1
        yield hashes

"""Whether the day's data has come in."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import date

from shopauto_pipelines.outbox.gate.verdicts import FEW, Finding, usual_of
from shopauto_pipelines.platform.lake import Lake
from shopauto_pipelines.platform.settings import Settings
from shopauto_pipelines.sources import tables as raw

#: Rows of a usual day below which a table says nothing. A visit leaves some five events; of few visitors a day may see none.
_FEW_ROWS = {raw.ORDERS: FEW, raw.EVENTS: 5 * FEW}


def freshness(lake: Lake, settings: Settings, as_of: date) -> Iterator[Finding]:
    """Whether the day's orders and events have arrived: as many rows, about, as such days usually have."""
    for table, few in _FEW_ROWS.items():
        days = set(lake.days(table))
        usual = usual_of(lambda day, table=table: lake.rows(table, day), days, as_of)  # type: ignore[misc]
        name = f"freshness of {table.name}"
        if usual is None or usual < few:
            yield Finding(name, True, "there is no usual number of rows to compare with")
            continue
        rows = lake.rows(table, as_of) if as_of in days else 0
        least = usual * settings.gate_rows_percent / 100
        told = f"{rows:,} rows of {as_of}, where such days have {usual:,.0f}"
        figures = {"rows": rows, "usual": usual}
        if rows >= least:
            yield Finding(name, True, told, figures)
        else:
            advice = (
                f"{told} (at least {settings.gate_rows_percent:g} % are asked for): the shop's data of the day has not come "
                "in, or not all of it. Load the rest"
            )
            yield Finding(name, False, advice, figures)

"""Demand of each category by week, and where it is heading: compared with the same weeks a year before where they are known.

Counts vary more than by chance alone, since people buy several pieces at a time, so the interval of a ratio of two sums of weeks
is that of a log ratio with the dispersion of the category's own weeks: variance = φ (1/a + 1/b), a quasi-Poisson model
(McCullagh & Nelder 1989). Without a year before, a season cannot be told from a trend: the share of the shop's pieces is
compared with that of the weeks before, and ``basis`` says so.
"""

from __future__ import annotations

from typing import Any

import ibis
import ibis.expr.types as ir
from ibis import _

from shopauto_pipelines.platform.prepared import Prepared, kept
from shopauto_pipelines.recommendations import tables
from shopauto_pipelines.recommendations.inputs import AS_OF, PRODUCTS, history, prepare

#: Weeks of a trend, weeks that are listed, and weeks of a year: as many as keep the day of the week.
WINDOW, LISTED, YEAR = 8, 26, 52

#: Two-sided 80 %.
_Z = 1.281552


@kept
def statement() -> Prepared:
    """The statement of ``recommendations/category_trends``."""
    return prepare(tables.CATEGORY_TRENDS, category_trends())


def category_trends() -> ir.Table:
    """``recommendations/category_trends``: the ``LISTED`` latest complete weeks of each category that ever sold."""
    goods = PRODUCTS.filter(_.category.notnull()).select("product_id", shelf="category")
    sold = history().filter(_.orders > 0).inner_join(goods, "product_id")
    sold = sold.mutate(week_on=_.day.truncate("W").cast("date"))
    begun = sold.aggregate(begun_on=_.day.min(), last_on=_.week_on.max(), monday=_.week_on.min())
    sold = sold.filter(_.week_on.delta(AS_OF, unit="day") <= -6)
    weekly = sold.group_by("week_on", category=_.shelf).aggregate(
        units=_.quantity.sum(), revenue_cents=_.revenue_cents.sum()
    )
    # every category in every week, with zeros where nothing was sold
    nth = ibis.range(0, begun.last_on.delta(begun.monday, unit="day") // 7 + 1, 1).unnest()
    weeks = begun.mutate(nth=nth)
    weeks = weeks.select("begun_on", week_on=(_.monday + (_.nth * 7).as_interval("D")).cast("date"))
    weeks = weeks.filter(_.week_on.delta(AS_OF, unit="day") <= -6)
    grid = weeks.cross_join(weekly.select("category").distinct())
    rows = grid.left_join(weekly, ["week_on", "category"]).select(
        "category", "week_on", "begun_on", units=_.units.fill_null(0), revenue_cents=_.revenue_cents.fill_null(0)
    )
    rows = rows.filter(_.week_on >= _.begun_on)  # the first week may be cut
    rows = rows.mutate(shop=_.units.sum().over(ibis.window(group_by="week_on")))
    window = ibis.window(group_by="category", order_by="week_on", preceding=WINDOW - 1, following=0)
    by_week = ibis.window(group_by="category", order_by="week_on")
    rows = rows.mutate(
        weeks=_.units.count().over(window),
        units_8w=_.units.sum().over(window),
        squares=(_.units * _.units).sum().over(window),
        shop_8w=_.shop.sum().over(window),
        units_year_ago=_.units.lag(YEAR).over(by_week),
    )
    rows = rows.mutate(
        **{
            f"{name}_{when}": _[name].lag(weeks).over(by_week)
            for name in ("weeks", "units_8w", "squares", "shop_8w")
            for when, weeks in (("year_ago", YEAR), ("before", WINDOW))
        }
    )
    whole = (_.weeks == WINDOW).fill_null(False)
    rows = rows.mutate(
        basis=ibis.cases(
            (whole & (_.weeks_year_ago == WINDOW), "year_ago"), (whole & (_.weeks_before == WINDOW), "previous_weeks")
        )
    )
    rows = _with_change(rows)
    newest = ibis.row_number().over(group_by="category", order_by=_.week_on.desc())
    return rows.mutate(nth=newest).filter(_.nth < LISTED)


def _with_change(rows: ir.Table) -> ir.Table:
    """The rows with change, interval and trend. Half a piece is added to each sum, so that none is without a logarithm."""
    yearly = _.basis == "year_ago"
    rows = rows.mutate(
        then=yearly.ifelse(_.units_8w_year_ago, _.units_8w_before) + 0.5,
        now=_.units_8w + 0.5,
        usual=yearly.ifelse(1.0, (_.shop_8w + 0.5) / (_.shop_8w_before + 0.5)),
        spread=ibis.greatest(
            _dispersion(_.units_8w, _.squares),
            yearly.ifelse(
                _dispersion(_.units_8w_year_ago, _.squares_year_ago), _dispersion(_.units_8w_before, _.squares_before)
            ),
        ),
    )
    rows = rows.mutate(ratio=(_.now / _.then / _.usual).ln(), error=(_.spread * (1 / _.now + 1 / _.then)).sqrt() * _Z)
    percent = {
        "change_percent": _.ratio,
        "change_low_percent": _.ratio - _.error,
        "change_high_percent": _.ratio + _.error,
    }
    rows = rows.mutate(**{name: ((log.exp() - 1) * 100).round(2) for name, log in percent.items()})
    return rows.mutate(
        trend=ibis.cases(
            (_.basis.isnull(), "unknown"),
            (_.change_low_percent > 0, "rising"),
            (_.change_high_percent < 0, "falling"),
            else_="steady",
        )
    )


def _dispersion(total: Any, squares: Any) -> Any:
    """Variance ÷ mean of the weeks of a window, at least that of chance, 1."""
    mean = (total / WINDOW).nullif(0.0)
    return ibis.greatest(1.0, (squares / WINDOW - mean * mean) * WINDOW / (WINDOW - 1) / mean).fill_null(1.0)

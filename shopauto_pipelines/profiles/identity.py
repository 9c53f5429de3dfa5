"""Which shop ids are one person: the merge rules, and how two states of them are compared.

The rules (version ``RULES_VERSION``; raise it with every change that can give other results):

- Shop ids that ever claimed the same valid e-mail address or the same valid phone number are one person. *Ever*, because
  an address that someone gave up still tells whose older orders those are; what is sent where is decided by the latest claim.
- It is transitive: A and B share an address, B and C a phone, so all three are one.
- An e-mail or phone that more than ``MOST_SHARING`` shop ids claim joins nobody: it is a switchboard, a reseller, a made-up
  address. Hence the one way a person splits again: an identifier becomes that common.
- A guest who is known by a form alone is whoever ever claimed the address typed there, where that is one person. A form without
  a consent makes nobody a person.
- A person carries the shop id that was seen first (by first record or order, then by id), so that joining a new account
  never renames a person.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import date

import ibis
import ibis.expr.types as ir
from ibis import _

from shopauto_pipelines.profiles import cleaning

#: Version of the rules above, stored with each row.
RULES_VERSION = 2

#: Most shop ids that one e-mail or phone may join.
MOST_SHARING = 5

_IDENTIFIERS = ("email", "phone")

_email = cleaning.lift(cleaning.clean_email)


def identities(customers: ir.Table, orders: ir.Table, claims: ir.Table) -> ir.Table:
    """The person of every shop id in ``customers`` or ``orders`` (raw tables up to the day), joined by ``claims`` up to it.

    Columns of ``profiles/identities``. One expression; how many rounds of joining it needs is asked of the engine.
    """
    seen = (
        ibis.union(
            customers.select("shop_customer_id", at=_.changed_at),
            orders.filter(_.shop_customer_id.notnull()).select("shop_customer_id", at=_.ordered_at),
        )
        .group_by("shop_customer_id")
        .agg(first_at=_.at.min())
    )
    links = (
        _shared_identifiers(claims)
        .join(seen, "shop_customer_id")
        .mutate(node=ibis.dense_rank().over(order_by=[_.first_at, _.shop_customer_id]))
        .mutate(hub=_.node.min().over(group_by=["field", "value"]))
    )
    roots = components(links.filter(_.node > _.hub).select(high="node", low="hub"))
    names = links.group_by("node", "shop_customer_id").agg(rule=_.field.min())
    joined = roots.join(names, roots.high == names.node).select("shop_customer_id", "rule", "low")
    first = names.select(low="node", customer_id="shop_customer_id")
    joined = joined.join(first, "low").select("shop_customer_id", "customer_id", "rule")
    return seen.left_join(joined, "shop_customer_id").select(
        "shop_customer_id",
        customer_id=_.customer_id.fill_null(_.shop_customer_id),
        rule=_.rule.fill_null("shop_id"),
        rules_version=ibis.literal(RULES_VERSION, "int64"),
    )


def with_forms(known: ir.Table, forms: ir.Table, claims: ir.Table) -> ir.Table:
    """The :func:`identities` that are ``known``, and the guests of ``forms`` (raw) who are one of these persons by ``claims``."""
    typed = forms.filter(_.shop_customer_id.startswith("guest:"), _.email.notnull()).anti_join(
        known, "shop_customer_id"
    )
    guests = typed.group_by("shop_customer_id").agg(email=_.email.min()).mutate(value=_email(_.email))
    claimed = claims.filter(_.field == "email").semi_join(guests, "value").inner_join(known, "shop_customer_id")
    owners = claimed.group_by("value").agg(customer_id=_.customer_id.min(), persons=_.customer_id.nunique())
    joined = guests.inner_join(owners.filter(_.persons == 1), "value")
    rows = joined.select(
        "shop_customer_id",
        "customer_id",
        rule=ibis.literal("email"),
        rules_version=ibis.literal(RULES_VERSION, "int64"),
    )
    return ibis.union(known, rows)


def decisive(customers: ir.Table, orders: ir.Table, claims: ir.Table) -> tuple[ir.Table, ir.Table, ir.Table]:
    """What of the tables decides who is whom, with the ``day`` it is known from."""
    return (
        customers.select("day", "shop_customer_id", "changed_at"),
        orders.filter(_.shop_customer_id.notnull()).select("day", "shop_customer_id", "ordered_at"),
        _identifiers(claims).select("day", "shop_customer_id", "field", "value"),
    )


def identities_of_days(customers: ir.Table, orders: ir.Table, claims: ir.Table, days: Sequence[date]) -> ir.Table:
    """:func:`identities` as known at the end of each of several ``days``: its first two columns, and ``as_of``.

    The tables have their ``day``. In one pass: ids and values carry the day they are asked for, so that those of one day join
    nobody of another.
    """
    asked = ibis.memtable({"as_of": [*days]}, schema={"as_of": "date"})

    def known(rows: ir.Table, *names: str) -> ir.Table:
        each = rows.join(asked, rows.day <= asked.as_of)
        return each.mutate(**{name: each.as_of.cast("string") + each[name] for name in names})

    who = "shop_customer_id"
    customers = customers.group_by(who).agg(day=_.day.min(), changed_at=_.changed_at.min())
    orders = orders.filter(_[who].notnull()).group_by(who).agg(day=_.day.min(), ordered_at=_.ordered_at.min())
    claims = _identifiers(claims).group_by("field", "value", who).agg(day=_.day.min())
    claims = claims.filter(_.count().over(group_by=["field", "value"]) > 1)
    found = identities(known(customers, who), known(orders, who), known(claims, who, "value"))
    length = len(date.min.isoformat())
    return found.select(
        as_of=_[who][:length].cast("date"), shop_customer_id=_[who][length:], customer_id=_.customer_id[length:]
    )


def components(edges: ir.Table) -> ir.Table:
    """Connected components of a graph: for each node that is not the least of its component ``high`` → that least, ``low``.

    ``edges`` has int64 columns ``high`` > ``low``, duplicates allowed. Alternates *large-star* and *small-star* until only
    stars are left: O(log² n) rounds, one for persons as they come (Kiveris et al. 2014, "Connected Components in MapReduce
    and Beyond").
    """
    while True:
        edges = _small_star(_large_star(edges))
        if _all_stars(edges):
            return edges


def identity_changes(before: ir.Table, after: ir.Table) -> ir.Table:
    """How two states of ``profiles/identities`` differ: of two days, of two rule versions, or of a run and its re-run.

    Columns: ``shop_customer_id``, ``customer_id_before`` and ``customer_id_after`` (null where the shop id is not in that
    state), ``change`` (``new``, ``gone``, or ``moved``: to another person). No row: no difference.
    """
    old = before.select("shop_customer_id", customer_id_before="customer_id")
    new = after.select("shop_customer_id", customer_id_after="customer_id")
    both = old.outer_join(new, "shop_customer_id")
    return (
        both.mutate(
            shop_customer_id=_.shop_customer_id.fill_null(_.shop_customer_id_right),
            change=ibis.cases(
                (_.customer_id_before.isnull(), "new"),
                (_.customer_id_after.isnull(), "gone"),
                (_.customer_id_before != _.customer_id_after, "moved"),
            ),
        )
        .filter(_.change.notnull())
        .select("shop_customer_id", "customer_id_before", "customer_id_after", "change")
    )


def _identifiers(claims: ir.Table) -> ir.Table:
    return claims.filter(_.field.isin(_IDENTIFIERS), _.value.notnull())


def _shared_identifiers(claims: ir.Table) -> ir.Table:
    """``field``, ``value``, ``shop_customer_id`` of the e-mails and phones that join 2 to ``MOST_SHARING`` shop ids."""
    claimed = _identifiers(claims).select("field", "value", "shop_customer_id")
    several = claimed.group_by("field", "value").agg(first=_.shop_customer_id.min(), last=_.shop_customer_id.max())
    shared = claimed.semi_join(several.filter(_.first < _.last), ["field", "value"]).distinct()
    common = shared.group_by("field", "value").agg(ids=_.count()).filter(_.ids > MOST_SHARING)
    return shared.anti_join(common, ["field", "value"])


def _all_stars(edges: ir.Table) -> bool:
    """Whether each node has one lesser neighbour, and that one none."""
    facts = edges.agg(twice=_.count() - _.high.nunique(), chained=_.low.isin(edges.high).sum().fill_null(0))
    return facts.to_pyarrow().to_pylist() == [{"twice": 0, "chained": 0}]


def _large_star(edges: ir.Table) -> ir.Table:
    """Ties every greater neighbour of a node to the least of the node and its neighbours."""
    both = edges.select(node="high", other="low").union(edges.select(node="low", other="high"))
    least = both.mutate(least=ibis.least(_.node, _.other.min().over(group_by="node")))
    return least.filter(_.other > _.node).select(high="other", low="least").distinct()


def _small_star(edges: ir.Table) -> ir.Table:
    """Ties a node and its lesser neighbours to the least of them."""
    least = edges.mutate(least=_.low.min().over(group_by="high"))
    tied = least.select("high", low="least").union(least.filter(_.low > _.least).select(high="low", low="least"))
    return tied.distinct()

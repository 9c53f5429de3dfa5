"""Expressions that are compiled before their tables are there."""

from datetime import date

import ibis
import pyarrow as pa
import pytest
from ibis import _

from shopauto_pipelines.platform import prepared
from shopauto_pipelines.platform.tables import Column, Table

STOCK = Table(
    "raw/stock",
    "Stock.",
    (Column("ware", "string", "ware", required=True), Column("pieces", "int64", "pieces")),
    ("ware",),
)
WANTED = pa.schema({"ware": pa.string()})


def test_a_statement_runs_on_what_has_its_names_by_then_and_leaves_none_behind(lake):
    wanted = ibis.table(ibis.schema(WANTED), name="wanted")
    statement = prepared.compiled(prepared.unseen(STOCK, "stock").semi_join(wanted, "ware").order_by("ware"))
    for day, pieces in ((date(2026, 1, 1), 3), (date(2026, 1, 2), 5)):
        rows = [{"ware": ware, "pieces": pieces} for ware in ("bulb", "lamp", "nail")]
        lake.write(STOCK, [day], pa.Table.from_pylist(rows, STOCK.arrow_schema))
        asked = pa.Table.from_pylist([{"ware": "lamp"}, {"ware": "bulb"}], WANTED)
        found = prepared.run(lake, statement, {"stock": lake.on(STOCK, day), "wanted": asked}).to_pylist()
        assert found == [{"ware": "bulb", "pieces": pieces}, {"ware": "lamp", "pieces": pieces}]
    with pytest.raises(Exception, match="stock"):
        prepared.run(lake, statement, {"wanted": asked})
    assert lake.con.to_pyarrow(lake.on(STOCK, date(2026, 1, 1)).agg(n=_.count())).to_pylist() == [{"n": 3}]


def test_a_statement_is_made_once_for_a_home_and_a_version_of_the_code(tmp_path, monkeypatch, lake):
    monkeypatch.setenv("SHOPAUTO_HOME", str(tmp_path))
    made = []

    def make(least: int) -> prepared.Prepared:
        made.append(least)
        return prepared.Prepared.of(prepared.unseen(STOCK, "stock").filter(_.pieces >= least), {"stock": STOCK})

    def in_a_new_process(least: int) -> prepared.Prepared:
        return prepared.kept(make)(least)

    first = in_a_new_process(1)
    assert in_a_new_process(1) == first
    assert made == [1]
    assert first.origins["ware"] == {("raw/stock", "ware")}
    stock = pa.Table.from_pylist([{"ware": "bulb", "pieces": 1}, {"ware": "lamp", "pieces": 2}], STOCK.arrow_schema)
    assert in_a_new_process(2).rows(lake, "found", {"stock": stock}).count().execute() == 1
    assert made == [1, 2]

    for file in tmp_path.glob("statements/*/*.json"):
        file.write_text("{", encoding="utf-8")
    assert in_a_new_process(1) == first
    monkeypatch.setattr(prepared, "_code", lambda: "another version")
    assert in_a_new_process(1) == first
    assert made == [1, 2, 1, 1]
    assert [folder.name for folder in tmp_path.glob("statements/*")] == ["another version"]

"""The two engines give the same answer where their languages differ; and what the Spark of the settings refuses."""

import sys
from datetime import date, datetime

import ibis
import pyarrow as pa
import pytest
import sqlglot
from ibis import _

from shopauto_pipelines.platform.engine import DuckDB, Engine, EngineError, Statement, spark
from shopauto_pipelines.platform.lake import Lake, open_lake
from shopauto_pipelines.platform.settings import Settings
from shopauto_pipelines.platform.tables import Column, Table
from shopauto_pipelines.platform.time_zones import local, utc
from shopauto_pipelines.predictions.serving import Scoring
from shopauto_pipelines.predictions.store import ModelStore
from shopauto_pipelines.predictions.tables import SCORES
from shopauto_pipelines_tests.predictions.conftest import LAST

ROWS = pa.table(
    {
        "id": [1, 2, 3, 4],
        "text": ["a|b|c", "d", "", None],
        "number": [0.5, None, float("nan"), -2.0],
        "at": pa.array(
            [
                datetime(2026, 3, 29, 0, 59, 59, 999_999),
                datetime(1969, 12, 31, 23, 59),
                None,
                datetime(2026, 10, 25, 1, 30),
            ],
            pa.timestamp("us"),
        ),
        "day": pa.array([date(2024, 2, 29), date(2026, 1, 1), None, date(1970, 1, 1)]),
        "zone": ["Europe/Berlin", "America/New_York", "UTC", "Asia/Tokyo"],
    }
)

#: By what they are about: expressions of the columns above.
EXPRESSIONS = {
    "what is beyond the end of a list is null": lambda t: t.text.split("|")[2],
    "the last of a list": lambda t: t.text.split("|")[-1],
    "NaN is a number": lambda t: t.number.isnull(),
    "a quarter of an hour": lambda t: t.at.bucket(minutes=15).cast("timestamp(6)"),
    "an hour before 1970": lambda t: t.at.truncate("h").cast("timestamp(6)"),
    "a clock elsewhere": lambda t: local(t.at, t.zone),
    "a moment by a clock": lambda t: utc(t.at, t.zone),
    "days between": lambda t: t.day.delta(ibis.date(2026, 1, 1), unit="day"),
    "days after": lambda t: t.day + t.id.as_interval("D"),
    "what a fraction is rounded to": lambda t: (t.id / 4 + 0.25).round().cast("int64"),
    "whole parts of negative numbers": lambda t: (t.id - 4) // 2,
    "what is left of negative numbers": lambda t: (t.id - 4) % 3,
    "nulls in JSON": lambda t: ibis.struct({"id": t.id, "text": t.text}).cast("json").cast("string"),
    "a digest": lambda t: t.text.hexdigest("md5"),
    "the day of a variable": lambda t: t.day.delta(_variable("the_day"), unit="day"),
}


@ibis.udf.scalar.builtin(name="getvariable")
def _variable(key: str) -> date:
    """A variable of the session."""


@pytest.fixture(scope="module")
def cluster(java, tmp_path_factory) -> Engine:
    """Spark in one process."""
    settings = Settings(
        home=tmp_path_factory.mktemp("home"),
        engine="spark",
        spark_master="local[1]",
        spark_conf="spark.sql.shuffle.partitions=1 spark.driver.host=127.0.0.1 spark.sql.codegen.wholeStage=false "
        "spark.driver.extraJavaOptions=-XX:TieredStopAtLevel=1",
        _env_file=None,
    )
    return open_lake(settings, computes=True).engine


def answers(engine: Engine) -> dict[str, list]:
    engine.variable("the_day", date(2026, 1, 1))
    engine.put("rows_of_test", ROWS)
    rows = engine.table("rows_of_test")
    made = rows.select("id", **{f"c{n}": make(rows) for n, make in enumerate(EXPRESSIONS.values())}).order_by("id")
    return dict(zip(EXPRESSIONS, (column.to_pylist() for column in made.to_pyarrow().columns[1:]), strict=True))


@pytest.mark.slow
def test_both_engines_mean_the_same(cluster, tmp_path):
    expected, found = answers(DuckDB(tmp_path / "spill")), answers(cluster)
    assert {about: (expected[about], found[about]) for about in EXPRESSIONS if expected[about] != found[about]} == {}


@pytest.mark.slow
def test_a_table_written_with_spark_has_the_bytes_that_duckdb_writes(cluster, tmp_path):
    table = Table(
        "features/of_test",
        "Rows of several days.",
        (Column("id", "int64", "id"), Column("at", "timestamp(6)", "when"), Column("text", "string", "a text")),
        ("text", "id"),
        "day",
    )
    days = sorted(day for day in ROWS["day"].to_pylist() if day)
    written = []
    for lake in (Lake(tmp_path / "one", threads=2), Lake(tmp_path / "other", engine=cluster)):
        lake.engine.put("rows_to_write", ROWS)
        rows = lake.engine.table("rows_to_write").filter(_.day.notnull())
        assert [lake.write(table, days, rows)[day].rows for day in days] == [1, 1, 1]
        again = lake.between(table, days[1]).order_by("id").to_pyarrow().to_pylist()
        written.append(([lake.path(table, day).read_bytes() for day in days], again))
    assert written[0] == written[1]
    assert [row["day"] for row in written[1][1]] == [days[2], days[1]] or len(written[1][1]) == 2


@pytest.mark.slow
def test_a_view_follows_the_variable_it_was_made_with(cluster, tmp_path):
    for engine in (DuckDB(tmp_path / "spill"), cluster):
        engine.put("rows_of_view", ROWS)
        engine.variable("the_day", date(2026, 1, 1))
        rows = engine.table("rows_of_view")
        view = engine.con.create_view("follows", rows.select(days=_variable("the_day").delta(rows.day, unit="day")))
        seen = [sorted(view.to_pyarrow()["days"].drop_null().to_pylist())]
        engine.variable("the_day", date(2026, 1, 3))
        seen.append(sorted(view.to_pyarrow()["days"].drop_null().to_pylist()))
        assert seen[1] == [days + 2 for days in seen[0]], engine.name


@pytest.mark.slow
def test_models_score_on_the_workers_as_they_do_here(cluster, shop, challengers, tmp_path):
    store = ModelStore(tmp_path / "models")
    for target, challenger in challengers.items():
        store.save(target, challenger)
    people = shop.numbers(LAST)
    scored = []
    for engine in (DuckDB(tmp_path / "staging" / "spill"), cluster):
        (tmp_path / "staging").mkdir(exist_ok=True)
        engine.put("people_to_score", people)
        scoring = Scoring(store, "churn", "orders", LAST, None)
        made = engine.mapped("scored", engine.table("people_to_score"), scoring, SCORES.arrow_schema, 500)
        scored.append(made.order_by("customer_id").to_pyarrow().to_pylist())
    here, there = scored
    assert len(here) == len(there) == people.num_rows > 1_000
    assert [row for row in here if row["churn_probability"] is None or row["value_cents_365d"] is None] == []
    for one, other in zip(here, there, strict=True):
        assert one == {
            name: pytest.approx(value, rel=1e-6) if isinstance(value, float) else value for name, value in other.items()
        }


@pytest.mark.slow
def test_a_statement_keeps_rows_and_adds_more(cluster):
    cluster.put("rows_to_keep", ROWS)
    statement = Statement("", lambda: ibis.table({"id": "int64"}, name="rows_to_keep").select("id"))
    for more in (False, True):
        cluster.keep("kept_rows", statement, more=more)
    assert sorted(cluster.table("kept_rows").to_pyarrow()["id"].to_pylist()) == [1, 1, 2, 2, 3, 3, 4, 4]
    cluster.drop("kept_rows")
    assert "kept_rows" not in cluster.con.list_tables()


@pytest.mark.slow
def test_what_is_written_for_duckdb_is_refused(cluster):
    with pytest.raises(EngineError, match="runs on DuckDB"):
        cluster.fetch("select 1")


def test_a_step_that_is_used_twice_is_computed_once():
    pytest.importorskip("pyspark")
    from shopauto_pipelines.platform.spark import _computed_once

    query = sqlglot.parse_one(
        """with part as (select a from t where a > 1),
        counted as (select a, count(*) as n from part group by a),
        of_counted as (select a from counted),
        single as (select max(n) as n from counted)
        select * from of_counted as x join of_counted as y on x.a = y.a cross join single""",
        dialect="spark",
    )
    assert _computed_once(query) == {"counted"}


def test_a_lake_in_a_bucket_is_refused(tmp_path):
    settings = Settings(home=tmp_path, engine="spark", lake="s3://bucket/shop", _env_file=None)
    with pytest.raises(EngineError, match="not one in a bucket"):
        spark(settings)


def test_without_pyspark_the_text_says_what_to_install(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "shopauto_pipelines.platform.spark", None)
    with pytest.raises(EngineError, match=r"pip install 'shopauto-pipelines\[spark\]'"):
        spark(Settings(home=tmp_path, engine="spark", _env_file=None))


def test_without_java_the_text_says_so(tmp_path, monkeypatch):
    pytest.importorskip("pyspark")
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.delenv("JAVA_HOME", raising=False)
    with pytest.raises(EngineError, match="needs Java 17"):
        spark(Settings(home=tmp_path, engine="spark", _env_file=None))


def test_who_only_looks_reads_with_duckdb_whatever_computes(tmp_path):
    lake = open_lake(Settings(home=tmp_path, engine="spark", _env_file=None))
    assert isinstance(lake.engine, DuckDB)

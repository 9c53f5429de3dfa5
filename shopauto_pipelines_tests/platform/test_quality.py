"""Suites find bad rows, name them by key, and never show a value."""

import subprocess
import sys
import textwrap
from datetime import date, timedelta

import ibis
import pytest

from shopauto_pipelines.platform import quality
from shopauto_pipelines.platform.lake import Lake, days_between
from shopauto_pipelines.platform.progress import listening
from shopauto_pipelines.platform.quality import Expect, Suite, run_suite
from shopauto_pipelines.platform.tables import Column, Table

PEOPLE = Table(
    "test/people",
    "People.",
    (
        Column("person_id", "string", "id", required=True),
        Column("email", "string", "address", private=True),
        Column("age", "int64", "years"),
    ),
    ("person_id",),
)
DAY = date(2026, 1, 2)
SUITE = Suite.of(
    PEOPLE,
    Expect("ExpectColumnValuesToBeBetween", "age", {"min_value": 0, "max_value": 120}),
    Expect("ExpectColumnValuesToMatchRegex", "email", {"regex": "@"}),
    Expect("ExpectColumnValuesToBeBetween", "adults", {"min_value": 1}, fact=True),
    facts=lambda rows: {"adults": (rows.age >= 18).sum()},
)


@pytest.fixture
def lake(tmp_path):
    return Lake(tmp_path / "lake", threads=2)


def _write(lake, ids, emails, ages):
    rows = {"person_id": ids, "email": emails, "age": ages}
    lake.write(PEOPLE, [DAY], ibis.memtable(rows, schema=PEOPLE.schema))


def test_a_good_table_has_no_findings(lake):
    _write(lake, ["a", "b"], ["a@example.com", None], [20, 70])
    assert run_suite(lake, SUITE, [DAY]) == ([], 2)


def test_bad_rows_are_counted_and_named_by_key_but_their_values_are_not_shown(lake):
    _write(lake, ["a", "b", "c"], ["a@example.com", "secret-without-at", "c@example.com"], [20, -5, 400])
    findings, rows = run_suite(lake, SUITE, [DAY])
    by_column = {f.column: f for f in findings}
    assert rows == 3
    assert by_column["age"].unexpected == 2
    assert by_column["age"].keys == ("2026-01-02 b", "2026-01-02 c")
    assert by_column["email"].expectation == "expect_column_values_to_match_regex(email, regex=@)"
    assert "secret" not in repr(findings)


def test_duplicate_keys_and_broken_facts_are_found_by_the_engine(lake):
    _write(lake, ["a", "a"], ["a@example.com", "a@example.com"], [3, 4])
    findings, _ = run_suite(lake, SUITE, [DAY])
    assert {f.column for f in findings} == {"duplicate_keys", "adults"}


def test_of_a_large_table_the_engine_counts_what_is_missing_and_twice(lake):
    strict = Table(
        PEOPLE.name,
        PEOPLE.description,
        (*PEOPLE.columns[:2], Column("age", "int64", "years", required=True)),
        PEOPLE.key,
    )
    large = Suite.of_large(strict)
    _write(lake, ["a", "a", "b"], [None, None, None], [3, None, 5])
    findings, rows = run_suite(lake, large, [DAY])
    assert rows == 3
    assert {finding.column for finding in findings} == {"duplicate_keys", "missing_values"}
    _write(lake, ["a", "b"], [None, None], [3, 5])
    assert run_suite(lake, large, [DAY]) == ([], 2)


def test_many_days_are_looked_at_in_parts_of_bounded_rows_with_the_findings_of_all(lake, monkeypatch):
    days = days_between(DAY, DAY + timedelta(days=4))
    for day, ages in zip(days, ([20, -5], [30, 40], [50], [-6, -7, 8], [20]), strict=True):
        ids = [f"{n}" for n in range(len(ages))]
        rows = {"person_id": ids, "email": ["a@example.com"] * len(ages), "age": ages}
        lake.write(PEOPLE, [day], ibis.memtable(rows, schema=PEOPLE.schema))
    lake.delete(PEOPLE, days[2])
    whole = run_suite(lake, SUITE, days)
    monkeypatch.setattr(quality, "ROWS_AT_ONCE", 4)
    told = []
    with listening(lambda *report: told.append(report)):
        findings, rows = run_suite(lake, SUITE, days)
    assert [done for _, done, _ in told] == [3, 5]
    assert (findings, rows) == whole
    assert {(f.column, f.unexpected, f.rows) for f in findings} == {("age", 3, 8), ("adults", 1, 4)}
    assert next(f.keys for f in findings if f.column == "age") == (f"{days[0]} 1", f"{days[3]} 0", f"{days[3]} 1")


@pytest.mark.slow
def test_a_suite_runs_beside_spark_in_a_process_without_a_main_file(tmp_path):
    script = f"""
    from pathlib import Path
    from datetime import date, timedelta
    from shopauto_pipelines.platform import quality
    from shopauto_pipelines_tests.platform.test_quality import DAY, SUITE, Lake, _write
    lake = Lake(Path({str(tmp_path / "lake")!r}), threads=1)
    _write(lake, ["a"], ["a@example.com"], [30])
    print(quality.run_suite(lake, SUITE, [DAY]))
    """
    done = subprocess.run([sys.executable, "-c", textwrap.dedent(script)], capture_output=True, text=True, check=True)
    assert done.stdout == "([], 1)\n", done.stderr
    assert done.stderr == ""

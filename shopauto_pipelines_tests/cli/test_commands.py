"""The command line as a person meets it: help, mistakes and what it says about them. Nothing here computes a day."""

import shutil
import subprocess
import sys
import time
from itertools import islice
from pathlib import Path

import pytest

from shopauto_pipelines import __version__
from shopauto_pipelines.cli import doctor
from shopauto_pipelines.cli.doctor import examine
from shopauto_pipelines.platform.playbook import PlaybookError
from shopauto_pipelines.platform.settings import PROJECT_ROOT

COMMANDS = (
    "demo",
    "sample",
    "load",
    "refresh",
    "predict",
    "inbox",
    "outbox",
    "segments",
    "collect",
    "doctor",
    "health",
    "migrate",
    "settings",
)
HEAVY = ("dagster", "duckdb", "ibis", "pandas", "sklearn", "great_expectations", "sqlalchemy", "matplotlib")


@pytest.fixture(scope="module")
def files(tmp_path_factory) -> Path:
    """Files of a tiny sample shop."""
    from shopauto_pipelines.sources.sample import generate

    folder = tmp_path_factory.mktemp("files")
    generate(folder, customers=30, months=2)
    return folder


def _own(files: Path, tmp_path: Path, **texts: str | bytes) -> Path:
    """A copy of the files in which some are replaced."""
    folder = tmp_path / "files"
    shutil.copytree(files, folder)
    for name, text in texts.items():
        (folder / f"{name}.csv").write_bytes(text if isinstance(text, bytes) else text.encode())
    return folder


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_teaches_itself(shopauto, command):
    shown = shopauto(command, "--help")
    assert f"Usage: shopauto {command}" in shown
    assert len(shown.split()) > 20


def test_the_program_without_arguments_lists_its_commands_and_the_first_steps(shopauto):
    shown = shopauto("--help")
    assert all(f"{command} " in shown for command in COMMANDS)
    assert "First steps" in shown
    assert shopauto(code=2).split() == shown.split()


def test_it_tells_its_version(shopauto):
    assert shopauto("--version").strip() == f"shopauto {__version__}"


def test_help_is_quick_because_it_imports_nothing_heavy():
    script = (
        "import sys\n"
        "from shopauto_pipelines.cli import main\n"
        "sys.argv = ['shopauto', 'refresh', '--help']\n"
        "try:\n    main()\n"
        f"finally:\n    print('HEAVY', *(name for name in {HEAVY!r} if name in sys.modules))\n"
    )
    started = time.process_time()
    took = time.monotonic()
    done = subprocess.run([sys.executable, "-c", script], cwd=PROJECT_ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1].split() == ["HEAVY"]
    assert time.monotonic() - took < 10, f"process time {time.process_time() - started}"


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["frobnicate"], "No such command 'frobnicate'"),
        (["refresh", "--dya", "2026-06-30"], "No such option: --dya"),
        (["refresh", "--day", "30.6.2026"], "'30.6.2026' is not a day; write it like 2026-06-30"),
        (["refresh", "--from", "2026-06-01"], "a range needs both --from and --to"),
        (["refresh", "--day", "2026-06-01", "--stale"], "give --day, or --from and --to, or --stale, or nothing"),
        (["refresh", "--stale", "--model", "churn-1"], "--stale repairs with the models in force"),
        (["load", "sample"], "Missing argument"),
        (["sample", "x", "--customers", "0"], "--customers"),
        (["inbox", "--port", "123456"], "--port"),
    ],
)
def test_a_wrong_argument_ends_with_code_2_and_says_what_is_wrong(shopauto, arguments, words):
    assert words in " ".join(shopauto(*arguments, code=2).replace("│", " ").split())


def test_a_wrong_setting_is_one_clear_message(shopauto, monkeypatch):
    monkeypatch.setenv("SHOPAUTO_TIMEZONE", "Mars")
    for command in (["refresh"], ["load", "sample", "x"], ["settings"]):
        shown = shopauto(*command, code=1)
        assert "SHOPAUTO_TIMEZONE: 'Mars' is not an IANA time zone such as Europe/London" in shown
        assert shown.startswith("Error:")
        assert len(shown.splitlines()) == 2
    assert "✗ settings" in shopauto("doctor", code=1)


def test_settings_are_shown_with_secrets_masked(shopauto, monkeypatch):
    monkeypatch.setenv("SHOPAUTO_SENDGRID_API_KEY", "SG.very-secret")
    shown = shopauto("settings")
    assert "SHOPAUTO_SENDGRID_API_KEY" in shown
    assert "very-secret" not in shown


def test_the_reference_of_settings_is_what_the_program_writes(shopauto):
    assert shopauto("settings", "--markdown") == (PROJECT_ROOT / "docs" / "settings.md").read_text()


def test_the_reference_of_the_playbook_is_what_the_program_writes(shopauto):
    assert shopauto("reference", "--markdown") == (PROJECT_ROOT / "docs" / "reference.md").read_text()


def test_a_misspelt_source_gets_the_nearest_name(shopauto, files):
    assert "there is no source `sampel`; did you mean `sample`?" in shopauto("load", "sampel", files, code=1)
    assert "there are online-retail, sample" in shopauto("load", "wordpress", files, code=1)


def test_the_health_of_a_lake_that_is_not_there_is_an_error_that_says_what_makes_one(shopauto):
    assert "there is no lake at" in shopauto("health", code=1)


def test_a_refresh_before_any_load_says_what_to_do(shopauto):
    shown = shopauto("refresh", code=1)
    assert "nothing has been loaded" in shown
    assert "shopauto load SOURCE PATH" in shown


def test_what_the_machine_does_not_allow_is_told(shopauto, monkeypatch, files, tmp_path):
    (tmp_path / "file").touch()
    shown = shopauto("sample", tmp_path / "file", "--customers", "5", "--months", "2", code=1)
    assert f"Error: {tmp_path}/file" in shown
    assert "Not a directory" in shown
    shown = shopauto("outbox", "suppress", "export", tmp_path / "nowhere" / "list.csv", code=2)
    assert "there is no folder" in shown
    monkeypatch.setenv("SHOPAUTO_HOME", str(tmp_path / "file"))
    assert "Not a directory" in shopauto("load", "sample", files, code=1)
    assert "Not a directory" in shopauto("doctor", code=1)


def test_the_doctor_looks_at_the_disks_of_the_home_and_the_lake(shopauto, monkeypatch, tmp_path):
    monkeypatch.setenv("SHOPAUTO_HOME", str(tmp_path / "not" / "made" / "yet"))
    monkeypatch.setenv("SHOPAUTO_LAKE", str(tmp_path / "lake"))
    monkeypatch.setenv("SHOPAUTO_POSTGRES_URL", "postgresql://me@127.0.0.1:1/shop")  # else it would make the home
    shown = shopauto("doctor", code=1)
    assert f"GiB free at {tmp_path}" in shown


def test_a_path_that_is_not_there_is_told_with_brackets_and_all(shopauto, tmp_path):
    assert f"{tmp_path}/[red]x: there is no such file" in shopauto("load", "sample", tmp_path / "[red]x", code=1)


def test_days_without_data_are_refused_with_the_days_there_are(shopauto, files):
    shopauto("load", "sample", files)
    shown = shopauto("refresh", "--day", "2027-01-01", code=1)
    assert "to 2026-06-30; 2027-01-01 is outside" in shown
    assert "is after" in shopauto("refresh", "--from", "2026-06-02", "--to", "2026-06-01", code=1)


def test_a_second_shop_in_the_same_home_is_refused_with_what_to_do(shopauto, files, tmp_path):
    shopauto("load", "sample", files)
    shown = shopauto("load", "online-retail", tmp_path / "file.csv", code=1)
    assert "already holds the shop of source `sample`" in shown
    assert "SHOPAUTO_HOME" in shown
    assert "--add" in shown


def test_what_became_of_each_file_is_told_without_cutting_a_name(shopauto, files):
    shown = shopauto("load", "sample", files)
    for file in files.glob("*.csv"):
        assert file.name in shown
        assert f"{len(file.read_text().splitlines()) - 1:,}" in shown
    assert "…" not in shown


def test_a_file_with_missing_columns_is_refused_with_what_it_has(shopauto, files, tmp_path):
    text = (files / "orders.csv").read_text().replace("ordered_at", "orderd_at", 1)
    shown = shopauto("load", "sample", _own(files, tmp_path, orders=text), code=1)
    assert shown.count("Error:") == 1
    assert "orders.csv" in shown
    assert "orderd_at" in shown
    assert "Traceback" not in shown


def test_an_empty_file_is_refused(shopauto, files, tmp_path):
    shown = shopauto("load", "sample", _own(files, tmp_path, orders=b""), code=1)
    assert "orders.csv" in shown
    assert "empty" in shown
    assert "Traceback" not in shown


def test_bad_rows_are_set_aside_with_their_reasons_and_none_is_lost(shopauto, files, tmp_path):
    header = "order_id,ordered_at,shop_customer_id,email,currency,total,discount,shipping,coupon_code,cart_id"
    rows = [
        b"n1,2026-06-01T10:00:00Z,c00001,,EUR,10.00,0,0,,",
        b"n2,yesterday,c00001,,EUR,10.00,0,0,,",  # not a time
        b"n3,2026-06-01T10:00:00Z,c00001,,EUR,ten,0,0,,",  # not an amount
        b"n1,2026-06-02T10:00:00Z,c00001,,EUR,11.00,0,0,,",  # a key again
        b"n4,2199-01-01T10:00:00Z,c00001,,EUR,10.00,0,0,,",  # the future
        b"n5,2026-06-01T10:00:00Z,c00001,,EUR,10.00,0,0,\xff\xfe,",  # not UTF-8
        b"n6,2026-06-01T10:00:00Z,c00001,,EUR,10.00,0,0," + b"x" * 200_000 + b",",  # endless
        b"n7,2026-06-01T10:00:00Z,nobody,,EUR,10.00,0,0,,",  # refused where it meets the customers: landed
    ]
    folder = _own(files, tmp_path, orders=header.encode() + b"\n" + b"\n".join(rows) + b"\n")
    shown = shopauto("load", "sample", folder)
    [line] = [line for line in shown.splitlines() if line.startswith("orders ")]
    read, loaded, aside, left_out, folded = (int(word.replace(",", "")) for word in line.split()[1:6])
    assert (read, loaded, aside) == (8, 2, 6)
    assert read == loaded + aside + left_out + folded
    for reason in ("not a time", "duplicate key", "in the future", "UTF-8"):
        assert reason in shown, shown
    assert "x" * 100 not in shown
    assert "set aside" in shown


def test_the_doctor_finds_nothing_wrong_with_a_fresh_home_and_says_what_comes_next(shopauto, files):
    shown = shopauto("doctor")
    assert "shopauto demo" in shown
    shopauto("load", "sample", files)
    shown = shopauto("doctor")
    assert "no day has been refreshed" in shown
    assert "✗" not in shown


def test_the_doctor_ends_with_code_1_where_the_database_does_not_answer(shopauto, monkeypatch):
    monkeypatch.setenv("SHOPAUTO_POSTGRES_URL", "postgresql://me:pass-word@127.0.0.1:1/shop")
    shown = shopauto("doctor", code=1)
    assert "✗ database" in shown
    assert "does not answer" in shown
    assert "pass-word" not in shown


@pytest.mark.parametrize("command", ["migrate", "health"])
def test_a_database_that_does_not_answer_is_told_by_every_command(shopauto, monkeypatch, tmp_path, command):
    (tmp_path / "home" / "lake").mkdir(parents=True)
    monkeypatch.setenv("SHOPAUTO_POSTGRES_URL", "postgresql://me:pass-word@127.0.0.1:1/shop")
    shown = shopauto(command, code=1)
    assert "PostgreSQL at postgresql+psycopg://me:***@127.0.0.1:1/shop does not answer" in shown
    monkeypatch.setenv("SHOPAUTO_POSTGRES_URL", "postgresql://me:pass-word@127.0.0.1:port/shop")
    shown = shopauto(command, code=1)
    assert "SHOPAUTO_POSTGRES_URL is not like postgresql://user:password@host:port/database" in shown
    assert "pass-word" not in shown


def test_the_doctor_says_once_what_is_wrong_with_the_playbook_though_others_rest_on_it(monkeypatch, tmp_path):
    def broken(*_):
        raise PlaybookError("defs.yaml:3:5: there is no `wait_dayz`")
        yield

    monkeypatch.setenv("SHOPAUTO_HOME", str(tmp_path))
    for part in ("_playbook", "_lake"):
        monkeypatch.setattr(doctor, part, broken)
    wrong = [finding.subject for finding in examine() if finding.level == "problem"]
    assert wrong == ["playbook"]


def test_the_doctor_tells_of_a_dagster_home_that_is_not_the_projects(monkeypatch, tmp_path):
    monkeypatch.setenv("SHOPAUTO_HOME", str(tmp_path / "home"))

    def told(home: Path | None) -> list[str]:
        monkeypatch.setenv("DAGSTER_HOME", str(home or ""))
        return [finding.text for finding in islice(examine(), 3) if finding.subject == "dagster"]

    assert told(None) == told(PROJECT_ROOT) == told(PROJECT_ROOT / "deploy") == []
    [text] = told(tmp_path)
    assert f"DAGSTER_HOME is {tmp_path}, without this project's dagster.yaml" in text
    shutil.copy(PROJECT_ROOT / "dagster.yaml", tmp_path)
    assert told(tmp_path) == []
    (tmp_path / "dagster.yaml").write_text("telemetry: {enabled: false}")
    assert told(tmp_path) == [text]


@pytest.mark.skipif(shutil.which("make") is None, reason="needs make")
def test_make_dev_names_the_project_as_the_home_of_dagster():
    asked = ["make", "--dry-run", "--old-file", ".venv/runtime", "dev"]
    shown = subprocess.run(asked, cwd=PROJECT_ROOT, capture_output=True, text=True, check=True).stdout
    assert f'DAGSTER_HOME="{PROJECT_ROOT}"' in shown


@pytest.mark.parametrize(("key", "told"), [(None, True), ("MFkw", False)])
def test_the_doctor_tells_where_live_mode_hears_nothing_of_bounces(monkeypatch, tmp_path, key, told):
    live = {
        "HOME": str(tmp_path),
        "LIVE": "true",
        "SENDGRID_API_KEY": "SG.x",
        "FROM_EMAIL": "shop@shop.test.org",
        "POSTAL_ADDRESS": "1 High Street",
        "SHOP_URL": "https://shop.test.org",
        "BASE_URL": "https://mail.shop.test.org",
        "SECRET_KEY": "s" * 40,
        "SENDGRID_WEBHOOK_KEY": key or "",
    }
    for name, value in live.items():
        monkeypatch.setenv(f"SHOPAUTO_{name}", value)
    first_two = list(islice(examine(), 2))
    assert ("events" in [finding.subject for finding in first_two]) is told


@pytest.mark.parametrize("command", ["load sample .", "demo", "outbox status", "health", "refresh --stale", "refresh"])
def test_what_is_sent_loaded_or_repaired_has_nothing_to_do_with_days_as_known_then(shopauto, command):
    assert "as known then" in shopauto("--known", "then", *command.split(), code=2)


def test_days_are_as_known_now_or_then(shopauto):
    assert "neither now nor then" in shopauto("--known", "tomorrow", "doctor", code=2)


def test_before_anything_is_computed_as_known_then_it_says_what_does_it(shopauto, monkeypatch):
    monkeypatch.setenv("SHOPAUTO_KNOWN", "then")
    shown = shopauto("segments", "list", code=1)
    assert "Nothing has been computed as known then: `shopauto --known then refresh" in shown

"""The Dagster UI as people see it: a real ``dagster dev``, a real browser, over a small shop that has been refreshed."""

import os
import signal
import socket
import subprocess
import sys
import time
from contextlib import contextmanager
from pathlib import Path

import httpx
import psutil
import pytest

from shopauto_pipelines.platform.settings import PROJECT_ROOT

pytestmark = [pytest.mark.slow, pytest.mark.browser, pytest.mark.xdist_group("ui")]

CHROMIUM = Path("/usr/bin/chromium")
GROUPS = ["collector", "sources", "profiles", "features", "predictions", "segments", "campaigns", "outbox"]

#: A slow machine needs half a minute to load the code location, and long over a page.
PATIENCE = 120


def environment(home):
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("SHOPAUTO_", "DAGSTER_"))}
    return kept | {"SHOPAUTO_HOME": str(home), "PYTHONPATH": str(PROJECT_ROOT)}


class Dagster:
    """A running ``dagster dev``."""

    def __init__(self, url, log):
        self.url, self.log = url, log

    def ask(self, query, **variables):
        """The answer to a GraphQL query."""
        answer = httpx.post(f"{self.url}/graphql", json={"query": query, "variables": variables}, timeout=PATIENCE)
        assert answer.status_code == 200, answer.text
        return answer.json()["data"]


@contextmanager
def dagster_dev(home):
    """``dagster dev`` from the project's root on a free port; ends with every process it started, PostgreSQL included."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    log = home.with_suffix(".log")
    with log.open("w") as output:
        process = subprocess.Popen(
            [sys.executable, "-m", "dagster", "dev", "-p", str(port)],
            cwd=PROJECT_ROOT,
            env=environment(home),
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    started = [process.pid]
    try:
        _wait_for(f"http://127.0.0.1:{port}/server_info", process, log)
        yield Dagster(f"http://127.0.0.1:{port}", log)
    finally:
        started += [child.pid for child in psutil.Process(process.pid).children(recursive=True)]
        os.killpg(process.pid, signal.SIGINT)
        _end(started, home)
        process.wait(timeout=10)


def _wait_for(url, process, log):
    deadline = time.monotonic() + PATIENCE
    while True:
        try:
            httpx.get(url, timeout=5).raise_for_status()
            return
        except httpx.HTTPError:
            assert process.poll() is None, log.read_text()
            assert time.monotonic() < deadline, log.read_text()
            time.sleep(0.3)


def _end(started, home):
    """Wait until what was started is gone; what does not go within ten seconds is killed."""
    left = [psutil.Process(pid) for pid in started if psutil.pid_exists(pid)]
    left += [p for p in psutil.process_iter(["cmdline"]) if str(home / "postgres") in " ".join(p.info["cmdline"] or [])]
    deadline = time.monotonic() + 10
    while any(map(_runs, left)) and time.monotonic() < deadline:
        time.sleep(0.1)
    for process in filter(_runs, left):
        process.kill()


def _runs(process):
    """Whether it still does; one that has ended may stay in the list of processes until somebody asks how."""
    try:
        return process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


@pytest.fixture(scope="module")
def browser():
    """Chromium, or a skip that says what is missing."""
    playwright = pytest.importorskip("playwright.sync_api", reason="needs Playwright's Python package")
    if not CHROMIUM.exists():
        pytest.skip(f"needs Chromium at {CHROMIUM}")
    quiet = ["--disable-background-networking", "--disable-component-update", "--disable-sync", "--no-first-run"]
    with playwright.sync_playwright() as started:
        opened = started.chromium.launch(
            executable_path=str(CHROMIUM), args=["--no-sandbox", "--disable-gpu", *quiet], timeout=PATIENCE * 1000
        )
        yield opened
        opened.close()


@pytest.fixture(scope="module")
def dagster(new_shop, browser, refreshed):
    """``dagster dev`` over a copy of the refreshed shop. Asks for the browser first: no need without one."""
    with dagster_dev(new_shop(like=refreshed).home) as running:
        yield running


@pytest.fixture
def page(dagster, browser):
    """A new page whose paths are those of the UI; anything may take its time."""
    with browser.new_context(base_url=dagster.url, viewport={"width": 1600, "height": 1000}) as context:
        context.set_default_timeout(PATIENCE * 1000)
        yield context.new_page()


def test_the_asset_graph_shows_the_rooms_from_left_to_right_in_the_order_the_data_walks(page):
    page.goto("/asset-groups")
    # The graph is an SVG; the list of groups beside it is not.
    nodes = {name: page.locator("svg foreignObject").filter(has_text=name).first for name in GROUPS}
    for node in nodes.values():
        node.wait_for()
    left = {name: node.bounding_box()["x"] for name, node in nodes.items()}
    assert sorted(left, key=left.get) == GROUPS
    assert page.get_by_text("Join the Dagster community").count() == 0


def test_an_asset_page_shows_what_it_is_its_columns_and_where_it_comes_from(page):
    page.goto("/assets/features/customer_features")
    for text in ("Behaviour of each person as of the day", "revenue_cents", "order totals so far, minor units"):
        page.get_by_text(text).first.wait_for()
    page.locator("tr").filter(has_text="where columns come from").get_by_text("Show Markdown").click()
    page.get_by_role("link", name="features/daily_products").first.wait_for()
    page.get_by_role("button", name="Close").click()
    for upstream in ("features / daily_activity", "profiles / identities"):
        page.get_by_text(upstream).first.wait_for()
    assert "unserializable" not in page.content()


def test_a_segment_page_shows_its_size_and_a_plot_of_it(page):
    page.goto("/assets/segments/active")
    row = page.locator("tr").filter(has=page.get_by_text("size", exact=True))
    assert int(row.locator("td").last.inner_text()) > 0
    page.locator("tr").filter(has_text="sizes over time").get_by_text("Show Markdown").click()
    picture = page.get_by_role("img", name="size of the segment")
    picture.wait_for()
    assert picture.evaluate("image => image.decode().then(() => image.naturalWidth)") > 300


def test_the_check_of_a_table_is_shown_with_what_it_expects(page):
    page.goto("/assets/raw/orders?view=checks")
    page.get_by_text("Great Expectations suite of").first.wait_for()
    page.get_by_text("Passed").first.wait_for()


def test_column_lineage_reaches_back_to_the_shops_files(dagster):
    def origins(path, column):
        answer = dagster.ask(
            """query($path: [String!]!) { assetNodeOrError(assetKey: {path: $path}) { ... on AssetNode {
            assetMaterializations(limit: 1) { metadataEntries { ... on TableColumnLineageMetadataEntry {
            lineage { columnName columnDeps { assetKey { path } columnName } } } } } } } }""",
            path=path,
        )
        entries = answer["assetNodeOrError"]["assetMaterializations"][0]["metadataEntries"]
        (lineage,) = [entry["lineage"] for entry in entries if "lineage" in entry]
        deps = {line["columnName"]: line["columnDeps"] for line in lineage}[column]
        return {("/".join(dep["assetKey"]["path"]), dep["columnName"]) for dep in deps}

    assert ("features/daily_activity", "revenue_cents") in origins(["features", "customer_features"], "revenue_cents")
    assert ("raw/orders", "total_cents") in origins(["features", "daily_activity"], "revenue_cents")
    assert ("files/sample", "total") in origins(["raw", "orders"], "total_cents")


def test_dagster_dev_has_nothing_to_complain_about(dagster, page):
    page.goto("/assets")
    page.get_by_text("campaigns / welcome / audience").first.wait_for()
    said = dagster.log.read_text()
    assert "Traceback" not in said
    assert [line for line in said.splitlines() if "shopauto" in line and ("WARNING" in line or "ERROR" in line)] == []

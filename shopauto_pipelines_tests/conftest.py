"""What several rooms' tests share. Tests run on real files, a real embedded PostgreSQL, and real Dagster."""

import os
from pathlib import Path

import pytest

from shopauto_pipelines.platform.lake import Lake
from shopauto_pipelines.platform.settings import PROJECT_ROOT, Settings

os.environ.setdefault("GX_ANALYTICS_ENABLED", "false")


@pytest.fixture
def lake(tmp_path) -> Lake:
    """An empty lake of two threads."""
    return Lake(tmp_path / "lake", threads=2)


@pytest.fixture
def settings(tmp_path) -> Settings:
    """Default settings with a home of their own; no environment, no ``.env``."""
    return Settings(home=tmp_path, _env_file=None)


@pytest.fixture(scope="session")
def shared() -> Path:
    """The folder of real data and published contracts that stands beside the project on developers' machines."""
    folder = PROJECT_ROOT.parent / "shared"
    if not folder.is_dir():
        pytest.skip("needs ../shared: real data and contracts, kept beside the project")
    return folder


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """The first test makes the shops that many share; the others that need them come last, so that no worker waits."""
    sharing = [item for item in items if {"loaded", "refreshed"} & {*getattr(item, "fixturenames", ())}]
    alone = [item for item in items if item not in sharing]
    items[:] = [*sharing[:1], *alone, *sharing[1:]]

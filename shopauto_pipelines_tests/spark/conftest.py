"""Spark on this machine: tests skip where it cannot run. Shops and models are those that other rooms' tests make."""

import shutil

import pytest

from shopauto_pipelines_tests.e2e.conftest import loaded, new_shop, refreshed, small_files
from shopauto_pipelines_tests.predictions.conftest import challengers, log, shop, trained

__all__ = ["challengers", "loaded", "log", "new_shop", "refreshed", "shop", "small_files", "trained"]


@pytest.fixture(scope="session")
def java() -> str:
    """Where Java is."""
    pytest.importorskip("pyspark", reason="Spark is not installed: pip install '.[spark]'")
    return shutil.which("java") or pytest.skip("no Java on the PATH: Spark needs Java 17 or later")

"""Resources every room's assets may ask for: the settings, the lake, the clock."""

import threading
from typing import Any

import dagster as dg
from pydantic import PrivateAttr

from shopauto_pipelines.platform.clock import Clock, SystemClock
from shopauto_pipelines.platform.lake import Lake, open_lake
from shopauto_pipelines.platform.settings import Settings, load_settings

_open = threading.local()


class SettingsResource(dg.ConfigurableResource):
    """The settings of the process, read once per run, and its clock."""

    _settings: Settings = PrivateAttr()

    def setup_for_execution(self, context: dg.InitResourceContext) -> None:
        """Read the environment and ``.env``."""
        self._settings = load_settings()

    @property
    def settings(self) -> Settings:
        """The settings."""
        return self._settings

    @property
    def clock(self) -> Clock:
        """The wall clock: only sends may ask it."""
        return SystemClock()


class LakeResource(dg.ConfigurableResource):
    """The lake under the settings' home, opened once per thread.

    Dagster copies a resource that others depend on. All copies hand out the same lake, so that an expression an asset
    builds runs on the connection the I/O manager writes with.
    """

    settings: dg.ResourceDependency[SettingsResource]

    def lake(self) -> Lake:
        """The open lake, for what computes tables: on the engine of the settings."""
        return self._opened(computes=True)

    def front(self) -> Lake:
        """The open lake, for what acts on tables or shows them: with DuckDB, whatever computed them."""
        return self._opened(computes=self.settings.settings.engine == "duckdb")

    def _opened(self, *, computes: bool) -> Lake:
        settings = self.settings.settings
        options = settings.engine_threads, settings.engine_memory
        key = settings.lake_path, settings.lake_bucket, computes and settings.engine, *options
        lakes: dict[tuple[Any, ...], Lake] = _open.__dict__.setdefault("lakes", {})
        if key not in lakes or not settings.lake_path.exists():
            lakes[key] = open_lake(settings, computes=computes)
        return lakes[key]

"""Resources every room's assets may ask for: the settings, the lake, the clock."""

import dagster as dg
from pydantic import PrivateAttr

from shopauto_pipelines.platform.clock import Clock, SystemClock
from shopauto_pipelines.platform.lake import Lake
from shopauto_pipelines.platform.settings import Settings, load_settings


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
    """The lake under the settings' home, opened once per run (or once per step where steps are processes)."""

    settings: dg.ResourceDependency[SettingsResource]
    _lake: Lake | None = PrivateAttr(default=None)

    def lake(self) -> Lake:
        """The open lake."""
        if self._lake is None:
            settings = self.settings.settings
            self._lake = Lake(settings.lake_path, settings.engine_threads, settings.engine_memory)
        return self._lake

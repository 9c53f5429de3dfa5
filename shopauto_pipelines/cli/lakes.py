"""The lake as the commands that only read open it: none is made where there is none."""

from __future__ import annotations

from typing import TYPE_CHECKING

from shopauto_pipelines.platform.errors import ShopAutoError

if TYPE_CHECKING:
    from shopauto_pipelines.platform.lake import Lake
    from shopauto_pipelines.platform.settings import Settings


class NoLake(ShopAutoError):
    """There is no lake under the home; the text says what makes one."""


def existing_lake(settings: Settings) -> Lake:
    """The lake under the home. Raises :class:`NoLake`: a home that is misspelt would get an empty one."""
    from shopauto_pipelines.platform.lake import Lake

    if not settings.lake_path.is_dir():
        raise NoLake(
            f"there is no lake at {settings.lake_path}: run `shopauto demo`, or `shopauto load`, then "
            "run `shopauto refresh`"
        )
    return Lake(settings.lake_path, settings.engine_threads, settings.engine_memory)

"""The lake as the commands that only read open it: none is made where there is none."""

from __future__ import annotations

from typing import TYPE_CHECKING

from shopauto_pipelines.platform.errors import ShopAutoError

if TYPE_CHECKING:
    from shopauto_pipelines.platform.lake import Lake
    from shopauto_pipelines.platform.settings import Settings


class NoLake(ShopAutoError):
    """There is no lake under the home; the text says what makes one."""


def has_lake(settings: Settings) -> bool:
    """Whether there is one: a folder, or, in a bucket, what was loaded. Raises ``ObjectStorageError``."""
    from shopauto_pipelines.platform.lake import Lake, storage_of

    if settings.lake_bucket is None:
        return settings.lake_path.is_dir()
    return Lake.first_day(storage_of(settings)) is not None


def existing_lake(settings: Settings) -> Lake:
    """The lake under the home. Raises :class:`NoLake`: a home that is misspelt would get an empty one."""
    from shopauto_pipelines.platform.lake import open_lake

    if not has_lake(settings):
        raise NoLake(
            f"there is no lake at {settings.lake_bucket or settings.lake_path}: run `shopauto demo`, or `shopauto load`, then "
            "run `shopauto refresh`"
        )
    return open_lake(settings)

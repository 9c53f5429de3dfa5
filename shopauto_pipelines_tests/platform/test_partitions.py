"""The first daily partition: that of the setting or of the data, whichever is earlier."""

import subprocess
import sys
from datetime import date

import pytest

from shopauto_pipelines.platform.lake import open_lake
from shopauto_pipelines.platform.settings import load_settings

SAYS = "from shopauto_pipelines.platform.dagster.partitions import DAILY; print(DAILY.get_first_partition_key())"


@pytest.mark.parametrize(
    ("setting", "of_data", "first"),
    [
        (None, None, "2025-01-01"),
        (None, "2024-03-01", "2024-03-01"),
        ("2026-04-05", None, "2026-04-05"),
        ("2026-04-05", "2026-04-01", "2026-04-01"),
        ("2026-03-05", "2026-04-01", "2026-03-05"),
    ],
)
def test_no_day_of_the_data_is_before_it(tmp_path, monkeypatch, setting, of_data, first):
    monkeypatch.setenv("SHOPAUTO_HOME", str(tmp_path))
    if setting:
        monkeypatch.setenv("SHOPAUTO_FIRST_DAY", setting)
    if of_data:
        open_lake(load_settings()).note_first_day(date.fromisoformat(of_data))
    done = subprocess.run([sys.executable, "-c", SAYS], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == first

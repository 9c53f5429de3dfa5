"""A process that had many rows in its hands lets go of them."""

import platform
import subprocess
import sys
import textwrap

import pytest

PROGRAM = """
    import os
    import sys
    from pathlib import Path

    from shopauto_pipelines.platform.memory import MANY_ROWS, give_back

    def held():
        return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE") / 2**20

    before = held()
    rows = [bytes(800) for _row in range(250_000)]
    last = bytearray(800)  # above all of them: what is below cannot go by itself
    del rows
    kept = held() - before
    give_back(MANY_ROWS - 1)
    assert held() - before > 0.8 * kept, "a few rows are not worth the look"
    give_back(MANY_ROWS)
    print(kept, held() - before)
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="another C library keeps nothing, or cannot be asked")
def test_what_the_c_library_keeps_for_later_is_given_back():
    done = subprocess.run([sys.executable, "-c", textwrap.dedent(PROGRAM)], capture_output=True, text=True, check=True)
    kept, left = map(float, done.stdout.split())
    assert kept > 150
    assert left < 0.2 * kept

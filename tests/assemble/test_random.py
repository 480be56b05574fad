# SPDX-License-Identifier: Apache-2.0
"""Models that are drawn at random, saved by the real libraries, against the live models and the libraries' own tools.

random_saves.py and random_check.py do the same by hand, with other seeds and with other versions of the libraries.
"""

import os
import random
import subprocess
import sys
from pathlib import Path

import pytest

import random_check
from saved import long

HERE = Path(__file__).parent
# (family, ranks, how many). In make check-long other models are drawn each time.
DRAWN = [("dcp", 3, 5), ("fsdp", 2, 4), ("deepspeed", 2, 4)]
MORE = [(family, ranks, 12) for family in random_check.CHECKS for ranks in (1, 2, 4, 5)] + [("dcp", 8, 12)]


def made(directory, family, ranks, seed, count):
    done = subprocess.run(
        [sys.executable, HERE / "random_saves.py", family, directory, str(ranks), str(seed), str(count)],
        capture_output=True,
        text=True,
        errors="replace",
        timeout=600,
    )
    assert done.returncode == 0, done.stderr[-3000:]


def compare(directory, family, ranks, seed, count):
    made(directory, family, ranks, seed, count)
    seen, wrong = random_check.check(directory)
    assert len(seen) >= count, list(directory.glob("*.refused"))
    assert wrong == []


@pytest.mark.parametrize(("family", "ranks", "count"), DRAWN)
def test_as_the_libraries_read_it(tmp_path, family, ranks, count):
    compare(tmp_path, family, ranks, 0, count)


@long
@pytest.mark.parametrize(("family", "ranks", "count"), MORE)
def test_others(tmp_path, family, ranks, count):
    seed = int(os.environ.get("CKPTFS_TEST_SEED") or random.randrange(10**6))
    print("seed", seed)
    compare(tmp_path, family, ranks, seed, count)

# SPDX-License-Identifier: Apache-2.0
"""Saves that take long are made once for all modules of a run: bats gives them a directory (BATS_FILE_TMPDIR)."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import dcp_saves

# What repeats others with other numbers is left to `make check-long`.
long = pytest.mark.skipif(not os.environ.get("CKPTFS_TEST_LONG"), reason="only in make check-long")


def once(name, make, otherwise):
    """The directory of that name, which make(directory) fills; below `otherwise` where no bats runs this."""
    directory = Path(os.environ.get("BATS_FILE_TMPDIR") or otherwise) / name
    if not directory.exists():
        making = directory.with_name(f"{name}.making")
        shutil.rmtree(making, ignore_errors=True)
        make(making)
        making.rename(directory)
    return directory


def deepspeed(otherwise):
    """All that deepspeed_saves.py makes."""
    script = Path(__file__).with_name("deepspeed_saves.py")
    command = [sys.executable, "-B", script]
    return once("deepspeed", lambda path: subprocess.run([*command, path], check=True, timeout=600), otherwise)


def distributed(world, otherwise):
    """All that dcp_saves.py makes with so many ranks."""
    return once(f"distributed-{world}", lambda path: dcp_saves.save(path, world), otherwise)

# SPDX-License-Identifier: Apache-2.0
"""Saves that take long are made once for all modules of a run: bats gives them a directory (BATS_FILE_TMPDIR)."""

import os
import shutil
import sys
from pathlib import Path

import pytest

import dcp_saves

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "lib"))

import loaded  # noqa: E402

DEEPSPEED = Path(__file__).with_name("deepspeed_saves.py")

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

    def make(path):
        with open(path.with_name("deepspeed.log"), "wb") as log:
            script = loaded.start(DEEPSPEED, path, cwd=path.parent, env=dict(os.environ), output=log)
            try:
                status = script.wait(600)
            finally:
                script.kill()
        assert status == 0, Path(log.name).read_text(errors="replace")[-3000:]

    return once("deepspeed", make, otherwise)


def distributed(world, otherwise):
    """All that dcp_saves.py makes with so many ranks."""
    return once(f"distributed-{world}", lambda path: dcp_saves.save(path, world), otherwise)

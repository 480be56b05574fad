# SPDX-License-Identifier: Apache-2.0
"""Where the tests run: a directory on the mount, and one on the plain disk that shows what is right.

CKPTFS_TEST_MOUNT    a directory on the mount under test
CKPTFS_TEST_PLAIN    a directory on a plain disk
CKPTFS_TEST_REMOUNT  a command that ends the mount and mounts the store again (default: none, nothing is done)
CKPTFS_TEST_KILL     how often the daemon is killed meanwhile (test_takeover.py, test_habits.py; default: never);
                     it then needs CKPTFS, the program, and CKPTFS_TEST_MOUNTPOINT
CKPTFS_TEST_SEED     the seed of the moments at which it is killed (default: another one each time; it is printed)

With both directories on plain disks every test passes too: that is how the tests themselves are checked.
"""

import gc
import os
import subprocess
import time
from collections import namedtuple
from pathlib import Path

import pytest

import harness
from deaths import Deaths, mount_in_use

Sides = namedtuple("Sides", "plain mount")


@pytest.fixture(scope="session", autouse=True)
def quiet_libraries():
    """The libraries that this process loads behave as in the runs that it starts."""
    os.environ.update(harness.environment())


@pytest.fixture(autouse=True)
def no_process_is_left():
    yield
    harness.end_started()


@pytest.fixture(scope="module")
def sides(request):
    """One fresh directory on each side, for the tests of one module."""
    name = request.module.__name__
    roots = Sides(*(Path(os.environ[key]) / name for key in ("CKPTFS_TEST_PLAIN", "CKPTFS_TEST_MOUNT")))
    for root in roots:
        root.mkdir()
    return roots


@pytest.fixture(scope="session")
def remount():
    """A function that ends the mount and mounts the store again."""
    command = os.environ.get("CKPTFS_TEST_REMOUNT")

    def perform():
        gc.collect()  # tensors that still map files of the mount would keep it busy
        if command:
            with mount_in_use:
                subprocess.run(command, shell=True, check=True, timeout=120)

    return perform


@pytest.fixture(scope="module")
def deaths():
    """A thread, not started yet, that kills the daemon CKPTFS_TEST_KILL times; at the end what it met is raised."""
    seed = int(os.environ.get("CKPTFS_TEST_SEED", time.time_ns() % 100_000))
    thread = Deaths(int(os.environ.get("CKPTFS_TEST_KILL", "0")), seed)
    print(f"kills at random moments, CKPTFS_TEST_SEED={seed}")
    yield thread
    if thread.ident is not None:
        thread.stop()


@pytest.fixture(scope="module")
def main_run(sides):
    """The run that several tests look at: automatic and manual saves, evaluation, rotation, logs, shards."""
    harness.run_both(sides, *MAIN_OPTIONS, *EXTRA_SAVES)
    return Sides(*(root / "run" for root in sides))


# The learning rate is far too high: the first checkpoint stays the best one, so that rotation has to keep it.
MAIN_OPTIONS = (
    *("--output_dir", "run", "--hidden_size", 128, "--report_to", "tensorboard"),
    *("--max_steps", 9, "--save_steps", 3, "--save_total_limit", 2, "--eval_strategy", "steps", "--eval_steps", 3),
    *("--load_best_model_at_end", "--metric_for_best_model", "eval_loss"),
    *("--learning_rate", 0.1, "--lr_scheduler_type", "constant"),
)
EXTRA_SAVES = ("--save_model_to", "run/manual/one", "run/manual/two", "elsewhere", "--shard_sizes", "500KB", "1500KB")

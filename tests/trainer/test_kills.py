# SPDX-License-Identifier: Apache-2.0
"""Killed in its saves again and again, and resumed with resume_from_checkpoint=True each time, a run ends as it would
have without: the process is killed, the daemon of the mount, or both at the same moment."""

import os
import random
import signal
import time

import pytest

import harness
from deaths import status

KILLS = int(os.environ.get("CKPTFS_TEST_SAVE_KILLS", "8"))
# More deaths of the daemon than five in a minute would end the mount.
DAEMON_DISTANCE = 15.0
# A save takes about so long here.
SAVE_SECONDS = 0.2
STEPS = 2 * (KILLS + 3)
OPTIONS = (
    *("--output_dir", "run", "--hidden_size", 256, "--learning_rate", 0.001),
    *("--max_steps", STEPS, "--save_steps", 2, "--save_total_limit", 3),
)


class Killer:
    """Kills once in each save, at a random moment of it."""

    def __init__(self, run, seed):
        self.run, self.random = run, random.Random(seed)
        self.daemon_died = 0.0
        # The first save has no complete one before it: that is not the question here.
        self.spared = {"checkpoint-2"}
        self.killed = {"process": 0, "daemon": 0, "both": 0}

    def new(self):
        """A checkpoint in whose save nothing was killed yet."""
        names = set(harness.checkpoints(self.run)) if self.run.exists() else set()
        return next(iter(names - self.spared), None)

    def what_dies(self):
        daemon = "CKPTFS_TEST_MOUNTPOINT" in os.environ and time.monotonic() - self.daemon_died > DAEMON_DISTANCE
        return self.random.choice(["process", "both", "daemon"] if daemon else ["process"])

    def kill(self, process):
        """Returns whether the process was killed."""
        what = self.what_dies()
        if what != "process":
            os.kill(status()["daemon_pid"], signal.SIGKILL)
            self.daemon_died = time.monotonic()
        if what != "daemon":
            harness.kill_group(process)
        self.killed[what] += 1
        return what != "daemon"


def start(root):
    """As a job script does that starts its training anew after each end."""
    resume = ("--resume_from_checkpoint", "True") if harness.checkpoints(root / "run") else ()
    return harness.start(root, *OPTIONS, *resume)


def test_killed_in_saves(sides):
    """Every loss, and the last checkpoint byte by byte, are those of the run that nobody killed."""
    seed = int(os.environ.get("CKPTFS_TEST_SEED", time.time_ns() % 100_000))
    print(f"CKPTFS_TEST_SEED={seed}")
    harness.run(sides.plain, *OPTIONS)
    killer = Killer(sides.mount / "run", seed)
    process = start(sides.mount)
    while sum(killer.killed.values()) < KILLS:
        name = harness.wait_for(lambda: killer.new() or process.poll() is not None, harness.RUN_DEADLINE, "a save")
        assert name is not True, f"the run ended after {killer.killed}: {harness.tail(process)}"
        time.sleep(killer.random.uniform(0, SAVE_SECONDS))
        killer.spared.add(name)
        if killer.kill(process):
            process = start(sides.mount)
    assert harness.finish(process) == 0, harness.tail(process)
    print(killer.killed)
    last = f"checkpoint-{STEPS}"
    assert harness.losses(killer.run / last) == harness.losses(sides.plain / "run" / last)
    for name in ("model.safetensors", "optimizer.pt", "scheduler.pt", "rng_state.pth"):
        assert harness.digest(killer.run / last / name) == harness.digest(sides.plain / "run" / last / name), name

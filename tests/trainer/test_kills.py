# SPDX-License-Identifier: Apache-2.0
"""Killed in its saves again and again, and resumed with resume_from_checkpoint=True each time, a run ends as it would
have without: the process is killed, the daemon of the mount, or both at the same moment. Killed while it saves over a
checkpoint, it leaves that as it was, or as it was to become."""

import os
import random
import signal
import subprocess
import sys
import time

import pytest

import harness
from deaths import status

KILLS = int(os.environ.get("CKPTFS_TEST_SAVE_KILLS", "8"))
REWRITE_KILLS = int(os.environ.get("CKPTFS_TEST_REWRITE_KILLS", "3"))
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
        if name is True and sum(killer.killed.values()) >= KILLS // 2:
            break  # saves that nobody looked at went by, as this process had to wait
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


class Rewrite:
    """One checkpoint that runs with two seeds save over each other."""

    PARTS = ("model.safetensors", "optimizer.pt", "scheduler.pt", "rng_state.pth")

    def __init__(self, sides):
        self.root = sides.mount
        self.checkpoint = sides.mount / "over" / "checkpoint-2"
        self.expected = {seed: self.expect(sides.plain / f"seed-{seed}", seed) for seed in (1, 2)}

    @staticmethod
    def options(seed, steps=2):
        sizes = ("--hidden_size", 256, "--learning_rate", 0.001)
        return ("--output_dir", "over", "--seed", seed, "--max_steps", steps, "--save_steps", 2, *sizes)

    def expect(self, root, seed):
        root.mkdir()
        harness.run(root, *self.options(seed))
        return self.parts(root / "over" / "checkpoint-2")

    def parts(self, directory):
        return [harness.digest(directory / name) for name in self.PARTS] + [harness.losses(directory)]

    def time(self):
        """When something in it changed last."""
        return max(path.stat().st_mtime_ns for path in (self.checkpoint, self.checkpoint / "model.safetensors"))

    def seed(self):
        """Whose it is, as a process finds it that starts now."""
        list_run = [sys.executable, "-c", "import os, sys; print(*os.listdir(sys.argv[1]))", self.checkpoint.parent]
        listed = subprocess.run(list_run, check=True, capture_output=True, text=True).stdout.split()
        assert "checkpoint-2" in listed
        found = [seed for seed, parts in self.expected.items() if parts == self.parts(self.checkpoint)]
        assert len(found) == 1, "it is a mixture"
        return found[0]

    def is_complete(self):
        link = os.path.join(os.environ["CKPTFS_TEST_MOUNTPOINT"], ".ckptfs", "latest", self.root.name, "over")
        return os.path.islink(link) and os.path.basename(os.readlink(link)) == "checkpoint-2"


def kill_in_rewrite(rewrite, seed, randomness, daemon):
    """Starts a run that saves over the checkpoint, and kills it at a moment of that save."""
    before = rewrite.time()
    process = harness.start(rewrite.root, *rewrite.options(seed))
    harness.wait_for(lambda: rewrite.time() != before or process.poll() is not None, harness.RUN_DEADLINE, "a save")
    time.sleep(randomness.uniform(0, SAVE_SECONDS))
    if daemon:
        os.kill(status()["daemon_pid"], signal.SIGKILL)
    if process.poll() is None:
        harness.kill_group(process)


@pytest.mark.skipif("CKPTFS_TEST_MOUNTPOINT" not in os.environ, reason="a plain disk has a mixture now and then")
def test_killed_in_rewrites(sides):
    """The checkpoint is always of one of the two runs, and either goes on from it."""
    seed = int(os.environ.get("CKPTFS_TEST_SEED", time.time_ns() % 100_000))
    print(f"CKPTFS_TEST_SEED={seed}")
    randomness, daemon_died, ends = random.Random(seed), 0.0, []
    rewrite = Rewrite(sides)
    harness.run(sides.mount, *rewrite.options(1))
    for _ in range(REWRITE_KILLS):
        was = rewrite.seed()
        harness.wait_for(rewrite.is_complete, 60, "the complete checkpoint")
        daemon = time.monotonic() - daemon_died > DAEMON_DISTANCE and randomness.random() < 0.5
        daemon_died = time.monotonic() if daemon else daemon_died
        kill_in_rewrite(rewrite, 3 - was, randomness, daemon)
        ends.append("as it was" if rewrite.seed() == was else "as it was to become")
    print(ends)
    harness.run(sides.mount, *rewrite.options(rewrite.seed(), 4), "--resume_from_checkpoint", "True")
    assert harness.losses(sides.mount / "over" / "checkpoint-4")[:2] == rewrite.expected[rewrite.seed()][-1]

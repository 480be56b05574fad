# SPDX-License-Identifier: Apache-2.0
"""Runs of two ranks, by FSDP and DeepSpeed, that are killed in their saves again and again and started anew each time
with resume_from_checkpoint=True, end as those that nobody killed, bit by bit.

A kill has a moment: after some time, when some file of the checkpoint is there, or when the rotation removes an older
one. It has a victim: all processes, one rank, whose launcher ends the others, one rank while the others live on, with
the next run started beside them; the daemon, alone or with them.

CKPTFS_TEST_RANK_KILLS is the number of kills of each way (default: 2), CKPTFS_TEST_WAYS which ways.
"""

import contextlib
import os
import random
import signal
import time
from pathlib import Path

import pytest
import torch

import harness
from deaths import status
from ways import RANKS, WAYS

KILLS = int(os.environ.get("CKPTFS_TEST_RANK_KILLS", "2"))
CHOSEN = os.environ.get("CKPTFS_TEST_WAYS", "fsdp-sharded zero3").split()
# More deaths of the daemon than five in a minute would end the mount.
DAEMON_DISTANCE = 15.0
STEPS = 2 * (KILLS + 3)
OPTIONS = (
    *("--output_dir", "run", "--hidden_size", 128, "--learning_rate", 0.001),
    *("--max_steps", STEPS, "--save_steps", 2, "--save_total_limit", 2),
)


# -- what is there -----------------------------------------------------------------------------------------------------


def files_of(checkpoint):
    """The names of a checkpoint's files; a directory that is removed meanwhile has none."""
    found = []
    for directory, _, names in os.walk(checkpoint):
        found += [os.path.relpath(os.path.join(directory, name), checkpoint) for name in names]
    return sorted(found)


def step_of(name):
    return int(name.rpartition("-")[2])


def children(pid):
    """The processes that a process started."""
    found = []
    for task in Path(f"/proc/{pid}/task").glob("*/children"):
        with contextlib.suppress(FileNotFoundError, ProcessLookupError):  # it ends just now
            found += [int(word) for word in task.read_text().split()]
    return found


# -- the moment --------------------------------------------------------------------------------------------------------


class Moments:
    """Waits for a random moment in the save of a checkpoint that nothing was killed in yet."""

    def __init__(self, run, model, numbers):
        """`model`: a whole checkpoint of another run, which tells what files there will be."""
        self.run, self.random = run, numbers
        self.step = step_of(model.name)
        self.files = files_of(model)
        times = [(model / name).stat().st_mtime for name in self.files]
        self.seconds = max(times) - min(times)
        # The first one has no complete one before it: that is not the question here.
        self.spared = {"checkpoint-2"}

    def new(self):
        names = set(harness.checkpoints(self.run)) if self.run.exists() else set()
        return next(iter(names - self.spared), None)

    def rotation(self, new):
        """What the rotation after that save will take away, with the number of its files."""
        older = [name for name in harness.checkpoints(self.run) if step_of(name) < step_of(new)]
        return (self.run / older[0], len(self.files)) if len(older) == 2 else None

    def choose(self, new):
        """A condition, what it is, and for how long to wait after it is met."""
        kind = self.random.choice(("time", "file", "file", "rotation"))
        rotated = self.rotation(new)
        if kind == "rotation" and rotated:
            old, count = rotated
            left = self.random.randrange(count)
            return lambda: len(files_of(old)) <= left, f"{old.name} has {left} files left", 0
        if kind == "file":
            name = self.random.choice(self.files).replace(f"step{self.step}", f"step{step_of(new)}")
            return (self.run / new / name).exists, f"{new}/{name}", self.random.choice((0, 0, 0.002, 0.01))
        return lambda: True, f"{new}, after a time", self.random.uniform(0, 1.5 * self.seconds)

    def wait(self, process):
        """Returns what the moment was; None when the run ended before one."""
        new = harness.wait_for(lambda: self.new() or process.poll() is not None, harness.RUN_DEADLINE, "a save")
        if new is True:
            return None
        self.spared.add(new)
        condition, what, seconds = self.choose(new)
        harness.wait_for(lambda: condition() or process.poll() is not None, harness.RUN_DEADLINE, what, pause=0.0005)
        time.sleep(seconds)
        return what


# -- the kill ----------------------------------------------------------------------------------------------------------


class Killer:
    def __init__(self, start, numbers):
        self.start, self.random = start, numbers
        self.daemon_died = 0.0

    def choose(self):
        daemon = "CKPTFS_TEST_MOUNTPOINT" in os.environ and time.monotonic() - self.daemon_died > DAEMON_DISTANCE
        ways = [self.all, self.one, self.one_of_living]
        return self.random.choice(ways + ([self.daemon, self.daemon_and_all, self.daemon_and_one] if daemon else []))

    def kill_daemon(self):
        os.kill(status()["daemon_pid"], signal.SIGKILL)
        self.daemon_died = time.monotonic()

    def ranks(self, process):
        return children(process.pid) if process.poll() is None else []

    def daemon(self, process):
        self.kill_daemon()
        return process

    def all(self, process):
        harness.kill_group(process)
        return self.start()

    def one(self, process):
        """One rank: the launcher ends the other."""
        ranks = self.ranks(process)
        if len(ranks) == RANKS:
            os.kill(self.random.choice(ranks), signal.SIGKILL)
            assert harness.finish(process) != 0
        harness.finish(process)
        return self.start()

    def one_of_living(self, process):
        """One rank; the others hang, and the next run begins beside them. It may fail, but not go wrong."""
        ranks = self.ranks(process)
        for pid in (process.pid, *ranks):
            os.kill(pid, signal.SIGSTOP)
        if len(ranks) == RANKS:
            os.kill(self.random.choice(ranks), signal.SIGKILL)
        following = self.start()
        harness.wait_for(lambda: following.poll() is not None or self.has_begun(following), harness.RUN_DEADLINE)
        harness.kill_group(process)
        return following

    @staticmethod
    def has_begun(process):
        return "'loss'" in process.output.read_text(errors="replace")

    def daemon_and_all(self, process):
        self.kill_daemon()
        return self.all(process)

    def daemon_and_one(self, process):
        self.kill_daemon()
        return self.one(process)


# -- the runs ----------------------------------------------------------------------------------------------------------


class Runs:
    """Starts a way's run in a directory, as a job script does that starts it anew after each end."""

    def __init__(self, way, root):
        self.way, self.root = way, root
        root.mkdir()
        way.write_configuration(root)

    def start(self):
        resume = ("--resume_from_checkpoint", "True") if harness.checkpoints(self.root / "run") else ()
        options = (*OPTIONS, *self.way.options, *resume)
        return harness.start(self.root, *options, script=self.way.script, ranks=RANKS, variables=self.way.variables)


def assert_same_objects(expected, found, where):
    """What torch.load makes of two files is the same, bit by bit. Where a save makes tuples of lists a resume may not."""
    assert type(found) is type(expected) or {type(found), type(expected)} == {list, tuple}, where
    if torch.is_tensor(expected):
        assert found.dtype == expected.dtype and torch.equal(found, expected), where
    elif isinstance(expected, dict):
        assert list(found) == list(expected), where
        for key, value in expected.items():
            assert_same_objects(value, found[key], f"{where}/{key}")
    elif isinstance(expected, (list, tuple)):
        assert len(found) == len(expected), where
        for index, value in enumerate(expected):
            assert_same_objects(value, found[index], f"{where}/{index}")
    elif hasattr(expected, "tobytes"):
        assert found.dtype == expected.dtype and found.tobytes() == expected.tobytes(), where
    elif type(expected).__eq__ is not object.__eq__:
        assert found == expected, where


def assert_same_file(expected, found):
    """A run that was resumed may pickle equal objects in another way."""
    if harness.digest(found) != harness.digest(expected):
        assert found.suffix in (".bin", ".pt", ".pth"), found
        options = {"weights_only": False, "map_location": "cpu"}
        assert_same_objects(torch.load(expected, **options), torch.load(found, **options), str(found))


def assert_same_end(way, plain, mount):
    """The losses of all steps and each file of the last checkpoint are those of the run that nobody killed."""
    name = f"checkpoint-{STEPS}"
    assert harness.losses(mount / name) == harness.losses(plain / name)
    # A model that the mount made of the shards may be seen beside them.
    assert set(files_of(plain / name)) <= set(files_of(mount / name)) <= {*files_of(plain / name), "model.safetensors"}
    for file in files_of(plain / name):
        if os.path.basename(file) not in way.differ and file != "trainer_state.json":
            assert_same_file(plain / name / file, mount / name / file)
    assert harness.checkpoints(mount) == [f"checkpoint-{STEPS - 2}", name]


@pytest.mark.parametrize("name", CHOSEN)
def test_killed_in_saves(sides, name):
    seed = int(os.environ.get("CKPTFS_TEST_SEED", time.time_ns() % 100_000))
    print(f"CKPTFS_TEST_SEED={seed}")
    way, numbers = WAYS[name], random.Random(seed)
    plain, mount = (Runs(way, root / name) for root in sides)
    process = plain.start()
    assert harness.finish(process) == 0, harness.tail(process)
    moments = Moments(mount.root / "run", plain.root / "run" / f"checkpoint-{STEPS}", numbers)
    killer, kills, failures = Killer(mount.start, numbers), 0, 0
    process = mount.start()
    while kills < KILLS:
        moment = moments.wait(process)
        if moment is None and kills > 0 and process.poll() == 0:
            break  # saves that nobody looked at went by, as this process had to wait
        if moment is None:
            # The processes of the save before it lived on; now they are gone.
            failures += 1
            print(f"failed: {harness.tail(process)[-600:]}")
            assert process.poll() != 0 and failures <= kills, harness.tail(process)
            process = mount.start()
            continue
        kind = killer.choose()
        print(f"{kind.__name__}: {moment}", flush=True)
        kills += 1
        process = kind(process)
    if harness.finish(process) != 0:
        failures += 1
        process = mount.start()
        assert harness.finish(process) == 0, harness.tail(process)
    print(f"{kills} kills, {failures} starts that failed")
    assert_same_end(way, plain.root / "run", mount.root / "run")

#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Saves of many days on a mount, on a clock that this sets: month.py MOUNTPOINT CLOCK DAYS SEED

Every twenty minutes a process of its own saves a checkpoint to each run of the mount, and some are killed in it and started
anew. No save may fail. At the end of each day what is there must be what keep_rules.py says. CLOCK is the file that
CKPTFS_TEST_CLOCK names.

What goes by max-bytes depends on what is being written just then, so that run saves less often, and its saves are waited
for.
"""

import errno
import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "lib"))

import checkpoint as trainer  # noqa: E402
import keep_rules  # noqa: E402

APART = 20 * 60
SAVES_A_DAY = keep_rules.DAY // APART
STEPS_APART = 10
BYTES = 120_000
KILLED = 0.04  # of all saves
PINS_A_DAY, READS_A_DAY = 0.3, 0.3
SIZED_EVERY = 18  # of the others' saves

POLICIES = {
    "all": {"keep-last": 3, "keep-best": 2, "keep-hourly": 12, "keep-daily": 10, "keep-every": 3600},
    "aged": {"keep-last": 2, "keep-daily": 30, "max-age": 8 * keep_rules.DAY},
    "sized": {"max-bytes": 20 * 3 * BYTES},
}


def ckptfs(*arguments):
    done = subprocess.run([os.environ["CKPTFS"], *arguments], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, f"{arguments}: {done.stdout}{done.stderr}"
    return done.stdout


# -- the clock ---------------------------------------------------------------------------------------------------------


class Clock:
    """Begins at midnight, some time ago."""

    def __init__(self, path, days):
        self.path = path
        self.now = (int(time.time()) // keep_rules.DAY - days - 1) * keep_rules.DAY

    def advance(self, seconds):
        self.now += seconds
        self.path.with_suffix(".new").write_text(f"{self.now - int(time.time())}\n")
        self.path.with_suffix(".new").rename(self.path)


# -- one save ----------------------------------------------------------------------------------------------------------


def write_file(path, content, dies):
    with open(path, "wb") as file:
        if dies is not None:
            file.write(content[: int(len(content) * dies)])
            file.flush()
            os.kill(os.getpid(), signal.SIGKILL)
        file.write(content)


def save(run, step, facts, now, dies):
    """As a process that resumes does it: it lists the run, and saves. `dies`: the number of the file in which it is
    killed, and after what part of it. Copies are known by their times, so they are set when all is written."""
    names = os.listdir(run)
    assert f"checkpoint-{step}" not in names, "what was torn is in the way"
    directory = run / f"checkpoint-{step}"
    directory.mkdir()
    options = SimpleNamespace(seed=1, bytes=BYTES, weights_only=False, ranks=0, loss=facts.loss, best=facts.best)
    for number, (name, content) in enumerate(trainer.files_of(step, options)):
        write_file(directory / name, content, dies[1] if dies and dies[0] == number else None)
    for path in directory.iterdir():
        os.utime(path, (now, now))


FILES = 7


def run_save(run, step, facts, now, dies):
    """In a process of its own. Returns whether it was killed, which it is only where it was to be."""
    pid = os.fork()
    if pid == 0:
        try:
            save(run, step, facts, now, dies)
            os._exit(0)
        except OSError as error:
            print(f"saving {run.name}/checkpoint-{step}: {error}", flush=True)
            os._exit(error.errno if error.errno in (errno.ENOSPC, errno.EIO) else 1)
        except BaseException as error:  # noqa: BLE001: the parent hears of it by the status
            print(f"saving {run.name}/checkpoint-{step}: {error!r}", flush=True)
            os._exit(1)
    _, status = os.waitpid(pid, 0)
    code = os.waitstatus_to_exitcode(status)
    assert code == (-signal.SIGKILL if dies else 0), f"{run.name}/checkpoint-{step} ended with {code}"


# -- who holds one -----------------------------------------------------------------------------------------------------


class Reader:
    """A process that has a file of a checkpoint open."""

    def __init__(self, run, step):
        self.step = step
        command = 'exec 9<"$1"; echo; read -r'
        path = run / f"checkpoint-{step}" / "model.safetensors"
        self.process = subprocess.Popen(["bash", "-c", command, "bash", path], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        assert self.process.stdout.readline() == b"\n"

    def end(self):
        self.process.communicate(b"\n")


class Run:
    def __init__(self, mountpoint, directory, policy, numbers):
        self.mountpoint, self.directory, self.policy, self.random = mountpoint, directory, policy, numbers
        self.saved, self.pinned, self.reader, self.saves, self.kills = [], set(), None, 0, 0
        directory.mkdir()
        words = [f"{key}={value}s" if key == "max-age" else f"{key}={value}B" if key == "max-bytes" else f"{key}={value}"
                 for key, value in policy.items()]
        ckptfs("policy", "set", str(directory), *words)

    def save(self, step, now):
        loss = round(self.random.uniform(1, 5), 4)
        ever = [(checkpoint.loss, checkpoint.step) for checkpoint in self.saved]
        # Of what is best for a while, and goes when it is not any more, max-bytes would keep as the moments fall.
        best = None if "max-bytes" in self.policy else min([*ever, (loss, step)])[1]
        facts = keep_rules.Saved(step, now, loss, best, 0)
        while self.saved and self.random.random() < KILLED:
            run_save(self.directory, step, facts, now, (self.random.randrange(FILES), self.random.random()))
            self.kills += 1
        run_save(self.directory, step, facts, now, None)
        facts.size = sum(path.stat().st_size for path in (self.directory / f"checkpoint-{step}").iterdir())
        self.saved.append(facts)
        self.saves += 1

    def save_in_turn(self, step, now):
        if "max-bytes" not in self.policy:
            self.save(step, now)
        elif step // STEPS_APART % SIZED_EVERY == 0:
            self.save(step, now)
            wait_until_settled(self.mountpoint)

    def present(self):
        return {int(name.rpartition("-")[2]) for name in os.listdir(self.directory)}

    def hold(self):
        """Pins and readers come and go, of checkpoints that are to stay as it is."""
        if self.pinned and self.random.random() < PINS_A_DAY:
            step = self.pinned.pop()
            ckptfs("unpin", str(self.directory / f"checkpoint-{step}"))
        elif self.random.random() < PINS_A_DAY:
            step = self.random.choice(sorted(self.present()))
            ckptfs("pin", str(self.directory / f"checkpoint-{step}"))
            self.pinned.add(step)
        if self.reader and self.random.random() < READS_A_DAY:
            self.reader.end()
            self.reader = None
        elif not self.reader and self.random.random() < READS_A_DAY:
            self.reader = Reader(self.directory, self.random.choice(sorted(self.present())))

    def check(self, now):
        held = self.pinned | ({self.reader.step} if self.reader else set())
        expected = keep_rules.stays(self.saved, self.policy, now, held)
        ckptfs("policy", "apply", str(self.directory))
        found = self.present()
        assert found == expected, (
            f"{self.directory.name}: missing {sorted(expected - found)}, too many {sorted(found - expected)}\n"
            + ckptfs("policy", "show", str(self.directory), "--dry-run")
        )
        self.saved = [checkpoint for checkpoint in self.saved if checkpoint.step in expected]


def wait_until_settled(mountpoint):
    """Every file is safe: one that is not yet counts for no rule. No file is opened for it, which would keep what it is of."""
    deadline = time.monotonic() + 120
    while json.loads(ckptfs("status", "--json", str(mountpoint)))["behind_files"]:
        assert time.monotonic() < deadline, "files are not safe after two minutes"
        time.sleep(0.02)


def daemon_seconds(mountpoint):
    """Of the processors' time that the daemon has used. It is the same process all the time."""
    pid = json.loads(ckptfs("status", "--json", str(mountpoint)))["daemon_pid"]
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def main():
    mountpoint, clock_path, days, seed = Path(sys.argv[1]), Path(sys.argv[2]), int(sys.argv[3]), int(sys.argv[4])
    print(f"CKPTFS_TEST_SEED={seed}", flush=True)
    clock = Clock(clock_path, days)
    clock.advance(0)
    runs = [Run(mountpoint, mountpoint / name, policy, random.Random(f"{seed} {name}")) for name, policy in POLICIES.items()]
    step = 0
    for day in range(days):
        begun, used = time.monotonic(), daemon_seconds(mountpoint)
        for _ in range(SAVES_A_DAY):
            clock.advance(APART)
            step += STEPS_APART
            for run in runs:
                run.save_in_turn(step, clock.now)
        wait_until_settled(mountpoint)
        for run in runs:
            run.check(clock.now)
            run.hold()
        counts = " ".join(f"{run.directory.name} {len(run.saved)}" for run in runs)
        used = daemon_seconds(mountpoint) - used
        print(f"day {day + 1}: {time.monotonic() - begun:.1f} s, {used:.1f} s of the daemon's, kept {counts}", flush=True)
    for run in runs:
        if run.reader:
            run.reader.end()
    print(f"{sum(run.saves for run in runs)} saves, {sum(run.kills for run in runs)} more that were killed")


main()

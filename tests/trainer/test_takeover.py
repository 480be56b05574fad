# SPDX-License-Identifier: Apache-2.0
"""The daemon dies again and again in the middle of a run, and the run does not notice."""

import json
import os
import random
import signal
import subprocess
import time

import pytest

import harness

KILLS = int(os.environ.get("CKPTFS_TEST_KILL", "0"))
SEED = int(os.environ.get("CKPTFS_TEST_SEED", time.time_ns() % 100_000))
OPTIONS = ("--hidden_size", 384, "--max_steps", 24, "--save_steps", 2, "--save_total_limit", 2, "--report_to", "tensorboard")


def status():
    """What the mount says of itself; the command waits while a new daemon takes over."""
    command = [os.environ["CKPTFS"], "status", "--json", os.environ["CKPTFS_TEST_MOUNTPOINT"]]
    result = subprocess.run(command, capture_output=True, text=True, timeout=60)
    if result.returncode != 0:
        return None
    answer = json.loads(result.stdout)
    return answer[0] if isinstance(answer, list) else answer


def kill_daemon():
    """Kills the daemon; returns when another one answers."""
    victim = status()["daemon_pid"]
    os.kill(victim, signal.SIGKILL)
    harness.wait_for(lambda: (answer := status()) and answer["daemon_pid"] != victim, 60, "a new daemon")


@pytest.mark.skipif(KILLS == 0, reason="CKPTFS_TEST_KILL does not say how often")
def test_a_run_outlives_its_daemons(sides):
    """Killed at random moments: the run's exit status and every byte are as on the plain disk."""
    print(f"seed {SEED} (CKPTFS_TEST_SEED)")
    moments = random.Random(SEED)
    harness.run(sides.plain, "--output_dir", "run", *OPTIONS)
    log = sides.mount / "run" / "log.jsonl"
    process = harness.start(sides.mount, "--output_dir", "run", *OPTIONS)
    harness.wait_for(log.exists, what="the run to begin")
    killed = 0
    while killed < KILLS and process.poll() is None:
        kill_daemon()
        killed += 1
        time.sleep(moments.uniform(0.3, 0.8))  # no poll: the moment of the next kill is meant to be random
    assert harness.finish(process) == 0, harness.tail(process)
    assert killed >= min(KILLS, 3), "the run was over before the daemon could be killed often enough"
    harness.assert_same_tree(sides.plain / "run", sides.mount / "run")

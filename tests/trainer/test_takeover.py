# SPDX-License-Identifier: Apache-2.0
"""The daemon dies again and again in the middle of a run, and the run does not notice."""

import os

import pytest

import harness

OPTIONS = (
    *("--output_dir", "run", "--hidden_size", 384, "--report_to", "tensorboard"),
    *("--max_steps", 40, "--save_steps", 2, "--save_total_limit", 2),
)


@pytest.mark.skipif("CKPTFS_TEST_KILL" not in os.environ, reason="CKPTFS_TEST_KILL does not say how often")
def test_a_run_outlives_its_daemons(sides, deaths):
    """Killed at random moments of a run: its exit status and every byte are as on the plain disk."""
    harness.run(sides.plain, *OPTIONS)
    process = harness.start(sides.mount, *OPTIONS)
    harness.wait_for((sides.mount / "run" / "log.jsonl").exists, what="the run to begin")
    deaths.start()
    assert harness.finish(process) == 0, harness.tail(process)
    deaths.stop()
    assert deaths.killed >= min(deaths.number, 3), "the run was over before the daemon could be killed often enough"
    harness.assert_same_tree(sides.plain / "run", sides.mount / "run")

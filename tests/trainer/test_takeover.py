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
    # On a fast machine a run may be over before the daemon was killed often enough.
    for turn in range(6):
        harness.remove_if_there(sides.mount / "run")
        process = harness.start(sides.mount, *OPTIONS)
        if turn == 0:
            harness.wait_for((sides.mount / "run" / "log.jsonl").exists, harness.RUN_DEADLINE, "the run to begin")
            deaths.start()
        assert harness.finish(process) == 0, harness.tail(process)
        harness.assert_same_tree(sides.plain / "run", sides.mount / "run")
        if deaths.killed >= min(deaths.number, 3):
            break
    deaths.stop()
    assert deaths.killed >= min(deaths.number, 3), "the runs were over before the daemon could be killed often enough"

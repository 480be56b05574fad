# SPDX-License-Identifier: Apache-2.0
"""Runs that are interrupted, resumed, killed in the middle of a save, or saved over an older run."""

import mmap
import os
import signal

import pytest

import harness
from conftest import MAIN_OPTIONS

KILLED = -signal.SIGKILL

# About 36 MB of weights and 71 MB of optimizer state: a save takes long enough to be hit in the middle.
LARGE_OPTIONS = ("--hidden_size", 512, "--max_steps", 4, "--save_steps", 2, "--learning_rate", 0.001)


@pytest.fixture(scope="module")
def resumed_run(sides, remount):
    """The main run, ended by SIGKILL after step 7 and resumed from checkpoint-6 over a remount."""
    options = ("--output_dir", "resumed", *MAIN_OPTIONS[2:])
    harness.run_both(sides, *options, "--die_at_step", 7, status=KILLED)
    for root in sides:
        assert harness.checkpoints(root / "resumed") == ["checkpoint-3", "checkpoint-6"]
    remount()
    harness.run_both(sides, *options, "--resume_from_checkpoint", "True")
    return type(sides)(*(root / "resumed" for root in sides))


def test_resumed_loss_curve(main_run, resumed_run):
    """Every loss of the resumed run, from the first step on, is the uninterrupted run's."""
    expected = harness.losses(main_run.plain)
    assert len(expected) == 9 + 3
    assert harness.losses(main_run.mount) == expected
    assert harness.losses(resumed_run.mount) == expected


@pytest.mark.parametrize("name", ["model.safetensors", "optimizer.pt", "scheduler.pt", "rng_state.pth"])
def test_resumed_state(main_run, resumed_run, name):
    """The last checkpoint of the resumed run is the uninterrupted run's, byte by byte."""
    expected = harness.digest(main_run.plain / "checkpoint-9" / name)
    assert harness.digest(resumed_run.mount / "checkpoint-9" / name) == expected


def test_resumed_final_model(main_run, resumed_run):
    """The best model was loaded at the end of both, though the best checkpoint was saved before the interruption."""
    expected = harness.digest(main_run.plain / "model.safetensors")
    assert harness.digest(resumed_run.mount / "model.safetensors") == expected


def test_resumed_tree(resumed_run):
    """An interrupted and resumed run leaves the same files on both sides, its two TensorBoard logs included."""
    harness.assert_same_tree(resumed_run.plain, resumed_run.mount)


def test_checkpoints_are_rewritten_in_place(sides):
    """A second run over the first one's checkpoints: the plain disk's files, and the old bytes where mapped."""
    options = ("--output_dir", "twice", "--max_steps", 4, "--save_steps", 2, "--hidden_size", 256)
    harness.run_both(sides, *options, "--seed", 1)
    first, mappings, inodes = {}, {}, {}
    for root in sides:
        checkpoint = root / "twice" / "checkpoint-2"
        first[root] = harness.digest(checkpoint / "model.safetensors")
        with open(checkpoint / "model.safetensors", "rb") as file:
            mappings[root] = mmap.mmap(file.fileno(), 0, prot=mmap.PROT_READ)
        inodes[root] = {path.name: path.stat().st_ino for path in checkpoint.iterdir()}
    harness.run_both(sides, *options, "--seed", 2)
    harness.assert_same_tree(sides.plain / "twice", sides.mount / "twice")
    for root in sides:
        checkpoint = root / "twice" / "checkpoint-2"
        assert harness.digest(checkpoint / "model.safetensors") != first[root]
        with mappings.pop(root) as mapping:
            assert harness.digest_of_bytes(mapping) == first[root], "the replaced file's mapping changed"
        # torch.save truncates and writes the file that is there; safetensors puts a new one in its place.
        assert (checkpoint / "optimizer.pt").stat().st_ino == inodes[root]["optimizer.pt"]
        assert (checkpoint / "model.safetensors").stat().st_ino != inodes[root]["model.safetensors"]


def is_killed_during_save(root, output_dir, begun):
    """Starts a run and kills it as soon as begun(the names in its first checkpoint) is true; False: that was too late."""
    checkpoint = root / output_dir / "checkpoint-2"
    process = harness.start(root, "--output_dir", output_dir, *LARGE_OPTIONS)

    def in_the_save():
        return process.poll() is not None or checkpoint.is_dir() and begun(os.listdir(checkpoint))

    harness.wait_for(in_the_save, harness.RUN_DEADLINE, "the save to begin")
    process.kill()
    status = harness.finish(process)
    assert status in (KILLED, 0), harness.tail(process)
    return status == KILLED and "trainer_state.json" not in os.listdir(checkpoint)


def kill_during_save(root, output_dir, begun):
    """Where a machine runs the saves first, and the kill when they are over, it is tried again."""
    for _ in range(6):
        # The names of the attempt before must not be taken for this one's.
        harness.remove_if_there(root / output_dir)
        if is_killed_during_save(root, output_dir, begun):
            return
    raise AssertionError("each save was over before the kill")


def weights_begun(names):
    return any(name.startswith(".tmp") or name == "model.safetensors" for name in names)


def optimizer_begun(names):
    return "optimizer.pt" in names


def test_a_run_killed_in_mid_save_can_be_started_again(sides):
    """Twice killed, once in the weights and once in the optimizer: all files can be read, a fresh run writes it all."""
    harness.run(sides.plain, "--output_dir", "killed", *LARGE_OPTIONS)
    for begun in (weights_begun, optimizer_begun):
        kill_during_save(sides.mount, "killed", begun)
        for path in (sides.mount / "killed").rglob("*"):
            if path.is_file():
                assert len(path.read_bytes()) == path.stat().st_size
    harness.run(sides.mount, "--output_dir", "killed", *LARGE_OPTIONS)
    for path in (sides.mount / "killed").rglob(".tmp*"):
        path.unlink()  # what safetensors left when it was killed
    (sides.mount / "killed" / "log.jsonl").unlink()  # the killed runs logged too
    (sides.plain / "killed" / "log.jsonl").unlink()
    harness.assert_same_tree(sides.plain / "killed", sides.mount / "killed")

# SPDX-License-Identifier: Apache-2.0
"""What a Trainer saves on the mount is what it saves on the plain disk, and loads again."""

import json
import os
import signal
import time

import pytest
from safetensors import safe_open
from transformers import AutoModelForCausalLM, AutoTokenizer
from transformers.trainer_utils import rotate_checkpoints, sort_checkpoints

import harness


@pytest.fixture(scope="module")
def epoch_run(sides):
    """Saves by epoch, models only, beside a checkpoint that an older run left with a higher step."""
    for root in sides:
        stale = root / "epochs" / "checkpoint-900"
        stale.mkdir(parents=True)
        (stale / "model.safetensors").write_bytes(b"an older run's")
        an_hour_ago = time.time() - 3600
        os.utime(stale, (an_hour_ago, an_hour_ago))
    options = ("--output_dir", "epochs", "--num_train_epochs", 3, "--per_device_train_batch_size", 16)
    harness.run_both(sides, *options, "--save_strategy", "epoch", "--save_only_model", "--save_total_limit", 2)
    return type(sides)(*(root / "epochs" for root in sides))


def weights(directory):
    """A model's state_dict as from_pretrained loads it."""
    return AutoModelForCausalLM.from_pretrained(directory).state_dict()


def test_every_file_is_identical(main_run, sides):
    """Names, kinds, modes, sizes and bytes; the manual save outside of the run too."""
    assert harness.assert_same_tree(main_run.plain, main_run.mount) >= 40
    assert harness.assert_same_tree(sides.plain / "elsewhere", sides.mount / "elsewhere") == 6


def test_weights_are_private_and_the_rest_is_not(main_run):
    """safetensors makes its file by a temporary one of mode 0600; the others follow the umask."""
    checkpoint = main_run.mount / "checkpoint-9"
    expected = (main_run.plain / "checkpoint-9" / "config.json").stat().st_mode
    assert (checkpoint / "model.safetensors").stat().st_mode & 0o777 == 0o600
    assert (checkpoint / "config.json").stat().st_mode == expected
    assert not list(main_run.mount.rglob(".tmp*"))


def test_rotation_keeps_the_best_and_the_last(main_run):
    """The best is the first one: rotation removed the one between."""
    assert harness.checkpoints(main_run.plain) == ["checkpoint-3", "checkpoint-9"]
    assert harness.checkpoints(main_run.mount) == ["checkpoint-3", "checkpoint-9"]
    assert harness.trainer_state(main_run.mount)["best_model_checkpoint"] == "run/checkpoint-3"


def test_load_best_model_at_end(main_run):
    """The final model is the best checkpoint's, not the last one's."""
    final = harness.digest(main_run.mount / "model.safetensors")
    assert final == harness.digest(main_run.mount / "checkpoint-3" / "model.safetensors")
    assert final != harness.digest(main_run.mount / "checkpoint-9" / "model.safetensors")


def test_epochs_and_rotation_by_age(epoch_run):
    """The stale checkpoint-900 is the oldest by its directory's mtime and goes first, whatever its number."""
    kept = harness.checkpoints(epoch_run.plain)
    assert len(kept) == 2 and "checkpoint-900" not in kept
    assert harness.checkpoints(epoch_run.mount) == kept
    harness.assert_same_tree(epoch_run.plain, epoch_run.mount)


def test_save_only_model_leaves_no_optimizer(epoch_run):
    names = {path.name for path in (epoch_run.mount / harness.checkpoints(epoch_run.mount)[-1]).iterdir()}
    assert "model.safetensors" in names and "trainer_state.json" in names
    assert not names & {"optimizer.pt", "scheduler.pt", "rng_state.pth"}


def test_rotation_goes_by_the_directories_mtime(sides):
    """Trainer's own sorting and rotation over directories whose ages contradict their numbers."""
    for root in sides:
        for age, step in enumerate((40, 10, 30, 20)):
            directory = root / "ages" / f"checkpoint-{step}"
            directory.mkdir(parents=True)
            (directory / "model.safetensors").write_bytes(bytes(step))
            moment = 1_700_000_000_000_000_000 + age * 5_000_000_000 + 123_456_789
            os.utime(directory, ns=(moment, moment))
        # Bytes that arrive in a file later do not make its directory younger.
        with open(root / "ages" / "checkpoint-40" / "model.safetensors", "ab") as file:
            file.write(b"late")
        order = [os.path.basename(path) for path in sort_checkpoints(str(root / "ages"), use_mtime=True)]
        assert order == ["checkpoint-40", "checkpoint-10", "checkpoint-30", "checkpoint-20"]
        rotate_checkpoints(str(root / "ages"), save_total_limit=2, use_mtime=True)
        assert sorted(os.listdir(root / "ages")) == ["checkpoint-20", "checkpoint-30"]


def test_from_pretrained(main_run):
    """Model and tokenizer load from every place that the run saved them to."""
    for place in ("checkpoint-3", "checkpoint-9", ".", "manual/one", "manual/two", "sharded"):
        harness.assert_same_tensors(weights(main_run.plain / place), weights(main_run.mount / place))
    text = "The night train leaves the harbour at nine"
    for place in ("checkpoint-3", ".", "manual/two"):
        tokenizer = AutoTokenizer.from_pretrained(main_run.mount / place)
        tokens = tokenizer(text)["input_ids"]
        assert tokens == AutoTokenizer.from_pretrained(main_run.plain / place)(text)["input_ids"]
        assert tokenizer.decode(tokens) == text


def test_fewer_shards_replace_more(main_run):
    """Saved in small shards, then again in larger ones: the superfluous shards are gone, the index agrees."""
    directory = main_run.mount / "sharded"
    shards = sorted(path.name for path in directory.glob("*.safetensors"))
    index = json.loads((directory / "model.safetensors.index.json").read_text())
    assert sorted(set(index["weight_map"].values())) == shards
    assert len(shards) > 1 and shards[0].endswith(f"of-{len(shards):05d}.safetensors")
    harness.assert_same_tensors(weights(directory), weights(main_run.mount / "checkpoint-3"))


def test_mapped_weights_survive_a_remount(main_run, remount):
    """Tensors read through a mapping are the same before and after the mount was ended and made again."""

    def mapped():
        with safe_open(main_run.mount / "checkpoint-9" / "model.safetensors", framework="pt") as file:
            return {name: file.get_tensor(name).clone() for name in file.keys()}

    before = mapped()
    assert len(before) > 10
    remount()
    harness.assert_same_tensors(before, mapped())
    harness.assert_same_tree(main_run.plain, main_run.mount)


def test_logs_can_be_followed_while_training(sides):
    """In the middle of a run another process reads all that was logged so far; tail -f misses no line."""
    log = sides.mount / "followed" / "log.jsonl"
    log.parent.mkdir()
    log.touch()
    options = ("--output_dir", "followed", "--max_steps", 60, "--save_strategy", "no", "--report_to", "tensorboard")
    process = harness.start(sides.mount, *options, "--stop_at_step", 20)
    with harness.Follower(log) as follower:
        harness.wait_for(lambda: harness.is_stopped(process), harness.RUN_DEADLINE, "step 20")
        lines = log.read_text().splitlines()
        events = next((sides.mount / "followed").rglob("events.out.tfevents.*"))
        seen = {step for step, tag, _ in harness.event_scalars(events) if tag == "train/loss"}
        process.send_signal(signal.SIGCONT)
        assert len(lines) == 20, harness.tail(process)
        assert [json.loads(line)["step"] for line in lines] == list(range(1, len(lines) + 1))
        assert seen <= set(range(1, 61)) and len(lines) - len(seen) in (0, 1)
        assert harness.finish(process) == 0, harness.tail(process)
        complete = log.read_bytes()
        assert len(complete.splitlines()) == 61
        harness.wait_for(lambda: len(follower.output()) >= len(complete), what="tail -f to see the end")
        assert follower.output() == complete
    assert {step for step, tag, _ in harness.event_scalars(events) if tag == "train/loss"} == set(range(1, 61))


def test_checkpoints_can_be_removed(main_run, sides):
    """rmtree of a copy leaves nothing behind, and the directory that held it can be removed."""
    copy = sides.mount / "copy"
    harness.copy_and_remove(main_run.mount, copy)
    assert not copy.exists()
    harness.assert_same_tree(main_run.plain, main_run.mount)

# SPDX-License-Identifier: Apache-2.0
"""What `ckptfs ls` says of a Trainer's checkpoints: complete as they are, never when a file of them is missing or cut,
and never while they are being written.
"""

import json
import shutil
import threading
from pathlib import Path

import pytest

import tool
from completeness import HERE, assert_damage_is_seen, cuts, finish, listing, start, state, train


@pytest.fixture(scope="session")
def sharded(tmp_path_factory):
    """FSDP2 with SHARDED_STATE_DICT, two ranks."""
    directory = tmp_path_factory.mktemp("sharded")
    config = {"version": 2, "state_dict_type": "SHARDED_STATE_DICT"}
    config["transformer_layer_cls_to_wrap"] = ["LlamaDecoderLayer"]
    (directory / "fsdp.json").write_text(json.dumps(config))
    options = ("--fsdp", "full_shard", "--fsdp_config", "fsdp.json", "--full_determinism", "False")
    return train(directory, *options, ranks=2, script=HERE / "sharded_trainer.py")


@pytest.fixture(scope="session")
def plain(tmp_path_factory):
    return train(tmp_path_factory.mktemp("plain"), "--eval_strategy", "steps", "--eval_steps", "2")


def test_plain(plain):
    rows = listing(plain)
    assert [rows[name]["state"] for name in ("checkpoint-2", "checkpoint-4", ".")] == ["complete"] * 2 + ["weights-only"]
    assert rows["checkpoint-4"]["latest"] and not rows["checkpoint-2"]["latest"]
    saved = json.loads((plain / "checkpoint-4" / "trainer_state.json").read_text())
    evaluation = [row["eval_loss"] for row in saved["log_history"] if "eval_loss" in row]
    assert rows["checkpoint-4"]["metrics"]["eval_loss"] == pytest.approx(evaluation[-1], rel=1e-12)
    assert rows["checkpoint-4"]["world_size"] == 1
    assert_damage_is_seen(plain, "checkpoint-2", "complete")
    assert_damage_is_seen(plain, "checkpoint-4", "complete")


def test_adapter(tmp_path):
    assert_damage_is_seen(train(tmp_path, "--lora"), "checkpoint-2", "complete")


def test_save_only_model(tmp_path):
    assert_damage_is_seen(train(tmp_path, "--save_only_model"), "checkpoint-2", "weights-only")


def test_sharded(sharded):
    rows = listing(sharded)
    assert rows["checkpoint-2"]["framework"] == "fsdp-sharded"
    assert rows["checkpoint-2"]["world_size"] == 2
    assert rows["checkpoint-2"]["template_missing"]
    assert_damage_is_seen(sharded, "checkpoint-2", "complete")


def test_a_rank_that_never_came(sharded, tmp_path):
    run = shutil.copytree(sharded, tmp_path / "run")
    (run / "checkpoint-4" / "rng_state_1.pth").unlink()
    row = listing(run)["checkpoint-4"]
    assert row["state"] == "complete"
    assert any("never came" in note["text"] for note in row["notes"])


# -- while it is written -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["plain", "sharded"])
def test_every_prefix_of_a_save(request, tmp_path, kind):
    """The files in the order in which they were finished, the last one of each prefix cut."""
    source = request.getfixturevalue(kind) / "checkpoint-2"
    target = tmp_path / "run" / "checkpoint-2"
    target.mkdir(parents=True)
    files = sorted((path for path in source.rglob("*") if path.is_file()), key=lambda path: path.stat().st_mtime_ns)
    # A rank's generators may come before or after the rest; the state of the Trainer ends the rest.
    files.sort(key=lambda path: (path.name == "trainer_state.json", path.stat().st_mtime_ns))
    for index, file in enumerate(files):
        copy = target / file.relative_to(source)
        copy.parent.mkdir(exist_ok=True)
        content = file.read_bytes()
        for length in [*cuts(len(content)), len(content)]:
            copy.write_bytes(content[:length])
            whole = index == len(files) - 1 and length == len(content)
            found = state(tmp_path / "run", "checkpoint-2")
            assert (found == "complete") == whole, f"{file.name}, {length} of {len(content)} bytes: {found}"
            assert whole or found != "weights-only", f"{file.name}, {length} of {len(content)} bytes"


def test_watched_while_it_is_saved(tmp_path):
    """Whenever a checkpoint is said to be complete, what is in it is what is in it at the end."""
    said, failed, ended = {}, [], threading.Event()

    def sizes(checkpoint):
        return {path.relative_to(checkpoint): path.stat().st_size for path in checkpoint.rglob("*") if path.is_file()}

    def watch():
        try:
            look()
        except BaseException as error:  # noqa: BLE001: raised again by the test
            failed.append(error)

    def look():
        while not ended.is_set():
            done = tool.run("ls", "--json", tmp_path)
            for run in json.loads(done.stdout or "[]"):
                for row in run["checkpoints"]:
                    counts[row["state"]] = counts.get(row["state"], 0) + 1
                    if row["path"] != ".":
                        assert row["state"] != "weights-only", row
                    if row["state"] == "complete" and row["path"] not in said:
                        said[row["path"]] = sizes(Path(run["path"]) / row["path"])

    counts = {}
    watcher = threading.Thread(target=watch)
    process = start(tmp_path, "--max_steps", "6", "--save_steps", "1", "--hidden_size", "512", "--layers", "4")
    watcher.start()
    try:
        run = finish(process, tmp_path)
    finally:
        ended.set()
        watcher.join()
    assert not failed, failed
    rows = listing(run)
    assert {name: row["state"] for name, row in rows.items() if name != "."} == {
        f"checkpoint-{step}": "complete" for step in range(1, 7)
    }
    assert len(said) >= 5, said.keys()
    for name, found in said.items():
        assert found == sizes(run / name), name
    print(f"states seen while it was saved: {counts}")

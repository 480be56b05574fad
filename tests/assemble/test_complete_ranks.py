# SPDX-License-Identifier: Apache-2.0
"""What `ckptfs ls` says of checkpoints that ranks wrote with the real libraries, whole and damaged file by file."""

import shutil

import pytest

import saved
from completeness import assert_damage_is_seen, listing, train


@pytest.fixture(scope="session")
def plain(tmp_path_factory):
    return train(tmp_path_factory.mktemp("plain"))


@pytest.fixture(scope="session")
def deepspeed(tmp_path_factory):
    """The directory of all that tests/assemble/deepspeed_saves.py saves."""
    return saved.deepspeed(tmp_path_factory.mktemp("saves"))


ZERO = [(2, "zero0"), (3, "zero2"), (3, "zero3"), (2, "pipeline")]
ZERO += [pytest.param(*more, marks=saved.long) for more in ((3, "zero1"), (2, "zero1_frozen"), (4, "bf16_optimizer"))]


@pytest.mark.parametrize(("ranks", "name"), ZERO)
def test_deepspeed(deepspeed, tmp_path, ranks, name):
    run = shutil.copytree(deepspeed / f"ranks{ranks}" / name, tmp_path / "run")
    tag = (run / "latest").read_text()
    row = listing(run)[tag]
    assert row["world_size"] == ranks
    assert row["step"] == int(tag.removeprefix("global_step"))
    assert_damage_is_seen(run, tag, "complete")


@pytest.mark.parametrize("name", [pytest.param("zero2", marks=saved.long), "zero3"])
def test_deepspeed_with_a_trainer(deepspeed, plain, tmp_path, name):
    """The tag as the Trainer has it: inside its checkpoint, which has no optimizer.pt of its own."""
    for step in (2, 4):
        checkpoint = shutil.copytree(deepspeed / "ranks3" / name, tmp_path / "run" / f"checkpoint-{step}")
        for file in (plain / f"checkpoint-{step}").iterdir():
            if file.name not in ("optimizer.pt", "rng_state.pth"):
                shutil.copy2(file, checkpoint)
        for rank in range(3):
            shutil.copy2(plain / "checkpoint-2" / "rng_state.pth", checkpoint / f"rng_state_{rank}.pth")
        for file in ("live.pt", "masters.pt"):
            (checkpoint / file).unlink(missing_ok=True)
    assert_damage_is_seen(tmp_path / "run", "checkpoint-2", "complete")


# What three ranks save, and its state.
DISTRIBUTED = {
    "bare": "weights-only",
    "nested": "complete",  # with an optimizer
    "transformers": "weights-only",
    "ranks": "weights-only",
    "shards": "weights-only",
    "hf": "unknown",  # its shards do not tell how many they are
    "checkpoint-7": "unknown",  # a Trainer's name, without a Trainer's files
}


def test_distributed_checkpoints(tmp_path):
    saves = shutil.copytree(saved.distributed(3, tmp_path), tmp_path / "saves")
    for kind, whole in DISTRIBUTED.items():
        found = listing(saves / kind)
        assert found["."]["state"] == whole, (kind, found["."]["notes"])
        assert found["."]["world_size"] == 3, kind
        (saves / f"{kind}.expected").unlink(missing_ok=True)
    for kind in ("bare", "nested"):
        assert_damage_is_seen(saves / kind, ".", DISTRIBUTED[kind])

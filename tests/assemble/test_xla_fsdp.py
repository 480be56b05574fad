# SPDX-License-Identifier: Apache-2.0
"""XLA FSDP checkpoints, assembled. The judge is the model that was divided, and the published way to join it again."""

import shutil

import pytest
import torch

import xla_saves
from assembled import assemble, assert_same, header_size, refused
from tool import inspect

LAYOUTS = {"each": {}, "rows": {"by_rows": True}, "flat": {"flatten": True}}


@pytest.fixture
def directory(tmp_path):
    path = tmp_path / "saved"
    path.mkdir()
    return path


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("ranks", [1, 2, 3, 4, 12])
def test_the_divided_model(directory, tmp_path, ranks, layout):
    expected = xla_saves.save(directory, ranks, **LAYOUTS[layout])
    assert_same(xla_saves.consolidate(directory), expected)
    done = assemble(directory, tmp_path / "out")
    assert_same(done.tensors, expected)
    # All but one buffer, which was cast for the device: 3 elements.
    assert done.made == f"{header_size(done.file) + 3 * 4} bytes made anew"


def test_inspect(directory):
    xla_saves.save(directory, 3)
    told = inspect(directory)
    assert (told["framework"], told["world_size"], told["whole"]) == ("xla-fsdp", 3, True)


def test_the_consolidated_model_beside_the_shards(directory, tmp_path):
    """What the Trainer writes after it has joined the shards does not change what is read."""
    from safetensors.torch import save_file

    expected = xla_saves.save(directory, 2)
    save_file(expected, directory / "model.safetensors")
    assert inspect(directory)["framework"] == "xla-fsdp"
    assert_same(assemble(directory, tmp_path / "out").tensors, expected)


@pytest.mark.parametrize("rank", [0, 1, 2])
def test_a_rank_is_missing(directory, tmp_path, rank):
    xla_saves.save(directory, 3)
    (directory / f"rank{rank}-of-3-pytorch_model.bin").unlink()
    line = refused(directory, tmp_path / "out")
    assert f"rank{rank}-of-3-pytorch_model.bin is not here (2 files of 3 are)" in line


def test_two_saves(directory, tmp_path):
    xla_saves.save(directory, 3)
    xla_saves.save(directory, 2)
    assert "are of different saves" in refused(directory, tmp_path / "out")


def test_a_rank_under_anothers_name(directory, tmp_path):
    xla_saves.save(directory, 3)
    shutil.copy(directory / "rank1-of-3-pytorch_model.bin", directory / "rank2-of-3-pytorch_model.bin")
    assert "expected rank 2 of 3, found that it is rank 1 of 3" in refused(directory, tmp_path / "out")


def first_shard(saved):
    return next(iter(next(iter(saved["shard_metadata"]["shard_info"].values())).values()))


def first_flat(saved):
    return next(iter(saved["shard_metadata"]["flatten_info"].values()))


def drop_key(saved):
    saved["model"].popitem(last=False)


@pytest.mark.parametrize(
    ("layout", "rank", "alter", "line"),
    [
        ("each", 0, lambda s: first_shard(s).update(_orig_size=torch.Size((2**40, 7))), "do not make up its"),
        ("each", 0, lambda s: first_shard(s).update(_orig_size=torch.Size((2**62, 7))), "does not fit"),
        ("each", 0, lambda s: first_shard(s).update(_orig_size=7), "expected a torch.Size"),
        ("each", 0, lambda s: first_shard(s).pop("_orig_name"), "no _orig_name"),
        ("each", 0, lambda s: s["shard_metadata"].pop("shard_info"), "expected a dict shard_info"),
        ("each", 0, lambda s: s["shard_metadata"]["shard_info"].clear(), "shard_info says nothing about"),
        ("each", 0, lambda s: s.pop("shard_metadata"), "expected shard_metadata"),
        ("each", 0, lambda s: s.pop("model"), "expected a dict model"),
        ("each", 1, lambda s: s["shard_metadata"].update(world_size=2), "found that it is rank 1 of 2"),
        ("each", 1, drop_key, "expected the tensors of rank 0"),
        ("each", 1, lambda s: s["model"].update({next(iter(s["model"])): torch.zeros(5)}), "another type or shape"),
        ("rows", 0, lambda s: first_shard(s).update(_orig_size=torch.Size((77,))), "do not make up its"),
        ("flat", 0, lambda s: first_flat(s)[2].__setitem__(0, 5), "elements of its shape"),
        ("flat", 0, lambda s: first_flat(s)[1].pop(), "lists of different lengths"),
        ("flat", 0, lambda s: [part.pop() for part in first_flat(s)], "the parameters in it need"),
        ("flat", 0, lambda s: s["shard_metadata"]["flatten_info"].clear(), "flatten_info says nothing about"),
    ],
)
def test_metadata_that_do_not_add_up(directory, tmp_path, layout, rank, alter, line):
    xla_saves.save(directory, 3, **LAYOUTS[layout])
    path = directory / f"rank{rank}-of-3-pytorch_model.bin"
    saved = torch.load(path, weights_only=False)
    alter(saved)
    torch.save(saved, path)
    assert line in refused(directory, tmp_path / "out")


def test_truncated(directory, tmp_path):
    xla_saves.save(directory, 2)
    path = directory / "rank1-of-2-pytorch_model.bin"
    whole = path.read_bytes()
    for length in (0, 1, 30, 64, 500, len(whole) // 2, len(whole) - 22, len(whole) - 1):
        path.write_bytes(whole[:length])
        assert path.name in refused(directory, tmp_path / "out")

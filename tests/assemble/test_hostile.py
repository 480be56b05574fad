# SPDX-License-Identifier: Apache-2.0
"""Checkpoints that are damaged, or made to do harm: a line that says what is wrong, and nothing else happens."""

import json
import os
import random
import shutil
import struct

import pytest
import torch
from safetensors.torch import load_file, save_file

from tool import assemble, inspect, refuse, run, write_safetensors

INDEX = "model.safetensors.index.json"
SHARDS = ["model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors"]
BIG = 2**63


@pytest.fixture
def shards(tmp_path):
    root = tmp_path / "shards"
    root.mkdir()
    for number, name in enumerate(SHARDS):
        save_file({f"w{number}": torch.arange(30.0), f"b{number}": torch.arange(5)}, root / name)
    write_index(root, {f"{kind}{number}": name for number, name in enumerate(SHARDS) for kind in "wb"})
    return root


def write_index(root, weight_map, **metadata):
    (root / INDEX).write_text(json.dumps({"metadata": metadata, "weight_map": weight_map}))


def notes(path):
    told = inspect(path)
    return told["whole"], " | ".join(note["text"] for note in told["notes"])


def expect_missing(path, words, tmp_path):
    """It cannot be assembled, and the reason has these words."""
    whole, text = notes(path)
    assert not whole and words in text, text
    assert words in refuse(path, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_shard_is_missing(shards, tmp_path):
    (shards / SHARDS[1]).unlink()
    expect_missing(shards, f"{SHARDS[1]} is missing", tmp_path)


def test_a_tensor_is_missing(shards, tmp_path):
    write_index(shards, {"w0": SHARDS[0], "b0": SHARDS[0], "w1": SHARDS[1], "b1": SHARDS[1], "w2": SHARDS[1]})
    expect_missing(shards, f"tensor w2 is missing: the index has it in {SHARDS[1]}", tmp_path)


def test_a_shard_of_another_save(shards, tmp_path):
    """Tensors that the index has elsewhere are stale; files that it does not name, too."""
    save_file({"w0": torch.zeros(30), "w1": torch.ones(30), "b1": torch.arange(5)}, shards / SHARDS[1])
    save_file({"old": torch.zeros(3)}, shards / "model-00003-of-00003.safetensors")
    whole, text = notes(shards)
    assert whole
    assert f"{SHARDS[1]}: 1 tensors are left out" in text
    assert "model-00003-of-00003.safetensors is stale" in text


def test_an_index_of_another_size(shards):
    write_index(shards, {f"{kind}{number}": name for number, name in enumerate(SHARDS) for kind in "wb"}, total_size=7)
    whole, text = notes(shards)
    assert whole and "the index says that all tensors have 7 bytes, they have 320" in text


def test_shards_without_an_index(shards, tmp_path):
    (shards / INDEX).unlink()
    whole, text = notes(shards)
    assert whole and f"{INDEX} is missing: all shards are taken" in text
    # One is left of a save in three: only the other set is complete.
    save_file({"w": torch.zeros(3)}, shards / "model-00003-of-00003.safetensors")
    whole, text = notes(shards)
    assert whole and "model-00003-of-00003.safetensors is stale: the 2 shards of another save are complete" in text
    output, _ = assemble(shards, tmp_path / "of_two")
    assert sorted(load_file(output / "model.safetensors")) == ["b0", "b1", "w0", "w1"]
    for number in (1, 2):
        save_file({"w": torch.zeros(3)}, shards / f"model-0000{number}-of-00003.safetensors")
    expect_missing(shards, "shards of two models lie here", tmp_path)
    for path in shards.glob("*-of-00003.*"):
        path.unlink()
    (shards / SHARDS[0]).rename(shards / "model-00001-of-00003.safetensors")
    (shards / SHARDS[1]).rename(shards / "model-00003-of-00003.safetensors")
    expect_missing(shards, "model-00002-of-00003.safetensors is missing", tmp_path)


def test_a_save_in_one_file_over_shards(shards, tmp_path):
    """As transformers leaves it: the index stays, and where shards do they are the older ones, too."""
    save_file({"w": torch.ones(3)}, shards / "model.safetensors")
    whole, text = notes(shards)
    assert whole and f"{INDEX} is there too; loaders take model.safetensors" in text
    assert all(f"{name} is stale: loaders take model.safetensors" in text for name in SHARDS)
    for name in SHARDS:
        (shards / name).unlink()
    whole, text = notes(shards)
    assert whole and f"{INDEX} is there too" in text and "stale" not in text
    output, _ = assemble(shards, tmp_path / "out")
    assert torch.equal(load_file(output / "model.safetensors")["w"], torch.ones(3))


def test_one_shard_alone(shards, tmp_path):
    expect_missing(shards / SHARDS[0], "is shard 1 of 2: the others are not here", tmp_path)


@pytest.mark.parametrize("name", ["../secret", "/etc/passwd", "a/../../secret", "..", ".", "", "a\u0000b", "x" * 5000,
                                  "../shards/" + SHARDS[0]])
def test_names_that_lead_elsewhere(shards, tmp_path, name):
    save_file({"w0": torch.zeros(30)}, tmp_path / "secret")
    write_index(shards, {"w0": name})
    whole, _ = notes(shards)
    assert not whole
    refuse(shards, tmp_path / "out")


def header(dtype="F32", shape=(4,), offsets=(0, 16)):
    return {"w": {"dtype": dtype, "shape": shape, "data_offsets": offsets}}


@pytest.mark.parametrize("made", [
    header(shape=[BIG]), header(shape=[BIG - 1]), header(shape=[2**32, 2**32]), header(shape=[2**62, 4]),
    header(offsets=[0, BIG]), header(offsets=[0, BIG - 1]), header(offsets=[2**64 - 16, 2**64]), header(offsets=[16, 0]),
    header(offsets=[0, 17]), header(offsets=[4, 20]), header(shape=[-4]), header(shape=[4.0]), header(dtype="F33"),
    header(shape=[1] * 100 + [4]), {"w": 7}, {}, [], b"", b"{", b'{"w":', b'{"w":{"dtype":"F32"}}', b"\xff" * 40,
    {**header(), "v": header()["w"]}, b"[" * 100000, b'{"__metadata__":{"a":' + b"[" * 5000,
    b'{"w":{"dtype":"F32","shape":[4],"data_offsets":[0,16]},"w":{"dtype":"F32","shape":[4],"data_offsets":[0,16]}}',
], ids=range(26))
def test_safetensors_headers(tmp_path, made):
    root = tmp_path / "model"
    root.mkdir()
    write_safetensors(root / "model.safetensors", made, bytes(16))
    whole, _ = notes(root)
    assert not whole
    refuse(root, tmp_path / "out")


@pytest.mark.parametrize("length", [0, 1, 2**31, 2**63, 2**64 - 1, 10**8 + 1])
def test_lengths_of_headers(tmp_path, length):
    write_safetensors(tmp_path / "model.safetensors", header(), bytes(16), length=length)
    assert not notes(tmp_path)[0]


@pytest.mark.parametrize("name", ["model.safetensors", "pytorch_model.bin", INDEX])
def test_truncated_anywhere(shards, tmp_path, name):
    root = tmp_path / "cut"
    if name == INDEX:
        shutil.copytree(shards, root)
    else:
        root.mkdir()
        tensors = {"w": torch.arange(6.0), "v": torch.arange(4)}
        save_file(tensors, root / name) if "safe" in name else torch.save(tensors, root / name)
    whole = (root / name).read_bytes()
    steps = range(len(whole)) if len(whole) < 400 else sorted(random.Random(1).sample(range(len(whole)), 150))
    for length in steps:
        (root / name).write_bytes(whole[:length])
        told = inspect(root)
        assert not told["whole"] and told["notes"], length
    refuse(root, tmp_path / "out")


def test_damaged_anywhere(tmp_path):
    """Any byte of a torch file may be any other one: what comes out is a model or a refusal."""
    root, chance = tmp_path / "model", random.Random(2)
    root.mkdir()
    torch.save({"w": torch.arange(6.0), "v": torch.arange(4), "n": torch.ones(2, 3).t()}, root / "pytorch_model.bin")
    whole = (root / "pytorch_model.bin").read_bytes()
    for turn in range(150):
        damaged = bytearray(whole)
        for _ in range(chance.randint(1, 4)):
            damaged[chance.randrange(len(damaged))] = chance.randrange(256)
        (root / "pytorch_model.bin").write_bytes(damaged)
        if turn % 10:
            assert run("inspect", "--json", "--tensors", root).returncode in (0, 1)
            continue
        output = tmp_path / f"out{turn}"
        done = run("assemble", "--plain", root, "-o", output)
        assert done.returncode in (0, 1)
        assert output.exists() == (done.returncode == 0)


def test_a_nul_in_the_names_of_records(tmp_path):
    torch.save({"w": torch.arange(6.0)}, tmp_path / "pytorch_model.bin")
    whole = (tmp_path / "pytorch_model.bin").read_bytes()
    for place in range(len("pytorch_model")):
        name = bytearray(b"pytorch_model/")
        name[place] = 0
        (tmp_path / "pytorch_model.bin").write_bytes(whole.replace(b"pytorch_model/", name))
        assert run("inspect", "--json", tmp_path).returncode == 0


def test_a_view_that_would_fill_the_disk(tmp_path):
    torch.save({"w": torch.zeros(1).expand(2**50, 64)}, tmp_path / "pytorch_model.bin")
    expect_missing(tmp_path, "repeats elements of its file too often", tmp_path)


def test_names_are_safe_to_print(tmp_path):
    save_file({"a\x1b[2J\nb\u009b": torch.zeros(2)}, tmp_path / "model.safetensors")
    done = run("inspect", "--tensors", tmp_path)
    assert done.returncode == 0
    assert "a?[2J?b?" in done.stdout and "\x1b" not in done.stdout and "\u009b" not in done.stdout
    assert inspect(tmp_path, "--tensors")["tensors"][0]["name"] == "a?[2J?b?"


def test_files_that_are_no_files(tmp_path):
    """A directory, a pipe, a link that leads nowhere."""
    os.mkdir(tmp_path / "model.safetensors")
    assert run("inspect", tmp_path).returncode == 1
    os.rmdir(tmp_path / "model.safetensors")
    os.mkfifo(tmp_path / "model.safetensors")
    assert run("inspect", tmp_path).returncode == 1
    os.unlink(tmp_path / "model.safetensors")
    os.symlink("nothing", tmp_path / "model.safetensors")
    assert run("inspect", tmp_path).returncode == 1


def test_a_file_that_is_only_large(tmp_path):
    """A length of nothing but zeros behind a header: refused without reading it."""
    write_safetensors(tmp_path / "model.safetensors", header())
    with open(tmp_path / "model.safetensors", "r+b") as file:
        file.truncate(1 << 40)
    assert not notes(tmp_path)[0]
    with open(tmp_path / "pytorch_model.bin", "wb") as file:
        file.write(b"PK\x03\x04" + struct.pack("<H", 0))
        file.truncate(1 << 40)
    (tmp_path / "model.safetensors").unlink()
    assert not notes(tmp_path)[0]

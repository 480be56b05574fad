# SPDX-License-Identifier: Apache-2.0
"""Checkpoints of the real libraries, damaged at random where their structure lies: a model or a refusal."""

import os
import random
import resource
import shutil
import subprocess

import pytest
import torch
import torch.distributed.checkpoint
from safetensors.torch import save_file

import mutations
import saved
import xla_saves
from tool import PROGRAM, write_safetensors

ROUNDS = 100 if os.environ.get("CKPTFS_TEST_LONG") else 3
SECONDS, MEMORY, LINES = 60, 600 << 20, 8


@pytest.fixture(scope="session")
def sources(tmp_path_factory):
    """name → a checkpoint."""
    root = tmp_path_factory.mktemp("sources")
    ranks = saved.distributed(2, tmp_path_factory.mktemp("ranks"))
    zero = saved.deepspeed(tmp_path_factory.mktemp("zero"))
    tensors = {f"layers.{number}.weight": torch.randn(5, 3) for number in range(4)}
    for name in ("safetensors", "bin", "legacy", "xla", "xla-flat"):
        (root / name).mkdir()
    save_file(tensors, root / "safetensors" / "model.safetensors", metadata={"format": "pt"})
    torch.save({**tensors, "view": tensors["layers.0.weight"].t()}, root / "bin" / "pytorch_model.bin")
    torch.save(tensors, root / "legacy" / "pytorch_model.bin", _use_new_zipfile_serialization=False)
    xla_saves.save(root / "xla", 3)
    xla_saves.save(root / "xla-flat", 3, flatten=True)
    found = {path.name: path for path in root.iterdir()}
    found.update(
        {name: ranks / name for name in ("bare", "nested", "hf", "checkpoint-7", "fsdp1", "ranks", "shards", "whole")}
    )
    found.update(
        {name: zero / "ranks2" / name for name in ("zero0", "zero2_offload", "zero3", "pipeline", "tensor_parallel")}
    )
    return found


NAMES = [
    "safetensors",
    "bin",
    "legacy",
    "xla",
    "xla-flat",
    "bare",
    "nested",
    "hf",
    "checkpoint-7",
    "fsdp1",
    "ranks",
    "shards",
    "whole",
    "zero0",
    "zero2_offload",
    "zero3",
    "pipeline",
    "tensor_parallel",
]


# What a sanitizer reserves is no memory.
SANITIZED = "libasan" in subprocess.run(["ldd", PROGRAM], capture_output=True, text=True, check=False).stdout


def bounded():
    if not SANITIZED:
        resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))


def told(*arguments):
    """The finished process: it ended by itself, in time, with little memory, and said in a few lines what was wrong."""
    done = subprocess.run(
        [PROGRAM, *map(str, arguments)],
        capture_output=True,
        text=True,
        errors="replace",
        timeout=SECONDS,
        stdin=subprocess.DEVNULL,
        preexec_fn=bounded,
        check=False,
    )
    lines = done.stderr.splitlines()
    assert done.returncode in (0, 1), done
    assert "Sanitizer" not in done.stderr and "runtime error" not in done.stderr
    assert len(lines) <= LINES and all(line.isprintable() for line in lines), lines
    assert done.returncode == 0 or lines
    return done


@pytest.mark.parametrize("name", NAMES)
def test_damaged_where_it_hurts(sources, tmp_path, name):
    seed = int(os.environ.get("CKPTFS_TEST_SEED") or random.randrange(10**6))
    for number in range(seed, seed + ROUNDS):
        shutil.rmtree(tmp_path / "damaged", ignore_errors=True)
        print("seed", number, mutations.make(sources[name], tmp_path / "damaged", number))
        told("inspect", "--json", "--tensors", tmp_path / "damaged")
        for options in ((), ("--fp32",)):
            done = told("assemble", "--plain", tmp_path / "damaged", "-o", tmp_path / "out", *options)
            assert (tmp_path / "out").exists() == (done.returncode == 0)
            shutil.rmtree(tmp_path / "out", ignore_errors=True)


def test_few_lines_for_many_tensors(tmp_path):
    """A thousand tensors that end with their file are one thing to say."""
    header, offset = {}, 0
    for number in range(1000):
        header[f"w{number}"] = {"dtype": "F32", "shape": [4], "data_offsets": [offset, offset + 16]}
        offset += 16
    write_safetensors(tmp_path / "model.safetensors", header, bytes(16 * 500))
    assert told("assemble", "--plain", tmp_path, "-o", tmp_path / "out").returncode == 1
    shutil.rmtree(tmp_path / "out", ignore_errors=True)
    (tmp_path / "model.safetensors").unlink()
    state = {f"w{number}": torch.zeros(4) for number in range(100)}
    torch.distributed.checkpoint.save(state, checkpoint_id=tmp_path / "dcp", no_dist=True)
    os.truncate(tmp_path / "dcp" / "__0_0.distcp", 5000)
    done = told("assemble", "--plain", tmp_path / "dcp", "-o", tmp_path / "out")
    assert "more parts of the model cannot be read" in done.stderr and "more tensors are incomplete" in done.stderr

# SPDX-License-Identifier: Apache-2.0
"""How the files come to be: modes, names that are taken, memory, full disks, signals."""

import os
import re
import resource
import signal
import struct
import subprocess
import time

import pytest
import torch
from safetensors.torch import load_file, save_file

from tool import PROGRAM, assemble, refuse, run, write_safetensors

SIDE = ["config.json", "generation_config.json", "tokenizer.json", "tokenizer_config.json", "special_tokens_map.json",
        "vocab.txt", "merges.txt", "tokenizer.model", "chat_template.jinja", "preprocessor_config.json",
        "modeling_own.py", "README.md"]
OTHER = ["training_args.bin", "optimizer.pt", "trainer_state.json", "rng_state.pth", "zero_to_fp32.py", ".hidden.py",
         "events.out.tfevents.1"]


@pytest.fixture
def source(tmp_path):
    """A small model in two shards, with the files of a checkpoint around it."""
    root = tmp_path / "source"
    root.mkdir()
    for number in (1, 2):
        save_file({f"w{number}": torch.arange(1000.0) * number}, root / f"model-0000{number}-of-00002.safetensors")
    (root / "model.safetensors.index.json").write_text(
        '{"metadata": {"total_size": 8000}, "weight_map": {%s}}'
        % ", ".join(f'"w{n}": "model-0000{n}-of-00002.safetensors"' for n in (1, 2)))
    for name in SIDE + OTHER:
        (root / name).write_text("{}" if name.endswith("json") else name)
    return root


def large(path, gib):
    """A model of so many GiB of zeros, which take no space."""
    path.mkdir()
    size = gib << 30
    write_safetensors(path / "model.safetensors",
                      {"w": {"dtype": "F32", "shape": [size // 4096, 1024], "data_offsets": [0, size]}})
    with open(path / "model.safetensors", "r+b") as file:
        file.truncate(file.seek(0, os.SEEK_END) + size)
    return path


def test_side_files(source, tmp_path):
    output, _ = assemble(source, tmp_path / "out")
    assert sorted(os.listdir(output)) == sorted(SIDE + ["model.safetensors"])
    assert all((output / name).read_bytes() == (source / name).read_bytes() for name in SIDE)


@pytest.mark.parametrize("umask", [0o022, 0o027, 0o077])
def test_modes(source, tmp_path, umask):
    output, _ = assemble(source, tmp_path / "out", umask=umask)
    for name in os.listdir(output):
        assert (output / name).stat().st_mode & 0o777 == 0o666 & ~umask, name


def test_what_is_there_stays(source, tmp_path):
    output = tmp_path / "out"
    output.mkdir()
    (output / "model.safetensors").write_text("mine")
    assert "model.safetensors is there already" in refuse(source, output)
    assert os.listdir(output) == ["model.safetensors"]
    assert (output / "model.safetensors").read_text() == "mine"
    assemble(source, output, "--force")
    assert load_file(output / "model.safetensors").keys() == {"w1", "w2"}


def test_side_files_that_are_there_stay(source, tmp_path):
    output = tmp_path / "out"
    output.mkdir()
    (output / "config.json").write_text("mine")
    _, done = assemble(source, output)
    assert "config.json is there already" in done.stderr
    assert (output / "config.json").read_text() == "mine"
    assemble(source, output, "--force")
    assert (output / "config.json").read_text() == "{}"


def test_weights_that_loaders_would_prefer(source, tmp_path):
    """What lies there under another standard name would be read with it, or instead of it."""
    output = tmp_path / "out"
    output.mkdir()
    (output / "model.safetensors").write_text("stale")
    assert "model.safetensors" in refuse(source, output, "--max-shard-size", "4100B")
    (output / "model.safetensors").rename(output / "model.safetensors.index.json")
    assert "model.safetensors.index.json" in refuse(source, output)


def test_into_the_source(source):
    assemble(source, source, "--format", "bin")
    names = set(os.listdir(source))
    assert names == {*SIDE, *OTHER, "pytorch_model.bin", "model.safetensors.index.json",
                     "model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors"}


def test_over_the_source(tmp_path):
    """A file may be made of the one that it replaces."""
    save_file({"w": torch.arange(70000.0)}, tmp_path / "model.safetensors")
    assemble(tmp_path, tmp_path, "--dtype", "bf16", "--force")
    assert torch.equal(load_file(tmp_path / "model.safetensors")["w"], torch.arange(70000.0).to(torch.bfloat16))


def test_memory(tmp_path):
    """A cast of a GiB takes no more memory than one of little."""
    source = large(tmp_path / "large", 1)

    def limit():
        # Of address space, program and libraries included.
        resource.setrlimit(resource.RLIMIT_AS, (96 << 20, 96 << 20))

    output, _ = assemble(source, tmp_path / "out", "--dtype", "bf16", preexec_fn=limit)
    with open(output / "model.safetensors", "rb") as file:
        header, = struct.unpack("<Q", file.read(8))
        assert file.seek(0, os.SEEK_END) == 8 + header + (1 << 29)


def test_progress_on_a_terminal(tmp_path):
    source, output = large(tmp_path / "large", 1), tmp_path / "out"
    ours, theirs = os.openpty()
    child = subprocess.Popen([PROGRAM, "assemble", "--plain", source, "-o", output, "--dtype", "bf16"], stderr=theirs)
    os.close(theirs)
    shown = b""
    try:
        while part := os.read(ours, 4096):
            shown += part
    except OSError:
        pass  # the other side is closed
    os.close(ours)
    assert child.wait(60) == 0
    assert re.search(rb"\d+ %, .* of 512\.0 MiB, .*/s\r", shown), shown


@pytest.mark.parametrize("count", [1, 3, 5])
def test_full_disk(source, tmp_path, count):
    fault = {**os.environ, "CKPTFS_FAULT": f"assemble.write:ENOSPC:{count}"}
    assert "No space left" in refuse(source, tmp_path / "out", "--max-shard-size", "4100B", code=26, env=fault)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("count", [1, 2, 4])
def test_failure_while_names_are_given(source, tmp_path, count):
    fault = {**os.environ, "CKPTFS_FAULT": f"assemble.rename:EIO:{count}"}
    (tmp_path / "out").mkdir()
    refuse(source, tmp_path / "out", env=fault)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_signals(tmp_path, number):
    """Nothing is left of what was begun, and the program dies of the signal."""
    source, output = large(tmp_path / "large", 8), tmp_path / "out"
    child = subprocess.Popen([PROGRAM, "assemble", "--plain", source, "-o", output, "--dtype", "bf16"])
    deadline = time.monotonic() + 30
    while not (output.is_dir() and os.listdir(output)):
        assert time.monotonic() < deadline and child.poll() is None
        time.sleep(0.001)
    child.send_signal(number)
    assert child.wait(30) == -number
    assert not output.exists()


def test_messages_of_wrong_command_lines(source, tmp_path):
    for arguments in (["--plain", source], [source], ["--plain", "-o", tmp_path / "o"], ["-o", tmp_path / "o"],
                      ["--plain", source, "-o", tmp_path / "o", "--dtype", "int8"],
                      ["--plain", source, "-o", tmp_path / "o", "--max-shard-size", "-5GB"],
                      ["--plain", source, "-o", tmp_path / "o", "--max-shard-size", "5XB"],
                      ["--plain", source, "-o", tmp_path / "o", "--format", "gguf"]):
        done = run("assemble", *arguments)
        assert done.returncode == 2 and done.stderr.count("\n") == 1
    assert not (tmp_path / "o").exists()
    assert "No such file" in refuse(tmp_path / "nowhere", tmp_path / "o")
    assert "no checkpoint of a known kind" in refuse(tmp_path, tmp_path / "o")
    assert "No such file" in refuse(source, tmp_path / "a/b")

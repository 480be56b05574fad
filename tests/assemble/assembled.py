# SPDX-License-Identifier: Apache-2.0
"""Runs the program on a checkpoint and compares what it assembled, bit by bit."""

import json
import os
import re
import subprocess
from types import SimpleNamespace

import torch
from safetensors.torch import load_file

COMMAND_DEADLINE = 60


def run(*arguments):
    """The program, which has to end by itself, without a sanitizer's report."""
    command = [os.environ["CKPTFS"], *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=COMMAND_DEADLINE)
    assert done.returncode in (0, 1) and "runtime error" not in done.stderr, done.stderr
    return done


def inspect(directory):
    done = run("inspect", "--json", directory)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def assemble(directory, out, *options):
    """tensors, and how many bytes of the file were not copied from the shards."""
    done = run("assemble", "--plain", directory, "-o", out, *options)
    assert done.returncode == 0, done.stderr
    made = re.search(r"([0-9.]+) (bytes|KiB) made anew", done.stdout)
    return SimpleNamespace(tensors=load_file(out / "model.safetensors"), file=out / "model.safetensors", made=made)


def refused(directory, out, *options):
    """The one line that says why, before the one that says that nothing is assembled. Nothing is left behind."""
    done = run("assemble", "--plain", directory, "-o", out, *options)
    lines = [line for line in done.stderr.splitlines() if "config.json" not in line]
    assert done.returncode == 1, done.stdout
    assert len([line for line in lines if line.endswith("nothing is assembled")]) <= 1
    lines = [line for line in lines if not line.endswith("nothing is assembled")]
    assert len(lines) == 1, lines
    assert lines[0].startswith("ckptfs: ") and lines[0].isprintable(), lines
    assert not out.exists() or not list(out.iterdir())
    return lines[0]


def header_size(file):
    """The bytes of a safetensors file before its tensors'."""
    with open(file, "rb") as content:
        return 8 + int.from_bytes(content.read(8), "little")


def assert_same(found, expected, tied=()):
    """Every tensor, its type, its shape and its bits; of tied ones one is left out of the file."""
    assert set(expected) - set(found) == set(tied)
    assert set(found) <= set(expected)
    for name, value in found.items():
        right = expected[name].contiguous()
        assert (value.dtype, value.shape) == (right.dtype, right.shape), name
        assert torch.equal(value.view(-1).view(torch.uint8), right.view(-1).view(torch.uint8)), name

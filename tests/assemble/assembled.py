# SPDX-License-Identifier: Apache-2.0
"""What the tests of frameworks share: a checkpoint is assembled, and compared bit by bit with what is right."""

import re
from types import SimpleNamespace

import torch
from safetensors.torch import load_file

import tool


def assemble(directory, out, *options, name="model"):
    """tensors, the file, and how many of its bytes were not copied from the shards."""
    _, done = tool.assemble(directory, out, *options)
    file = out / f"{name}.safetensors"
    made = re.search(r"[0-9.]+ (bytes|KiB|MiB) made anew", done.stdout).group(0)
    return SimpleNamespace(tensors=load_file(file), file=file, made=made)


def refused(directory, out, *options):
    """The one line that says why, before the one that says that nothing is assembled."""
    lines = tool.refuse(directory, out, *options).splitlines()
    why = [line for line in lines if "config.json" not in line and not line.endswith("nothing is assembled")]
    assert len(why) == 1 and len(lines) <= 3, lines
    assert why[0].startswith("ckptfs: ") and why[0].isprintable(), why
    return why[0]


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

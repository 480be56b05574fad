#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Checkpoints whose model appears beside their shards.

beside.py save DIRECTORY   fsdp-1 and fsdp-2 in DIRECTORY, as the Trainer saves with SHARDED_STATE_DICT, with other weights
                           each; beside them fsdp-1.safetensors and fsdp-2.safetensors, the whole models; and
                           fsdp-equal, whose output layer is equal to its embedding. Needs torch.
beside.py names FILE       the names of a safetensors file's tensors, in one line
beside.py same FILE OTHER  both are safetensors files of the same tensors
beside.py make WAY PATH    makes PATH anew in a way that fails with EEXIST where it is a file
"""

import json
import mmap
import os
import stat
import struct
import sys


def save(directory):
    import torch
    import torch.distributed.checkpoint as dcp
    from safetensors.torch import save_file

    for number in (1, 2):
        torch.manual_seed(number)
        state = {
            "embed.weight": torch.randn(300, 64),
            "layer.weight": torch.randn(64, 64).to(torch.bfloat16),
            "layer.bias": torch.randn(64),
            "steps": torch.tensor(number),
        }
        checkpoint = os.path.join(directory, f"fsdp-{number}")
        dcp.save({"model": state}, checkpoint_id=os.path.join(checkpoint, "pytorch_model_fsdp_0"), no_dist=True)
        os.mkdir(os.path.join(checkpoint, "optimizer_0"))
        with open(os.path.join(checkpoint, "trainer_state.json"), "w") as file:
            json.dump({"global_step": number}, file)
        torch.save({"step": number}, os.path.join(checkpoint, "scheduler.pt"))
        save_file(state, os.path.join(directory, f"fsdp-{number}.safetensors"))
    embedding = torch.randn(300, 64)
    state = {"model.embed_tokens.weight": embedding, "lm_head.weight": embedding.clone()}
    dcp.save({"model": state}, checkpoint_id=os.path.join(directory, "fsdp-equal", "pytorch_model_fsdp_0"), no_dist=True)


def names(path):
    print(*sorted(tensors(path)))


def tensors(path):
    """Through a mapping, as loaders read."""
    with open(path, "rb") as file, mmap.mmap(file.fileno(), 0, prot=mmap.PROT_READ) as data:
        (length,) = struct.unpack("<Q", data[:8])
        header = json.loads(data[8 : 8 + length])
        header.pop("__metadata__", None)
        start = 8 + length
        return {
            name: (entry["dtype"], entry["shape"], data[start + entry["data_offsets"][0] : start + entry["data_offsets"][1]])
            for name, entry in header.items()
        }


def same(path, other):
    found, expected = tensors(path), tensors(other)
    if found != expected:
        names = [name for name in found.keys() | expected.keys() if found.get(name) != expected.get(name)]
        sys.exit(f"{path}: other tensors than {other}: {sorted(names)}")


def make(way, path):
    directory, name = os.path.split(path)
    if way == "open":
        fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o640)
        os.write(fd, b"own")
        os.close(fd)
    elif way == "openat":
        parent = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
        os.close(os.open(name, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o640, dir_fd=parent))
        os.close(parent)
    elif way == "truncate":
        fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o640)
        os.write(fd, b"own")
        os.close(fd)
        # A new file, with the mode that was asked for.
        assert stat.S_IMODE(os.stat(path).st_mode) == 0o640 & ~os.umask(0o022), oct(os.stat(path).st_mode)
    elif way == "mkdir":
        os.mkdir(path)
        os.mkdir(os.path.join(path, "below"))
    elif way == "symlink":
        os.symlink("elsewhere", path)
        assert os.readlink(path) == "elsewhere"
    elif way == "mknod":
        os.mknod(path, stat.S_IFIFO | 0o600)
        assert stat.S_ISFIFO(os.stat(path).st_mode)
    elif way == "link":
        other = os.path.join(directory, "other")
        with open(other, "w") as file:
            file.write("own")
        os.link(other, path)
        assert os.stat(path).st_nlink == 2
        os.unlink(other)
    elif way == "rename":
        other = os.path.join(directory, "other")
        with open(other, "w") as file:
            file.write("own")
        os.rename(other, path)
    else:
        sys.exit(f"unknown way {way}")


if __name__ == "__main__":
    {"save": save, "names": names, "same": same, "make": make}[sys.argv[1]](*sys.argv[2:])

#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Sharded safetensors models, without any library, and whether a whole model is the same.

shards.py save DIRECTORY [--shards N] [--mib N] [--seed N] [--only I] [--in-place]
    model-0000i-of-0000n.safetensors of `mib` MiB together, with index and config.json. Shards are written beside
    their names with mode 0600 and renamed, as the safetensors library does it, or in place.
shards.py same FILE [--shards N] [--mib N] [--seed N]
    FILE is one safetensors file with exactly the tensors of such a model.
"""

import argparse
import hashlib
import json
import os
import random
import struct
import sys


def tensors(options):
    """Name, type, shape and bytes of each tensor, by shard."""
    count = 3 * options.shards
    size = options.mib * (1 << 20) // count // 4 * 4
    for shard in range(options.shards):
        rows = []
        for i in range(3):
            name = f"layers.{shard}.weight_{i}"
            length = size if i else size + 4 * (shard + 1)
            generator = random.Random(f"{options.seed} {name}")
            block = generator.randbytes(1 << 16)
            data = (block * (length // len(block) + 1))[:length]
            rows.append((name, "F32", [length // 4], data))
        rows.append((f"layers.{shard}.scale", "BF16", [], random.Random(f"{options.seed} {shard}").randbytes(2)))
        rows.append((f"layers.{shard}.nothing", "F16", [0, 5], b""))
        yield rows


def encode(rows):
    header, offset = {"__metadata__": {"format": "pt"}}, 0
    for name, kind, shape, data in rows:
        header[name] = {"dtype": kind, "shape": shape, "data_offsets": [offset, offset + len(data)]}
        offset += len(data)
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    return struct.pack("<Q", len(text)) + text


def write(path, rows, in_place):
    target = path if in_place else os.path.join(os.path.dirname(path), f".tmp{os.getpid()}")
    flags = os.O_RDWR | os.O_CREAT | (os.O_TRUNC if in_place else os.O_EXCL)
    fd = os.open(target, flags, 0o600)
    with open(fd, "wb") as file:
        file.write(encode(rows))
        for row in rows:
            file.write(row[3])
        if not in_place:
            file.flush()
            os.rename(target, path)


def save(options):
    weights = {}
    for i, rows in enumerate(tensors(options), 1):
        name = f"model-{i:05}-of-{options.shards:05}.safetensors"
        weights |= {row[0]: name for row in rows}
        if options.only in (0, i):
            write(os.path.join(options.path, name), rows, options.in_place)
    if options.only:
        return
    total = sum(len(row[3]) for rows in tensors(options) for row in rows)
    with open(os.path.join(options.path, "model.safetensors.index.json"), "w") as file:
        json.dump({"metadata": {"total_size": total}, "weight_map": weights}, file)
    with open(os.path.join(options.path, "config.json"), "w") as file:
        json.dump({"model_type": "llama", "seed": options.seed}, file)


def same(options):
    with open(options.path, "rb") as file:
        (length,) = struct.unpack("<Q", file.read(8))
        header = json.loads(file.read(length))
        metadata = header.pop("__metadata__", {})
        if metadata.get("format") != "pt":
            sys.exit(f"metadata is {metadata}, expected the format pt")
        start = 8 + length
        expected = {row[0]: row for rows in tensors(options) for row in rows}
        if header.keys() != expected.keys():
            sys.exit(f"other tensors: {sorted(header.keys() ^ expected.keys())[:5]}")
        for name, (_, kind, shape, data) in expected.items():
            entry = header[name]
            begin, end = entry["data_offsets"]
            file.seek(start + begin)
            found = file.read(end - begin)
            if (entry["dtype"], entry["shape"]) != (kind, shape) or found != data:
                sys.exit(
                    f"{name}: {entry['dtype']} {entry['shape']} {hashlib.sha256(found).hexdigest()[:8]}, expected"
                    f" {kind} {shape} {hashlib.sha256(data).hexdigest()[:8]}"
                )
        used = max(entry["data_offsets"][1] for entry in header.values())
        if os.fstat(file.fileno()).st_size != start + used:
            sys.exit("the file does not end with its last tensor")


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("command", choices=["save", "same"])
    parser.add_argument("path")
    parser.add_argument("--shards", type=int, default=3)
    parser.add_argument("--mib", type=int, default=6)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", type=int, default=0, help="writes this shard alone")
    parser.add_argument("--in-place", action="store_true")
    options = parser.parse_args()
    {"save": save, "same": same}[options.command](options)


if __name__ == "__main__":
    main()

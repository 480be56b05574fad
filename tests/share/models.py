#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Model files with known tensors, byte for byte as the frameworks write them; only the standard library.

    models.py safetensors FILE [OPTION...]    what safetensors.save_file writes
    models.py torch FILE [OPTION...]          what torch.save writes (caffe2/serialize/inline_container.cc)
    models.py bytes FILE --seed N --size N    bytes without any structure
"""

import argparse
import json
import random
import struct
import zlib


def tensors(options):
    """Tensor i is the same bytes for the same seed; those in --changed are another seed's."""
    changed = {int(number) for number in options.changed.split(",") if number}
    for number in range(options.tensors):
        seed = options.with_seed if number in changed else options.seed
        yield f"layer.{number}.weight", random.Random(f"{seed}/{number}").randbytes(options.kib * 1024)
    for number in range(options.zeros):
        yield f"state.{number}", bytes(4096)


def write_safetensors(file, options):
    header, offset, data = {}, 0, list(tensors(options))
    if options.note:
        header["__metadata__"] = {"note": "n" * options.note}
    for name, content in data:
        header[name] = {"dtype": "F32", "shape": [len(content) // 4], "data_offsets": [offset, offset + len(content)]}
        offset += len(content)
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    file.write(struct.pack("<Q", len(text)) + text)
    for _, content in data:
        file.write(content)


class TorchZip:
    """An archive as PyTorch's writer makes it: stored, each entry's data at a multiple of 64."""

    FLAGS = 0x0808  # names in UTF-8, a descriptor behind the data

    def __init__(self, file):
        self.file, self.offset, self.directory = file, 0, b""
        self.count = 0

    def write(self, data):
        self.file.write(data)
        self.offset += len(data)

    def add(self, name, data):
        name, at, crc = name.encode(), self.offset, zlib.crc32(data)
        padding = -(at + 30 + len(name) + 4) % 64
        extra = b"FB" + struct.pack("<H", padding) + b"Z" * padding
        self.write(struct.pack("<IHHHHHIIIHH", 0x04034B50, 0, self.FLAGS, 0, 0, 0, 0, 0, 0, len(name), len(extra)))
        self.write(name + extra)
        if self.offset % 64 != 0:
            raise AssertionError("an entry is not aligned")
        self.write(data)
        self.write(struct.pack("<IIII", 0x08074B50, crc, len(data), len(data)))
        self.directory += struct.pack("<IHHHHHHIIIHHHHHII", 0x02014B50, 0, 0, self.FLAGS, 0, 0, 0, crc, len(data),
                                      len(data), len(name), 0, 0, 0, 0, 0, at) + name
        self.count += 1

    def close(self):
        start, size = self.offset, len(self.directory)
        self.write(self.directory)
        end = self.offset
        self.write(struct.pack("<IQHHIIQQQQ", 0x06064B50, 44, 0x031E, 0x002D, 0, 0, self.count, self.count, size, start))
        self.write(struct.pack("<IIQI", 0x07064B50, 0, end, 1))
        self.write(struct.pack("<IHHHHIIH", 0x06054B50, 0, 0, self.count, self.count, size, start, 0))


def write_torch(file, options):
    archive = TorchZip(file)
    archive.add("archive/data.pkl", b"\x80\x02}q\x00." + b"p" * (200 + options.note))
    archive.add("archive/byteorder", b"little")
    for number, (_, content) in enumerate(tensors(options)):
        archive.add(f"archive/data/{number}", content)
    archive.add("archive/version", b"3\n")
    archive.add("archive/.data/serialization_id", b"%040d" % options.seed)
    archive.close()


def write_bytes(file, options):
    file.write(random.Random(f"bytes {options.seed}").randbytes(options.size))


WRITERS = {"safetensors": write_safetensors, "torch": write_torch, "bytes": write_bytes}


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("format", choices=WRITERS)
    parser.add_argument("file")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--tensors", type=int, default=10)
    parser.add_argument("--kib", type=int, default=1000, help="of each tensor")
    parser.add_argument("--changed", default="", help="numbers of tensors that are those of --with-seed")
    parser.add_argument("--with-seed", type=int, default=2)
    parser.add_argument("--note", type=int, default=0, help="this many bytes more in the header")
    parser.add_argument("--zeros", type=int, default=0, help="this many tensors more, of 4096 zeros each")
    parser.add_argument("--size", type=int, default=1 << 20)
    options = parser.parse_args()
    with open(options.file, "wb") as file:
        WRITERS[options.format](file, options)


if __name__ == "__main__":
    main()

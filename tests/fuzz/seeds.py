#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Writes small valid files for the fuzz targets: seeds.py TARGET DIRECTORY"""

import io
import json
import pathlib
import struct
import sys
import zipfile
import zlib


def safetensors(tensors, metadata=None, padding=0, tail=0):
    header = {"__metadata__": metadata} if metadata else {}
    at = 0
    for name, dtype, shape, size in tensors:
        header[name] = {"dtype": dtype, "shape": shape, "data_offsets": [at, at + size]}
        at += size
    text = json.dumps(header, separators=(",", ":")).encode() + b" " * padding
    return struct.pack("<Q", len(text)) + text + bytes(range(256))[:at] + b"x" * tail


class TorchArchive:
    """A zip archive as torch.save writes it: data aligned to 64, sizes in descriptors, zip64 records."""

    def __init__(self, alignment=64, crc=True, zip64=False):
        self.alignment, self.crc, self.zip64 = alignment, crc, zip64
        self.bytes, self.directory, self.count = b"", b"", 0

    def add(self, name, data):
        name = name.encode()
        offset = len(self.bytes)
        padding = -(offset + 30 + len(name) + 4) % self.alignment
        extra = struct.pack("<HH", 0x4246, padding) + b"Z" * padding
        crc = zlib.crc32(data) if self.crc else 0
        size, place, extra64, width = len(data), offset, b"", "I"
        if self.zip64:
            extra64 = struct.pack("<HHQQQ", 1, 24, size, size, offset)
            size, place, width = 0xFFFFFFFF, 0xFFFFFFFF, "Q"
        self.bytes += struct.pack("<IHHHIIIIHH", 0x04034B50, 0, 0x808, 0, 0, 0, 0, 0, len(name), len(extra))
        self.bytes += name + extra + data
        self.bytes += struct.pack("<II2" + width, 0x08074B50, crc, len(data), len(data))
        self.directory += struct.pack("<IHHHHIIIIHHHHHII", 0x02014B50, 0, 0, 0x808, 0, 0, crc, size, size,
                                      len(name), len(extra64), 0, 0, 0, 0, place)
        self.directory += name + extra64
        self.count += 1
        return self

    def finish(self):
        start, size = len(self.bytes), len(self.directory)
        end64 = struct.pack("<IQHHIIQQQQ", 0x06064B50, 44, 0, 0, 0, 0, self.count, self.count, size, start)
        locator = struct.pack("<IIQI", 0x07064B50, 0, start + size, 1)
        end = struct.pack("<IHHHHIIH", 0x06054B50, 0, 0, self.count, self.count, size, start, 0)
        return self.bytes + self.directory + end64 + locator + end


def torch_zip(size=40, **options):
    archive = TorchArchive(**options)
    archive.add("archive/data.pkl", b"\x80\x02}q\x00.")
    archive.add("archive/byteorder", b"little")
    archive.add("archive/data/0", bytes(range(size)))
    return archive.add("archive/version", b"3\n").finish()


def plain_zip(method):
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", method) as archive:
        archive.writestr("arr_0.npy", b"\x93NUMPY" * 20)
        archive.writestr("arr_1.npy", b"")
    return file.getvalue()


def format_segments():
    yield safetensors([])
    yield safetensors([("a", "F32", [2], 8)])
    yield safetensors([("b.weight", "BF16", [2, 2], 8), ("empty", "F32", [0], 0), ("m", "BOOL", [], 1)],
                      {"format": "pt"}, padding=5)
    yield safetensors([("a", "U8", [3], 3)], {"a": 'x"\\\n\u00e9'}, tail=9)
    yield torch_zip()
    yield torch_zip(size=0, crc=False)
    yield torch_zip(alignment=16, zip64=True)
    yield torch_zip() + torch_zip(size=9) + torch_zip(size=0)
    yield torch_zip()[:300] + torch_zip(size=9)
    yield plain_zip(zipfile.ZIP_STORED)
    yield plain_zip(zipfile.ZIP_DEFLATED)


def sums_table():
    """Only something to start from: the hash at the end needs the store's secret, which the target fixes up."""
    for chunks in ([], [5], [262144, 262144, 7]):
        head = b"CKPTSUM\1" + struct.pack("<IIQq", 1, 1, len(chunks), sum(chunks)) + bytes(16)
        body = b"".join(struct.pack("<I", length | (index == 0) << 31) + bytes(range(16))
                        for index, length in enumerate(chunks))
        yield head + body + bytes(16)


TARGETS = {"fuzz_format_segments": format_segments, "fuzz_sums_table": sums_table}


def main():
    target, directory = sys.argv[1], pathlib.Path(sys.argv[2])
    directory.mkdir(parents=True, exist_ok=True)
    for number, seed in enumerate(TARGETS[target]()):
        (directory / f"seed-{number:02}").write_bytes(seed)


main()

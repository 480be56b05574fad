#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Checkpoints that are damaged at random, guided by the structure of their files; only the standard library.

    mutations.py SOURCE DIRECTORY SEED COUNT     makes DIRECTORY/0, 1, ... of a checkpoint, and says what was done

A mutation knows what it changes: numbers in headers become those that overflow, records of archives lie over each
other, an opcode of a pickle is repeated, moved or has another argument, files are cut, swapped between ranks, missing,
or no files.
"""

import io
import json
import os
import pickletools
import random
import re
import shutil
import struct
import sys
import zipfile
from pathlib import Path

LIMITS = [
    0,
    1,
    2**7,
    2**8 - 1,
    2**15,
    2**16 - 1,
    2**31 - 1,
    2**31,
    2**32 - 1,
    2**32,
    2**53,
    2**62,
    2**63 - 1,
    2**63,
    2**64 - 1,
]
NUMBERS = [*LIMITS, 2**64, -1, -(2**31), -(2**63), 10**400, 1.5, 1e308]
NAMES = [
    "..",
    "../../../etc/passwd",
    "/etc/passwd",
    "a/../../b",
    "",
    ".",
    "x" * 5000,
    "a\0b",
    "\udcff",
    "__proto__",
    "../model.safetensors",
]


# -- numbers and text --------------------------------------------------------------------------------------------------


def change_numbers(chance, text):
    """One or two of the numbers in a text are others."""
    for _ in range(chance.randint(1, 2)):
        found = list(re.finditer(rb"-?\d+", text))
        if found:
            place = chance.choice(found)
            text = text[: place.start()] + str(chance.choice(NUMBERS)).encode() + text[place.end() :]
    return text


def change_strings(chance, text):
    found = list(re.finditer(rb'"([^"\\]*)"', text))
    if not found:
        return text
    place, other = chance.choice(found), chance.choice(found).group(1)
    wanted = chance.choice([other, json.dumps(chance.choice(NAMES))[1:-1].encode()])
    return text[: place.start(1)] + wanted + text[place.end(1) :]


def repeat_part(chance, text):
    """Something between two commas or brackets is there twice, not at all, or inside itself very often."""
    marks = [place.start() for place in re.finditer(rb"[,{}\[\]]", text)]
    if len(marks) < 2:
        return text
    start, end = sorted(chance.sample(marks, 2))
    part = text[start:end]
    deep = chance.choice([b"[", b'{"a":']) * chance.choice([64, 1000, 100000])
    return text[:start] + chance.choice([b"", part * 2, part * 50, deep + part]) + text[end:]


TEXTS = [change_numbers, change_numbers, change_strings, change_strings, repeat_part]


def change_json(chance, data):
    return chance.choice(TEXTS)(chance, data)


def change_bytes(chance, data):
    """Bytes are others, or away, or there twice."""
    data = bytearray(data)
    for _ in range(chance.randint(1, 4)):
        if not data:
            break
        place, form = chance.randrange(len(data)), chance.randrange(4)
        if form == 0:
            data[place] = chance.choice([0, 1, 0x7F, 0x80, 0xFF, chance.randrange(256)])
        elif form == 1:
            del data[place : place + chance.choice([1, 2, 8, 100])]
        elif form == 2:
            data[place:place] = data[place : place + chance.choice([1, 8, 100])]
        else:
            size = chance.choice([2, 4, 8])
            data[place : place + size] = (chance.choice(LIMITS) & (2 ** (8 * size) - 1)).to_bytes(size, "little")
    return bytes(data)


def cut(chance, data):
    """At any place, or a little before or behind its end."""
    wanted = chance.choice([chance.randrange(len(data) + 1), len(data) - chance.randint(1, 70), chance.randint(0, 70)])
    return data[: max(0, wanted)] if chance.random() < 0.8 else data + bytes(chance.choice([1, 7, 8, 65536]))


# -- safetensors -------------------------------------------------------------------------------------------------------


def change_safetensors(chance, data):
    if len(data) < 8:
        return data
    length = int.from_bytes(data[:8], "little")
    header, rest = data[8 : 8 + length], data[8 + length :]
    form = chance.randrange(8)
    if form == 0:
        return (
            struct.pack("<Q", chance.choice([*LIMITS, length + 1, length - 1, len(data), len(data) - 8]))
            + header
            + rest
        )
    if form == 1:
        # The bytes of one tensor are said to be another's.
        offsets = re.findall(rb'"data_offsets":\[\d+,\d+\]', header)
        header = header.replace(chance.choice(offsets), chance.choice(offsets)) if offsets else header
    else:
        header = change_json(chance, header)
    return struct.pack("<Q", len(header)) + header + rest


# -- pickles -----------------------------------------------------------------------------------------------------------

HARMFUL = [
    b"\x8e" + struct.pack("<Q", 2**63 - 1),
    b"\x8d" + struct.pack("<Q", 2**40),
    b"T\xff\xff\xff\x7f",
    b"(" * 100000,
    b"2" * 1000,
    b"]q\xf0h\xf0a",
    b"}q\xf0K\x01h\xf0s",
    b"0",
    b"1",
    b"t",
    b"a",
    b"u",
    b"\x93",
    b"R",
    b"b",
    b"Q",
    b"h\xf3",
    b"r\xff\xff\xff\x7f",
    b"j\xff\xff\xff\xff",
    b"\x94" * 3000,
    b"\x95" + struct.pack("<Q", 2**62),
    b"\x80\x09",
    b"cposix\nsystem\n",
    b"\x8b\xff\xff\xff\x7f",
    b"\x8a\x09" + b"\xff" * 9,
    b"I" + b"9" * 3000 + b"\n",
    b"V" + b"x" * 70000 + b"\n",
    b"\x85\x85\x85\x85" * 2000,
]
SIZES = {
    "BININT": "<i",
    "BININT1": "B",
    "BININT2": "<H",
    "BINGET": "B",
    "LONG_BINGET": "<I",
    "BINPUT": "B",
    "LONG_BINPUT": "<I",
    "SHORT_BINUNICODE": "B",
    "BINUNICODE": "<I",
    "FRAME": "<Q",
    "LONG1": "B",
}


def opcodes(data):
    """(opcode, its bytes) of each, as far as it can be read."""
    found = []
    try:
        for opcode, _, place in pickletools.genops(data):
            found.append((opcode, place))
    except Exception:  # noqa: BLE001  it was damaged before
        pass
    ends = [place for _, place in found[1:]] + [len(data)]
    return [(opcode.name, data[place:end]) for (opcode, place), end in zip(found, ends)]


def other_argument(chance, name, raw):
    if name not in SIZES:
        return change_bytes(chance, raw)
    size = struct.calcsize(SIZES[name])
    value = chance.choice([*LIMITS, *range(20)]) & (2 ** (8 * size) - 1)
    return raw[:1] + value.to_bytes(size, "little") + raw[1 + size :]


def change_pickle(chance, data):
    parts = opcodes(data)
    if len(parts) < 3:
        return change_bytes(chance, data)
    raws = [raw for _, raw in parts]
    for _ in range(chance.randint(1, 3)):
        place, other = chance.randrange(len(raws)), chance.randrange(len(raws))
        form = chance.randrange(6)
        if form == 0:
            raws[place] = b""
        elif form == 1:
            raws[place] *= chance.choice([2, 3, 1000])
        elif form == 2:
            raws[place], raws[other] = raws[other], raws[place]
        elif form == 3:
            raws[place] = chance.choice(HARMFUL) + raws[place]
        elif place < len(parts):
            numbers = [at for at, (name, _) in enumerate(parts) if name in SIZES] or [place]
            place = chance.choice(numbers)
            raws[place] = other_argument(chance, parts[place][0], raws[place])
    return b"".join(raws)


# -- archives ----------------------------------------------------------------------------------------------------------

LOCAL, CENTRAL, END64, LOCATOR, END = b"PK\x03\x04", b"PK\x01\x02", b"PK\x06\x06", b"PK\x06\x07", b"PK\x05\x06"
# (offset, size) of the numbers of each record.
FIELDS = {
    LOCAL: [(4, 2), (6, 2), (8, 2), (14, 4), (18, 4), (22, 4), (26, 2), (28, 2)],
    CENTRAL: [(8, 2), (10, 2), (16, 4), (20, 4), (24, 4), (28, 2), (30, 2), (32, 2), (34, 2), (42, 4)],
    END64: [(4, 8), (16, 4), (24, 8), (32, 8), (40, 8), (48, 8)],
    LOCATOR: [(4, 4), (8, 8), (16, 4)],
    END: [(4, 2), (8, 2), (10, 2), (12, 4), (16, 4), (20, 2)],
}


def change_record(chance, data):
    """A number in one of the records of the directory, or before a file, is another."""
    kind = chance.choice(list(FIELDS))
    places = [found.start() for found in re.finditer(re.escape(kind), data)]
    if not places:
        return change_bytes(chance, data)
    place, (offset, size) = chance.choice(places), chance.choice(FIELDS[kind])
    here = int.from_bytes(data[place + offset : place + offset + size], "little")
    value = chance.choice([*LIMITS, here + 1, here - 1, here + 64, len(data), len(data) - 1]) & (2 ** (8 * size) - 1)
    return data[: place + offset] + value.to_bytes(size, "little") + data[place + offset + size :]


def packed_again(chance, data):
    """The archive with another pickle, names that lead elsewhere, records twice or missing, or packed ones."""
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            records = [(entry.filename, archive.read(entry)) for entry in archive.infolist()]
    except Exception:  # noqa: BLE001  no archive, or several of them
        return change_record(chance, data)
    if not records:
        return change_record(chance, data)
    out, packing, form = io.BytesIO(), zipfile.ZIP_STORED, chance.randrange(10)
    place = chance.randrange(len(records))
    name, content = records[place]
    if not content:
        form = 9
    if form == 0:
        records.insert(place, (name, content[: len(content) // 2]))
    elif form == 1:
        del records[place]
    elif form == 2:
        records[place] = (chance.choice(NAMES).replace("\udcff", "\xff").replace("\0", "_") or "x", content)
    elif form == 3:
        packing = zipfile.ZIP_DEFLATED
        records[place] = (name, bytes(1 << 26))
    elif form == 4:
        records[place] = (name, cut(chance, content))
    else:
        records = [
            (name, change_pickle(chance, content) if name.endswith("data.pkl") else content)
            for name, content in records
        ]
    with zipfile.ZipFile(out, "w", packing) as archive:
        for name, content in records:
            archive.writestr(zipfile.ZipInfo(name), content, packing)
    return out.getvalue()


def change_archive(chance, data):
    return chance.choice([change_record, packed_again, packed_again])(chance, data)


def change_legacy(chance, data):
    """torch's older format is five pickles and then the storages."""
    place = chance.randrange(min(len(data), 2000) or 1)
    return data[:place] + change_pickle(chance, data[place:]) if data[place:] else data


def change_content(chance, name, data):
    if chance.random() < 0.2:
        return cut(chance, data)
    if chance.random() < 0.1:
        return change_bytes(chance, data)
    if name.endswith(".safetensors"):
        return change_safetensors(chance, data)
    if data[:4] == LOCAL:
        return change_archive(chance, data)
    if name.endswith(".json") or name == "latest":
        return change_json(chance, data)
    if data[:1] == b"\x80":
        return change_pickle(chance, data) if name == ".metadata" else change_legacy(chance, data)
    return change_bytes(chance, data)


# -- files and directories ---------------------------------------------------------------------------------------------


def no_file(chance, path):
    """Something else is called so."""
    form = chance.randrange(6)
    data = path.read_bytes()
    path.unlink()
    if form == 0:
        path.mkdir()
        (path / path.name).write_bytes(data)
    elif form == 1:
        os.mkfifo(path)
    elif form == 2:
        path.symlink_to(path.name)
    elif form == 3:
        path.symlink_to(chance.choice(["/dev/zero", "/dev/stdin", "/proc/self/mem", "nothing", ".", ".."]))
    elif form == 4:
        path.write_bytes(b"")
    return ["a directory", "a pipe", "a loop", "a link", "empty", "missing"][form]


def other_number(chance, path):
    """The file of another rank, or of one that the save did not have."""
    numbers = list(re.finditer(r"\d+", path.name))
    if not numbers:
        return "left alone"
    place = chance.choice(numbers)
    value = chance.choice(["0", "1", "2", "7", "99999999999999999999", "-1", "00000", str(2**63)])
    name = path.name[: place.start()] + value.zfill(len(place.group())) + path.name[place.end() :]
    if name == path.name or path.with_name(name).is_dir():
        return "left alone"
    (shutil.copy if chance.random() < 0.5 else shutil.move)(path, path.with_name(name))
    return f"as {name}"


def swap(chance, path, files):
    other = chance.choice(files)
    here, there = path.read_bytes(), other.read_bytes()
    path.write_bytes(there)
    other.write_bytes(here)
    return f"swapped with {other.name}"


def pipes(directory, names):
    """Those that cannot be copied."""
    return [name for name in names if (Path(directory) / name).is_fifo()]


def nest(chance, root, path):
    """The checkpoint is in itself, or one of its directories is a link to above it."""
    if chance.random() < 0.5:
        inner = root / chance.choice(["inner", "global_step9", "pytorch_model_fsdp_0x", "sharded"])
        if not inner.exists():
            shutil.copytree(root, root.with_name("inner"), symlinks=True, ignore=pipes)
            shutil.move(root.with_name("inner"), inner)
        return "nested"
    link = path.parent / "global_step99"
    if not link.is_symlink():
        link.symlink_to("..")
    return "a link to above"


def mutate(chance, root):
    """Damages the checkpoint; what was done."""
    files = sorted(path for path in root.rglob("*") if path.is_file() and not path.is_symlink())
    weights = [path for path in files if path.suffix not in (".py", ".txt")] or files
    if not weights:
        return "nothing is left"
    path, form = chance.choice(weights), chance.randrange(20)
    said = path.relative_to(root)
    if form == 0:
        return f"{said}: {no_file(chance, path)}"
    if form == 1:
        return f"{said}: {other_number(chance, path)}"
    if form == 2:
        return f"{said}: {swap(chance, path, weights)}"
    if form == 3:
        return f"{said}: {nest(chance, root, path)}"
    path.write_bytes(change_content(chance, path.name, path.read_bytes()))
    return f"{said}: {path.stat().st_size} bytes"


def make(source, root, seed):
    """A damaged copy of `source`; what was done to it."""
    chance = random.Random(f"{Path(source).name} {seed}")
    shutil.copytree(source, root, symlinks=True)
    return "; ".join(mutate(chance, Path(root)) for _ in range(chance.choice([1, 1, 1, 2])))


def main():
    source, directory, seed, count = sys.argv[1:]
    for number in range(int(count)):
        print(number, make(source, Path(directory) / str(number), int(seed) + number))


if __name__ == "__main__":
    main()

#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Files that somebody sees or changes while the store makes them share: each step compares all bytes.

    held.py MNT DIR       DIR takes the reference copies. Ends with 1 and a line when bytes are wrong. At the end
                          nothing is open, and MNT has what DIR has.

Every way of holding a file has a directory of its own, with tensors of its own. They go through the steps together:
the older files are saved and held, the newest ones are saved, changes are made, the newest ones are deleted.
"""

import json
import mmap
import os
import random
import subprocess
import sys
import time

MNT, REFERENCE = sys.argv[1:3]
CKPTFS = os.environ["CKPTFS"]
TENSOR, TENSORS = 600 * 1024, 6
RANDOM = random.Random(int(os.environ.get("CKPTFS_TEST_SEED", "1")))


def settled():
    """Nothing waits that could be done now: what is held is tried again, so that it never settles meanwhile."""
    status = json.loads(subprocess.run([CKPTFS, "status", "--json", MNT], check=True, capture_output=True).stdout)
    status = status[0] if isinstance(status, list) else status
    return status["unshared_files"] == 0 and status["behind_files"] == 0


def wait_settled(seconds):
    end = time.monotonic() + seconds
    while time.monotonic() < end and not settled():
        time.sleep(0.05)


def model(seeds, note):
    header = {"__metadata__": {"note": "n" * note}}
    for number in range(len(seeds)):
        header[f"t{number}"] = {"dtype": "U8", "shape": [TENSOR], "data_offsets": [number * TENSOR, (number + 1) * TENSOR]}
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    return len(text).to_bytes(8, "little") + text + b"".join(random.Random(seed).randbytes(TENSOR) for seed in seeds)


class Held:
    """A directory with two older files and a newest one; `bytes` is what each must be."""

    def __init__(self, name):
        self.name, self.bytes = name, {}
        os.makedirs(self.path(""), exist_ok=True)

    def path(self, file):
        return os.path.join(MNT, self.name, file)

    def save(self, file, content):
        with open(self.path(file), "wb") as out:
            out.write(content)
            out.flush()
            os.fsync(out.fileno())
        self.bytes[file] = bytearray(content)

    def seeds(self, *changed):
        return [f"{self.name} {number} {number in changed}" for number in range(TENSORS)]

    def change(self, fd, file, offset, content):
        if os.pwrite(fd, content, offset) != len(content):
            raise AssertionError(f"{self.name}/{file}: short write")
        whole = self.bytes[file]
        if len(whole) < offset:
            whole.extend(bytes(offset - len(whole)))
        whole[offset:offset + len(content)] = content

    def wrong(self, what, file, found):
        expected = self.bytes[file]
        if found == expected:
            return
        first = next((i for i, (a, b) in enumerate(zip(found, expected)) if a != b), min(len(found), len(expected)))
        sys.exit(f"held: {self.name}/{file}, {what}: {len(found)} bytes, expected {len(expected)}, "
                 f"the first wrong one is {first}")

    def check(self, what):
        for file in self.bytes:
            with open(self.path(file), "rb") as opened:
                self.wrong(what, file, opened.read())

    # What happens at each step.
    def older(self):
        self.save("older", model(self.seeds(0), 10))
        self.save("other", model(self.seeds(1, 2), 20))

    def hold(self):
        pass

    def newest(self):
        self.save("newest", model(self.seeds(3), 3000))

    def act(self):
        pass

    def delete(self):
        os.unlink(self.path("newest"))
        del self.bytes["newest"]

    def close(self):
        pass


class Reader(Held):
    def hold(self):
        self.fd = os.open(self.path("older"), os.O_RDONLY)

    def check(self, what):
        if getattr(self, "fd", None) is not None:
            self.wrong(what, "older", os.pread(self.fd, 1 << 30, 0))
        super().check(what)

    def close(self):
        os.close(self.fd)
        self.fd = None


class Mapped(Held):
    """The descriptor is closed; the map stays."""

    file = "older"

    def hold(self):
        with open(self.path(self.file), "rb") as opened:
            self.map = mmap.mmap(opened.fileno(), 0, prot=mmap.PROT_READ)

    def check(self, what):
        if getattr(self, "map", None) is not None and self.file in self.bytes:
            self.wrong(what + " in the map", self.file, self.map[:])
        super().check(what)

    def close(self):
        self.map.close()
        self.map = None


class MappedNewest(Mapped):
    file = "newest"

    def hold(self):
        pass

    def act(self):
        Mapped.hold(self)

    def delete(self):
        kept = bytes(self.bytes["newest"])
        super().delete()
        if self.map[:] != kept:
            sys.exit("held: the map of a deleted file has other bytes")


class DeletedMapped(Mapped):
    """The older file has no name any more, only the map."""

    def act(self):
        self.kept = bytes(self.bytes.pop("older"))
        os.unlink(self.path("older"))

    def check(self, what):
        if getattr(self, "map", None) is not None and hasattr(self, "kept") and self.map[:] != self.kept:
            sys.exit(f"held: {self.name}, {what}: the map of the deleted file has other bytes")
        super().check(what)


class Writer(Held):
    """Goes on changing the older file in place."""

    def hold(self):
        self.fd = os.open(self.path("older"), os.O_RDWR)

    def scribble(self):
        for _ in range(20):
            offset = RANDOM.randrange(len(self.bytes["older"]) + 5000)
            self.change(self.fd, "older", offset, RANDOM.randbytes(RANDOM.randrange(1, 50000)))

    def check(self, what):
        if getattr(self, "fd", None) is not None:
            self.scribble()
            self.wrong(what, "older", os.pread(self.fd, 1 << 30, 0))
        super().check(what)

    def close(self):
        self.scribble()
        os.close(self.fd)
        self.fd = None


class WriteNewest(Writer):
    """Opens the newest file for writing when older ones point into it."""

    def hold(self):
        self.fd = None

    def act(self):
        self.fd = os.open(self.path("newest"), os.O_RDWR)
        self.scribble()

    def scribble(self):
        for _ in range(20):
            offset = RANDOM.randrange(len(self.bytes["newest"]) + 5000)
            self.change(self.fd, "newest", offset, RANDOM.randbytes(RANDOM.randrange(1, 50000)))

    def check(self, what):
        if getattr(self, "fd", None) is not None:
            self.scribble()
        Held.check(self, what)

    def delete(self):
        pass


class MapNewest(Held):
    """Stores into the newest file through a shared map."""

    def act(self):
        with open(self.path("newest"), "r+b") as opened:
            self.map = mmap.mmap(opened.fileno(), 0)
        for offset in range(0, len(self.map), 300000):
            self.map[offset:offset + 10] = self.bytes["newest"][offset:offset + 10] = b"0123456789"[:len(self.map) - offset]
        self.map.flush()

    def delete(self):
        pass

    def close(self):
        self.map[5:8] = self.bytes["newest"][5:8] = b"end"
        self.map.close()


class CutNewest(Held):
    def act(self):
        size = len(self.bytes["newest"]) // 2 + 777
        os.truncate(self.path("newest"), size)
        del self.bytes["newest"][size:]
        self.check("after the cut")
        with open(self.path("newest"), "ab") as opened:
            opened.write(b"appended" * 10000)
        self.bytes["newest"] += b"appended" * 10000

    def delete(self):
        pass


class AppendNewest(Held):
    def act(self):
        with open(self.path("newest"), "ab") as opened:
            opened.write(b"more" * 50000)
        self.bytes["newest"] += b"more" * 50000

    def delete(self):
        os.truncate(self.path("newest"), 0)
        self.bytes["newest"] = bytearray()


class WriteBesideReader(WriteNewest):
    """A reader sees the newest object when a writer comes: he goes on with the bytes that he has opened."""

    def act(self):
        self.reader = os.open(self.path("newest"), os.O_RDONLY)
        self.map = mmap.mmap(self.reader, 0, prot=mmap.PROT_READ)
        os.pread(self.reader, 1, 0)
        super().act()

    def close(self):
        self.map.close()
        os.close(self.reader)
        super().close()


class CopyOver(Held):
    """The older file's bytes are copied over the newest one, in place."""

    def act(self):
        source = os.open(self.path("older"), os.O_RDONLY)
        target = os.open(self.path("newest"), os.O_RDWR)
        length, at = 2 * TENSOR + 333, 4096
        copied = 0
        while copied < length:
            copied += os.copy_file_range(source, target, length - copied, 1000 + copied, at + copied)
        self.bytes["newest"][at:at + length] = self.bytes["older"][1000:1000 + length]
        os.close(source)
        os.close(target)


def main():
    kinds = (Held, Reader, Mapped, MappedNewest, DeletedMapped, Writer, WriteNewest, MapNewest, CutNewest, AppendNewest,
             WriteBesideReader, CopyOver)
    held = [kind(kind.__name__) for kind in kinds]
    for step, seconds in (("older", 20), ("hold", 0), ("newest", 3), ("act", 3), ("delete", 1), ("close", 0)):
        for each in held:
            getattr(each, step)()
        for each in held:
            each.check("right after " + step)
        wait_settled(seconds)
        for each in held:
            each.check("a while after " + step)
    for each in held:
        os.makedirs(os.path.join(REFERENCE, each.name))
        for file, content in each.bytes.items():
            with open(os.path.join(REFERENCE, each.name, file), "wb") as out:
                out.write(content)


if __name__ == "__main__":
    main()

#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Files that somebody sees or changes while the store makes them share: each step compares all bytes.

    held.py MNT DIR       DIR takes the reference copies. Ends with 1 and a line when bytes are wrong. At the end
                          nothing is open, and MNT has what DIR has.

Every way of holding a file has a directory of its own, with tensors of its own. They go through the steps together:
the older files are saved and held, the newest ones are saved, changes are made, the newest ones are deleted.
"""

import json
import os
import random
import subprocess
import sys
import time

from mapping import Mapping

MNT, REFERENCE = sys.argv[1:3]
CKPTFS = os.environ["CKPTFS"]
TENSOR, TENSORS = 600 * 1024, 6
RANDOM = random.Random(int(os.environ.get("CKPTFS_TEST_SEED", "1")))


def read_status():
    status = json.loads(subprocess.run([CKPTFS, "status", "--json", MNT], check=True, capture_output=True).stdout)
    return status[0] if isinstance(status, list) else status


def settled():
    """Nothing waits that could be done now: what is held is tried again, so that it never settles meanwhile."""
    status = read_status()
    return status["unshared_files"] == 0 and status["behind_files"] == 0


PASSTHROUGH = read_status()["features"]["passthrough"]


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
        # The older one is still a whole object when it is held; the other one points into it.
        self.save("other", model(self.seeds(1, 2), 20))
        self.save("older", model(self.seeds(0), 10))

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
        self.map = Mapping(self.path(self.file))

    def check(self, what):
        if getattr(self, "map", None) is not None and self.file in self.bytes:
            self.wrong(what + " in the map", self.file, self.map.read())
        super().check(what)

    def close(self):
        self.map.close()
        self.map = None


class KeptMap(Held):
    """A map of a file that loses its name, or its bytes to another file of that name, goes on showing what it had."""

    def keep(self, file):
        self.map = Mapping(self.path(file))
        self.kept = bytes(self.bytes[file])

    def check(self, what):
        if getattr(self, "map", None) is not None and self.map.read() != self.kept:
            sys.exit(f"held: {self.name}, {what}: the map has other bytes")
        super().check(what)

    def close(self):
        self.map.close()
        self.map = None


class DeletedNewest(KeptMap):
    """The newest file, which older ones point into, has no name any more, only the map."""

    def act(self):
        self.keep("newest")


class DeletedOlder(KeptMap):
    def hold(self):
        self.keep("older")

    def act(self):
        os.unlink(self.path("older"))
        del self.bytes["older"]


class ReplacedNewest(KeptMap):
    """A writer comes while a map sees the newest object: he gets a file of his own."""

    def act(self):
        self.keep("newest")
        fd = os.open(self.path("newest"), os.O_RDWR)
        for offset in range(0, len(self.kept), 100000):
            self.change(fd, "newest", offset, b"changed" * 9000)
        os.close(fd)
        if not PASSTHROUGH:
            self.kept = bytes(self.bytes["newest"])


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
        self.map = Mapping(self.path("newest"), writes=True)
        self.store(b"0123456789", 300000)
        self.map.sync()

    def store(self, content, distance):
        for offset in range(0, self.map.length - len(content), distance):
            self.map.write(offset, content)
            self.bytes["newest"][offset:offset + len(content)] = content

    def delete(self):
        pass

    def close(self):
        self.store(b"at the end", 500000)
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
    kinds = (Held, Reader, Mapped, DeletedNewest, DeletedOlder, ReplacedNewest, Writer, WriteNewest, MapNewest, CutNewest,
             AppendNewest, CopyOver)
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

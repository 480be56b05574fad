#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Saves of a few models again and again, each with fsync, some with a changed byte; and what a power cut must leave.

    unchanged.py prepare DIRECTORY NAME --seed N        # each model once, without fsync, as NAME-N
    unchanged.py write DIRECTORY STATE --seed N --saves N --cut FILE
    unchanged.py check DIRECTORY STATE

The state has one line a file, written after the call that made it sure. A file whose fsync has returned has its bytes
ever after; what was appended to it since may be there or not; a name that it got since, or lost, may have been lost or
kept. `write` ends with 10 at an error when --cut is there.
"""
import argparse
import json
import os
import random
import sys
from pathlib import Path

MODELS = 3
CHUNK = 1 << 20


def model(seed, number):
    generator = random.Random(f"{seed} {number}")
    return bytearray(generator.randbytes((1 << 20) * (2 + number) + generator.randrange(100000)))


def content(record):
    data = model(record["seed"], record["model"])
    for offset in record["changed"]:
        data[offset] ^= 1
    return bytes(data)


class Writer:
    def __init__(self, options):
        self.directory, self.cut = options.directory, options.cut
        self.dice = random.Random(options.seed)
        self.seed = options.seed
        self.state = open(options.state, "w", buffering=1)
        self.older, self.open = [], []

    def note(self, **record):
        self.state.write(json.dumps(record) + "\n")

    def write(self, descriptor, data):
        done = 0
        while done < len(data):
            done += os.write(descriptor, data[done:done + CHUNK])

    def stop_if_cut(self):
        """Of the fsyncs that return while a disk is shut down some lie, also without any FUSE."""
        if self.cut.exists():
            sys.exit(10)

    def save(self, number):
        which = self.dice.randrange(MODELS)
        data = model(self.seed, which)
        changed = [self.dice.randrange(len(data))] if self.dice.random() < 0.08 else []
        record = {"seed": self.seed, "model": which, "changed": changed}
        data = content(record)
        name, temporary = f"{which}-{number}", f"{which}-{number}.tmp"
        renames = self.dice.random() < 0.4
        target = self.directory / (temporary if renames else name)
        descriptor = os.open(target, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o644)
        self.write(descriptor, data)
        if self.dice.random() < 0.2:  # a step back and forth before it counts
            offset = self.dice.randrange(len(data))
            os.pwrite(descriptor, bytes([data[offset] ^ 255]), offset)
            if self.dice.random() < 0.5:
                os.fsync(descriptor)
            os.pwrite(descriptor, data[offset:offset + 1], offset)
        os.fsync(descriptor)
        self.stop_if_cut()
        names = [target.name]
        self.note(**record, names=names, appended=0)
        if renames:
            names = [temporary, name]
            self.note(**record, names=names, appended=0)
            os.rename(target, self.directory / name)
            target = self.directory / name
        appended = 0
        if self.dice.random() < 0.2:
            appended = self.dice.randrange(1, 300000)
            self.note(**record, names=names, appended=appended)
            os.write(descriptor, b"\xa5" * appended)
        self.open.append(descriptor)
        while len(self.open) > self.dice.randrange(4):
            os.close(self.open.pop(0))
        self.older.append((target, {**record, "names": [target.name], "appended": appended}))

    def delete_an_older_one(self):
        if len(self.older) < 5:
            return
        path, record = self.older.pop(self.dice.randrange(len(self.older) - 1))
        self.note(**{**record, "names": [path.name, None]})
        os.unlink(path)

    def run(self, saves):
        try:
            for number in range(saves):
                self.save(number)
                if self.dice.random() < 0.4:
                    self.delete_an_older_one()
        except OSError:
            if not self.cut.exists():
                raise
            sys.exit(10)


def check_file(path, record):
    expected = content(record)
    found = path.read_bytes()
    if found[:len(expected)] != expected:
        first = next((i for i, (a, b) in enumerate(zip(found, expected)) if a != b), len(found))
        return f"{path}: differs from byte {first} on, {len(found)} of {len(expected)} bytes"
    if len(found) > len(expected) + record["appended"] or any(byte != 0xA5 for byte in found[len(expected):]):
        return f"{path}: has bytes behind its end that nobody wrote"
    return None


def check(options):
    last = {}
    for line in options.state.read_text().splitlines():
        record = json.loads(line)
        last[record["names"][0].removesuffix(".tmp")] = record
    wrong = []
    for record in last.values():
        names = [name for name in record["names"] if name]
        there = [options.directory / name for name in names if (options.directory / name).exists()]
        if not there and None not in record["names"]:
            wrong.append(f"{' or '.join(names)}: missing")
        wrong += filter(None, (check_file(path, record) for path in there))
    print(f"{len(last)} files that were fsynced, {len(wrong)} wrong")
    for text in wrong:
        print(text)
    return 1 if wrong or not last else 0


def prepare(options):
    for number in range(MODELS):
        (options.directory / f"{options.state}-{number}").write_bytes(model(options.seed, number))


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("command", choices=("prepare", "write", "check"))
    parser.add_argument("directory", type=Path)
    parser.add_argument("state", type=Path)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--saves", type=int, default=20)
    parser.add_argument("--cut", type=Path, default=Path("/nonexistent"))
    options = parser.parse_args()
    if options.command == "prepare":
        prepare(options)
    elif options.command == "write":
        Writer(options).run(options.saves)
    else:
        sys.exit(check(options))


if __name__ == "__main__":
    main()

#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Random saves of files that share blocks, against a model in memory.

    blocks.py DIR REFERENCE --seed N [--seconds N] [--until FILE] [--remount COMMAND] [--restart COMMAND] [--settled COMMAND]

Files are assembled from a pool of random blocks of 1 KiB to 3 MiB, saved, overwritten in place, cut, renamed over,
copied in several ways, deleted, and read through maps that stay open; now and then all bytes are compared. COMMANDs are
run by the shell, in between. At the end REFERENCE gets what DIR must have. Ends with 1 and a line that names the seed
when a byte is wrong.
"""

import argparse
import json
import os
import random
import shutil
import subprocess
import sys
import time

from mapping import Mapping

TOTAL_MAX = 160 << 20
FILES_MAX = 40
MAPS_MAX = 6


class World:
    def __init__(self, options):
        self.options = options
        self.random = random.Random(options.seed)
        self.pool = [self.random.randbytes(self.block_size()) for _ in range(28)]
        self.files = {}  # path: content
        self.maps = []  # (path or None once it has another file, map, content)
        self.count = 0
        self.log = []

    def block_size(self):
        return self.random.choice((1 << 10, 5000, 20 << 10, 64 << 10, 200 << 10, 256 << 10, 600 << 10, 1 << 20, 3 << 20))

    def fail(self, text):
        print(f"blocks: seed {self.options.seed}, operation {self.count}: {text}")
        print("\n".join(self.log[-30:]))
        sys.exit(1)

    def say(self, text):
        self.log.append(f"  {self.count}: {text}")

    def path(self, name):
        return os.path.join(self.options.dir, name)

    def name(self):
        return f"run-{self.random.randrange(4)}/file-{self.random.randrange(FILES_MAX)}"

    def any(self, unmapped=False):
        """A file that is there; unmapped: one whose bytes no map shows."""
        mapped = {path for path, _, _ in self.maps} if unmapped else ()
        names = [name for name in self.files if name not in mapped]
        return self.random.choice(names) if names else None

    def room(self):
        return TOTAL_MAX - sum(len(content) for content in self.files.values())

    def content(self):
        blocks = [self.random.choice(self.pool) for _ in range(self.random.randrange(1, 9))]
        content = b"".join(blocks)[:max(self.room(), 0)]
        if self.random.random() < 0.4 and content:
            content = self.safetensors(blocks)
        return bytearray(content)

    def safetensors(self, blocks):
        header, offset = {"__metadata__": {"n": "n" * self.random.randrange(3000)}}, 0
        for number, block in enumerate(blocks):
            header[f"t{number}"] = {"dtype": "U8", "shape": [len(block)], "data_offsets": [offset, offset + len(block)]}
            offset += len(block)
        text = json.dumps(header).encode()
        text += b" " * (-len(text) % 8)
        return len(text).to_bytes(8, "little") + text + b"".join(blocks)

    # -- operations

    def replaced(self, name):
        """The name gets another file: a map of the old one goes on showing the old bytes."""
        self.maps = [(None if path == name else path, seen, content) for path, seen, content in self.maps]

    def write_file(self, name, content):
        with open(self.path(name), "wb", buffering=0) as out:
            done = 0
            while done < len(content):
                done += out.write(content[done:done + self.random.choice((4096, 100000, 1 << 20))])
            if self.random.random() < 0.6:
                os.fsync(out.fileno())

    def save(self):
        name, content = self.name(), self.content()
        self.say(f"save {name} {len(content)}")
        new = name + ".new"
        self.write_file(new, content)
        os.rename(self.path(new), self.path(name))
        self.replaced(name)
        self.files[name] = content

    def save_in_place(self):
        name = self.any(unmapped=True) if self.random.random() < 0.5 else self.name()
        if name is None or any(path == name for path, _, _ in self.maps):
            return
        content = self.content()
        self.say(f"save in place {name} {len(content)}")
        self.write_file(name, content)
        self.files[name] = content

    def overwrite(self):
        name = self.any(unmapped=True)
        if name is None:
            return
        content = self.files[name]
        fd = os.open(self.path(name), os.O_RDWR)
        for _ in range(self.random.randrange(1, 4)):
            offset = self.random.randrange(len(content) + 1000)
            block = self.random.choice(self.pool)[:self.random.randrange(1, 400000)]
            self.say(f"overwrite {name} {offset}+{len(block)}")
            if os.pwrite(fd, block, offset) != len(block):
                self.fail("short write")
            if len(content) < offset:
                content.extend(bytes(offset - len(content)))
            content[offset:offset + len(block)] = block
        os.close(fd)

    def store_by_map(self):
        name = self.any(unmapped=True)
        if name is None or not self.files[name]:
            return
        content = self.files[name]
        seen = Mapping(self.path(name), writes=True)
        offset = self.random.randrange(len(content))
        block = self.random.choice(self.pool)[:len(content) - offset]
        self.say(f"store by map {name} {offset}+{len(block)}")
        seen.write(offset, block)
        content[offset:offset + len(block)] = block
        seen.close()

    def cut(self):
        name = self.any(unmapped=True)
        if name is None:
            return
        content = self.files[name]
        size = self.random.randrange(len(content) + 100000)
        self.say(f"cut {name} {len(content)} to {size}")
        os.truncate(self.path(name), size)
        del content[size:]
        content.extend(bytes(size - len(content)))

    def rename(self):
        name, target = self.any(), self.name()
        if name is None or name == target:
            return
        self.say(f"rename {name} {target}")
        os.rename(self.path(name), self.path(target))
        self.replaced(target)
        self.maps = [(target if path == name else path, seen, content) for path, seen, content in self.maps]
        self.files[target] = self.files.pop(name)

    def copy(self):
        name, target = self.any(), self.name()
        mapped = any(path == target for path, _, _ in self.maps)
        if name is None or name == target or mapped or self.room() < len(self.files[name]):
            return
        self.say(f"copy {name} {target}")
        shutil.copyfile(self.path(name), self.path(target))
        self.files[target] = bytearray(self.files[name])

    def copy_range(self):
        name, target = self.any(), self.any(unmapped=True)
        if name is None or target is None or name == target or not self.files[name]:
            return
        source, content = self.files[name], self.files[target]
        start = self.random.randrange(len(source))
        length = self.random.randrange(1, len(source) - start + 1)
        at = self.random.randrange(len(content) + 1)
        self.say(f"copy range {name} {start}+{length} to {target} {at}")
        out = os.open(self.path(target), os.O_WRONLY)
        inside = os.open(self.path(name), os.O_RDONLY)
        done = 0
        while done < length:
            copied = os.copy_file_range(inside, out, length - done, start + done, at + done)
            if copied == 0:
                self.fail("copy_file_range ended early")
            done += copied
        os.close(inside)
        os.close(out)
        content[at:at + length] = source[start:start + length]

    def delete(self):
        name = self.any()
        if name is None:
            return
        self.say(f"delete {name}")
        os.unlink(self.path(name))
        self.replaced(name)
        del self.files[name]

    def map(self):
        name = self.any()
        if name is None or not self.files[name]:
            return
        if len(self.maps) == MAPS_MAX:
            self.maps.pop(0)[1].close()
        self.say(f"map {name}")
        self.maps.append((name, Mapping(self.path(name)), bytes(self.files[name])))

    def look(self):
        name = self.any()
        if name:
            self.compare(name)

    # -- comparing

    def compare(self, name):
        with open(self.path(name), "rb") as opened:
            found = opened.read()
        self.equal(found, self.files[name], name)

    def equal(self, found, expected, what):
        if found == expected:
            return
        first = next((i for i, (a, b) in enumerate(zip(found, expected)) if a != b), min(len(found), len(expected)))
        self.fail(f"{what}: {len(found)} bytes, expected {len(expected)}, the first wrong one is {first}")

    def compare_all(self):
        for name in self.files:
            self.compare(name)
        for path, seen, content in self.maps:
            self.equal(seen.read(), content, f"a map of {path}")

    # -- what happens to the mount

    def close_maps(self):
        for _, seen, _ in self.maps:
            seen.close()
        self.maps.clear()

    def run(self, command):
        self.say(command)
        done = subprocess.run(command, shell=True, capture_output=True, text=True, check=False)
        if done.returncode:
            self.fail(f"{command}: {done.stdout}{done.stderr}")
        self.compare_all()

    def happen(self):
        event = self.random.choice(("remount", "restart", "settled", "compare"))
        command = getattr(self.options, event, None)
        if event == "remount" and command:
            self.compare_all()
            self.close_maps()
        if command:
            self.run(command)
        else:
            self.compare_all()

    def operate(self):
        weights = ((self.save, 12), (self.save_in_place, 4), (self.overwrite, 6), (self.store_by_map, 2), (self.cut, 3),
                   (self.rename, 4), (self.copy, 5), (self.copy_range, 4), (self.delete, 5), (self.map, 3),
                   (self.look, 4))
        self.count += 1
        self.random.choices([each for each, _ in weights], [weight for _, weight in weights])[0]()


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("dir")
    parser.add_argument("reference")
    parser.add_argument("--seed", type=int, required=True)
    parser.add_argument("--seconds", type=float, default=30)
    parser.add_argument("--until", help="goes on until it is there")
    parser.add_argument("--remount")
    parser.add_argument("--restart")
    parser.add_argument("--settled")
    world = World(parser.parse_args())
    for number in range(4):
        os.makedirs(world.path(f"run-{number}"))
    end = time.monotonic() + world.options.seconds
    until = world.options.until
    while time.monotonic() < end or until and not os.path.exists(until):
        world.operate()
        if world.count % 60 == 0:
            world.happen()
    world.compare_all()
    world.close_maps()
    for number in range(4):
        os.makedirs(os.path.join(world.options.reference, f"run-{number}"))
    for name, content in world.files.items():
        with open(os.path.join(world.options.reference, name), "wb") as out:
            out.write(content)
    print(f"{world.count} operations, {len(world.files)} files are left")


if __name__ == "__main__":
    main()

#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Keeps many files open while something happens to the daemon, and checks that every descriptor still works.

    handles.py DIR READY GO [--files N]

Opens the files, writes their first halves, makes READY; when GO appears it writes the second halves, reads
everything back through the descriptors and by name, and checks that the locks that it holds are still held.
"""

import argparse
import fcntl
import mmap
import os
import sys
import time

HALF = 3000
FLAGS = [os.O_RDWR, os.O_WRONLY, os.O_RDWR | os.O_APPEND, os.O_RDWR]


def half(index, which):
    return f"file {index} half {which} ".encode() * HALF


def fail(text):
    print(f"handles: {text}", file=sys.stderr)
    sys.exit(1)


class OpenFile:
    """Every fourth file loses its name, some are renamed, some are mapped, every tenth is locked."""

    def __init__(self, folder, index):
        self.index = index
        self.flags = FLAGS[index % len(FLAGS)]
        self.path = os.path.join(folder, f"file-{index}")
        self.fd = os.open(self.path, self.flags | os.O_CREAT | os.O_EXCL, 0o644)
        os.write(self.fd, half(index, 1))
        self.locked = index % 10 == 0
        self.view = None
        if self.locked:
            fcntl.flock(self.fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        if index % 16 == 2:
            self.view = mmap.mmap(self.fd, len(half(index, 1)), prot=mmap.PROT_READ)
        if index % 4 == 3:
            os.unlink(self.path)
            self.path = None
        elif index % 5 == 0:
            os.rename(self.path, self.path + ".renamed")
            self.path += ".renamed"

    def finish(self):
        data = half(self.index, 2)
        if os.write(self.fd, data) != len(data):
            fail(f"file {self.index}: short write")
        expected = half(self.index, 1) + data
        if os.fstat(self.fd).st_size != len(expected):
            fail(f"file {self.index}: fstat says {os.fstat(self.fd).st_size} bytes for {len(expected)}")
        if self.flags & os.O_RDWR and os.pread(self.fd, 2 * len(expected), 0) != expected:
            fail(f"file {self.index}: other bytes through its descriptor")
        if self.view and self.view[:] != half(self.index, 1):
            fail(f"file {self.index}: other bytes through its map")
        if self.path:
            with open(self.path, "rb") as file:
                if file.read() != expected:
                    fail(f"{self.path}: other bytes by name")
        if self.locked and self.path:
            self.check_lock()
        if self.view:
            self.view.close()  # it has a descriptor of its own
        os.close(self.fd)
        if self.locked and self.path:
            with open(self.path, "rb") as file:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)

    def check_lock(self):
        """Another open file description must not get the lock."""
        with open(self.path, "rb") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                return
        fail(f"{self.path}: its lock was lost")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder")
    parser.add_argument("ready")
    parser.add_argument("go")
    parser.add_argument("--files", type=int, default=500)
    options = parser.parse_args()
    os.mkdir(options.folder)
    files = [OpenFile(options.folder, index) for index in range(options.files)]
    directory = os.open(options.folder, os.O_RDONLY | os.O_DIRECTORY)
    with open(options.ready, "w", encoding="ascii"):
        pass
    deadline = time.monotonic() + 120
    while not os.path.exists(options.go):
        if time.monotonic() > deadline:
            fail(f"{options.go} did not appear")
        time.sleep(0.02)
    os.fsync(directory)
    listed = sorted(os.listdir(directory))
    expected = sorted(os.path.basename(file.path) for file in files if file.path)
    if listed != expected:
        fail(f"the directory lists {len(listed)} names, expected {len(expected)}")
    for file in files:
        file.finish()
    print(f"{len(files)} files")


if __name__ == "__main__":
    main()

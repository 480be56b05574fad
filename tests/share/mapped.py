#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""A map without a descriptor shows what it showed, though its file is gone and others change what they share with it.

    mapped.py MNT FILE SHOWN --remove COMMAND [--restart COMMAND]

FILE, which is there, is copied by ranges, mapped as SHOWN (FILE itself, or its name in a view) and removed by the first
COMMAND; then the daemon goes by the other. Once whatever is removed in the background is gone, the copy is written over.
Ends with 1 and a line when the map shows that. The copy stays.
"""

import argparse
import json
import os
import subprocess
import sys
import time

from mapping import Mapping

CKPTFS = os.environ["CKPTFS"]


def copy(source, target):
    size = os.path.getsize(source)
    inside, out = os.open(source, os.O_RDONLY), os.open(target, os.O_WRONLY | os.O_CREAT)
    done = 0
    while done < size:
        done += os.copy_file_range(inside, out, size - done)
    os.close(inside)
    os.close(out)


def objects(directory):
    status = json.loads(subprocess.run([CKPTFS, "status", "--json", directory], check=True, capture_output=True).stdout)
    return (status[0] if isinstance(status, list) else status)["objects"]


def wait_for_removals(directory):
    """Objects are removed in their order: what comes last is not gone before the rest is."""
    last = os.path.join(directory, "last")
    before = objects(directory)
    with open(last, "wb") as out:
        out.write(os.urandom(1 << 20))
    os.unlink(last)
    end = time.monotonic() + 60
    while objects(directory) > before:
        if time.monotonic() > end:
            sys.exit("what was removed is still there")
        time.sleep(0.05)


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("mnt")
    parser.add_argument("file")
    parser.add_argument("shown")
    parser.add_argument("--remove", required=True)
    parser.add_argument("--restart")
    options = parser.parse_args()
    directory = options.mnt
    target = os.path.join(directory, "copy")
    copy(options.file, target)
    seen = Mapping(options.shown)
    expected = seen.read()
    for command in (options.remove, options.restart):
        if command:
            subprocess.run(command, shell=True, check=True)
    wait_for_removals(directory)
    with open(target, "r+b", buffering=0) as out:
        out.seek(len(expected) // 2)
        out.write(b"changed" * 1000)
    if seen.read() != expected:
        sys.exit(f"the map of {options.shown} has changed")
    seen.close()


if __name__ == "__main__":
    main()

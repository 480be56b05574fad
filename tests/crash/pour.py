#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Writes checkpoints as a Trainer does, one behind the other, as fast as memory can be copied.

    pour.py RUN STEPS BYTES [--sizes-first] [--at-once]

Each has BYTES of weights and twice that for the optimizer; all of it is made before the first is written. With
--sizes-first a file gets its size before its bytes, as safetensors' writer does it; with --at-once, all files of a
checkpoint are open before any is written, as those of several ranks. Says for each how many bytes a second.
"""

import os
import sys
import time

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "lib"))
from checkpoint import files_of  # noqa: E402

PIECE = 16 << 20


class Options:
    loss, best, seed, weights_only, ranks = 0.5, None, 1, False, 0


def pour(descriptor, content):
    view = memoryview(content)
    while view:
        view = view[os.write(descriptor, view[:PIECE]):]


def save(directory, files, sizes_first, at_once):
    os.mkdir(directory)
    opened = []
    for name, content in files:
        descriptor = os.open(f"{directory}/{name}", os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o644)
        if sizes_first:
            os.ftruncate(descriptor, len(content))
        opened.append((descriptor, content))
        while opened and not at_once:
            descriptor, content = opened.pop()
            pour(descriptor, content)
            os.close(descriptor)
    for descriptor, content in opened:
        pour(descriptor, content)
        os.close(descriptor)


def main():
    run, steps, size = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
    Options.bytes = size
    checkpoints = [list(files_of(step, Options)) for step in range(1, steps + 1)]
    os.makedirs(run, exist_ok=True)
    for step, files in enumerate(checkpoints, 1):
        begun = time.monotonic()
        save(f"{run}/checkpoint-{step}", files, "--sizes-first" in sys.argv, "--at-once" in sys.argv)
        rate = sum(len(content) for _, content in files) / (time.monotonic() - begun)
        print(f"checkpoint-{step}: {rate / 1e6:.0f} MB/s", flush=True)


if __name__ == "__main__":
    main()

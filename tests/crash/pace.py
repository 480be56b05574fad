#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Copies a file in calls of about 1 MB, no faster than RATE MiB/s, so that things can happen in the middle; fsyncs it.

    pace.py SOURCE DESTINATION RATE [FILE]

The last fifth is not written before FILE is there.
"""

import os
import sys
import time

CALL = 1000003


def main():
    rate = float(sys.argv[3]) * (1 << 20)
    started, done = time.monotonic(), 0
    hold = sys.argv[4] if len(sys.argv) > 4 else None
    last = os.path.getsize(sys.argv[1]) * 4 // 5
    fd = os.open(sys.argv[2], os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o644)
    with open(sys.argv[1], "rb") as source:
        while data := source.read(CALL):
            while hold and done >= last and not os.path.exists(hold):
                time.sleep(0.05)
            written = os.write(fd, data)
            if written != len(data):
                raise OSError(f"{sys.argv[2]}: {written} of {len(data)} bytes written")
            done += written
            time.sleep(max(0.0, started + done / rate - time.monotonic()))
    os.fsync(fd)
    os.close(fd)


if __name__ == "__main__":
    main()

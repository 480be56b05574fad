#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Writes until the disk is full; the only error that may come is ENOSPC.

    fill.py big FILE                 one file, in calls of 1 MiB, fsynced at the end
    fill.py small DIR BYTES [NAME]   files of BYTES each, until one cannot be made or written: NAME-0, ...

Prints how much was written. Ends with 1 on any other error, and when 4 GiB did not fill the disk.
"""

import errno
import os
import sys

MOST = 4 << 30
CALL = 1 << 20


def write_file(path, size):
    fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o644)
    written = 0
    try:
        while written < size:
            written += os.write(fd, os.urandom(min(CALL, size - written)))
        if size > CALL:
            os.fsync(fd)
    finally:
        os.close(fd)


def main():
    kind, path = sys.argv[1], sys.argv[2]
    files = 0
    try:
        if kind == "big":
            write_file(path, MOST)
        else:
            size, name = int(sys.argv[3]), sys.argv[4] if len(sys.argv) > 4 else "small"
            for files in range(MOST // size):
                write_file(os.path.join(path, f"{name}-{files}"), size)
    except OSError as error:
        if error.errno != errno.ENOSPC:
            print(f"fill: {error}", file=sys.stderr)
            return 1
        print(f"full after {os.path.getsize(path)} bytes" if kind == "big" else f"full after {files} files")
        return 0
    print("fill: the disk did not become full", file=sys.stderr)
    return 1


if __name__ == "__main__":
    sys.exit(main())

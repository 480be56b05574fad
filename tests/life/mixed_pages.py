#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""mixed_pages.py FILE SAVED: reads a file page by page and prints how many bytes are an error and how many are not.

The latter have to be those of SAVED, and a read of many pages has to be an error where one of them is. Prints
"LOST KEPT", the bytes of both. The same is read by read(2), with O_DIRECT, and through a mapping, in another process,
which a lost page ends by SIGBUS.
"""

import errno
import mmap
import os
import signal
import sys

PAGE = 4096


def read_page(fd, offset):
    """None where it is an error."""
    try:
        return os.pread(fd, PAGE, offset)
    except OSError as error:
        assert error.errno == errno.EIO, error
        return None


def pages_of(fd, size):
    return [read_page(fd, offset) for offset in range(0, size, PAGE)]


def is_lost_when_mapped(mapped, offset):
    child = os.fork()
    if child == 0:
        signal.signal(signal.SIGBUS, signal.SIG_DFL)
        mapped[offset]
        os._exit(0)
    status = os.waitpid(child, 0)[1]
    assert status == 0 or os.WTERMSIG(status) == signal.SIGBUS, status
    return status != 0


def check_mapping(fd, size, lost):
    """The pages beside every border, and some between."""
    numbers = range(len(lost))
    looked = [n for n in numbers if n % 101 == 0 or any(lost[n] != lost[m] for m in (n - 1, n + 1) if m in numbers)]
    with mmap.mmap(fd, size, prot=mmap.PROT_READ) as mapped:
        for number in looked:
            assert is_lost_when_mapped(mapped, number * PAGE) == lost[number], number


def main(path, saved):
    size = os.path.getsize(path)
    assert size == os.path.getsize(saved)
    fd = os.open(path, os.O_RDONLY)
    pages = pages_of(fd, size)
    with open(saved, "rb") as right:
        for number, page in enumerate(pages):
            expected = right.read(PAGE)
            assert page in (None, expected), f"page {number}"
    lost = [page is None for page in pages]
    for number in range(0, len(lost), 64):
        many = lost[number:number + 64]
        try:
            found = len(os.pread(fd, PAGE * len(many), number * PAGE))
        except OSError as error:
            assert error.errno == errno.EIO and any(many), number
        else:
            assert not any(many[: found // PAGE]), number
    check_mapping(fd, size, lost)
    direct = os.open(path, os.O_RDONLY | os.O_DIRECT)
    buffer = mmap.mmap(-1, PAGE)
    for number in range(0, len(lost), 7):
        try:
            found = os.preadv(direct, [buffer], number * PAGE)
        except OSError as error:
            assert error.errno == errno.EIO and lost[number], number
        else:
            assert not lost[number] and buffer[:found] == pages[number], number
    print(sum(lost) * PAGE, size - sum(lost) * PAGE)


if __name__ == "__main__":
    main(*sys.argv[1:])

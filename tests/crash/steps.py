#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Every kind of change once, each answer checked: for a daemon that is armed to die at one of the steps.

    steps.py DIR      ends with 1 and one line when an answer is wrong; DIR is empty again afterwards
"""

import ctypes
import errno
import os
import stat
import sys

LIBC = ctypes.CDLL(None, use_errno=True)
AT_FDCWD = -100
RENAME_NOREPLACE, RENAME_EXCHANGE = 1, 2


def rename_with(source, target, flags):
    if LIBC.renameat2(AT_FDCWD, source.encode(), AT_FDCWD, target.encode(), flags) != 0:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()), source)


def write_file(path, data, flags=os.O_CREAT | os.O_EXCL):
    fd = os.open(path, os.O_WRONLY | flags, 0o640)
    if os.write(fd, data) != len(data):
        raise AssertionError(f"{path}: short write")
    os.close(fd)


def content_is(path, data):
    with open(path, "rb") as file:
        found = file.read()
    if found != data:
        raise AssertionError(f"{path}: {len(found)} bytes, not those that were written ({len(data)})")


def gone(path):
    try:
        os.lstat(path)
    except OSError as error:
        if error.errno == errno.ENOENT:
            return
        raise
    raise AssertionError(f"{path} is still there")


def expect(condition, text):
    if not condition:
        raise AssertionError(text)


def steps():
    """Name and action of each step; each checks what it did."""
    small, big = b"small" * 100, os.urandom(300000)
    yield "mkdir", lambda: (os.mkdir("d"), expect(os.stat("d").st_nlink == 2, "links of d"))
    yield "create", lambda: (write_file("d/a", small), content_is("d/a", small))
    yield "create big", lambda: (write_file("d/b", big), content_is("d/b", big))
    yield "mknod", lambda: (os.mknod("d/fifo", stat.S_IFIFO | 0o600),
                            expect(stat.S_ISFIFO(os.stat("d/fifo").st_mode), "fifo"))
    yield "symlink", lambda: (os.symlink("target", "d/s"), expect(os.readlink("d/s") == "target", "target"))
    yield "link", lambda: (os.link("d/a", "d/a2"), expect(os.stat("d/a").st_nlink == 2, "links of a"))
    yield "append", lambda: (write_file("d/a", small, os.O_APPEND), content_is("d/a2", small + small))
    yield "append big", lambda: (write_file("d/b", small, os.O_APPEND), content_is("d/b", big + small))
    yield "truncate", lambda: (os.truncate("d/b", 1000), content_is("d/b", big[:1000]))
    yield "open with O_TRUNC", lambda: (write_file("d/b", small, os.O_TRUNC), content_is("d/b", small))
    yield "chmod", lambda: (os.chmod("d/b", 0o600), expect(os.stat("d/b").st_mode & 0o777 == 0o600, "mode"))
    yield "utimens", lambda: (os.utime("d/b", ns=(5, 7)), expect(os.stat("d/b").st_mtime_ns == 7, "mtime"))
    yield "setxattr", lambda: (os.setxattr("d/b", "user.x", b"1", os.XATTR_CREATE),
                               expect(os.getxattr("d/b", "user.x") == b"1", "xattr"))
    yield "removexattr", lambda: (os.removexattr("d/b", "user.x"), expect(os.listxattr("d/b") == [], "xattrs"))
    yield "rename", lambda: (os.rename("d/b", "d/c"), gone("d/b"), content_is("d/c", small))
    yield "rename over", lambda: (os.rename("d/c", "d/a2"), gone("d/c"), content_is("d/a2", small),
                                  expect(os.stat("d/a").st_nlink == 1, "links of a"))
    yield "rename exchange", lambda: (rename_with("d/a", "d/a2", RENAME_EXCHANGE), content_is("d/a", small))
    yield "rename noreplace", lambda: (rename_with("d/a", "d/e", RENAME_NOREPLACE), gone("d/a"))
    yield "rename directory", lambda: (os.rename("d", "d2"), gone("d"), content_is("d2/e", small))
    yield "unlink", lambda: (os.unlink("d2/e"), gone("d2/e"))
    yield "unlink symlink", lambda: (os.unlink("d2/s"), gone("d2/s"))
    yield "unlink fifo", lambda: (os.unlink("d2/fifo"), gone("d2/fifo"))
    yield "unlink the rest", lambda: (os.unlink("d2/a2"), expect(os.listdir("d2") == [], "names in d2"))
    yield "rmdir", lambda: (os.rmdir("d2"), gone("d2"), expect(os.listdir(".") == [], "names at the top"))


def main():
    os.chdir(sys.argv[1])
    for name, action in steps():
        try:
            action()
        except (OSError, AssertionError) as error:
            print(f"steps: {name}: {error}", file=sys.stderr)
            return 1
    os.chdir("/")
    return 0


if __name__ == "__main__":
    sys.exit(main())

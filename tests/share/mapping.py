# SPDX-License-Identifier: Apache-2.0
"""A map of a file without a descriptor: Python's own keeps one, so that the kernel never forgets the file."""

import ctypes
import mmap
import os

LIBC = ctypes.CDLL(None, use_errno=True)
LIBC.mmap.restype = ctypes.c_void_p
LIBC.mmap.argtypes = (ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int, ctypes.c_int, ctypes.c_int, ctypes.c_long)
LIBC.munmap.argtypes = (ctypes.c_void_p, ctypes.c_size_t)
LIBC.msync.argtypes = (ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int)
MS_SYNC, MAP_FAILED = 4, ctypes.c_void_p(-1).value


def check(failed):
    if failed:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))


class Mapping:
    """All of a file, shared; the descriptor is closed."""

    def __init__(self, path, writes=False):
        fd = os.open(path, os.O_RDWR if writes else os.O_RDONLY)
        self.length = os.fstat(fd).st_size
        prot = mmap.PROT_READ | (mmap.PROT_WRITE if writes else 0)
        self.address = LIBC.mmap(None, self.length, prot, mmap.MAP_SHARED, fd, 0)
        os.close(fd)
        check(self.address == MAP_FAILED)

    def read(self):
        return ctypes.string_at(self.address, self.length)

    def write(self, offset, content):
        ctypes.memmove(self.address + offset, content, min(len(content), self.length - offset))

    def sync(self):
        check(LIBC.msync(self.address, self.length, MS_SYNC) != 0)

    def close(self):
        check(LIBC.munmap(self.address, self.length) != 0)

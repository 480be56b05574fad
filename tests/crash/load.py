#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Mixed operations by several processes, each answer compared with what a filesystem must answer.

    load.py DIR --seed N [--workers N] --stop FILE [--seconds LIMIT]

Each worker has a directory of its own and knows what must be in it. Any error that should not come (or that should
come and does not), and any byte that is wrong, ends the run with 1 and one line. Ends with 0 when FILE appears, after
a last look at everything, and prints the number of operations and the longest that one took.
"""

import argparse
import ctypes
import errno
import fcntl
import json
import mmap
import os
import random
import signal
import sys
import time

LIBC = ctypes.CDLL(None, use_errno=True)
AT_FDCWD = -100
RENAME_NOREPLACE, RENAME_EXCHANGE = 1, 2
HANDLES = 12
LIMIT = 192 * 1024


class WrongAnswer(Exception):
    """The filesystem said something else than it must."""


def rename_with(source, target, flags):
    if LIBC.renameat2(AT_FDCWD, os.fsencode(source), AT_FDCWD, os.fsencode(target), flags) != 0:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()), source)


class File:
    """Content and number of names of a regular file."""

    def __init__(self):
        self.content = bytearray()
        self.names = 1


class Worker:
    """One process's directory, what must be in it, and the operations."""

    def __init__(self, top, seed):
        self.top = top
        self.random = random.Random(seed)
        self.names = {}    # path below top -> File, "directory", or ("link", target)
        self.handles = []  # (descriptor, File)
        self.operations = 0
        self.longest = 0.0
        os.mkdir(top)

    # -- choosing ----------------------------------------------------------------------------------------

    def path(self, name):
        return os.path.join(self.top, name)

    def any_directory(self):
        return self.random.choice([""] + [name for name, what in self.names.items() if what == "directory"])

    def free_name(self):
        while True:
            name = os.path.join(self.any_directory(), f"n{self.random.randrange(1000)}")
            if name not in self.names:
                return name

    def any_file(self):
        files = [name for name, what in self.names.items() if isinstance(what, File)]
        return self.random.choice(files) if files else None

    def any_bytes(self):
        return self.random.randbytes(self.random.choice([10, 700, 4096, 20000, 70000]))

    def expect(self, number, function, *arguments):
        """The call must fail with this errno."""
        try:
            function(*arguments)
        except OSError as error:
            if error.errno == number:
                return
            raise WrongAnswer(f"{function.__name__}{arguments}: {errno.errorcode.get(error.errno)}, "
                              f"{errno.errorcode[number]} was expected") from error
        raise WrongAnswer(f"{function.__name__}{arguments}: succeeded, {errno.errorcode[number]} was expected")

    def compare(self, name, found, expected):
        if found != expected:
            at = next((i for i, (a, b) in enumerate(zip(found, expected)) if a != b), min(len(found), len(expected)))
            raise WrongAnswer(f"{self.path(name)}: {len(found)} bytes for {len(expected)}, different from offset {at}")

    # -- operations --------------------------------------------------------------------------------------

    def op_create(self):
        if len(self.names) > 150:
            return self.op_unlink()
        name, file = self.free_name(), File()
        fd = os.open(self.path(name), os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o644)
        self.names[name] = file
        self.append_to(fd, file, self.any_bytes())
        if len(self.handles) < HANDLES and self.random.randrange(3) == 0:
            self.handles.append((fd, file))
        else:
            os.close(fd)
        return None

    def op_create_again(self):
        name = self.any_file()
        if name:
            self.expect(errno.EEXIST, os.open, self.path(name), os.O_WRONLY | os.O_CREAT | os.O_EXCL)

    def append_to(self, fd, file, data):
        for start in range(0, len(data), 16384):
            part = data[start:start + 16384]
            written = os.pwrite(fd, part, len(file.content))
            if written != len(part):
                raise WrongAnswer(f"pwrite of {len(part)} bytes wrote {written}")
            file.content += part

    def op_append(self):
        name = self.any_file()
        if name and len(self.names[name].content) < LIMIT:
            data = self.any_bytes()
            fd = os.open(self.path(name), os.O_WRONLY | os.O_APPEND)
            try:
                written = os.write(fd, data)
            finally:
                os.close(fd)
            if written != len(data):
                raise WrongAnswer(f"append of {len(data)} bytes to {name} wrote {written}")
            self.names[name].content += data

    def op_handle(self):
        """Through a descriptor that is open since long ago, perhaps of a file without a name."""
        if not self.handles:
            return
        index = self.random.randrange(len(self.handles))
        fd, file = self.handles[index]
        choice = self.random.randrange(5)
        if choice == 0 and len(file.content) < LIMIT:
            self.append_to(fd, file, self.any_bytes())
        elif choice == 1:
            size = self.random.randrange(len(file.content) + 5000)
            os.ftruncate(fd, size)
            file.content = file.content[:size] + bytearray(max(0, size - len(file.content)))
        elif choice == 2:
            os.fsync(fd)
        elif choice == 3:
            self.handles.pop(index)
            os.close(fd)
        else:
            self.compare(f"descriptor {fd}", os.pread(fd, LIMIT * 2, 0), bytes(file.content))
            if os.fstat(fd).st_size != len(file.content):
                raise WrongAnswer(f"fstat says {os.fstat(fd).st_size} bytes for {len(file.content)}")

    def op_read(self):
        name = self.any_file()
        if name:
            with open(self.path(name), "rb", buffering=0) as file:
                self.compare(name, file.readall(), bytes(self.names[name].content))

    def op_map(self):
        name = self.any_file()
        if name and self.names[name].content:
            with open(self.path(name), "rb", buffering=0) as file:
                with mmap.mmap(file.fileno(), 0, prot=mmap.PROT_READ) as view:
                    self.compare(name, view[:], bytes(self.names[name].content))

    def op_rename(self):
        source, target = self.any_file(), self.any_file() if self.random.randrange(2) else self.free_name()
        if not source or source == target or self.names.get(target) is self.names[source]:
            return
        os.rename(self.path(source), self.path(target))
        if target in self.names:
            self.names[target].names -= 1
        self.names[target] = self.names.pop(source)

    def op_rename_flags(self):
        source, target = self.any_file(), self.any_file()
        if not source or source == target:
            return
        self.expect(errno.EEXIST, rename_with, self.path(source), self.path(target), RENAME_NOREPLACE)
        rename_with(self.path(source), self.path(target), RENAME_EXCHANGE)
        self.names[source], self.names[target] = self.names[target], self.names[source]

    def op_link(self):
        name, target = self.any_file(), self.free_name()
        if name:
            os.link(self.path(name), self.path(target))
            self.names[target] = self.names[name]
            self.names[name].names += 1

    def op_unlink(self):
        name = self.any_file()
        if name:
            os.unlink(self.path(name))
            self.names.pop(name).names -= 1
            self.expect(errno.ENOENT, os.unlink, self.path(name))

    def op_symlink(self):
        name = self.free_name()
        target = f"target-{self.random.randrange(1000)}"
        os.symlink(target, self.path(name))
        self.names[name] = ("link", target)

    def op_readlink(self):
        links = [name for name, what in self.names.items() if isinstance(what, tuple)]
        if links:
            name = self.random.choice(links)
            found = os.readlink(self.path(name))
            if found != self.names[name][1]:
                raise WrongAnswer(f"{self.path(name)} points to {found}, not {self.names[name][1]}")
            if len(links) > 10:
                os.unlink(self.path(name))
                del self.names[name]

    def op_mkdir(self):
        name = self.free_name()
        if name.count("/") < 3:
            os.mkdir(self.path(name))
            self.names[name] = "directory"
            self.expect(errno.EEXIST, os.mkdir, self.path(name))

    def op_rmdir(self):
        name = self.any_directory()
        if not name:
            return
        if any(other.startswith(name + "/") for other in self.names):
            self.expect(errno.ENOTEMPTY, os.rmdir, self.path(name))
        else:
            os.rmdir(self.path(name))
            del self.names[name]

    def op_stat(self):
        name = self.any_file()
        if name:
            found, file = os.stat(self.path(name)), self.names[name]
            if (found.st_size, found.st_nlink) != (len(file.content), file.names):
                raise WrongAnswer(f"{self.path(name)}: size {found.st_size} and {found.st_nlink} names, expected "
                                  f"{len(file.content)} and {file.names}")

    def op_list(self):
        directory = self.any_directory()
        found = sorted(os.listdir(self.path(directory)))
        expected = sorted(os.path.basename(name) for name in self.names if os.path.dirname(name) == directory)
        if found != expected:
            raise WrongAnswer(f"{self.path(directory)} lists {found}, expected {expected}")

    def op_attribute(self):
        name = self.any_file()
        if name:
            value = self.random.randbytes(20)
            os.setxattr(self.path(name), "user.load", value)
            if os.getxattr(self.path(name), "user.load") != value:
                raise WrongAnswer(f"{self.path(name)}: user.load is not what was set")

    def op_mode(self):
        name = self.any_file()
        if name:
            mode = self.random.choice([0o600, 0o640, 0o644, 0o755])
            os.chmod(self.path(name), mode)
            if os.stat(self.path(name)).st_mode & 0o7777 != mode:
                raise WrongAnswer(f"{self.path(name)}: mode is not {mode:o}")

    def op_lock(self):
        if self.handles:
            fd, _ = self.random.choice(self.handles)
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            fcntl.flock(fd, fcntl.LOCK_UN)

    OPERATIONS = [(op_create, 8), (op_create_again, 2), (op_append, 5), (op_handle, 8), (op_read, 6), (op_map, 3),
                  (op_rename, 6), (op_rename_flags, 2), (op_link, 3), (op_unlink, 4), (op_symlink, 2),
                  (op_readlink, 2), (op_mkdir, 2), (op_rmdir, 2), (op_stat, 4), (op_list, 2), (op_attribute, 1),
                  (op_mode, 2), (op_lock, 1)]

    def step(self):
        kinds, weights = zip(*self.OPERATIONS)
        operation = self.random.choices(kinds, weights)[0]
        started = time.monotonic()
        try:
            operation(self)
        except OSError as error:
            raise WrongAnswer(f"{operation.__name__}: {error}") from error
        self.operations += 1
        self.longest = max(self.longest, time.monotonic() - started)

    def verify(self):
        for fd, file in self.handles:
            self.compare(f"descriptor {fd}", os.pread(fd, LIMIT * 2, 0), bytes(file.content))
        for name, what in self.names.items():
            if isinstance(what, File):
                with open(self.path(name), "rb") as file:
                    self.compare(name, file.read(), bytes(what.content))
        found = sorted(os.path.relpath(os.path.join(path, name), self.top)
                       for path, directories, files in os.walk(self.top) for name in directories + files)
        if found != sorted(self.names):
            raise WrongAnswer(f"{self.top}: {set(found) ^ set(self.names)} differ at the end")


def work(options, index, pipe):
    worker = Worker(os.path.join(options.directory, f"worker-{index}"), options.seed * 1000 + index)
    deadline = time.monotonic() + options.seconds
    progress = os.open(f"{options.progress}.{index}", os.O_WRONLY | os.O_CREAT, 0o644) if options.progress else -1
    try:
        while not os.path.exists(options.stop):
            if time.monotonic() > deadline:
                raise WrongAnswer(f"{options.stop} did not appear within {options.seconds} s")
            worker.step()
            if progress >= 0:
                os.pwrite(progress, b"%12d\n" % worker.operations, 0)
        worker.verify()
    except WrongAnswer as error:
        print(f"load: worker {index}, operation {worker.operations}: {error}", file=sys.stderr, flush=True)
        return 1
    os.write(pipe, json.dumps([worker.operations, worker.longest]).encode() + b"\n")
    return 0


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("directory")
    parser.add_argument("--seed", type=int, required=True)
    parser.add_argument("--workers", type=int, default=4)
    parser.add_argument("--stop", required=True, metavar="FILE")
    parser.add_argument("--seconds", type=float, default=300)
    parser.add_argument("--progress", metavar="FILE", help="FILE.WORKER gets the number of operations done")
    options = parser.parse_args()
    reader, writer = os.pipe()
    children = []
    for index in range(options.workers):
        child = os.fork()
        if child == 0:
            os._exit(work(options, index, writer))
        children.append(child)
    os.close(writer)
    failed = 0
    for child in children:
        _, status = os.waitpid(child, 0)
        if status != 0:
            failed += 1
            if os.WIFSIGNALED(status):
                print(f"load: a worker died of {signal.Signals(os.WTERMSIG(status)).name}", file=sys.stderr)
    if failed:
        return 1
    with os.fdopen(reader) as results:
        done = [json.loads(line) for line in results]
    print(json.dumps({"operations": sum(count for count, _ in done),
                      "longest_seconds": max(longest for _, longest in done)}))
    return 0


if __name__ == "__main__":
    sys.exit(main())

#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Works in a directory until it is stopped by a crash, remembers everything, and checks what is there afterwards.

    crashtree.py write DIR STATE --seed N --operations N [--sync PERCENT] [--cut FILE]
    crashtree.py settle STATE           everything done so far is durable (nothing is behind)
    crashtree.py check DIR STATE --after kill|power
    crashtree.py remove DIR             everything that is listed can be unlinked

STATE lies outside the mount. `write` ends with 0 when it did all operations and with 10 when an error that a dead
filesystem gives stopped it; STATE is right in both cases. `check` makes what it found the new known state, so that
`write` can go on from there.
"""

import argparse
import errno
import json
import os
import pickle
import random
import sys
import time

sys.dont_write_bytecode = True

from history import WORD, CheckError, Tree, check_content, words_bytes, words_run  # noqa: E402

STOPPED = 10
DEAD = {errno.EIO, errno.ENOTCONN, errno.ECONNABORTED, errno.ESHUTDOWN, errno.EUCLEAN, errno.EROFS}
STATE_ATTRIBUTE = "user.ckptfs.state"
HANDLES = 4
TORN_SECONDS, TORN_SYNCS = 5.0, 20  # so long, and as many of the slowest fsyncs, may closing files take in the end


class Writer:
    """Random operations on one tree, each noted before and after it is done."""

    def __init__(self, tree, options):
        self.top = options.directory
        self.tree = tree
        self.random = random.Random(options.seed)
        self.sync_percent = options.sync
        self.cut = options.cut
        self.open = {}  # node id -> descriptor
        self.count = 0
        self.synced = 0

    def path(self, directory, name=None):
        parts = self.tree.path_of(directory)
        return os.path.join(self.top, *parts, *([name] if name else []))

    def nodes(self, is_directory):
        return [node for node in self.tree.nodes.values()
                if node.is_directory == is_directory and (node.id == 0 or self.tree.names_of(node.id))]

    def any_directory(self):
        return self.random.choice(self.nodes(True)).id

    def any_file(self):
        files = self.nodes(False)
        return self.random.choice(files) if files else None

    def any_name(self, prefix="f"):
        return f"{prefix}{self.random.randrange(12)}"

    def any_words(self):
        """Small enough for the database, usual, or large enough for several requests."""
        limit = self.random.choice([64, 64, 1024, 1024, 16384, 131072])
        return self.random.randrange(1, limit + 1)

    # -- parts of operations -----------------------------------------------------------------------------

    def close(self, node, fd):
        node.writer_closed = time.monotonic()
        os.close(fd)

    def note_number(self, node, fd):
        node.numbers.add(os.fstat(fd).st_ino)

    def create(self, directory, name, flags):
        node = self.tree.new_node(False)
        self.tree.begin(("bind", directory, name, node.id))
        fd = os.open(self.path(directory, name), flags | os.O_CREAT | os.O_EXCL, 0o644)
        self.tree.commit()
        self.note_number(node, fd)
        return node, fd

    def write(self, node, fd, first, count):
        """In calls of at most 64 KiB, so that a crash meets a file between two of them."""
        while count > 0:
            part = min(count, 4096)
            version = self.tree.next_version
            self.tree.next_version += 1
            self.tree.begin(("change", node.id, ("write", first, part, version)))
            data = words_run(node.id, first, part, version)
            written = 0
            # A disk that goes in the middle of a write makes it short; the rest then fails with an errno.
            while written < len(data):
                written += os.pwrite(fd, data[written:], first * WORD + written)
            self.tree.commit()
            first, count = first + part, count - part

    def truncate(self, node, fd, words):
        self.tree.begin(("change", node.id, ("truncate", words)))
        os.ftruncate(fd, words * WORD)
        self.tree.commit()

    def counts(self):
        """
        Whether an fsync that returned 0 proves anything. Shutting XFS or ext4 down is not atomic: of those that return
        while it goes on, a few per cent lie, also without any FUSE. So the cut is announced by a file before it is made.
        """
        return not (self.cut and os.path.exists(self.cut))

    def sync(self, node, fd):
        begun = time.monotonic()
        os.fsync(fd)
        self.tree.slowest_sync = max(self.tree.slowest_sync, time.monotonic() - begun)
        if self.counts():
            self.tree.file_durable(node.id)
            self.synced += 1

    def sometimes_sync(self, node, fd):
        if self.random.randrange(100) < self.sync_percent:
            self.sync(node, fd)

    def rename_effects(self, source, target, node_id):
        return ("bind", *source, None), ("bind", *target, node_id)

    # -- operations --------------------------------------------------------------------------------------

    def op_new(self):
        directory, name = self.any_directory(), self.any_name()
        if self.tree.bound(directory, name) is not None:
            return
        node, fd = self.create(directory, name, os.O_WRONLY)
        try:
            self.write(node, fd, 0, self.any_words())
            self.sometimes_sync(node, fd)
        finally:
            self.close(node, fd)

    def op_save(self):
        """As safetensors: a temporary file of the final size, renamed over the name while it is open."""
        directory, name, temporary = self.any_directory(), self.any_name(), f".tmp{os.getpid()}-{self.count}"
        replaced = self.tree.bound(directory, name)
        if replaced is not None and self.tree.nodes[replaced].is_directory:
            return
        words = self.any_words()
        node, fd = self.create(directory, temporary, os.O_RDWR)
        try:
            self.truncate(node, fd, words)
            self.write(node, fd, 0, words)
            self.tree.begin(*self.rename_effects((directory, temporary), (directory, name), node.id))
            os.rename(self.path(directory, temporary), self.path(directory, name))
            self.tree.commit()
            self.sometimes_sync(node, fd)
        finally:
            self.close(node, fd)

    def op_change(self):
        """An existing file: overwritten, appended to or cut, sometimes by a descriptor that stays open."""
        node = self.any_file()
        if not node:
            return
        fd = self.open.get(node.id)
        if fd is None:
            fd = os.open(self.path(*self.tree.names_of(node.id)[0]), os.O_RDWR)
            self.note_number(node, fd)
        try:
            size = len(node.current)
            choice = self.random.randrange(4)
            if choice == 0:
                self.truncate(node, fd, self.random.randrange(size + 256))
            else:
                first = size if choice == 1 else self.random.randrange(size + 1)
                self.write(node, fd, first, min(self.any_words(), 8192))
            self.sometimes_sync(node, fd)
        finally:
            if node.id not in self.open:
                if len(self.open) < HANDLES and self.random.randrange(2):
                    self.open[node.id] = fd
                else:
                    self.close(node, fd)

    def op_close(self):
        if self.open:
            node_id = self.random.choice(list(self.open))
            self.close(self.tree.nodes[node_id], self.open.pop(node_id))

    def op_sync(self):
        node = self.any_file()
        if node:
            fd = os.open(self.path(*self.tree.names_of(node.id)[0]), os.O_RDONLY)
            try:
                self.sync(node, fd)
            finally:
                os.close(fd)

    def op_sync_directory(self):
        directory = self.any_directory()
        fd = os.open(self.path(directory), os.O_RDONLY | os.O_DIRECTORY)
        try:
            os.fsync(fd)
            if self.counts():
                self.tree.directory_durable(directory)
        finally:
            os.close(fd)

    def op_rename(self):
        node = self.any_file()
        if not node:
            return
        source = self.random.choice(self.tree.names_of(node.id))
        target = (self.any_directory(), self.any_name())
        replaced = self.tree.bound(*target)
        if replaced == node.id or replaced is not None and self.tree.nodes[replaced].is_directory:
            return
        self.tree.begin(*self.rename_effects(source, target, node.id))
        os.rename(self.path(*source), self.path(*target))
        self.tree.commit()

    def op_rename_directory(self):
        directory = self.any_directory()
        target = (self.any_directory(), self.any_name("d"))
        if directory == 0 or self.tree.bound(*target) is not None or self.tree.is_below(target[0], directory):
            return
        source = self.tree.names_of(directory)[0]
        paths = self.path(*source), self.path(*target)
        self.tree.begin(*self.rename_effects(source, target, directory))
        os.rename(*paths)
        self.tree.commit()

    def op_link(self):
        node = self.any_file()
        target = (self.any_directory(), self.any_name())
        if not node or self.tree.bound(*target) is not None:
            return
        self.tree.begin(("bind", *target, node.id))
        os.link(self.path(*self.tree.names_of(node.id)[0]), self.path(*target))
        self.tree.commit()

    def op_unlink(self):
        node = self.any_file()
        if not node:
            return
        name = self.random.choice(self.tree.names_of(node.id))
        self.tree.begin(("bind", *name, None))
        os.unlink(self.path(*name))
        self.tree.commit()

    def op_mkdir(self):
        directory, name = self.any_directory(), self.any_name("d")
        if self.tree.bound(directory, name) is not None or len(self.tree.path_of(directory)) > 4:
            return
        node = self.tree.new_node(True)
        self.tree.begin(("bind", directory, name, node.id))
        path = self.path(directory, name)
        os.mkdir(path)
        self.tree.commit()
        node.numbers.add(os.stat(path).st_ino)

    def op_rmdir(self):
        empty = [node.id for node in self.nodes(True) if node.id != 0 and not self.tree.children(node.id)]
        if not empty:
            return
        name = self.tree.names_of(self.random.choice(empty))[0]
        self.tree.begin(("bind", *name, None))
        os.rmdir(self.path(*name))
        self.tree.commit()

    OPERATIONS = [(op_new, 6), (op_save, 6), (op_change, 8), (op_close, 1), (op_sync, 2), (op_sync_directory, 1),
                  (op_rename, 4), (op_rename_directory, 1), (op_link, 2), (op_unlink, 3), (op_mkdir, 2), (op_rmdir, 1)]

    def step(self):
        operation = self.random.choices([op for op, _ in self.OPERATIONS], [weight for _, weight in self.OPERATIONS])
        self.count += 1
        operation[0](self)


def load_tree(path):
    if not os.path.exists(path):
        return Tree()
    with open(path, "rb") as file:
        return pickle.load(file)


def save_tree(path, tree):
    with open(path + ".new", "wb") as file:
        pickle.dump(tree, file)
    os.rename(path + ".new", path)


def command_write(options):
    tree = load_tree(options.state)
    writer = Writer(tree, options)
    stopped = None
    progress = os.open(options.progress, os.O_WRONLY | os.O_CREAT, 0o644) if options.progress else -1
    try:
        if not os.path.isdir(options.directory):
            os.mkdir(options.directory)
            fd = os.open(options.directory, os.O_RDONLY | os.O_DIRECTORY)
            os.fsync(fd)
            os.close(fd)
        tree.nodes[0].numbers.add(os.stat(options.directory).st_ino)
        for _ in range(options.operations):
            writer.step()
            if progress >= 0:
                os.pwrite(progress, b"%12d\n" % writer.count, 0)
    except OSError as error:
        if error.errno not in DEAD:
            raise
        stopped = error
    finally:
        tree.stopped, tree.open = time.monotonic(), set(writer.open)
        save_tree(options.state, tree)
    print(json.dumps({"operations": writer.count, "fsyncs": writer.synced, "stopped": str(stopped or "")}))
    return STOPPED if stopped else 0


def is_torn(path):
    try:
        return os.getxattr(path, STATE_ATTRIBUTE) == b"torn"
    except OSError as error:
        if error.errno != errno.ENODATA:
            raise
        return False


class Checker:
    """Walks the tree that is there, against the tree that may be there."""

    def __init__(self, top, tree, torn_allowed):
        self.top = top
        self.tree = tree
        self.torn_allowed = torn_allowed
        self.found = {}  # node id -> the names that it was found under
        self.links = {}
        self.torn = []
        self.by_number = {}
        for node in tree.nodes.values():
            for number in node.numbers:
                self.by_number.setdefault(number, []).append(node)

    def identify(self, path, attributes, bindings):
        """Which node this is: by its inode number, or, made by the operation that was interrupted, the only one possible."""
        nodes = self.by_number.get(attributes.st_ino, [])
        if nodes:  # several only on a filesystem that gives numbers again
            return next((node for node in nodes if node.id in bindings), nodes[-1])
        unseen = [self.tree.nodes[binding] for binding in bindings
                  if binding is not None and not self.tree.nodes[binding].numbers]
        if len(unseen) != 1:
            raise CheckError(f"{path}: inode {attributes.st_ino} was never seen there")
        unseen[0].numbers.add(attributes.st_ino)
        self.by_number[attributes.st_ino] = [unseen[0]]
        return unseen[0]

    def check_entry(self, directory, name, path, present):
        bindings = self.tree.entries.get((directory, name))
        if bindings is None:
            raise CheckError(f"{path}: a name that was never made")
        if not present:
            if None not in bindings:
                raise CheckError(f"{path}: gone, but it named file {bindings} at every moment since it was durable")
            self.tree.entries[directory, name] = [None]
            return
        attributes = os.lstat(path)
        node = self.identify(path, attributes, bindings)
        if node.id not in bindings:
            raise CheckError(f"{path}: names file {node.id}; since it was durable it named only {bindings}")
        self.tree.entries[directory, name] = [node.id]
        self.found.setdefault(node.id, []).append(path)
        self.links[node.id] = attributes.st_nlink
        if node.is_directory:
            self.walk(node, path)
        elif len(self.found[node.id]) == 1:
            self.check_file(node, path)

    def check_file(self, node, path):
        with open(path, "rb") as file:
            content = file.read()
        if len(content) != os.stat(path).st_size:
            raise CheckError(f"{path}: {len(content)} bytes read, {os.stat(path).st_size} by stat")
        torn = is_torn(path)
        if torn:
            self.torn.append(path)
            if not self.torn_allowed:
                raise CheckError(f"{path}: reported torn, but no power was cut")
            # Who had it open for writing, until shortly before, may have written what nobody knows of.
            idle = self.tree.stopped - node.writer_closed
            settled = idle > TORN_SECONDS + TORN_SYNCS * self.tree.slowest_sync
            if node.synced and not node.changes and node.id not in self.tree.open and settled:
                raise CheckError(f"{path}: reported torn, but all of it was fsynced {idle:.1f} s before")
        partial = torn or not self.torn_allowed and bool(node.changes)
        node.current = check_content(path, node, content, partial)
        if torn:
            self.write_anew(node, path)

    def write_anew(self, node, path):
        """As its owner would; then it is whole again, and the next crash can be judged."""
        with open(path, "wb") as file:
            file.write(words_bytes(node.id, node.current))
            file.flush()
            os.fsync(file.fileno())
        if is_torn(path):
            raise CheckError(f"{path}: written anew and still reported torn")

    def walk(self, node, path):
        if len(self.found.get(node.id, [])) > 1:
            raise CheckError(f"directory {node.id} has several names: {self.found[node.id]}")
        present = set(os.listdir(path))
        known = {name for directory, name in self.tree.entries if directory == node.id}
        for name in sorted(present | known):
            self.check_entry(node.id, name, os.path.join(path, name), name in present)

    def check(self):
        self.walk(self.tree.nodes[0], self.top)
        for node in self.tree.nodes.values():
            names = self.found.get(node.id, [])
            if node.id and node.kept and not names:
                raise CheckError(f"file {node.id} was durable and had a name at every moment since, and is lost")
            if names and not node.is_directory and self.links[node.id] != len(names):
                raise CheckError(f"{names}: st_nlink says {self.links[node.id]}")
        self.forget_lost()
        self.tree.all_durable()

    def forget_lost(self):
        """Only what was found is known from now on."""
        keep = set(self.found) | {0}
        self.tree.set_entries({key: bindings for key, bindings in self.tree.entries.items()
                               if key[0] in keep and bindings[-1] in keep and bindings[-1] is not None})
        self.tree.nodes = {node_id: node for node_id, node in self.tree.nodes.items() if node_id in keep}


def command_check(options):
    tree = load_tree(options.state)
    if options.after == "kill":
        pending, tree.pending = tree.pending, []
        tree.all_durable()
        tree.pending = pending
    highest = max(tree.nodes)
    tree.interrupted()
    checker = Checker(options.directory, tree, options.after == "power")
    checker.check()
    if highest not in tree.nodes:
        tree.nodes[highest] = type(tree.nodes[0])(highest, False)  # ids are not given again
    save_tree(options.state, tree)
    print(json.dumps({"files": len(tree.nodes), "torn": checker.torn}))
    return 0


def command_settle(options):
    tree = load_tree(options.state)
    if tree.pending:
        raise CheckError("the writer was stopped by an error; nothing can be called settled")
    tree.all_durable()
    save_tree(options.state, tree)
    return 0


def command_remove(options):
    for path, directories, files in os.walk(options.directory, topdown=False):
        for name in files:
            os.unlink(os.path.join(path, name))
        for name in directories:
            os.rmdir(os.path.join(path, name))
        if os.listdir(path):
            raise CheckError(f"{path}: not empty after everything listed was removed")
    return 0


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(required=True)
    write = commands.add_parser("write")
    write.set_defaults(run=command_write)
    write.add_argument("directory")
    write.add_argument("state")
    write.add_argument("--seed", type=int, required=True)
    write.add_argument("--operations", type=int, required=True)
    write.add_argument("--sync", type=int, default=20, metavar="PERCENT")
    write.add_argument("--progress", metavar="FILE", help="gets the number of operations done")
    write.add_argument("--cut", metavar="FILE", help="exists from just before the power is cut")
    check = commands.add_parser("check")
    check.set_defaults(run=command_check)
    check.add_argument("directory")
    check.add_argument("state")
    check.add_argument("--after", choices=["kill", "power"], required=True)
    settle = commands.add_parser("settle")
    settle.set_defaults(run=command_settle)
    settle.add_argument("state")
    remove = commands.add_parser("remove")
    remove.set_defaults(run=command_remove)
    remove.add_argument("directory")
    options = parser.parse_args()
    try:
        return options.run(options)
    except CheckError as error:
        print(f"crashtree: {error}", file=sys.stderr)
        return 1


if __name__ == "__main__":
    sys.exit(main())

# SPDX-License-Identifier: Apache-2.0
"""The programs that the deduplication bench compares, each behind the same few calls.

    ingest(source)  stores the tree `source`; returns when it is on stable storage
    settle()        lets the program finish what it does later; returns the seconds that this took
    stored()        bytes allocated on the disk by then
    tree            the directory where the files can be read again, or None
    close()         undoes what the object made

An object of a class is one new and empty store. `facts` of the class says why it cannot run, or its version.
"""

import os
import re
import shutil
import subprocess
import tempfile
import time

from sides import BenchError, Mount, process_cpu, sync_disk

COPY = ["cp", "-r", "--reflink=never"]
IMAGE_ROOM = 1 << 30
POLL_SECONDS = 0.1
QUIET_SECONDS = 2.0
SETTLE_DEADLINE = 600.0
TICK = 1 / os.sysconf("SC_CLK_TCK")


def run(command, **more):
    """Runs a program to its end; returns what it printed."""
    done = subprocess.run(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
                          text=True, errors="replace", check=False, **more)
    if done.returncode != 0:
        raise BenchError(f"{' '.join(command)} failed ({done.returncode}): {(done.stderr or done.stdout).strip()}")
    return done.stdout + done.stderr


def first_line(command):
    return run(command).strip().partition("\n")[0]


def allocated(*paths):
    """Bytes that files, and all files under directories, occupy on the disk."""
    total, seen = 0, set()
    for path in paths:
        for folder, folders, names in os.walk(path) if os.path.isdir(path) else [("", [], [path])]:
            for name in folders + names:
                try:
                    status = os.lstat(os.path.join(folder, name))
                except FileNotFoundError:
                    continue  # a store that is in use removes files
                if (status.st_dev, status.st_ino) not in seen:
                    seen.add((status.st_dev, status.st_ino))
                    total += status.st_blocks * 512
    return total


def sync_path(path):
    fd = os.open(path, os.O_RDONLY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def by_age(folder):
    """What a run consists of, as it was written: the checkpoints by their numbers, then the rest."""
    def rank(name):
        number = name.rpartition("-")[2]
        return (int(number), name) if number.isdigit() else (float("inf"), name)

    return [os.path.join(folder, name) for name in sorted(os.listdir(folder), key=rank)]


def copy_durably(source, target):
    """The copy that a directory gets: cp of each run, then fsync of each file and of each directory.

    Left to itself, cp goes by inode numbers, and the newest checkpoint might come first.
    """
    for name in sorted(os.listdir(source)):
        copy = os.path.join(target, name)
        os.mkdir(copy)
        run(COPY + by_age(os.path.join(source, name)) + [copy])
    for folder, _, names in os.walk(target):
        for name in names:
            sync_path(os.path.join(folder, name))
        sync_path(folder)


class Tool:
    name = package = ""
    tree = None

    def __init__(self, directory, options):
        self.directory = directory
        self.options = options

    @classmethod
    def missing(cls, options):
        """One line that says why the program cannot run here, or None."""
        if shutil.which(cls.name):
            return None
        return f"{cls.name} is not installed: apt-get install {cls.package} (contrib/setup --bench)"

    @classmethod
    def version(cls, options):
        return first_line([cls.name, "--version"])

    def path(self, name):
        return os.path.join(self.directory, name)

    def settle(self):
        return 0.0

    def stored(self):
        return allocated(self.directory)

    def close(self):
        pass


class Copy(Tool):
    """The plain disk."""

    name, package = "cp", "coreutils"

    def __init__(self, directory, options):
        super().__init__(directory, options)
        self.tree = self.path("tree")
        os.mkdir(self.tree)

    def ingest(self, source):
        copy_durably(source, self.tree)


class Restic(Tool):
    name, package = "restic", "restic"

    def __init__(self, directory, options):
        super().__init__(directory, options)
        temporary = self.path("temporary")
        os.mkdir(temporary)
        self.environment = {**os.environ, "RESTIC_PASSWORD": "bench", "TMPDIR": temporary}
        self.command = ["restic", "-q", "--no-cache", "--repo", self.path("repository")]
        form = []
        if self.compresses():
            self.command += ["--compression", "off"]
            form = ["--repository-version", "2"]
        run(self.command + ["init"] + form, env=self.environment)

    @staticmethod
    def compresses():
        """From 0.14 on, in repositories of format 2."""
        return "--compression" in run(["restic", "help", "init"])

    @classmethod
    def version(cls, options):
        how = "format 2, compression off" if cls.compresses() else "this version cannot compress"
        return first_line(["restic", "version"]) + f", cache off, {how}"

    def ingest(self, source):
        run(self.command + ["backup", "."], env=self.environment, cwd=source)
        sync_disk(self.directory)

    def stored(self):
        return allocated(self.path("repository"))


class Borg(Tool):
    name, package = "borg", "borgbackup"

    def __init__(self, directory, options):
        super().__init__(directory, options)
        self.environment = {**os.environ, "BORG_BASE_DIR": self.path("base"),
                            "BORG_UNKNOWN_UNENCRYPTED_REPO_ACCESS_IS_OK": "yes"}
        run(["borg", "init", "--encryption", "none", self.path("repository")], env=self.environment)

    @classmethod
    def version(cls, options):
        return super().version(options) + ", encryption none, compression none"

    def ingest(self, source):
        run(["borg", "create", "--compression", "none", self.path("repository") + "::saves", "."],
            env=self.environment, cwd=source)
        sync_disk(self.directory)

    def stored(self):
        return allocated(self.path("repository"))


class Casync(Tool):
    name, package = "casync", "casync"

    @staticmethod
    def compression():
        """The option that stores chunks as they are, where this version has it."""
        algorithms = re.search(r"compression algorithm \(([^)]*)\)", run(["casync", "--help"]))
        return ["--compression=none"] if algorithms and "none" in algorithms.group(1) else []

    @classmethod
    def version(cls, options):
        how = "compression off" if cls.compression() else "this version always compresses"
        return f"{run(['casync', '--version']).strip().splitlines()[0]}, {how}"

    def ingest(self, source):
        run(["casync", "make", *self.compression(), f"--store={self.path('store.castr')}",
             self.path("saves.caidx"), source])
        sync_disk(self.directory)


class Duperemove(Tool):
    """A copy on XFS, whose equal blocks are then shared. The image is a file on the disk that is measured."""

    name, package = "duperemove", "duperemove"
    # As it comes it shares whole extents only, which finds none of the cases' tensors.
    how = "--dedupe-options=partial,nofiemap"

    def __init__(self, directory, options):
        super().__init__(directory, options)
        image, self.mounted, self.tree = self.path("image"), self.path("xfs"), self.path("xfs/tree")
        with open(image, "wb") as file:
            file.truncate(options.largest_case * 2 + IMAGE_ROOM)
        run(["mkfs.xfs", "-q", "-m", "reflink=1", image])
        os.mkdir(self.mounted)
        run(["mount", "-o", "loop", image, self.mounted])
        try:
            os.mkdir(self.tree)
            sync_disk(self.mounted)
            self.before = self.used()
        except OSError:
            self.close()
            raise

    @classmethod
    def missing(cls, options):
        if os.geteuid() != 0:
            return "duperemove needs root here: its XFS image is mounted"
        if not shutil.which("mkfs.xfs"):
            return "mkfs.xfs is not installed: apt-get install xfsprogs (contrib/setup --bench)"
        return super().missing(options)

    @classmethod
    def version(cls, options):
        return super().version(options) + f" on XFS with reflink, {cls.how}"

    def used(self):
        """Blocks in use: what du says counts shared blocks once a file."""
        disk = os.statvfs(self.mounted)
        return (disk.f_blocks - disk.f_bfree) * disk.f_frsize

    def ingest(self, source):
        copy_durably(source, self.tree)

    def settle(self):
        started = time.monotonic()
        run(["duperemove", "-r", "-d", "-q", self.how, self.tree])
        sync_disk(self.mounted)
        return time.monotonic() - started

    def stored(self):
        return self.used() - self.before

    def close(self):
        run(["umount", self.mounted])


class Ckptfs(Tool):
    """A mount whose store lies on the disk that is measured."""

    name = "ckptfs"

    def __init__(self, directory, options):
        super().__init__(directory, options)
        self.mount = Mount("ckptfs", options.program, directory, options.mount_options)
        self.tree = self.mount.directory

    @classmethod
    def missing(cls, options):
        return None

    @classmethod
    def version(cls, options):
        """Asks a mount that is made for it: what is on depends on the machine."""
        directory = tempfile.mkdtemp(prefix="ckptfs-", dir=options.work)
        tool = cls(directory, options)
        try:
            status = tool.mount.status()
        finally:
            tool.close()
        features = status["features"]
        return (f"ckptfs {status['version']}, libfuse {features['libfuse']}, "
                f"passthrough {'on' if features['passthrough'] else 'off'}, "
                f"mount options {options.mount_options or 'none'}")

    def ingest(self, source):
        copy_durably(source, self.tree)

    def behind(self, status):
        return sum(value for key, value in status.items() if key.startswith(("behind_", "unshared_", "uncompared_")))

    def settle(self):
        """Until nothing is behind, and for a while neither the store's size changes nor the daemon works."""
        started = changed = time.monotonic()
        last, worked = None, 0.0
        while True:
            status = self.mount.status()
            now, cpu = time.monotonic(), process_cpu(status["daemon_pid"])
            state = (self.stored(), self.behind(status))
            if state != last or state[1] > 0 or cpu - worked > 2 * TICK:
                last, changed = state, now
            worked = cpu
            if now - changed >= QUIET_SECONDS:
                sync_disk(self.mount.store)
                return changed - started
            if now - started > SETTLE_DEADLINE:
                raise BenchError(f"the mount {self.tree} was still busy after {SETTLE_DEADLINE:.0f} s")
            time.sleep(POLL_SECONDS)

    def stored(self):
        database = [self.mount.store + "/meta.db" + suffix for suffix in ("", "-wal", "-shm")]
        return allocated(os.path.join(self.mount.store, "objects"), *database)

    def close(self):
        self.mount.close()
        if os.path.ismount(self.tree):
            raise BenchError(f"{self.tree} could not be unmounted")


TOOLS = {tool.name: tool for tool in (Copy, Restic, Borg, Casync, Duperemove, Ckptfs)}

# SPDX-License-Identifier: Apache-2.0
"""The directories that the bench compares: the plain disk, and mounts of ckptfs whose stores lie on that disk."""

import ctypes
import json
import os
import shutil
import subprocess
import time

TICKS = os.sysconf("SC_CLK_TCK")
QUIET_SECONDS = 0.3
SETTLE_DEADLINE = 60.0
LIBC = ctypes.CDLL(None, use_errno=True)


class BenchError(Exception):
    """Something that the bench needs is missing or failed; the text is one line for the user."""


def sync_disk(directory):
    """Waits until everything written to the disk that holds `directory` is on it."""
    fd = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
    try:
        if LIBC.syncfs(fd) != 0:
            raise OSError(ctypes.get_errno(), "syncfs", directory)
    finally:
        os.close(fd)


def drop_caches():
    """Drops clean page cache and dentries of the whole machine; False where that is not allowed."""
    try:
        with open("/proc/sys/vm/drop_caches", "w", encoding="ascii") as control:
            control.write("3\n")
    except OSError:
        return False
    return True


def find_program(named):
    """The program that was named, else the build tree's, else an installed one."""
    top = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
    for candidate in (named, os.environ.get("CKPTFS"), os.path.join(top, "ckptfs"), shutil.which("ckptfs")):
        if candidate and os.access(candidate, os.X_OK) and os.path.isfile(candidate):
            return os.path.abspath(candidate)
    raise BenchError("no ckptfs program found: build it, or name it with --ckptfs")


class Side:
    """A directory to work in. The plain disk is a side without processes of its own."""

    def __init__(self, name, directory):
        self.name = name
        self.directory = directory
        os.makedirs(directory, exist_ok=True)

    def path(self, name):
        return os.path.join(self.directory, name)

    def processes(self):
        return []

    def cpu_seconds(self):
        return sum(process_cpu(pid) for pid in self.processes())

    def settle(self):
        """Waits until work that was left for later is done, so that it is not counted in the next measurement."""
        sync_disk(self.directory)

    def facts(self):
        return {}

    def close(self):
        pass


def process_cpu(pid):
    """User and system seconds of a process and its threads."""
    try:
        with open(f"/proc/{pid}/stat", encoding="ascii", errors="replace") as stat:
            fields = stat.read().rsplit(")", 1)[1].split()
    except OSError as error:
        raise BenchError(f"process {pid} of the mount is gone: {error.strerror}") from error
    return (int(fields[11]) + int(fields[12])) / TICKS


def process_peak_rss(pid):
    """Peak resident memory in bytes."""
    with open(f"/proc/{pid}/status", encoding="ascii", errors="replace") as status:
        for line in status:
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) * 1024
    return 0


class Mount(Side):
    """A mount of ckptfs made for the bench, on a new store beside the plain directory."""

    def __init__(self, name, program, root, options):
        self.program = program
        self.store = os.path.join(root, f"store-{name}")
        super().__init__(name, os.path.join(root, f"mount-{name}"))
        command = [program, "mount"] + (["-o", options] if options else []) + [self.store, self.directory]
        done = subprocess.run(command, stdin=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True, check=False)
        if done.returncode != 0:
            raise BenchError(f"{' '.join(command)} failed ({done.returncode}): {done.stderr.strip()}")

    def status(self):
        done = subprocess.run([self.program, "status", "--json", self.directory], text=True,
                              stdout=subprocess.PIPE, stderr=subprocess.PIPE, check=False)
        if done.returncode != 0:
            raise BenchError(f"ckptfs status failed ({done.returncode}): {done.stderr.strip()}")
        document = json.loads(done.stdout)
        return document[0] if isinstance(document, list) else document

    def processes(self):
        status = self.status()
        return [status[key] for key in ("daemon_pid", "keeper_pid") if status.get(key)]

    def settle(self):
        """The daemon is quiet when it used no CPU for a while (sealing is done); then the disk gets the rest."""
        pids = self.processes()
        deadline = time.monotonic() + SETTLE_DEADLINE
        while True:
            sync_disk(self.store)
            before = sum(process_cpu(pid) for pid in pids)
            time.sleep(QUIET_SECONDS)
            if sum(process_cpu(pid) for pid in pids) - before <= 1 / TICKS:
                return
            if time.monotonic() > deadline:
                raise BenchError(f"the daemon of {self.directory} was still busy after {SETTLE_DEADLINE:.0f} s")

    def facts(self):
        return {"status": self.status(), "peak_rss_bytes": max(process_peak_rss(pid) for pid in self.processes())}

    def close(self):
        subprocess.run([self.program, "umount", self.directory], check=False)
        if not os.path.ismount(self.directory):
            shutil.rmtree(self.store, ignore_errors=True)

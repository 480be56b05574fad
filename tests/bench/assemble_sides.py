# SPDX-License-Identifier: Apache-2.0
"""What the bench of assembly compares: the libraries' tools, `ckptfs assemble`, and mounts that do it by themselves."""

import json
import os
import re
import shutil
import subprocess
import time

from sides import BenchError, Mount, drop_caches, process_cpu, process_peak_rss, sync_disk

HERE = os.path.dirname(os.path.abspath(__file__))
MODEL_DEADLINE = 300.0
BLOCK = 512


def run_measured(command):
    """What the command printed, and its seconds, CPU seconds, peak memory in bytes, and bytes written."""
    begun = time.monotonic()
    with subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
                          text=True) as process:
        output, errors = process.stdout.read(), process.stderr.read()
        _, status, used = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode != 0:
        raise BenchError(f"{' '.join(command)} failed: {errors.strip()[-500:]}")
    return output, {"whole": time.monotonic() - begun, "cpu": used.ru_utime + used.ru_stime,
                    "peak_bytes": used.ru_maxrss * 1024, "written_bytes": used.ru_oublock * BLOCK}


def warm(directory):
    """Everything below it is in the page cache."""
    for folder, _, names in os.walk(directory):
        for name in names:
            with open(os.path.join(folder, name), "rb") as file:
                while file.read(1 << 22):
                    pass


def tree_bytes(directory):
    """Allocated on the disk by what is below it."""
    total = 0
    for folder, _, names in os.walk(directory):
        for name in names:
            try:
                total += os.lstat(os.path.join(folder, name)).st_blocks * BLOCK
            except FileNotFoundError:
                pass
    return total


class Reference:
    """The library's own tool. Its seconds are without the time that loading the libraries takes."""

    name = "reference"

    def __init__(self, options):
        self.python = options.python

    def run(self, kind, checkpoint, output):
        script = os.path.join(HERE, "assemble_reference.py")
        text, used = run_measured([self.python, script, kind, checkpoint, output])
        return used | json.loads(text)


class Assemble:
    """`ckptfs assemble` from the plain disk to the plain disk."""

    name = "assemble"

    def __init__(self, options):
        self.program = options.ckptfs

    def run(self, kind, checkpoint, output):
        command = [self.program, "assemble", "--plain", checkpoint, "-o", output]
        if kind == "zero2":
            command.append("--fp32")  # what the reference makes; the 16-bit parameters are there as well
        _, used = run_measured(command)
        return used | {"seconds": used["whole"]}


def measure_tool(tool, kind, checkpoint, output, cold):
    shutil.rmtree(output, ignore_errors=True)
    sync_disk(os.path.dirname(output))
    if cold and not drop_caches():
        return None
    if not cold:
        warm(checkpoint)
    return tool.run(kind, checkpoint, output)


class Saved(Mount):
    """A mount that a checkpoint is copied onto, again in each turn."""

    def __init__(self, name, program, root, options):
        super().__init__(name, program, root, options)
        self.checkpoint = self.path("run/checkpoint-1")
        self.view = self.path(".ckptfs/models/run/checkpoint-1")
        self.model = os.path.join(self.view, "model.safetensors")

    def log_is_settled(self):
        status = self.status()
        return not any(status.get(key) for key in ("behind_files", "unshared_files", "unassembled_directories"))

    def settle(self):
        deadline = time.monotonic() + MODEL_DEADLINE
        while not self.log_is_settled():
            if time.monotonic() > deadline:
                raise BenchError(f"{self.directory} was still busy after {MODEL_DEADLINE:.0f} s")
            time.sleep(0.05)
        super().settle()

    def written(self):
        """Bytes that the daemon itself made dirty."""
        with open(f"/proc/{self.status()['daemon_pid']}/io", encoding="ascii") as io:
            return int(re.search(r"^write_bytes: (\d+)$", io.read(), re.MULTILINE).group(1))

    def save(self, checkpoint, assembles):
        """
        From the last close of the shards until the model is there, the daemon's CPU seconds and written bytes from
        the first byte of the save until it is quiet, what the store occupies then, and its peak memory.
        """
        shutil.rmtree(self.path("run"), ignore_errors=True)
        self.settle()
        pid = self.status()["daemon_pid"]
        cpu, written = process_cpu(pid), self.written()
        os.makedirs(self.path("run"))
        subprocess.run(["cp", "-r", "--reflink=never", checkpoint, self.checkpoint], check=True)
        closed = time.monotonic()
        seconds = None
        while assembles and not os.path.exists(self.model):
            if time.monotonic() - closed > MODEL_DEADLINE:
                raise BenchError(f"{self.model} was not there after {MODEL_DEADLINE:.0f} s")
            time.sleep(0.005)
        if assembles:
            seconds = time.monotonic() - closed
        self.settle()
        return {"seconds": seconds, "cpu": process_cpu(pid) - cpu, "written_bytes": self.written() - written,
                "stored_bytes": tree_bytes(os.path.join(self.store, "objects")), "peak_bytes": process_peak_rss(pid)}


class Loader:
    """One process that loads models by from_pretrained."""

    def __init__(self, options):
        command = [options.python, os.path.join(HERE, "assemble_load.py")]
        # pylint: disable-next=consider-using-with
        self.process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE,
                                        stderr=subprocess.DEVNULL, text=True)
        self._answer("loading the libraries")

    def _answer(self, what):
        line = self.process.stdout.readline()
        if not line:
            raise BenchError(f"{what} failed")
        answer = json.loads(line)
        if "error" in answer:
            raise BenchError(f"{what}: {answer['error']}")
        return answer

    def load(self, directory):
        self.process.stdin.write(directory + "\n")
        self.process.stdin.flush()
        return self._answer(f"from_pretrained of {directory}")

    def close(self):
        self.process.stdin.close()
        self.process.wait()

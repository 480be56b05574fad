# SPDX-License-Identifier: Apache-2.0
"""What the bench does on each side: the pieces of work, the rows that they fill, and the targets of the rows."""

import json
import os
import shutil
import subprocess

from sides import BenchError, drop_caches

MIB = 1 << 20
GIB = 1 << 30


class Row:
    """One line of the table. `targets` are the highest ratios to the plain disk that are to be reached."""

    def __init__(self, key, title, targets=None):
        self.key = key
        self.title = title
        self.targets = targets or {}


class Sample:
    """One measurement: seconds on the wall, CPU seconds of the application and of the daemon, bytes moved."""

    def __init__(self, seconds, application_cpu, daemon_cpu, size):
        self.seconds = seconds
        self.application_cpu = application_cpu
        self.daemon_cpu = daemon_cpu
        self.bytes = size


class Helper:
    """Runs bench_io, and counts what the daemon used until it was quiet again."""

    def __init__(self, program, seed):
        self.program = program
        self.seed = seed

    def run(self, side, *arguments):
        """The helper's result, with the daemon's CPU seconds, the work that it left for later included."""
        side.settle()
        return self._timed(side, [self.program, str(self.seed), *map(str, arguments)])

    def run_script(self, side, command):
        """The same for another program that prints a result of the same form."""
        side.settle()
        return self._timed(side, command)

    def run_at_once(self, side, *arguments):
        """Without settling first: for work on what the cache holds by now."""
        return self._timed(side, [self.program, str(self.seed), *map(str, arguments)])

    def _timed(self, side, command):
        self.seed += 1
        before = side.cpu_seconds()
        done = subprocess.run(command, text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE, check=False)
        if done.returncode != 0:
            raise BenchError(f"{' '.join(command)} failed: {done.stderr.strip()}")
        result = json.loads(done.stdout)
        side.settle()
        result["daemon_cpu"] = side.cpu_seconds() - before
        return result


def sample(result, seconds="seconds"):
    return Sample(result[seconds], result["cpu"], result["daemon_cpu"], result["bytes"])


class NewFile:
    name = "new"
    rows = [Row("new_fsync", "new safetensors, fsync", {"passthrough": 1.1, "daemon": 1.4})]

    def __init__(self, options):
        self.size = options.size

    def prepare(self, side, helper):
        pass

    def measure(self, side, helper):
        path = side.path("model.safetensors")
        result = helper.run(side, "write", path, self.size)
        os.unlink(path)
        return {"new_fsync": sample(result)}


class Reading:
    """Cold and warm, by read(2) and by a map, of a file that was written once. Cold rows need root."""

    name = "read"
    both = {"passthrough": 1.3, "daemon": 1.3}
    warm = {"passthrough": 1.05, "daemon": 1.05}
    rows = [
        Row("read_cold", "read, cold", both),
        Row("read_warm", "read, warm", warm),
        Row("map_cold", "mmap, cold", both),
        Row("map_warm", "mmap, warm", warm),
        Row("map_permuted_cold", "mmap, 16 MiB pieces permuted, cold"),
    ]

    def __init__(self, options):
        self.size = options.size

    def prepare(self, side, helper):
        helper.run(side, "write", side.path("read.safetensors"), self.size)

    def measure(self, side, helper):
        path = side.path("read.safetensors")
        samples = {}
        side.settle()
        for key, arguments in (("read", ("read", path)), ("map", ("map", path, "sequential"))):
            if drop_caches():
                samples[key + "_cold"] = sample(helper.run_at_once(side, *arguments))
            else:
                helper.run_at_once(side, *arguments)
            samples[key + "_warm"] = sample(helper.run_at_once(side, *arguments))
        if drop_caches():
            samples["map_permuted_cold"] = sample(helper.run_at_once(side, "map", path, "permuted"))
        return samples


class TrainerSave:
    name = "save"
    rows = [
        Row("save_closed", "Trainer save, until the last close"),
        Row("save_fsync", "Trainer save, each file fsynced"),
    ]

    def __init__(self, options):
        self.model = options.size // 4
        self.optimizer = options.size // 2

    def prepare(self, side, helper):
        pass

    def measure(self, side, helper):
        folder = side.path("checkpoint-500")
        result = helper.run(side, "save", folder, self.model, self.optimizer)
        shutil.rmtree(folder)
        return {"save_closed": sample(result, "closed"), "save_fsync": sample(result)}


class TorchSave:
    """The same with the real libraries of a virtual environment."""

    name = "torch"
    rows = [
        Row("torch_closed", "torch and safetensors, until the last close"),
        Row("torch_fsync", "torch and safetensors, each file fsynced"),
    ]

    def __init__(self, options):
        self.python = os.path.join(options.venv, "bin", "python") if options.venv else None
        self.model = options.size // 4

    def prepare(self, side, helper):
        pass

    def measure(self, side, helper):
        folder = side.path("checkpoint-torch")
        script = os.path.join(os.path.dirname(os.path.abspath(__file__)), "save_torch.py")
        result = helper.run_script(side, [self.python, script, folder, str(self.model)])
        shutil.rmtree(folder)
        return {"torch_closed": sample(result, "closed"), "torch_fsync": sample(result)}


class SmallFiles:
    name = "small"
    rows = [
        Row("small", "small files: create, write 4 KiB, close, unlink", {"daemon": 8.0}),
        Row("small_create", "  of that until the last close"),
    ]

    def __init__(self, options):
        self.count = options.small_files

    def prepare(self, side, helper):
        pass

    def measure(self, side, helper):
        result = helper.run(side, "small", side.path("small"), self.count, 4096)
        return {"small": sample(result), "small_create": sample(result, "created")}


class Writers:
    name = "writers"
    rows = [Row("writers", "4 writers at once, fsync")]

    def __init__(self, options):
        self.size = options.size // 4

    def prepare(self, side, helper):
        pass

    def measure(self, side, helper):
        folder = side.path("writers")
        result = helper.run(side, "writers", folder, 4, self.size)
        shutil.rmtree(folder)
        return {"writers": sample(result)}


WORKLOADS = [NewFile, Reading, TrainerSave, SmallFiles, Writers, TorchSave]

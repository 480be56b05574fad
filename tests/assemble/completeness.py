# SPDX-License-Identifier: Apache-2.0
"""What the tests of `ckptfs ls` share: runs of the Trainer, and checkpoints that are damaged file by file."""

import json
import os
import sys
from fnmatch import fnmatch
from pathlib import Path

import tool

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent / "lib"))

import loaded  # noqa: E402

TRAIN = HERE.parent / "trainer" / "train.py"
DEADLINE = 300

# What may be missing, or be cut, with the checkpoint still complete, and why.
MAY_BE_REMOVED = (
    "README.md",  # a model card, which people write
    "rng_state_[0-9]*.pth",  # each rank's: one that never came is noted
    "zero_to_fp32.py",  # DeepSpeed's tools
    "zero_to_torch.py",
)
MAY_BE_CUT = ("README.md", "*.py")  # texts: nothing in them says how long they are

ENVIRONMENT = {
    **os.environ,
    "HF_HUB_OFFLINE": "1",
    "OMP_NUM_THREADS": "1",
    "PYTHONHASHSEED": "0",
    "TOKENIZERS_PARALLELISM": "false",
    "ACCELERATE_USE_CPU": "true",
    "DS_ACCELERATOR": "cpu",
    "DS_BUILD_OPS": "0",
}


# -- asking ------------------------------------------------------------------------------------------------------------


def listing(path):
    """{name: checkpoint} of one run."""
    done = tool.run("ls", "--json", path)
    assert done.returncode == 0, done.stderr
    return {row["path"]: row for run in json.loads(done.stdout) for row in run["checkpoints"]}


def state(run, name):
    return listing(run)[name]["state"]


def is_one_of(name, patterns):
    return any(fnmatch(name, pattern) for pattern in patterns)


# -- saving ------------------------------------------------------------------------------------------------------------


def start(directory, *options, ranks=1, script=TRAIN):
    options = ["--output_dir", "run", "--max_steps", "4", "--save_steps", "2", *options]
    with open(directory / "output.log", "wb") as output:
        return loaded.start(script, *options, ranks=ranks, cwd=directory, env=ENVIRONMENT, output=output)


def finish(process, directory):
    try:
        assert process.wait(DEADLINE) == 0, (directory / "output.log").read_text(errors="replace")[-3000:]
    finally:
        if process.poll() is None:
            process.kill()
            process.wait()
    return directory / "run"


def train(directory, *options, **rest):
    return finish(start(directory, *options, **rest), directory)


# -- damage ------------------------------------------------------------------------------------------------------------


def cuts(length):
    """Where a file is cut: JSON may do without its last byte, which ends the line."""
    return sorted({0, 1, length // 3, length // 2, length - 2} & set(range(length)))


def assert_damage_is_seen(run, name, whole):
    """Every file removed, and cut: the state is no longer `whole`, with the exceptions of the tables."""
    assert state(run, name) == whole
    counted = 0
    for file in sorted(path for path in (run / name).rglob("*") if path.is_file()):
        content, times = file.read_bytes(), (file.stat().st_atime_ns, file.stat().st_mtime_ns)
        if not is_one_of(file.name, MAY_BE_REMOVED):
            file.unlink()
            assert state(run, name) == "incomplete", f"{file} was removed"
            counted += 1
        for length in () if is_one_of(file.name, MAY_BE_CUT) else cuts(len(content)):
            file.write_bytes(content[:length])
            assert state(run, name) == "incomplete", f"{file} was cut to {length} of {len(content)} bytes"
            counted += 1
        file.write_bytes(content)
        os.utime(file, ns=times)
    assert state(run, name) == whole
    print(f"{counted} times damaged, each time seen")

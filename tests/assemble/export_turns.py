#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Saves that a policy exports, and readers of what it exports.

export_turns.py save MODELS RUN FIRST LAST  checkpoints FIRST to LAST of RUN: the models below MODELS in turn, with all
                                            weights the step; each waited for until it is exported to the directory in
                                            OUT, as its name there tells
export_turns.py files LINK STOP             reads all that LINK leads to again and again until the file STOP is there:
                                            it is whole by its sums, and of one step. Prints how often, and of how many
                                            steps. STOP.files is there when it begins
export_turns.py load LINK STOP              the same for transformers' from_pretrained, by where the link leads; STOP.load
export_turns.py path LINK STOP              the same by LINK itself, for models whose weights are one file; STOP.path
"""

import hashlib
import json
import os
import struct
import sys
import time
from pathlib import Path

DEADLINE = 120


def bfloat16(value):
    return struct.pack("<f", value)[2:]


# -- saving ------------------------------------------------------------------------------------------------------------


def write_weights(source, target, step):
    """The same tensors, all of whose elements are the step."""
    content = source.read_bytes()
    header = 8 + struct.unpack("<Q", content[:8])[0]
    target.write_bytes(content[:header] + bfloat16(step) * ((len(content) - header) // 2))


def save(model, directory, step):
    directory.mkdir()
    config = json.loads((model / "config.json").read_text())
    (directory / "config.json").write_text(json.dumps({**config, "saved_at_step": step}))
    for source in sorted(model.iterdir()):
        if source.suffix == ".safetensors":
            write_weights(source, directory / source.name, step)
        elif source.name != "config.json":
            (directory / source.name).write_bytes(source.read_bytes())
    state = {"global_step": step, "log_history": [{"step": step, "eval_loss": 1 / step}]}
    (directory / "trainer_state.json").write_text(json.dumps(state))


def wait_for(path):
    deadline = time.monotonic() + DEADLINE
    while not path.exists():
        assert time.monotonic() < deadline, f"{path} did not appear"
        time.sleep(0.01)


def save_all(models, run, first, last):
    run.mkdir(exist_ok=True)
    sources = sorted(models.iterdir())
    for step in range(first, last + 1):
        save(sources[step % len(sources)], run / f"checkpoint-{step}", step)
        wait_for(Path(os.environ["OUT"]) / f"checkpoint-{step}")


# -- reading -----------------------------------------------------------------------------------------------------------


def steps_of_weights(path):
    content = path.read_bytes()
    header = 8 + struct.unpack("<Q", content[:8])[0]
    first = content[header : header + 2]
    assert content[header:] == first * ((len(content) - header) // 2), f"{path.name}: of several steps"
    return round(struct.unpack("<f", b"\0\0" + first)[0])


def read_files(link):
    """By a directory that was opened once: as the manual page says for who reads several files."""
    fd = os.open(link, os.O_RDONLY | os.O_DIRECTORY)
    try:
        directory = Path(f"/proc/self/fd/{fd}")
        sums = dict(reversed(line.split("  ", 1)) for line in (directory / "SHA256SUMS").read_text().splitlines())
        assert set(os.listdir(directory)) == {*sums, "SHA256SUMS", "ckptfs-export.json"}, os.listdir(directory)
        for name, digest in sums.items():
            assert hashlib.sha256((directory / name).read_bytes()).hexdigest() == digest, name
        steps = {json.loads((directory / "ckptfs-export.json").read_text())["step"]}
        steps.add(json.loads((directory / "config.json").read_text())["saved_at_step"])
        steps |= {steps_of_weights(directory / name) for name in sums if name.endswith(".safetensors")}
    finally:
        os.close(fd)
    assert len(steps) == 1, f"a mix of steps: {steps}"
    return steps.pop()


def load_path(link):
    import exported

    return round(exported.value_of(str(link)))


def load(link):
    return load_path(os.path.realpath(link))


def read_until(read, link, stop):
    seen, last, times = set(), 0, 0
    if read is not read_files:
        import exported  # noqa: F401: takes as long as many exports
    stop.with_suffix(f".{sys.argv[1]}").touch()
    wait_for(link)
    while not stop.exists():
        step = read(link)
        assert step >= last, f"{last} was read before {step}"
        seen.add(step)
        last, times = step, times + 1
    print(f"{read.__name__}: {times} times, {len(seen)} of the steps")
    assert len(seen) > 1


if __name__ == "__main__":
    if sys.argv[1] == "save":
        save_all(Path(sys.argv[2]), Path(sys.argv[3]), int(sys.argv[4]), int(sys.argv[5]))
    else:
        read_until({"files": read_files, "load": load, "path": load_path}[sys.argv[1]], Path(sys.argv[2]), Path(sys.argv[3]))

# SPDX-License-Identifier: Apache-2.0
"""Runs one training script in two directories, the plain disk's and the mount's, and compares what it wrote.

Both runs get the same command line with relative paths and the same environment; only their working directory
differs. What may differ in the files is named in CLOCK_KEYS and event_scalars(), with the reason; all else is compared
byte by byte.
"""

import hashlib
import json
import os
import re
import shutil
import signal
import stat
import subprocess
import sys
import tempfile
import time
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent / "lib"))

import loaded  # noqa: E402

RUN_DEADLINE = 300
started = []

# How long evaluation and training took goes into trainer_state.json and to TensorBoard: no two runs agree on it.
CLOCK_KEYS = ("runtime", "samples_per_second", "steps_per_second")


def environment():
    """The environment of every training run: no network, one thread, no variation by hash seed."""
    fixed = {
        "HF_HUB_OFFLINE": "1",
        "HF_HUB_DISABLE_PROGRESS_BARS": "1",
        "OMP_NUM_THREADS": "1",
        "PYTHONHASHSEED": "0",
        "TOKENIZERS_PARALLELISM": "false",
        "TRANSFORMERS_VERBOSITY": "warning",
    }
    return {**os.environ, **fixed}


def start(root, *options, script="train.py", ranks=1, variables=None):
    """Starts a training script with its working directory at root; what it prints goes to a file on the plain disk."""
    env = {**environment(), **(variables or {})}
    descriptor, name = tempfile.mkstemp(prefix="output.", dir=os.environ["CKPTFS_TEST_PLAIN"])
    with open(descriptor, "wb") as output:
        process = loaded.start(HERE / script, *options, ranks=ranks, cwd=root, env=env, output=output)
    process.output = Path(name)
    started.append(process)
    return process


def kill_group(process):
    """Kills a run with the processes that it started."""
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def end_started():
    """Kills what a failed test left running."""
    for process in started:
        if process.poll() is None:
            kill_group(process)
    started.clear()


def is_stopped(process):
    """By a signal, until the next. It must not end instead."""
    assert process.poll() is None, tail(process)
    return Path(f"/proc/{process.pid}/stat").read_text().rpartition(")")[2].split()[0] == "T"


def finish(process, deadline=RUN_DEADLINE):
    """Waits for a run; returns its exit status. One that hangs is killed and reported."""
    try:
        return process.wait(deadline)
    except subprocess.TimeoutExpired:
        kill_group(process)
        raise AssertionError(f"the run hung for {deadline} s:\n{tail(process)}") from None


def tail(process):
    return process.output.read_text(errors="replace")[-4000:]


def run(root, *options, status=0, **how):
    """Runs a training script to its end and insists on its exit status."""
    process = start(root, *options, **how)
    assert finish(process) == status, tail(process)


def run_both(sides, *options, status=0, **how):
    """The same run on both sides at the same time."""
    processes = [start(root, *options, **how) for root in sides]
    for process in processes:
        assert finish(process) == status, tail(process)


def wait_for(condition, seconds=60, what="the condition", pause=0.005):
    """Polls until condition() is true; returns its value."""
    deadline = time.monotonic() + seconds
    while not (value := condition()):
        assert time.monotonic() < deadline, f"waited {seconds} s for {what}"
        time.sleep(pause)
    return value


def digest(path):
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def digest_of_bytes(content):
    return hashlib.sha256(content).hexdigest()


def stable_name(relative, order):
    """TensorBoard puts time, host and process into its names: they are replaced by their rank in the listing."""
    match = re.fullmatch(r"(.*\bruns)/([^/]+)(?:/events\.out\.tfevents\..*\.(\d+))?", relative)
    if match is None:
        return relative
    directory, run_name, number = match.groups()
    rank = order.setdefault((directory, run_name), len(order))
    return f"{directory}/run{rank}" + (f"/events.{number}" if number is not None else "")


def listing(root):
    """Everything under root by its stable name: the path and lstat's result."""
    found, order = {}, {}
    for path in sorted(Path(root).rglob("*")):
        name = stable_name(path.relative_to(root).as_posix(), order)
        assert name not in found
        found[name] = (path, path.lstat())
    return found


def without_clock(value):
    if isinstance(value, dict):
        return {key: without_clock(item) for key, item in value.items() if not key.endswith(CLOCK_KEYS)}
    if isinstance(value, list):
        return [without_clock(item) for item in value]
    return value


def event_scalars(path):
    """What a TensorBoard file says, without the wall time that each record carries and the clock's figures."""
    from tensorboard.backend.event_processing.event_file_loader import EventFileLoader

    records = []
    for event in EventFileLoader(str(path)).Load():
        for value in event.summary.value:
            if not value.tag.endswith(CLOCK_KEYS):
                records.append((event.step, value.tag, value.SerializeToString(deterministic=True)))
    return records


def content(path):
    """A file's content in the form in which two runs must agree on it."""
    if path.name == "trainer_state.json":
        return without_clock(json.loads(path.read_text()))
    if "tfevents" in path.name:
        return event_scalars(path)
    return digest(path)


def assert_same_tree(plain, mount):
    """Both trees hold the same names, kinds, modes, sizes and bytes; returns how many files were compared."""
    expected, actual = listing(plain), listing(mount)
    assert list(actual) == list(expected)
    files = 0
    for name, (path, status) in expected.items():
        other, other_status = actual[name]
        assert stat.filemode(other_status.st_mode) == stat.filemode(status.st_mode), name
        if not stat.S_ISREG(status.st_mode):
            continue
        files += 1
        assert other_status.st_nlink == status.st_nlink, name
        assert content(other) == content(path), f"{name} differs"
        if content(path) == digest(path):
            assert other_status.st_size == status.st_size, name
    assert files > 0, f"{plain} is empty"
    return files


def checkpoints(run_directory):
    """The names of a run's checkpoints, in the order of their steps."""
    found = [path.name for path in Path(run_directory).glob("checkpoint-*")]
    return sorted(found, key=lambda name: int(name.rpartition("-")[2]))


def trainer_state(directory):
    return json.loads((Path(directory) / "trainer_state.json").read_text())


def losses(directory):
    """The loss curve that a run recorded: (step, loss) and (step, eval_loss) in order."""
    history = trainer_state(directory)["log_history"]
    return [(entry["step"], key, entry[key]) for entry in history for key in ("loss", "eval_loss") if key in entry]


def assert_same_tensors(expected, actual):
    """Both state_dicts have the same names in the same order and the same values, bit by bit."""
    assert list(actual) == list(expected)
    for name, tensor in expected.items():
        assert tensor.equal(actual[name]), name


def base_model():
    """The model that train.py starts from with its default options."""
    import train

    train.set_seed(42)
    return train.make_model(train.ScriptArguments())


def remove_if_there(directory):
    if directory.exists():
        shutil.rmtree(directory)


def copy_and_remove(source, target):
    """Copies a tree, compares the copy, and removes it as Trainer's rotation does, but with errors reported."""
    shutil.copytree(source, target)
    assert_same_tree(source, target)
    shutil.rmtree(target)


class Follower:
    """`tail -f` of a file, from its first byte; with -F also over a rotation."""

    def __init__(self, path, how="-f"):
        self.command = ["tail", "-c", "+1", "-s", "0.1", how, str(path)]

    def __enter__(self):
        self.copy = tempfile.TemporaryFile()
        self.process = subprocess.Popen(self.command, stdout=self.copy, stderr=subprocess.DEVNULL)
        return self

    def output(self):
        return os.pread(self.copy.fileno(), os.fstat(self.copy.fileno()).st_size, 0)

    def __exit__(self, *exception):
        self.process.terminate()
        self.process.wait()
        self.copy.close()

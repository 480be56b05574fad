# SPDX-License-Identifier: Apache-2.0
"""What else people and their tools do in a run directory: memmaps, databases, journals, git, rsync, tar, logs."""

import filecmp
import json
import os
import shutil
import sqlite3
import subprocess
import sys
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context

import numpy
import pytest
import torch
import torch.distributed.checkpoint as distributed_checkpoint
from safetensors import safe_open
from safetensors.torch import save_file

import harness
import workers
from workers import ROWS, WORKERS


@pytest.fixture(scope="module")
def run_directory(sides):
    """Something like a run: a checkpoint, a sub-directory, small files, a link, an empty file, a name with spaces."""
    run = sides.mount / "run"
    (run / "checkpoint-1").mkdir(parents=True)
    (run / "logs" / "deep" / "er").mkdir(parents=True)
    generator = torch.Generator().manual_seed(7)
    tensors = {f"layer.{index}": torch.rand(512, 1024, generator=generator) for index in range(6)}
    save_file(tensors, run / "checkpoint-1" / "model.safetensors")
    torch.save({"state": tensors}, run / "checkpoint-1" / "optimizer.pt")
    for index in range(40):
        (run / "logs" / "deep" / f"part {index}.json").write_text(json.dumps({"index": index}) * index)
    (run / "logs" / "deep" / "er" / "script.sh").write_text("#!/bin/sh\nexit 3\n")
    (run / "logs" / "deep" / "er" / "script.sh").chmod(0o750)
    (run / "latest").symlink_to("checkpoint-1")
    (run / "empty").touch()
    os.utime(run / "empty", ns=(1, 1_500_000_000_123_456_789))
    return run


@pytest.fixture(scope="module", autouse=True)
def killed_meanwhile(deaths):
    """With CKPTFS_TEST_KILL the daemon dies while all this goes on, which no test may notice."""
    deaths.start()
    yield
    deaths.stop()
    assert deaths.killed >= min(deaths.number, 3), "the tests were over before the daemon could be killed often enough"


@pytest.fixture
def place(sides, request):
    """A fresh directory on the mount for one test."""
    directory = sides.mount / request.node.name.replace("[", "-").rstrip("]")
    directory.mkdir()
    return directory


def in_processes(function, *arguments):
    """Runs function(worker, *arguments) in WORKERS processes at once; fails when one of them does."""
    with ProcessPoolExecutor(WORKERS, mp_context=get_context("spawn")) as pool:
        calls = [pool.submit(function, worker, *arguments) for worker in range(WORKERS)]
        for call in calls:
            call.result(timeout=120)


def command(*words, **options):
    """Runs a program, insists on success, returns what it printed."""
    result = subprocess.run(list(map(str, words)), capture_output=True, text=True, timeout=120, **options)
    assert result.returncode == 0, f"{words}: {result.stdout}{result.stderr}"
    return result.stdout


def test_numpy_memmap(place, remount):
    """An array written through a shared mapping: seen by read() at once, by another mapping, and after a remount."""
    path, shape = place / "tokens.bin", (3000, 257)
    array = numpy.memmap(path, dtype=numpy.uint32, mode="w+", shape=shape)
    assert path.stat().st_size == 3000 * 257 * 4
    array[:] = numpy.arange(3000 * 257, dtype=numpy.uint32).reshape(shape)
    with open(path, "rb") as file:
        assert numpy.array_equal(numpy.frombuffer(file.read(), numpy.uint32).reshape(shape), array)
    other = numpy.memmap(path, dtype=numpy.uint32, mode="r+", shape=shape)
    other[1500] = 99
    other.flush()
    assert (array[1500] == 99).all()
    with open(path, "r+b") as file:
        file.seek(2999 * 257 * 4)
        file.write(b"\xff" * 1028)
    assert (array[2999] == 0xFFFFFFFF).all()
    expected = numpy.array(array)
    del array, other
    remount()
    again = numpy.memmap(path, dtype=numpy.uint32, mode="r", shape=shape)
    assert numpy.array_equal(again, expected)
    del again


@pytest.mark.parametrize("journal", ["wal", "delete", "truncate", "persist"])
def test_sqlite(place, remount, journal):
    """Several processes write one database, a reader holds a snapshot; the database is sound after a remount."""
    path = place / "optuna.db"
    connection = sqlite3.connect(path, isolation_level=None)
    assert connection.execute(f"PRAGMA journal_mode={journal}").fetchone()[0] == journal
    connection.execute("CREATE TABLE trials (number INTEGER PRIMARY KEY, worker INTEGER, parameters TEXT)")
    if journal == "wal":
        connection.execute("BEGIN")
        assert connection.execute("SELECT COUNT(*) FROM trials").fetchone() == (0,)
    in_processes(workers.insert_rows, str(path), journal)
    if journal == "wal":
        assert connection.execute("SELECT COUNT(*) FROM trials").fetchone() == (0,), "the snapshot moved"
        connection.execute("ROLLBACK")
    connection.close()
    remount()
    connection = sqlite3.connect(path)
    assert connection.execute("PRAGMA integrity_check").fetchone() == ("ok",)
    rows = connection.execute("SELECT number, worker FROM trials ORDER BY number").fetchall()
    assert [number for number, _ in rows] == list(range(WORKERS * ROWS))
    assert [sum(worker == each for _, worker in rows) for each in range(WORKERS)] == [ROWS] * WORKERS
    connection.close()


def test_journal_with_a_link_as_lock(place):
    """No line is lost or torn, and each worker's lines are in order."""
    journal = place / "journal.log"
    in_processes(workers.append_under_lock, str(journal), str(place / "journal.log.lock"))
    lines = [json.loads(line) for line in journal.read_text().splitlines()]
    for worker in range(WORKERS):
        assert [line["index"] for line in lines if line["worker"] == worker] == list(range(ROWS))
    assert len(lines) == WORKERS * ROWS
    assert os.listdir(place) == ["journal.log"]


def test_several_processes_append_to_one_log(place):
    """O_APPEND from several processes: every line is there, whole."""
    in_processes(workers.append_without_lock, str(place / "events.jsonl"))
    lines = [json.loads(line) for line in (place / "events.jsonl").read_text().splitlines()]
    for worker in range(WORKERS):
        assert [line["index"] for line in lines if line["worker"] == worker] == list(range(ROWS))


def test_a_log_reopened_for_each_line(place, remount):
    """A log that grows over the size of small files by two thousand open, append, close; followed by tail -f."""
    log, expected = place / "log.txt", b""
    log.touch()
    with harness.Follower(log) as follower:
        for index in range(2000):
            line = f"step {index}: loss {1 / (index + 1):.6f}\n".encode()
            with open(log, "ab") as file:
                file.write(line)
            expected += line
            if index % 250 == 0:
                assert log.read_bytes() == expected
        harness.wait_for(lambda: len(follower.output()) >= len(expected), what="tail -f to see the end")
        assert follower.output() == expected
    remount()
    assert log.read_bytes() == expected


def test_tail_follows_a_rotated_log(place):
    """logrotate's way: the log is renamed and a new one made; tail -F goes on with the new one."""
    log = place / "train.log"
    log.write_text("one\n")
    with harness.Follower(log, "-F") as follower:
        harness.wait_for(lambda: b"one\n" in follower.output(), what="the first line")
        log.rename(place / "train.log.1")
        log.write_text("two\n")
        harness.wait_for(lambda: b"two\n" in follower.output(), what="the new file's line")
    assert (place / "train.log.1").read_text() == "one\n"


def test_git(run_directory, place):
    """git init in a run directory, commit, change, commit, gc, clone: fsck finds nothing to complain about."""
    repository = place / "repository"
    shutil.copytree(run_directory, repository, symlinks=True)
    identity = ("-c", "user.name=Tester", "-c", "user.email=tester@example.org", "-c", "commit.gpgsign=false")

    def git(*words):
        return command("git", *identity, *words, cwd=repository)

    git("init", "-q", "-b", "main")
    git("add", "-A")
    git("commit", "-q", "-m", "first")
    (repository / "logs" / "deep" / "part 3.json").write_text("changed")
    assert "part 3.json" in git("status", "--porcelain")
    git("commit", "-q", "-a", "-m", "second")
    git("gc", "-q")
    git("fsck", "--full", "--strict")
    assert git("status", "--porcelain") == ""
    command("git", "clone", "-q", repository, place / "clone")
    command("diff", "-r", "--exclude=.git", repository, place / "clone")
    assert git("log", "--format=%s").split() == ["second", "first"]


def test_rsync(run_directory, place, sides):
    """rsync -a out to the plain disk and in again: a second pass finds nothing to do, times included."""
    outside, inside = sides.plain / "rsynced", place / "rsynced"
    for source, target in ((run_directory, outside), (outside, inside)):
        command("rsync", "-a", f"{source}/", f"{target}/")
        assert command("rsync", "-a", "-i", "--checksum", f"{source}/", f"{target}/") == ""
        harness.assert_same_tree(source, target)
    assert (inside / "empty").stat().st_mtime_ns == 1_500_000_000_123_456_789
    with open(inside / "checkpoint-1" / "model.safetensors", "r+b") as file:
        file.seek(5_000_000)
        file.write(b"changed")
    command("rsync", "-a", "--inplace", "--checksum", f"{outside}/", f"{inside}/")
    harness.assert_same_tree(outside, inside)


def test_tar(run_directory, place, sides):
    """An archive made from the mount, unpacked on the mount: tar's own compare agrees."""
    archive = sides.plain / "run.tar"
    command("tar", "-C", run_directory.parent, "-cf", archive, run_directory.name)
    command("tar", "-C", place, "-xpf", archive)
    command("tar", "-C", place, "--compare", "-f", archive)
    harness.assert_same_tree(run_directory, place / run_directory.name)


@pytest.mark.parametrize("options", [("-r",), ("-a",), ("-a", "--reflink=auto", "--sparse=always")])
def test_cp(run_directory, place, options):
    """cp -r within the mount, and what copies it holds."""
    command("cp", *options, run_directory, place / "copy")
    command("diff", "-r", run_directory, place / "copy")
    if "-a" in options:
        harness.assert_same_tree(run_directory, place / "copy")


def test_mv_and_rm(run_directory, place, sides):
    """mv within the mount, to the plain disk and back, then rm -rf of all of it."""
    command("cp", "-a", run_directory, place / "first")
    inode = (place / "first" / "empty").stat().st_ino
    command("mv", place / "first", place / "second")
    assert (place / "second" / "empty").stat().st_ino == inode
    command("mv", place / "second", sides.plain / "moved")
    command("mv", sides.plain / "moved", place / "third")
    harness.assert_same_tree(run_directory, place / "third")
    command("rm", "-rf", place / "third")
    assert os.listdir(place) == []


def test_find_and_du(run_directory):
    """Tools that walk the tree: find sees each name once, du counts what the files hold."""
    found = command("find", run_directory, "-type", "f").splitlines()
    assert len(found) == len(set(found)) == 44
    apparent = int(command("du", "-sb", "--apparent-size", run_directory / "checkpoint-1").split()[0])
    sizes = sum(path.stat().st_size for path in (run_directory / "checkpoint-1").iterdir())
    assert 0 <= apparent - sizes <= 65536


def test_safetensors_over_a_mapped_file(place):
    """save_file onto a name that is mapped: the mapping keeps the old tensors, the name has the new ones."""
    path = place / "model.safetensors"
    save_file({"weight": torch.full((1024, 1024), 1.0)}, path)
    with safe_open(path, framework="pt") as file:
        save_file({"weight": torch.full((1024, 1024), 2.0)}, path)
        assert (file.get_tensor("weight") == 1.0).all()
    with safe_open(path, framework="pt") as file:
        assert (file.get_tensor("weight") == 2.0).all()
    assert os.listdir(place) == ["model.safetensors"]


def test_torch_load_by_mapping(place, remount):
    """torch.load(mmap=True) of a checkpoint, before and after a remount."""
    path, state = place / "optimizer.pt", {"exp_avg": torch.arange(1_000_000.0), "step": torch.tensor(12.0)}
    torch.save(state, path)
    for _ in range(2):
        loaded = torch.load(path, mmap=True)
        harness.assert_same_tensors(state, loaded)
        del loaded
        remount()


def test_distributed_checkpoint(place, sides, remount):
    """torch.distributed.checkpoint: files synced, .metadata renamed into place, loaded again; saved over itself."""
    state = {"weight": torch.arange(300_000.0).reshape(600, 500), "bias": torch.full((500,), 0.25)}
    for root in (place, sides.plain / place.name):
        for _ in range(2):
            distributed_checkpoint.save(state, checkpoint_id=root / "saved", no_dist=True)
    remount()
    # .metadata carries a random id of the save.
    assert sorted(os.listdir(place / "saved")) == [".metadata", "__0_0.distcp"]
    plain = sides.plain / place.name / "saved"
    assert filecmp.cmp(place / "saved" / "__0_0.distcp", plain / "__0_0.distcp", shallow=False)
    loaded = {name: torch.zeros_like(tensor) for name, tensor in state.items()}
    distributed_checkpoint.load(loaded, checkpoint_id=place / "saved", no_dist=True)
    harness.assert_same_tensors(state, loaded)


def test_copy_from_the_checkpoint(run_directory, place):
    """shutil.copy of weights, as a push from a checkpoint does: by sendfile or copy_file_range, and compared."""
    source, target = run_directory / "checkpoint-1" / "model.safetensors", place / "model.safetensors"
    shutil.copy(source, target)
    assert filecmp.cmp(source, target, shallow=False)
    with open(source, "rb") as reader, open(place / "by-range", "wb") as writer:
        left = os.fstat(reader.fileno()).st_size
        while left > 0:
            copied = os.copy_file_range(reader.fileno(), writer.fileno(), left)
            assert copied > 0
            left -= copied
    assert filecmp.cmp(source, place / "by-range", shallow=False)
    # A copy does not change when its source is written afterwards, nor the other way round.
    with open(place / "by-range", "r+b") as file:
        file.write(b"\0" * 4096)
    assert filecmp.cmp(source, target, shallow=False)
    assert not filecmp.cmp(source, place / "by-range", shallow=False)


def test_python_imports_from_the_mount(place):
    """A package on the mount is imported, its byte code is written beside it and used again."""
    package = place / "helpers"
    package.mkdir()
    (package / "__init__.py").write_text("from .value import VALUE\n")
    (package / "value.py").write_text("VALUE = 41 + 1\n")
    for _ in range(2):
        environment = {key: value for key, value in os.environ.items() if key != "PYTHONDONTWRITEBYTECODE"}
        printed = command(sys.executable, "-c", "import helpers; print(helpers.VALUE)", cwd=place, env=environment)
        assert printed == "42\n"
    assert len(list((package / "__pycache__").glob("*.pyc"))) == 2

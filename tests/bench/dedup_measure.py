# SPDX-License-Identifier: Apache-2.0
"""One measurement of the deduplication bench: a case stored by a tool in a new store, and read back."""

import os
import shutil
import statistics
import tempfile
import time

import dedup_cases
from sides import BenchError, drop_caches, sync_disk

MIB = 1 << 20
SAVES_AGAIN = 3
READS = 5
BESIDES = ("cp", "ckptfs")  # whose saves and reads are timed besides


def read_file(path):
    """read(2) in calls of 1 MiB."""
    buffer = bytearray(MIB)
    with open(path, "rb", buffering=0) as file:
        while file.readinto(buffer):
            pass


def warm(case):
    for name in case.sizes:
        read_file(os.path.join(case.source, name))


def verify(case, tree):
    """Every file is there with its bytes; what can be is read from the disk, not from memory."""
    sync_disk(tree)
    drop_caches()
    found = {os.path.relpath(os.path.join(folder, name), tree) for folder, _, names in os.walk(tree) for name in names}
    if found != set(case.sizes):
        raise BenchError(f"{tree} should hold the files of case {case.key}; "
                         f"one side only: {', '.join(sorted(found ^ set(case.sizes)))}")
    for name, digest in case.digests.items():
        if dedup_cases.digest_file(os.path.join(tree, name)) != digest:
            raise BenchError(f"{os.path.join(tree, name)} differs from what was stored")


# -- what a directory can besides -----------------------------------------------------------------------------


def time_read(path):
    started = time.monotonic()
    read_file(path)
    return time.monotonic() - started


def time_reads(case, tool):
    """The file from the disk, where that is allowed, and from memory: medians, since a disk that others use varies."""
    path, cold, warm_again = os.path.join(tool.tree, case.newest()), [], []
    for _ in range(READS):
        sync_disk(tool.directory)
        if drop_caches():
            cold.append(time_read(path))
        else:
            read_file(path)
        warm_again.append(time_read(path))
    seconds = {"read_warm": statistics.median(warm_again)}
    if cold:
        seconds["read_cold"] = statistics.median(cold)
    return seconds


def write_file(path, content):
    """As safetensors writes: a temporary file of the final size, writes of 1 MiB, rename while open; then fsync."""
    temporary = os.path.join(os.path.dirname(path), ".tmpsave")
    fd = os.open(temporary, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600)
    try:
        os.ftruncate(fd, len(content))
        done = 0
        while done < len(content):
            done += os.write(fd, content[done:done + MIB])
        os.rename(temporary, path)
        os.fsync(fd)
    finally:
        os.close(fd)


def save_again(case, tool):
    """The newest checkpoint's largest file under the names of the next checkpoints: the median from the second on."""
    with open(os.path.join(case.source, case.newest()), "rb") as file:
        content = memoryview(file.read())
    folder, name = os.path.split(os.path.join(tool.tree, case.newest()))
    seconds, before = [], tool.stored()
    for turn in range(1, SAVES_AGAIN + 1):
        path = os.path.join(f"{folder}{turn:02d}", name)
        os.mkdir(os.path.dirname(path))
        sync_disk(tool.directory)
        started = time.monotonic()
        write_file(path, content)
        seconds.append(time.monotonic() - started)
        tool.settle()
    drop_caches()
    if dedup_cases.digest_file(path) != case.digests[case.newest()]:
        raise BenchError(f"{path} differs from what was stored")
    return {"save_again": statistics.median(seconds[1:]), "save_again_grows_bytes": tool.stored() - before}


# -- the measurement --------------------------------------------------------------------------------------------


def store_case(case, tool):
    warm(case)
    sync_disk(tool.directory)
    started = time.monotonic()
    tool.ingest(case.source)
    durable = time.monotonic() - started
    sample = {"durable": durable, "durable_bytes": tool.stored()}
    sample["settled"] = durable + tool.settle()
    sample["stored_bytes"] = tool.stored()
    if tool.tree:
        verify(case, tool.tree)
    if tool.name in BESIDES:
        sample.update(time_reads(case, tool))
        sample.update(save_again(case, tool))
    return sample


def measure(case, kind, options, work):
    """One sample. What was made for it is gone afterwards."""
    directory = tempfile.mkdtemp(prefix=f"{kind.name}-", dir=work)
    tool = kind(directory, options)
    try:
        sample = store_case(case, tool)
    finally:
        tool.close()
    shutil.rmtree(directory)
    return sample

# SPDX-License-Identifier: Apache-2.0
"""What the processes of test_habits.py do. Kept apart so that they start without loading torch."""

import json
import os
import sqlite3
import time

WORKERS = 4
ROWS = 60


def insert_rows(worker, path, journal):
    """Takes numbers from a shared counter, one transaction each, as Optuna's workers take trials."""
    connection = sqlite3.connect(path, timeout=60, isolation_level=None)
    assert connection.execute(f"PRAGMA journal_mode={journal}").fetchone()[0] == journal
    for _ in range(ROWS):
        connection.execute("BEGIN IMMEDIATE")
        number = connection.execute("SELECT COALESCE(MAX(number), -1) + 1 FROM trials").fetchone()[0]
        connection.execute("INSERT INTO trials VALUES (?, ?, ?)", (number, worker, json.dumps({"x": number / 7})))
        connection.execute("COMMIT")
    connection.close()


def append_under_lock(worker, path, lock):
    """Appends lines under a lock that is a symbolic link, as Optuna's journal storage does on shared disks."""
    for index in range(ROWS):
        deadline = time.monotonic() + 60
        while True:
            try:
                os.symlink(path, lock)
                break
            except FileExistsError:
                assert time.monotonic() < deadline, "the lock was never free"
                time.sleep(0.001)
        with open(path, "ab") as journal:
            journal.write(json.dumps({"worker": worker, "index": index}).encode() + b"\n")
            journal.flush()
            os.fsync(journal.fileno())
        os.rename(lock, f"{lock}.{worker}")
        os.unlink(f"{lock}.{worker}")


def append_without_lock(worker, path):
    """Appends lines of different lengths by O_APPEND, one write each."""
    descriptor = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT)
    for index in range(ROWS):
        line = json.dumps({"worker": worker, "index": index, "padding": "x" * (index * 7 % 300)}).encode() + b"\n"
        assert os.write(descriptor, line) == len(line)
    os.close(descriptor)

# SPDX-License-Identifier: Apache-2.0
"""Kills the daemon of the mount under test, again and again, while something else goes on."""

import json
import os
import random
import signal
import subprocess
import threading

import harness

# Held while the mount is asked and while it is ended: a command that asks is a user that keeps it busy.
mount_in_use = threading.Lock()


def status():
    """What the mount says of itself, or None when it does not answer."""
    command = [os.environ["CKPTFS"], "status", "--json", os.environ["CKPTFS_TEST_MOUNTPOINT"]]
    result = subprocess.run(command, capture_output=True, text=True, timeout=60)
    if result.returncode != 0:
        return None
    answer = json.loads(result.stdout)
    return answer[0] if isinstance(answer, list) else answer


class Deaths(threading.Thread):
    """A thread that kills a number of daemons at random moments, each after the one before was replaced."""

    def __init__(self, number, seed):
        super().__init__(name="deaths")
        self.number, self.killed, self.failure = number, 0, None
        self.moments = random.Random(seed)
        self.over = threading.Event()

    def run(self):
        try:
            # A request that is in work at two kills is held to be their cause, so they keep a distance.
            while self.killed < self.number and not self.over.wait(self.moments.uniform(1.2, 2.5)):
                self.kill_one()
        except BaseException as failure:  # whatever it is, the test has to hear of it: see stop()
            self.failure = failure

    def kill_one(self):
        with mount_in_use:
            victim = harness.wait_for(status, 60, "the mount to answer")["daemon_pid"]
            os.kill(victim, signal.SIGKILL)
            self.killed += 1
            harness.wait_for(lambda: (now := status()) and now["daemon_pid"] != victim, 60, "a new daemon")

    def stop(self):
        """Ends the thread and raises what went wrong in it."""
        self.over.set()
        self.join()
        if self.failure is not None:
            raise self.failure

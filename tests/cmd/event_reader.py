#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Readers of .ckptfs/events that shells cannot be.

event_reader.py select FILE     prints "ready" when it waits, and the lines of the first event that select(2) tells of
event_reader.py nonblock FILE   what a read without waiting gives while nothing has come
event_reader.py pieces FILE     prints "ready", then one event read in pieces of 7 bytes
event_reader.py signal FILE     a read that a signal with a handler ends: prints how
event_reader.py slow FILE       prints "ready"; at a line on standard input reads all that has come
"""

import errno
import os
import select
import signal
import sys


class Alarm(Exception):
    pass


def ready():
    print("ready", flush=True)


def wait_by_select(fd):
    ready()
    readable, _, _ = select.select([fd], [], [], 60)
    print(os.read(fd, 1 << 16).decode() if readable else "nothing", end="")


def read_at_once(fd):
    os.set_blocking(fd, False)
    try:
        print(os.read(fd, 4096))
    except BlockingIOError as error:
        print(errno.errorcode[error.errno])


def read_pieces(fd):
    ready()
    text = b""
    while not text.endswith(b"\n"):
        text += os.read(fd, 7)
    print(text.decode(), end="")


def read_until_signal(fd):
    def raise_alarm(*_):
        raise Alarm

    signal.signal(signal.SIGALRM, raise_alarm)
    try:
        signal.setitimer(signal.ITIMER_REAL, 0.3)
        print(os.read(fd, 4096))
    except Alarm:
        print("interrupted")


def read_late(fd):
    ready()
    sys.stdin.readline()
    os.set_blocking(fd, False)
    try:
        while text := os.read(fd, 1 << 16):
            print(text.decode(), end="")
    except BlockingIOError:
        pass


def main():
    ways = {
        "select": wait_by_select,
        "nonblock": read_at_once,
        "pieces": read_pieces,
        "signal": read_until_signal,
        "slow": read_late,
    }
    ways[sys.argv[1]](os.open(sys.argv[2], os.O_RDONLY))


main()

#!/usr/bin/env bats
# SPDX-License-Identifier: Apache-2.0
# flock, POSIX record locks, open file description locks.

load fs.bash

@test "flock between processes" {
    probe lock-flock
}

@test "flock belongs to the open file" {
    probe lock-flock-owner
}

@test "POSIX locks on ranges between processes" {
    probe lock-posix
}

@test "closing any descriptor drops the POSIX locks of a process" {
    probe lock-posix-close
}

@test "a lock needs a descriptor of its kind" {
    probe lock-posix-modes
}

@test "a deadlock is found" {
    probe lock-posix-deadlock
}

@test "open file description locks" {
    probe lock-description
}

@test "four processes raise a counter under a lock" {
    probe lock-counter
}

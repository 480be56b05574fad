#!/usr/bin/env bats
# SPDX-License-Identifier: Apache-2.0
# open(2): what each flag means.

load fs.bash

@test "O_CREAT makes a file with the mode less the umask, and opens it when it is there" {
    probe open-create
}

@test "a file made with mode 0400 or 0 can be written by the descriptor that made it" {
    probe open-create-readonly-mode
}

@test "O_EXCL refuses a file, a directory and a dangling link" {
    probe open-exclusive
}

@test "O_TRUNC empties a file for all who have it open" {
    probe open-truncate
}

@test "O_CREAT with O_TRUNC on a file that is being written" {
    probe open-truncate-while-written
}

@test "O_APPEND writes at the end, whatever the offset and whoever else writes" {
    probe open-append
}

@test "O_APPEND switched on and off by fcntl" {
    probe open-append-switched
}

@test "O_DIRECT: aligned reads and writes" {
    probe open-direct-aligned
}

@test "O_DIRECT: a read at the end of the file is short" {
    probe open-direct-tail
}

@test "O_DIRECT: unaligned works or is EINVAL" {
    probe open-direct-unaligned
}

@test "O_DIRECT and buffered handles of one file agree" {
    probe open-direct-mixed
}

@test "O_SYNC and O_DSYNC" {
    probe open-sync
}

@test "O_TMPFILE makes a nameless file that can be given a name" {
    probe open-tmpfile
}

@test "O_DIRECTORY, O_NOFOLLOW, O_PATH, and handles that are not for reading or writing" {
    probe open-kinds
}

@test "two thousand files open at once" {
    probe open-many
}

@test "one file open three hundred times in all modes" {
    probe open-one-file-often
}

#!/usr/bin/env bats
# SPDX-License-Identifier: Apache-2.0
# Several processes work on the same file or directory, each on its own part.

load fs.bash

@test "four appenders lose nothing" {
    probe concurrent-append
}

@test "four appenders that open and close for each line lose nothing" {
    probe concurrent-append-reopening
}

@test "three thousand appends to a large file cost what they append" {
    probe concurrent-append-often
}

@test "a small log grows line by line under a reader" {
    probe concurrent-append-small
}

@test "four writers, each with its own stripes" {
    probe concurrent-writers
}

@test "O_EXCL has one winner" {
    probe concurrent-exclusive
}

@test "mkdir and rmdir of one name" {
    probe concurrent-directories
}

@test "four processes fill one directory" {
    probe concurrent-create
}

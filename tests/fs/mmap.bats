#!/usr/bin/env bats
# SPDX-License-Identifier: Apache-2.0
# mmap(2): coherent with read and write, alive after close, bounded by the end of the file.

load fs.bash

@test "shared and private mappings read" {
    probe mmap-read
}

@test "stores through a shared mapping are seen by read and stay" {
    probe mmap-shared-write
}

@test "a mapping sees what others write" {
    probe mmap-sees-writes
}

@test "a private mapping changes nothing" {
    probe mmap-private-write
}

@test "a mapping outlives its descriptor" {
    probe mmap-after-close
}

@test "a mapping outlives the name" {
    probe mmap-unlinked
}

@test "SIGBUS beyond the end, which moves" {
    probe mmap-end-of-file
}

@test "mappings that a descriptor does not allow" {
    probe mmap-refusals
}

@test "two processes talk through a file" {
    probe mmap-two-processes
}

@test "a sparse array is filled through a mapping" {
    probe mmap-fill-sparse
}

@test "a mapping stays while the file is opened, written and closed by others" {
    probe mmap-while-reopened
}

@test "a mapping that is left of a settled file follows what others do to the file" {
    probe mmap-settled
}

@test "a mapping for reading, the same" {
    probe mmap-settled-reader
}

#!/usr/bin/env bats
# SPDX-License-Identifier: Apache-2.0
# fallocate(2).

load fs.bash

@test "allocating grows a file with zeros" {
    probe fallocate-extend
}

@test "KEEP_SIZE leaves the size alone" {
    probe fallocate-keep-size
}

@test "PUNCH_HOLE at any offset, seen by readers and mappings" {
    probe fallocate-punch-hole
}

@test "ZERO_RANGE with and without KEEP_SIZE" {
    probe fallocate-zero-range
}

@test "SEEK_HOLE finds a punched hole" {
    probe fallocate-hole-is-found
}

@test "holes in small files" {
    probe fallocate-small-file
}

@test "unsupported modes are EOPNOTSUPP, bad ranges EINVAL" {
    probe fallocate-refusals
}

#!/usr/bin/env bats
# SPDX-License-Identifier: Apache-2.0
# Files around 16 KiB, where bytes move between the database and an object.

load fs.bash

@test "sizes around the limit" {
    probe inline-sizes
}

@test "growing over and shrinking under the limit under a reader" {
    probe inline-crossing
}

@test "crossing the limit with handles that stay open" {
    probe inline-crossing-open
}

@test "bytes changed in place" {
    probe inline-overwrite
}

@test "growing by truncate and fallocate" {
    probe inline-grow-without-writing
}

@test "a mapped small file grows" {
    probe inline-mapped
}

@test "names and links of small files" {
    probe inline-names
}

@test "many small files, rewritten" {
    probe inline-many
}

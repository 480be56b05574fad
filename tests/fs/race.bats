#!/usr/bin/env bats
# SPDX-License-Identifier: Apache-2.0
# Processes work against each other: what is seen is old or new, never something else.

load fs.bash

@test "two readers while a third process truncates and rewrites" {
    probe race-truncate-readers
}

@test "readers see one version or the other while files are renamed over" {
    probe race-rename-over
}

@test "open and unlink of one name" {
    probe race-unlink-open
}

@test "a file is rewritten in place while others have it mapped" {
    probe race-rewrite-mapped
}

@test "a mapping shows what an in-place rewrite wrote" {
    probe race-rewrite-seen
}

@test "a file is found all the time while its neighbours move" {
    probe race-rename-neighbours
}

#!/usr/bin/env bats
# SPDX-License-Identifier: Apache-2.0
# readdir: positions that stay good, large directories, dot entries.

load fs.bash

@test "all entries with their numbers and kinds, dots included" {
    probe directory-dots
}

@test "telldir positions stay good while entries come and go" {
    probe directory-positions
}

@test "what stays is listed just once while others come and go" {
    probe directory-scan-while-changing
}

@test "a directory is emptied by one stream" {
    probe directory-remove-while-reading
}

@test "20,000 entries" {
    probe directory-huge
}

@test "getdents64 goes on at any d_off" {
    probe directory-raw-offsets
}

@test "names of every length" {
    probe directory-long-names
}

@test "a directory is removed under its reader" {
    probe directory-removed-under-reader
}

@test "a listing ends whatever is renamed meanwhile" {
    probe directory-rename-while-reading
}

@test "file handles outlive the kernel's caches" {
    probe directory-file-handles
}

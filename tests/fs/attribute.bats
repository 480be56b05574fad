#!/usr/bin/env bats
# SPDX-License-Identifier: Apache-2.0
# Modes, owners, times that are set, link counts, statfs.

load fs.bash

@test "chmod and fchmod of all bits" {
    probe attribute-mode
}

@test "chown, lchown and fchown" {
    probe attribute-owner
}

@test "utimens with nanoseconds, before 1970 and after 2038" {
    probe attribute-times
}

@test "UTIME_OMIT and UTIME_NOW" {
    probe attribute-times-omitted
}

@test "times that were set stay when the file is closed" {
    probe attribute-times-while-open
}

@test "the link count of a directory counts its directories" {
    probe attribute-directory-links
}

@test "a setgid directory hands its group on" {
    probe attribute-setgid-directory
}

@test "statfs" {
    probe attribute-statfs
}

@test "st_blocks of a full file" {
    probe attribute-blocks
}

@test "statx agrees with stat" {
    probe attribute-statx
}

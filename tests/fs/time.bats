#!/usr/bin/env bats
# SPDX-License-Identifier: Apache-2.0
# Which operation moves which time.

load fs.bash

@test "mtime and ctime of a small file" {
    probe time-of-small-file
}

@test "mtime and ctime of a large file" {
    probe time-of-large-file
}

@test "mtime and ctime of a directory whose names change" {
    probe time-of-names
}

@test "mtime and ctime around a rename" {
    probe time-of-rename
}

@test "writing into a file does not touch its directory" {
    probe time-of-parent
}

@test "extended attributes move ctime only" {
    probe time-of-xattrs
}

@test "chown and utimens move ctime" {
    probe time-of-owner
}

@test "stores through a shared mapping move mtime" {
    probe time-of-mapping
}

@test "copy_file_range moves the times of the destination only" {
    probe time-of-copy
}

@test "what is made later is not older" {
    probe time-order
}

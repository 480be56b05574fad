#!/usr/bin/env bats
# SPDX-License-Identifier: Apache-2.0
# link, symlink, unlink, rmdir, and what a name may be.

load fs.bash

@test "hard links share everything" {
    probe link-hard
}

@test "links come and go while the file is being written" {
    probe link-while-open
}

@test "hard links to symbolic links, and through them" {
    probe link-to-symlink
}

@test "a thousand links to one file" {
    probe link-many
}

@test "targets of symbolic links up to 4095 bytes" {
    probe symlink-targets
}

@test "a file without a name goes on working" {
    probe unlink-while-open
}

@test "a file without a name is opened again by /proc/self/fd" {
    probe unlink-and-reopen
}

@test "unlink, rmdir and mkdir refuse what they must" {
    probe unlink-refusals
}

@test "the working directory is removed" {
    probe rmdir-working-directory
}

@test "names of 255 bytes work, of 256 are ENAMETOOLONG, in every call" {
    probe name-limits
}

@test "names are bytes" {
    probe name-bytes
}

@test "a tree deeper than PATH_MAX" {
    probe name-deep-tree
}

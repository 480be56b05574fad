#!/usr/bin/env bats
# SPDX-License-Identifier: Apache-2.0
# rename(2) and renameat2(2) in all their forms.

load fs.bash

@test "a file moves between directories" {
    probe rename-file
}

@test "a file that is replaced lives on for those who have it open" {
    probe rename-over-open-file
}

@test "a file is renamed over another while it is being written" {
    probe rename-while-open
}

@test "rename between two names of one file does nothing" {
    probe rename-hard-links
}

@test "a directory moves with all that is in it, also over an empty one" {
    probe rename-directory
}

@test "rename refuses full directories, mixed kinds and cycles" {
    probe rename-refusals
}

@test "RENAME_NOREPLACE" {
    probe rename-noreplace
}

@test "RENAME_EXCHANGE of files and directories" {
    probe rename-exchange
}

@test "a directory moves while it is open and the working directory" {
    probe rename-open-directory
}

@test "rename moves and replaces symbolic links themselves" {
    probe rename-symlinks
}

@test "the other name of a file that was renamed over stays good when its successor is synced" {
    probe rename-over-linked
}

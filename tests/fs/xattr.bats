#!/usr/bin/env bats
# SPDX-License-Identifier: Apache-2.0
# Extended attributes.

load fs.bash

@test "set, get, list and remove" {
    probe xattr-basic
}

@test "XATTR_CREATE and XATTR_REPLACE" {
    probe xattr-create-replace
}

@test "limits of names, values and buffers" {
    probe xattr-limits
}

@test "a value of 64 KiB" {
    probe xattr-largest
}

@test "many attributes on one file" {
    probe xattr-many
}

@test "attributes belong to the inode" {
    probe xattr-belong-to-inode
}

@test "user attributes are for files and directories, trusted ones for root" {
    probe xattr-kinds
}

#!/usr/bin/env bats
# SPDX-License-Identifier: Apache-2.0
# copy_file_range(2): source and destination have nothing more in common afterwards.

load fs.bash

@test "whole files" {
    probe copy-whole
}

@test "positions of the files and given offsets" {
    probe copy-positions
}

@test "parts of a file over parts of another" {
    probe copy-parts
}

@test "within a file; overlapping ranges are EINVAL" {
    probe copy-within
}

@test "descriptors that cannot be copied between" {
    probe copy-refusals
}

@test "a change of one does not show in the other" {
    probe copy-is-independent
}

@test "the source is rewritten while both are open" {
    probe copy-then-write-source
}

@test "a chain of copies of copies" {
    probe copy-chain
}

@test "holes are copied as zeros" {
    probe copy-holes
}

@test "FICLONE works or is refused as Linux does" {
    probe copy-clone-ioctl
}

#!/usr/bin/env bats
# SPDX-License-Identifier: Apache-2.0
# The bytes of a file: writes anywhere, holes, truncation, seeking, syncing, limits of the size.

load fs.bash

@test "random writes and reads agree with a copy in memory" {
    probe write-random
}

@test "what was not written reads as zeros" {
    probe write-holes
}

@test "readv, writev and their positional forms" {
    probe write-vector
}

@test "writes of no bytes, reads beyond the end, bad offsets and addresses" {
    probe write-nothing
}

@test "sendfile from and to the filesystem" {
    probe write-sendfile
}

@test "300 MiB come back as they were written" {
    probe write-big
}

@test "truncate both ways, at many sizes, leaves zeros behind the cut" {
    probe truncate-sizes
}

@test "truncate of closed files, over and under the inline limit" {
    probe truncate-closed
}

@test "truncate refuses directories, negative sizes and read-only descriptors" {
    probe truncate-errors
}

@test "a writer behind a truncation leaves a hole" {
    probe truncate-under-writer
}

@test "SEEK_DATA and SEEK_HOLE find the holes of a sparse file" {
    probe seek-data-hole
}

@test "lseek in small files" {
    probe seek-small
}

@test "fsync and fdatasync of files, directories and unlinked files; syncfs" {
    probe sync-everything
}

@test "RLIMIT_FSIZE gives EFBIG" {
    probe limit-of-process
}

@test "sizes that no disk has give EFBIG and change nothing" {
    probe limit-of-disk
}

@test "SEEK_DATA finds what was stored through a mapping" {
    probe seek-mapped
}

#!/usr/bin/env bats
# SPDX-License-Identifier: Apache-2.0
# The probes again, on files that were sealed and written to stable storage before anything else happened to them.

load fs.bash

probe_settled() {
    export FSPROBE_SETTLE=1
    local name
    for name in "$@"; do
        mkdir "$name"
        cd "$name" || return
        probe "$name"
        cd "$WORK" || return
    done
}

@test "settled files: open and truncate" {
    probe_settled open-truncate open-truncate-while-written open-append-switched open-direct-tail open-direct-unaligned \
        open-direct-mixed open-one-file-often truncate-sizes truncate-closed truncate-errors seek-small
}

@test "settled files: rename, link, unlink" {
    probe_settled rename-file rename-over-open-file rename-while-open rename-hard-links rename-exchange link-hard \
        unlink-while-open special-mknod-file
}

@test "settled files: attributes and times" {
    probe_settled attribute-mode attribute-times attribute-blocks time-of-small-file time-of-large-file time-of-rename \
        time-of-mapping time-of-copy xattr-belong-to-inode
}

@test "settled files: fallocate" {
    probe_settled fallocate-extend fallocate-keep-size fallocate-punch-hole fallocate-zero-range fallocate-hole-is-found \
        fallocate-small-file
}

@test "settled files: copies" {
    probe_settled copy-whole copy-positions copy-parts copy-within copy-is-independent copy-then-write-source copy-chain \
        copy-holes
}

@test "settled files: mappings" {
    probe_settled mmap-read mmap-shared-write mmap-sees-writes mmap-private-write mmap-after-close mmap-unlinked \
        mmap-end-of-file mmap-two-processes mmap-while-reopened
}

@test "settled files: small ones" {
    probe_settled inline-sizes inline-crossing inline-overwrite inline-grow-without-writing inline-mapped inline-names
}

@test "settled files: against each other" {
    probe_settled race-truncate-readers race-rewrite-mapped race-rewrite-seen concurrent-append-often
}

@test "settled files: set-id bits" {
    probe_settled user-set-id-data user-set-id-owner user-set-id-chmod
}

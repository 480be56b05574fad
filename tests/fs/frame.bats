#!/usr/bin/env bats
# SPDX-License-Identifier: Apache-2.0
# The tests about the tests: nothing is left out, and the directory under test is what it should be.

load fs.bash

@test "every probe has a test" {
    "$FSPROBE" | sort >"$BATS_TEST_TMPDIR/probes"
    sed -n 's/^    probe //p' "$BATS_TEST_DIRNAME"/*.bats | sort -u >"$BATS_TEST_TMPDIR/tests"
    diff "$BATS_TEST_TMPDIR/probes" "$BATS_TEST_TMPDIR/tests"
}

@test "the directory under test is a ckptfs mount" {
    if fs_is_plain; then skip "a plain directory was asked for"; fi
    ckptfs_is_mounted
    [ "$(stat -f -c %T .)" = fuseblk ] || [ "$(stat -f -c %T .)" = fuse ]
}

@test "a failing probe fails its test" {
    touch file
    run "$FSPROBE" open-exclusive
    [ "$status" -eq 1 ]
    [[ "$output" == *probe_open.c:*"File exists"* ]]
    run "$FSPROBE" no-such-probe
    [ "$status" -eq 2 ]
}

# SPDX-License-Identifier: Apache-2.0
# ckptfs restart: another daemon on purpose, as for an upgrade.

load crash.bash

setup() {
    crash_setup
    require_takeover
    ckptfs_mount
}
teardown() { ckptfs_teardown; }

@test "restart under load: every answer is right, and it counts as no death" {
    local daemon
    load_start load --workers 4
    for _ in 1 2 3 4 5 6 7; do
        load_progresses $((RANDOM % 300 + 20))
        daemon=$(ckptfs_daemon_pid)
        "$CKPTFS" restart "$MNT"
        [ "$(ckptfs_daemon_pid)" != "$daemon" ]
        expect_failure kill -0 "$daemon"
    done
    load_progresses 100
    load_end
}

@test "restart of something that is no mount is refused" {
    mkdir "$TEST_DIR/other"
    expect_refusal 30 "not a ckptfs mount" "$CKPTFS" restart "$TEST_DIR/other"
}

@test "restart with a file that is open and half written" {
    exec 8>"$MNT/half"
    echo first >&8
    "$CKPTFS" restart "$MNT"
    echo second >&8
    exec 8>&-
    [ "$(cat "$MNT/half")" = "$(printf 'first\nsecond')" ]
}

# SPDX-License-Identifier: Apache-2.0
# The daemon dies and the run does not: a new daemon takes the mount over, and applications see a pause.

load crash.bash

setup() {
    crash_setup
    require_takeover
}
teardown() { ckptfs_teardown; }

# Four deaths a mount, since the fifth in a minute would end it.
survive_kills() {
    local mounts
    for mounts in 1 2 3; do
        ckptfs_mount "$@"
        load_start "load-$mounts" --workers 4
        for _ in 1 2 3 4; do
            load_progresses $((RANDOM % 400 + 20))
            crash_kill_daemon
        done
        load_progresses 100
        load_end
        ckptfs_umount
    done
    ckptfs_mount "$@"
    [ "$(find "$MNT" -type f | wc -l)" -gt 50 ]
    crashtree remove "$MNT"
}

@test "twelve kill -9 under mixed operations: every answer is right" {
    survive_kills
}

@test "twelve kill -9 under mixed operations, served by the daemon" {
    survive_kills passthrough=off
}

copy_has() { [ "$(stat -c %s "$MNT/copy" 2>/dev/null || echo 0)" -ge "$1" ]; }

# A file is written while the daemon dies four times; the writer sees no error and the bytes are those of the source.
write_through_kills() {
    ckptfs_mount "$@"
    head -c 240M /dev/urandom >"$TEST_DIR/source"
    timeout 100 python3 "$CRASH_TREE/pace.py" "$TEST_DIR/source" "$MNT/copy" 60 "$TEST_DIR/killed" 3>&- &
    local writer=$! part
    for part in 1 2 3 4; do
        wait_until 60 copy_has $((part * 40 << 20))
        crash_kill_daemon
        kill -0 $writer
    done
    touch "$TEST_DIR/killed"
    wait $writer
    cmp "$TEST_DIR/source" "$MNT/copy"
    ckptfs_remount "$@"
    cmp "$TEST_DIR/source" "$MNT/copy"
}

@test "a file written across four kill -9 has the bytes of its source" {
    write_through_kills
}

@test "a file written across four kill -9 has the bytes of its source, served by the daemon" {
    write_through_kills passthrough=off
}

keep_handles() {
    ckptfs_mount "$@"
    timeout 200 python3 "$CRASH_TREE/handles.py" "$MNT/handles" "$TEST_DIR/ready" "$TEST_DIR/go" 3>&- &
    local holder=$!
    wait_until 60 test -e "$TEST_DIR/ready"
    crash_kill_daemon
    crash_kill_daemon
    touch "$TEST_DIR/go"
    wait $holder
}

@test "500 open files, maps and locks outlive two daemons" {
    keep_handles
}

@test "500 open files, maps and locks outlive two daemons, served by the daemon" {
    keep_handles passthrough=off
}

@test "flock: a lock held across a takeover is still held, and given when it is released" {
    ckptfs_mount
    touch "$MNT/lock"
    exec 8>"$MNT/lock"
    flock -x -n 8
    crash_kill_daemon
    expect_failure flock -x -n "$MNT/lock" true
    (
        exec 8>&-
        flock -x -w 30 "$MNT/lock" touch "$TEST_DIR/got"
    ) 3>&- &
    local waiter=$!
    crash_kill_daemon
    [ ! -e "$TEST_DIR/got" ]
    exec 8>&-
    wait $waiter
    [ -e "$TEST_DIR/got" ]
}

@test "an fsync that is in work at two kill -9 is done by the third daemon, as others were answered meanwhile" {
    CKPTFS_FAULT_STARTS=2 CKPTFS_FAULT=fs.sync:hang:1+ ckptfs_mount
    timeout 60 python3 -c 'import os, sys
file = os.open(sys.argv[1], os.O_WRONLY | os.O_CREAT)
os.write(file, b"data")
os.close(os.open(sys.argv[2], os.O_CREAT))
os.fsync(file)' "$MNT/file" "$TEST_DIR/begun" 3>&- &
    local syncer=$! killed
    wait_until 20 test -e "$TEST_DIR/begun"
    for killed in 1 2; do
        mkdir "$MNT/answered-$killed"
        crash_kill_daemon
    done
    wait $syncer
    [ "$(ckptfs_status_field generation)" -eq 3 ]
}

@test "status says how many daemons have served" {
    ckptfs_mount
    [ "$(ckptfs_status_field generation)" -eq 1 ]
    crash_kill_daemon
    [ "$(ckptfs_status_field generation)" -eq 2 ]
}

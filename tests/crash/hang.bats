# SPDX-License-Identifier: Apache-2.0
# Daemons that hang, requests that kill, and daemons that cannot live.

load crash.bash

setup() { crash_setup; }
teardown() { ckptfs_teardown; }

@test "a stopped daemon is replaced; the request that waited is answered" {
    require_takeover
    ckptfs_mount hang-timeout=3
    echo before >"$MNT/file"
    local daemon
    daemon=$(ckptfs_daemon_pid)
    kill -STOP "$daemon"
    timeout 60 mkdir "$MNT/directory"
    timeout 60 cat "$MNT/file"
    crash_daemon_is_new "$daemon"
    expect_failure kill -0 "$daemon"
}

# is_idle PID: it has not read anything at some looks in a row; the kernel gives it files that were closed by and by.
is_idle() {
    local reads
    reads=$(awk '$1 == "syscr:" { print $2 }' "/proc/$1/io")
    if [ "$reads" = "${READS-}" ]; then SAME=$((SAME + 1)); else SAME=0; fi
    READS=$reads
    [ "$SAME" -ge 10 ]
}

@test "an idle daemon that is stopped is left alone until somebody waits" {
    require_takeover
    ckptfs_mount hang-timeout=1
    local daemon stopped_since
    daemon=$(ckptfs_daemon_pid)
    wait_until 60 is_idle "$daemon"
    stopped_since=$SECONDS
    kill -STOP "$daemon"
    stopped_for_five() { [ $((SECONDS - stopped_since)) -ge 5 ]; }
    wait_until 30 stopped_for_five
    kill -0 "$daemon"
    kill -CONT "$daemon"
    [ "$(ckptfs_daemon_pid)" = "$daemon" ]
}

@test "a request that hangs the daemon is done by its successor" {
    require_takeover
    CKPTFS_FAULT=fs.symlink:hang:2 ckptfs_mount hang-timeout=3
    ln -s a "$MNT/a"
    timeout 60 ln -s b "$MNT/b"
    [ "$(readlink "$MNT/b")" = b ]
    [ "$(ckptfs_status_field generation)" -eq 2 ]
}

@test "a request that killed two daemons gets EIO from the third" {
    require_takeover
    CKPTFS_FAULT=fs.symlink:kill:1+ ckptfs_mount
    echo before >"$MNT/file"
    run timeout 60 ln -s target "$MNT/link"
    [ "$status" -ne 0 ]
    [[ $output == *"Input/output error"* ]]
    # Who began more than a second before the keeper hears of the death, on a slow machine, is not blamed for it.
    [ "$(ckptfs_status_field generation)" -ge 3 ]
    [ "$(cat "$MNT/file")" = before ]
    [ ! -L "$MNT/link" ]
    mkdir "$MNT/still-works"
}

# A daemon that crashes by itself; a SIGKILL from outside is not held against it.
crash_daemon() {
    local daemon
    daemon=$(ckptfs_daemon_pid)
    kill -SEGV "$daemon"
    wait_until 20 crash_daemon_is_new "$daemon"
}

@test "five crashes in a minute end the mount, and nothing hangs" {
    require_takeover
    ulimit -c 0
    ckptfs_mount
    echo before >"$MNT/file"
    exec 8>"$MNT/open"
    for _ in 1 2 3 4; do crash_daemon; done
    kill -SEGV "$(ckptfs_daemon_pid)"
    wait_until 30 ckptfs_no_processes
    expect_failure timeout 30 cat "$MNT/file"
    # By passthrough the kernel still writes into the object; served by the daemon it is an error. Neither hangs.
    timeout 30 bash -c 'echo more >&8' || [ $? -ne 124 ]
    exec 8>&-
    grep -q "died 5 times" "$CKPTFS_LOG"
    if ckptfs_is_mounted; then umount -l "$MNT"; fi
    ckptfs_mount
    [ "$(cat "$MNT/file")" = before ]
}

@test "a daemon that dies before it serves ends the mount command with a message" {
    CKPTFS_FAULT=meta.commit:kill:1+ expect_refusal 16 "daemon" "$CKPTFS" mount "$STORE" "$MNT"
    wait_until 20 ckptfs_no_processes
    expect_failure ckptfs_is_mounted
    ckptfs_mount
}

#!/usr/bin/env bats
# SPDX-License-Identifier: Apache-2.0
# Mounts that other programs ask for: mount(8), fstab, a service manager.

load ../lib/ckptfs.bash

setup() {
    ckptfs_setup
    HELPER=$TEST_DIR/mount.ckptfs
    ln -s "$CKPTFS" "$HELPER"
}
teardown() { ckptfs_teardown; }

@test "mount.ckptfs mounts, with the options that mount(8) and fstab add" {
    "$HELPER" "$STORE" "$MNT" -n -v -t ckptfs -o rw,async,defaults,nodiratime,lazytime,nofail,_netdev,x-systemd.automount,user
    ckptfs_is_mounted
    echo content >"$MNT/file"
    ckptfs_umount
}

@test "mount.ckptfs answers in mount(8)'s codes" {
    run "$HELPER" "$STORE" "$TEST_DIR/missing"
    [ "$status" -eq 32 ]
    run "$HELPER" "$STORE"
    [ "$status" -eq 1 ]
    run "$HELPER" "$STORE" "$MNT" -o no-such-option
    [ "$status" -eq 1 ]
    run ckptfs_is_mounted
    [ "$status" -ne 0 ]
}

@test "mount.ckptfs -f mounts nothing, -s leaves out unknown options" {
    "$HELPER" "$STORE" "$MNT" -f -o ro
    run ckptfs_is_mounted
    [ "$status" -ne 0 ]
    "$HELPER" "$STORE" "$MNT" -s -o no-such-option,ro
    run touch "$MNT/file"
    [ "$status" -ne 0 ]
    [[ "$output" == *"Read-only file system"* ]]
    ckptfs_umount
}

@test "mount -t ckptfs and an fstab line, in a mount namespace of their own" {
    require_root
    require_command unshare
    local helpers=$TEST_DIR/helpers type
    mkdir "$helpers"
    for type in ckptfs fuse.ckptfs; do ln -s "$CKPTFS" "$helpers/mount.$type"; done
    cat >"$TEST_DIR/script" <<'SCRIPT'
set -e
# The helpers of this build, as if they were installed.
mount -t overlay overlay -o "lowerdir=$1:/usr/sbin" /usr/sbin
mount -t ckptfs "$2" "$3"
echo one >"$3/file"
findmnt -n -o FSTYPE,SOURCE "$3"
"$CKPTFS" umount "$3"
mount -t fuse.ckptfs -o ro "$2" "$3"
cat "$3/file"
"$CKPTFS" umount "$3"
echo "$2 $3 ckptfs defaults,noauto 0 0" >"$4"
mount --fstab "$4" "$3"
cat "$3/file"
"$CKPTFS" umount "$3"
SCRIPT
    in_namespace() { in_mount_namespace bash "$TEST_DIR/script" "$helpers" "$STORE" "$MNT" "$TEST_DIR/fstab" 2>"$TEST_DIR/errors"; }
    run in_namespace
    cat "$TEST_DIR/errors"
    echo "$output"
    [ "$status" -eq 0 ]
    [[ "${lines[0]}" == fuse.ckptfs*"$STORE" ]]
    [ "${lines[1]}" = one ]
    [ "${lines[2]}" = one ]
}

# What the program sends to a service manager, a line each, into TEST_DIR/notified.
listen() {
    python3 -c '
import socket, sys
server = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
server.bind(sys.argv[1])
with open(sys.argv[2], "w", buffering=1) as out:
    while True:
        print(server.recv(4096).decode(), file=out)' "$TEST_DIR/notify" "$TEST_DIR/notified" 3>&- &
    LISTENER=$!
    wait_until 30 test -S "$TEST_DIR/notify"
}

@test "in the foreground: READY when the mount can be used, a clean end at SIGTERM" {
    require_command python3
    listen
    NOTIFY_SOCKET=$TEST_DIR/notify "$CKPTFS" mount -f "$STORE" "$MNT" 2>"$CKPTFS_LOG" 3>&- &
    local keeper=$!
    wait_until 20 grep -q READY=1 "$TEST_DIR/notified"
    ckptfs_is_mounted
    echo content >"$MNT/file"
    [ "$(ckptfs_keeper_pid)" -eq "$keeper" ]
    kill -TERM "$keeper"
    wait "$keeper"
    grep -q STOPPING=1 "$TEST_DIR/notified"
    run ckptfs_is_mounted
    [ "$status" -ne 0 ]
    kill "$LISTENER"
    ckptfs_mount
    [ "$(cat "$MNT/file")" = content ]
    ckptfs_umount
}

@test "the unit is one that systemd understands" {
    require_command systemd-analyze
    sed -e "s|@bindir@|$(dirname "$CKPTFS")|" -e "s|@sysconfdir@|/etc|" \
        "$CKPTFS_TREE/contrib/systemd/ckptfs@.service.in" >"$TEST_DIR/ckptfs@.service"
    ln -s "ckptfs@.service" "$TEST_DIR/ckptfs@one.service"
    run systemd-analyze verify --man=no "$TEST_DIR/ckptfs@one.service"
    echo "$output"
    [ "$status" -eq 0 ]
    [ -z "$(grep -F ckptfs@ <<<"$output")" ]
}

#!/usr/bin/env bats
# SPDX-License-Identifier: Apache-2.0
# Sharing that was not finished, was killed at each of its steps, or meets errors of the disk.

load share.bash

setup() {
    share_setup
    require_takeover
}
teardown() { ckptfs_teardown; }

# Three saves of a run that have eight of ten tensors in common; each round $1 has its own.
save_three() {
    local number
    for number in 1 2 3; do
        save "$1-$number" models safetensors --kib 300 --seed "$1" --changed 8,9 --with-seed $((number + 1000 * $1)) \
            --note $((number * 100))
    done
}
THREE=$(((8 + 2 + 2 + 2) * 300 * 1024))

@test "an unmount at once after the save: the next mount shares" {
    ckptfs_mount
    save_three 1
    ckptfs_remount
    expect_stored $THREE
    # And one that is not synced.
    models safetensors "$PLAIN/more" --kib 300 --seed 1 --changed 7 --with-seed 5
    cp "$PLAIN/more" "$MNT/more"
    ckptfs_remount
    expect_stored $((THREE + 3 * 300 * 1024))
}

@test "a copy of a part does not keep the next mount from sharing" {
    ckptfs_mount sharing=off
    save a models safetensors
    save b cp "$PLAIN/a"
    # Made later than the file that it shares a part with.
    python3 - "$MNT/b" "$MNT/c" "$MNT/d" <<'EOF'
import os, sys
source, first, second = sys.argv[1:]
for target, length in (first, 3000000), (second, 2000000):
    inside, out = os.open(source, os.O_RDONLY), os.open(target, os.O_WRONLY | os.O_CREAT)
    if os.copy_file_range(inside, out, length, 100000, 0) != length:
        sys.exit("copied less")
    os.fsync(out)
EOF
    head -c 3100000 "$PLAIN/b" | tail -c 3000000 >"$PLAIN/c"
    head -c 2000000 "$PLAIN/c" >"$PLAIN/d"
    wait_until 20 behind_nothing
    same_bytes
    ckptfs_remount
    expect_stored "$(size_of "$PLAIN/b")" 10
}

# The daemon is to die twice, and a sync that is in work both times is answered with EIO: it is asked for once more.
sync() { command sync "$@" || command sync "$@"; }

# die_at POINT ACTION [STARTS]: the daemon meets the fault while it shares; afterwards all is right.
round=0
die_at() {
    round=$((round + 1))
    echo "--- $1:$2"
    CKPTFS_FAULT_STARTS=${3:-2} CKPTFS_FAULT=$1:$2 ckptfs_mount
    save_three $round
    if [ $round -gt 1 ]; then drop "$((round - 1))-2"; fi
    drop "$round-1"
    # What is to die may do so only when dead bytes are given back, or at the unmount.
    wait_until 20 share_is_settled || echo "not settled yet"
    wait_until 20 daemon_has_died || echo "not dead yet"
    umount_dying
    if grep -qE 'died by signal|ended by signal' "$CKPTFS_LOG"; then died=$((died + 1)); fi
    : >"$CKPTFS_LOG"
    ckptfs_mount
    # A reader would make the sharing wait.
    settle
    same_bytes
    [ "$round" -eq 1 ] || expect_stored $((2 * THREE - 3 * 600 * 1024))
    if [ $round -gt 1 ]; then rm "$MNT/$((round - 1))"-* "$PLAIN/$((round - 1))"-*; fi
    ckptfs_umount
}

@test "death at each step of sharing and of giving back" {
    local point died=0
    for point in fs.seal:3 fs.summed:1 fs.summed:3 fs.share:1 fs.share:2 fs.punch:1 fs.punch:2 object-punch:1 \
        object-punch:2 object-remove:1 fs.discard:1; do
        die_at "${point%:*}" "kill:${point#*:}"
    done
    echo "$died of $round mounts lost a daemon"
    [ $died -ge 9 ]
}

@test "death at commits while files are saved, shared and deleted" {
    local hit died=0
    for hit in 14 19 23; do
        die_at meta.commit kill:$hit
        if [ $((hit % 2)) -eq 1 ]; then die_at meta.committed kill:$hit; fi
    done
    echo "$died of $round mounts lost a daemon"
    [ $died -ge 3 ]
}

# survive_fault FAULT: nothing is lost and the daemon lives; the mount after it shares all.
survive_fault() {
    local daemon
    round=$((round + 1))
    echo "--- $1"
    CKPTFS_FAULT=$1 ckptfs_mount
    daemon=$(ckptfs_daemon_pid)
    save_three $round
    wait_until 1 share_is_settled || echo "not settled"
    same_bytes
    drop "$round-2"
    save "$round-4" cp "$PLAIN/$round-1"
    wait_until 1 share_is_settled || echo "not settled"
    same_bytes
    [ "$(ckptfs_daemon_pid)" -eq "$daemon" ]
    # It says so without filling the disk with it.
    [ "$(wc -l <"$CKPTFS_LOG")" -lt 60 ]
    ckptfs_umount
    ckptfs_mount
    expect_stored $((THREE - 600 * 1024))
    rm "$MNT"/* "$PLAIN"/*
    wait_until $SHARE_DEADLINE stored_at_most 65536
    ckptfs_umount
    : >"$CKPTFS_LOG"
}

@test "errors while sharing: nothing is lost" {
    local fault
    for fault in object-punch:EOPNOTSUPP:1+ object-punch:EIO:1+ object-punch:ENOSPC:1 fs.share:EIO:1+ fs.share:EIO:1 \
        fs.summed:ENOSPC:1+; do
        survive_fault $fault
    done
}

@test "kill -9 at random moments while files are saved, shared and deleted" {
    local load killed status=0
    ckptfs_mount
    timeout 120 python3 "$SHARE_TREE/blocks.py" "$MNT" "$PLAIN" --seed "$SEED" --seconds 8 --until "$TEST_DIR/killed" \
        >"$TEST_DIR/load" 2>&1 3>&- &
    load=$!
    # The fifth death in a minute would end the mount.
    for killed in 1 2 3 4; do
        # The moment is to be a random one; nothing is waited for.
        read -rt "$((RANDOM % 3)).$((RANDOM % 900 + 100))" <> <(:) || true
        kill -0 $load
        crash_kill_daemon
    done
    touch "$TEST_DIR/killed"
    wait $load || status=$?
    cat "$TEST_DIR/load"
    [ $status -eq 0 ]
    same_bytes
    ckptfs_remount
    settle
    expect_stored "$(find "$PLAIN" -type f -printf '%s\n' | awk '{ sum += $1 } END { print sum + NR * 65536 }')" 10
    rm -r "$MNT"/*
    wait_until $SHARE_DEADLINE stored_at_most 65536
}

# after_power FILESYSTEM: what was fsynced keeps its bytes when older files were shared into it and punched.
after_power() {
    disk_create "$1" 512
    ckptfs_mount
    save_three 1
    expect_stored $THREE
    drop 1-3
    # Sharing that is cut off.
    save_three 2
    disk_cut_power
    machine_restart
    ckptfs_mount
    if [ -e "$MNT/1-3" ]; then rm "$MNT/1-3"; fi
    expect_stored $((2 * THREE - 600 * 1024))
    disk_cut_power
    machine_restart
    ckptfs_mount
    same_bytes
}

@test "XFS: the power goes after files were shared" {
    require_command xfs_io
    after_power xfs
}

@test "ext4: the power goes after files were shared" {
    long_only
    require_command xfs_io
    after_power ext4
}

# SPDX-License-Identifier: Apache-2.0
# What the crash tests share: disks that can lose their power, daemons that die, work that goes on meanwhile.

load ../lib/ckptfs.bash

CRASH_TREE=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
# Printed by every test that is random; set it to run the same again.
SEED=${CKPTFS_TEST_SEED:-$((RANDOM * 32768 + RANDOM))}

crashtree() { timeout 240 python3 "$CRASH_TREE/crashtree.py" "$@"; }
run_load() { timeout 240 python3 "$CRASH_TREE/load.py" "$@"; }

crash_setup() {
    require_root
    require_command jq
    ckptfs_setup
    echo "seed $SEED (CKPTFS_TEST_SEED)"
    RANDOM=$((SEED % 32768))
}

# -- a disk of its own for the store --------------------------------------------------------------------------

# disk_create FILESYSTEM MIB: makes it and mounts it at DISK; STORE lies on it from now on.
disk_create() {
    require_command "mkfs.$1"
    DISK=$TEST_DIR/disk
    DISK_IMAGE=$TEST_DIR/disk.img
    mkdir "$DISK"
    truncate -s "$2M" "$DISK_IMAGE"
    case $1 in
    xfs) mkfs.xfs -q "$DISK_IMAGE" ;;
    ext4) mkfs.ext4 -q "$DISK_IMAGE" ;;
    esac
    disk_mount
    STORE=$DISK/store
    mkdir "$STORE"
    sync -f "$DISK"
}

disk_mount() { mount -o loop "$DISK_IMAGE" "$DISK"; }

disk_is_gone() { [ -z "$(losetup -n -O NAME -j "$DISK_IMAGE")" ]; }

# From now on nothing reaches the disk any more, and what was not synced is lost.
disk_cut_power() {
    touch "$TEST_DIR/cut"
    xfs_io -x -c shutdown "$DISK"
}

# The machine is off: all processes gone, no mount left. Then the disk is there again.
machine_restart() {
    crash_kill_everything
    wait_until 20 umount "$DISK"
    # A copy of the mount, in a namespace that another test has just made, keeps the filesystem as it is: shut down.
    wait_until 60 disk_is_gone
    disk_mount
}

# The processes of this test: the keeper and a daemon have other names than the program's file. Asked for again and
# again: no more than one process is started to find them.
ckptfs_processes() {
    local process
    while read -r process; do
        if grep -qzxF "CKPTFS_TEST_DIR=$TEST_DIR" "$process/environ" 2>/dev/null; then echo "${process#/proc/}"; fi
    done < <(find /proc/[0-9]*/exe -maxdepth 0 -lname "$CKPTFS" -printf '%h\n' 2>/dev/null)
}

# -- processes that die ---------------------------------------------------------------------------------------

# Kills keeper and daemon at the same time, waits for their end and takes the dead mount away.
crash_kill_everything() {
    wait_until 20 crash_all_killed
    if ckptfs_is_mounted; then umount -l "$MNT"; fi
}

# A keeper may start a daemon while it dies: again until there is none.
crash_all_killed() {
    local process
    for process in $(ckptfs_processes); do kill -9 "$process" 2>/dev/null || continue; done
    ckptfs_no_processes && ckptfs_store_is_free
}

# True when another daemon than $1 serves the mount.
crash_daemon_is_new() {
    local now
    now=$(timeout 30 "$CKPTFS" status --json "$MNT" | jq -er 'if type == "array" then .[0] else . end | .daemon_pid') &&
        [ "$now" != "$1" ]
}

# kill -9 of the daemon; returns when the next one serves.
crash_kill_daemon() {
    local daemon
    daemon=$(ckptfs_daemon_pid)
    kill -9 "$daemon"
    wait_until 20 crash_daemon_is_new "$daemon"
}

# Another one serves the mount.
daemon_has_died() { [ "$(ckptfs_status_field generation)" -gt 1 ]; }

# An unmount whose daemon dies at the very end says so by its exit code; the next mount recovers.
umount_dying() {
    local code=0
    ckptfs_umount || code=$?
    [ $code -eq 0 ] || [ $code -eq 16 ]
    wait_until 20 ckptfs_no_processes
}

require_takeover() {
    [ "$(uname -r | awk -F. '{ print ($1 * 1000 + $2 >= 6009) }')" = 1 ] || skip "needs kernel 6.9"
}

# -- work that goes on ----------------------------------------------------------------------------------------

# load_start NAME [OPTION...]: mixed operations in MNT/NAME until load_end.
load_start() {
    LOAD_STOP=$TEST_DIR/load.stop
    LOAD_OUT=$TEST_DIR/load.out
    LOAD_PROGRESS=$TEST_DIR/load.progress
    rm -f "$LOAD_STOP" "$LOAD_PROGRESS".*
    mkdir "$MNT/$1"
    run_load "$MNT/$1" --seed "$SEED" --stop "$LOAD_STOP" --progress "$LOAD_PROGRESS" "${@:2}" >"$LOAD_OUT" 2>&1 3>&- &
    LOAD_PID=$!
    LOAD_SEEN=0
    load_progresses 30
}

load_count() { cat "$LOAD_PROGRESS".* 2>/dev/null | awk '{ sum += $1 } END { print sum + 0 }'; }

load_went_on() { [ "$(load_count)" -gt "$((LOAD_SEEN + $1))" ] || ! kill -0 "$LOAD_PID" 2>/dev/null; }

# Waits until COUNT more operations were done: the load is really running.
load_progresses() {
    LOAD_SEEN=$(load_count)
    wait_until 60 load_went_on "$1"
    kill -0 "$LOAD_PID" 2>/dev/null || {
        echo "the load ended early:"
        cat "$LOAD_OUT"
        return 1
    }
}

# Ends the load; fails when it saw anything wrong.
load_end() {
    touch "$LOAD_STOP"
    local status=0
    wait "$LOAD_PID" || status=$?
    cat "$LOAD_OUT"
    return $status
}

# -- judging --------------------------------------------------------------------------------------------------

# expect_refusal CODE PATTERN COMMAND...: the exit code, and one line on standard error that says why.
expect_refusal() {
    local code=0 expected=$1 pattern=$2
    shift 2
    timeout 60 "$@" >"$TEST_DIR/refusal.out" 2>"$TEST_DIR/refusal.err" || code=$?
    cat "$TEST_DIR/refusal.err"
    [ "$code" -eq "$expected" ] || {
        echo "exit code $code, expected $expected"
        return 1
    }
    [ "$(wc -l <"$TEST_DIR/refusal.err")" -eq 1 ] || {
        echo "expected one line"
        return 1
    }
    grep -qiE "$pattern" "$TEST_DIR/refusal.err" || {
        echo "expected a line that matches $pattern"
        return 1
    }
}

# expect_failure COMMAND...: it must fail, and by itself: not because timeout(1) ended it.
expect_failure() {
    local code=0
    "$@" || code=$?
    case $code in
    0) echo "succeeded, but must fail: $*" ;;
    124) echo "hangs: $*" ;;
    *) return 0 ;;
    esac
    return 1
}

behind_nothing() { [ "$(ckptfs_status_field behind_bytes)" -eq 0 ]; }

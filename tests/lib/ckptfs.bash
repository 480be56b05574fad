# SPDX-License-Identifier: Apache-2.0
# What every bats test that mounts needs. In a test file:
#
#     load ../lib/ckptfs.bash
#     setup() { ckptfs_setup; ckptfs_mount; }
#     teardown() { ckptfs_teardown; }
#
# Read from the environment (tests/run sets them):
#   CKPTFS                the program under test (default: ckptfs in the top of the tree)
#   CKPTFS_MOUNT_OPTIONS  mount options for every ckptfs_mount, separated by commas
#   CKPTFS_TEST_BASE      where test directories are made (default: TMPDIR or /tmp)
#   CKPTFS_TEST_USER      a normal user for tests with several users (default: nobody)
#
# Set by ckptfs_setup: TEST_DIR (everything of this test), STORE, MNT, CKPTFS_LOG.

CKPTFS_TREE=$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)

# Makes the directories of one test. STORE does not hold a store yet.
ckptfs_setup() {
    CKPTFS=$(realpath "${CKPTFS:-$CKPTFS_TREE/ckptfs}")
    if [ ! -x "$CKPTFS" ]; then
        echo "no program at $CKPTFS: build first, or name it in CKPTFS"
        return 1
    fi
    TEST_DIR=$(mktemp -d "${CKPTFS_TEST_BASE:-${TMPDIR:-/tmp}}/ckptfs-test.XXXXXX")
    chmod 755 "$TEST_DIR"
    STORE=$TEST_DIR/store
    MNT=$TEST_DIR/mnt
    CKPTFS_LOG=$TEST_DIR/ckptfs.log
    mkdir "$STORE" "$MNT"
    # The daemons of this test are known by this variable in their environment.
    export CKPTFS CKPTFS_TEST_DIR=$TEST_DIR
    # What a sanitizer has to say lies in files of its own, which ckptfs_teardown reads.
    export ASAN_OPTIONS=log_path=$TEST_DIR/sanitizer:${ASAN_OPTIONS-}
    export UBSAN_OPTIONS=log_path=$TEST_DIR/sanitizer:print_stacktrace=1:${UBSAN_OPTIONS-}
}

# Undoes everything, whatever state the test left. Fails when a sanitizer complained.
ckptfs_teardown() {
    local status=0
    [ -n "${TEST_DIR-}" ] || return 0
    if [ -z "${BATS_TEST_COMPLETED-}" ]; then ckptfs_dump; fi
    ckptfs_end_mounts
    ckptfs_end_processes
    if compgen -G "$TEST_DIR/sanitizer*" >/dev/null; then
        echo "a sanitizer complained:"
        cat "$TEST_DIR"/sanitizer*
        status=1
    fi
    rm -rf --one-file-system "$TEST_DIR"
    return $status
}

# Mounts STORE at MNT; each argument is one more mount option. Prints what the program prints.
ckptfs_mount() {
    ckptfs_mount_at "$STORE" "$MNT" "$@"
}

# ckptfs_mount_at STORE MOUNTPOINT [OPTION...]
ckptfs_mount_at() {
    local store=$1 mountpoint=$2 IFS=,
    shift 2
    local options=("log=$CKPTFS_LOG")
    [ -z "${CKPTFS_MOUNT_OPTIONS-}" ] || options+=("$CKPTFS_MOUNT_OPTIONS")
    "$CKPTFS" mount -o "${options[*]}${*:+,$*}" "$store" "$mountpoint"
}

# Ends the mount (of MNT, or of the argument) and waits for its daemon.
# shellcheck disable=SC2120
ckptfs_umount() {
    "$CKPTFS" umount "${1:-$MNT}"
}

# Ends the mount and mounts the same store again, with further options if given.
ckptfs_remount() {
    ckptfs_umount "$MNT"
    ckptfs_mount "$@"
}

# Prints one field of `ckptfs status --json` ("features.passthrough"); an absent one is an error.
ckptfs_status_field() {
    "$CKPTFS" status --json "${2:-$MNT}" |
        jq -r --arg field "$1" 'getpath($field / ".") | if . == null then error("no field \($field)") else . end'
}

ckptfs_daemon_pid() {
    ckptfs_status_field daemon_pid
}

ckptfs_keeper_pid() {
    ckptfs_status_field keeper_pid
}

# shellcheck disable=SC2120
# True when MNT (or the argument) is a mount point just now, alive or dead.
ckptfs_is_mounted() {
    awk -v path="${1:-$MNT}" '$5 == path { found = 1 } END { exit !found }' /proc/self/mountinfo
}

# Prints the ids of the ckptfs processes that this test started.
ckptfs_processes() {
    local process name
    for process in /proc/[0-9]*; do
        # One that has just ended has no name any more.
        read -r name 2>/dev/null <"$process/comm" || continue
        [[ $name == ckptfs* ]] || continue
        # A process that ends just now, or is another user's, is none of ours.
        if grep -qzxF "CKPTFS_TEST_DIR=$TEST_DIR" "$process/environ" 2>/dev/null; then
            echo "${process#/proc/}"
        fi
    done
}

ckptfs_no_processes() {
    [ -z "$(ckptfs_processes)" ]
}

# True when no keeper and no daemon has the store (STORE, or the argument): also none that is just being started, which
# is not found by its environment until its program is loaded.
# shellcheck disable=SC2120
ckptfs_store_is_free() {
    local code=0 lock=${1:-$STORE}/lock
    [ -e "$lock" ] || return 0
    flock -n -E 99 "$lock" true 2>/dev/null || code=$?
    [ $code -ne 99 ]
}

# Ends every mount below TEST_DIR, the deepest first; by force where the program cannot.
ckptfs_end_mounts() {
    local mountpoint
    awk -v prefix="$TEST_DIR/" 'index($5, prefix) == 1 { print $5 }' /proc/self/mountinfo | tac |
        while read -r mountpoint; do
            if awk -v path="$mountpoint" '$5 == path && / - fuse/ { found = 1 } END { exit !found }' \
                /proc/self/mountinfo; then
                timeout 60 "$CKPTFS" umount "$mountpoint" >/dev/null 2>&1 && continue
                fusermount3 -uz "$mountpoint" 2>/dev/null && continue
            fi
            umount -l "$mountpoint"
        done
}

# Ends by id what is left of the test's own daemons.
ckptfs_end_processes() {
    local process
    wait_until 10 ckptfs_no_processes && return
    for process in $(ckptfs_processes); do
        echo "ckptfs process $process was left over: killed"
        kill -9 "$process"
    done
    wait_until 10 ckptfs_no_processes
}

# For a failed test: what the daemon logged and how it stands.
ckptfs_dump() {
    echo "--- log of the daemon"
    if [ -e "$CKPTFS_LOG" ]; then tail -n 100 "$CKPTFS_LOG"; fi
    echo "--- status"
    if ckptfs_is_mounted "$MNT"; then timeout 10 "$CKPTFS" status "$MNT" 2>&1 || echo "status failed: $?"; fi
    echo "---"
}

# True when so many processes have .ckptfs/events of MNT open: they hear what is told from now on.
ckptfs_events_have() {
    [ "$(find /proc/[0-9]*/fd -lname "$MNT/.ckptfs/events" 2>/dev/null | wc -l)" -ge "$1" ]
}

# wait_until SECONDS COMMAND...: runs the command until it succeeds; fails when the time is over.
wait_until() {
    local deadline=$((SECONDS + $1))
    shift
    until "$@"; do
        if [ $SECONDS -gt $deadline ]; then return 1; fi
        sleep 0.05
    done
}

# in_mount_namespace COMMAND...: becomes the command, with mounts of its own: call it in a subshell. What other tests have
# mounted just now, disks too, would outlive their unmount in there.
in_mount_namespace() {
    # shellcheck disable=SC2016 # the inner shell expands it
    exec unshare --mount bash -c 'findmnt -n -l -o TARGET | grep -F /ckptfs-test. | grep -vF "$CKPTFS_TEST_DIR" | tac |
        xargs -r -d "\n" umount -l
        exec "$@"' bash "$@"
}

# Runs a command as a normal user; the test is skipped when it does not run as root.
run_as_user() {
    require_root
    setpriv --reuid "${CKPTFS_TEST_USER:-nobody}" --regid "$(id -g "${CKPTFS_TEST_USER:-nobody}")" \
        --clear-groups -- "$@"
}

require_root() {
    [ "$(id -u)" -eq 0 ] || skip "needs root"
}

# Skips what repeats other tests with other numbers, but for `make check-long`.
long_only() {
    [ -n "${CKPTFS_TEST_LONG:-}" ] || skip "only in make check-long"
}

# In a section that repeats others with other mount options: skips what those cannot change, but for `make check-long`.
not_repeated() {
    [ -z "${CKPTFS_MOUNT_OPTIONS-}" ] || long_only
}

require_command() {
    command -v "$1" >/dev/null || skip "needs $1"
}

# Skips unless files are served by passthrough on this mount.
require_passthrough() {
    [ "$(ckptfs_status_field features.passthrough)" = true ] || skip "needs passthrough"
}

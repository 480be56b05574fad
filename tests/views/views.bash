# SPDX-License-Identifier: Apache-2.0
# What the tests of .ckptfs/models have in common: sharded models made without any library, waiting until the daemon
# has looked at everything, and comparing what is shown with what was saved.

load ../lib/ckptfs.bash

VIEWS_TREE=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
# Until something is assembled, in seconds.
VIEWS_DEADLINE=60

shards() { timeout 120 python3 "$VIEWS_TREE/shards.py" "$@"; }

views_setup() {
    require_command jq
    ckptfs_setup
    # shellcheck disable=SC2034 # the tests use it
    VIEW=$MNT/.ckptfs/models
}

# save_model DIRECTORY [OPTION...]: a sharded model with its index and configuration (shards.py save).
save_model() {
    mkdir -p "$1"
    shards save "$@"
}

views_are_settled() {
    "$CKPTFS" status --json "$MNT" | jq -e '.behind_files == 0 and .unshared_files == 0 and .unassembled_directories == 0' >/dev/null
}

# Nothing is left to be sealed, shared, or looked at.
settle() { wait_until $VIEWS_DEADLINE views_are_settled; }

appears() { wait_until $VIEWS_DEADLINE test -e "$1"; }
vanishes() { wait_until $VIEWS_DEADLINE test ! -e "$1"; }

# refused MESSAGE COMMAND...: the command fails and says so.
refused() {
    local message=$1 output
    shift
    if output=$("$@" 2>&1); then
        echo "was not refused: $*"
        return 1
    fi
    REFUSAL=$output
    [[ $output == *"$message"* ]] || {
        echo "$*: $output"
        return 1
    }
}

# unchangeable COMMAND...: the command fails, as nothing can be changed there. Who is not root fails at the modes first.
unchangeable() {
    if [ "$(id -u)" -eq 0 ]; then refused "Read-only" "$@"; else refused "" "$@" && [[ $REFUSAL =~ Read-only|denied ]]; fi
}

# Bytes that the objects take on the disk, without the tables of hashes.
stored_bytes() {
    find "$STORE/objects" -type f ! -name '*.sum*' -printf '%b\n' 2>/dev/null | awk '{ sum += $1 } END { print sum * 512 }'
}

stored_at_most() { [ "$(stored_bytes)" -le "$1" ]; }

# The daemon dies as by kill -9, and the next one serves.
kill_daemon() {
    local before
    before=$(ckptfs_daemon_pid)
    kill -9 "$before"
    wait_until 20 daemon_is_other "$before"
}
daemon_is_other() {
    local now
    now=$(ckptfs_daemon_pid) && [ -n "$now" ] && [ "$now" != "$1" ]
}

require_takeover() {
    [ "$(ckptfs_status_field features.takeover)" = true ] || skip "needs take-over"
}

# The store is whole, and the mount ended in order.
end_and_check() {
    cd /
    ckptfs_umount
    "$CKPTFS" fsck "$STORE"
}

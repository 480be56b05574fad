# SPDX-License-Identifier: Apache-2.0
# What the tests of a checkpoint's life share.

load ../lib/ckptfs.bash

LIFE_LIB=$(cd "$(dirname "${BASH_SOURCE[0]}")/../lib" && pwd)

# save RUN STEP... [OPTION...]: checkpoints as a Trainer writes them (tests/lib/checkpoint.py).
save() { python3 "$LIFE_LIB/checkpoint.py" "$@"; }

# killed PROCESS: kills a child of the test, which ends by that and not before it.
killed() {
    local status=0
    kill -9 "$1"
    wait "$1" || status=$?
    [ $status -eq 137 ]
}

# latest RUN, best RUN: the name of the checkpoint that the link names; "" where there is none.
latest() { basename "$(readlink "$MNT/.ckptfs/latest${1:+/$1}")"; }
best() { basename "$(readlink "$MNT/.ckptfs/best${1:+/$1}")"; }
latest_is() { [ "$(latest "$1")" = "$2" ]; }

# log_count TEXT: how often the daemon's log says it.
log_count() { grep -c -- "$1" "$CKPTFS_LOG" || [ $? -eq 1 ]; }
# settled: the mount has nothing to look at any more.
settled() { [ "$("$CKPTFS" status --json "$MNT" | jq .unlooked_directories)" -eq 0 ]; }

# SPDX-License-Identifier: Apache-2.0
# The daemon dies at each step of each kind of change: just before the commit, and between the commit and the answer.

load crash.bash

setup() {
    crash_setup
    require_takeover
}
teardown() { ckptfs_teardown; }

# die_at_each POINT LAST [MOUNT_OPTION...]: one mount for each hit, all on one store.
die_at_each() {
    local point=$1 last=$2 hit died=0
    shift 2
    for ((hit = 1; hit <= last; hit++)); do
        CKPTFS_FAULT=$point:kill:$hit ckptfs_mount "$@" || {
            # The first hits may fall before the mount is served; then it is refused, and nothing is left behind.
            wait_until 10 ckptfs_no_processes
            expect_failure ckptfs_is_mounted
            continue
        }
        timeout 60 python3 "$CRASH_TREE/steps.py" "$MNT" || {
            echo "with $point:kill:$hit"
            return 1
        }
        if [ "$(ckptfs_status_field generation)" -gt 1 ]; then died=$((died + 1)); fi
        ckptfs_umount
    done
    echo "$died of $last mounts lost a daemon"
    # A point that is never hit would prove nothing.
    [ $died -gt $((last / 2)) ]
}

@test "death before each commit" {
    die_at_each meta.commit 30
}

@test "death after each commit, before its answer" {
    die_at_each meta.committed 30
}

@test "death before and after each commit, served by the daemon" {
    die_at_each meta.commit 12 passthrough=off
    die_at_each meta.committed 12 passthrough=off
}

@test "death while files are made, sealed, synced and thrown away" {
    local point
    for point in object-create object-sync object-remove fs.seal fs.discard fs.open fs.rename; do
        CKPTFS_FAULT=$point:kill:2 ckptfs_mount
        timeout 60 python3 "$CRASH_TREE/steps.py" "$MNT"
        ckptfs_umount
        ckptfs_mount
        [ -z "$(ls -A "$MNT")" ]
        ckptfs_umount
    done
}

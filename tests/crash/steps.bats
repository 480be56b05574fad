# SPDX-License-Identifier: Apache-2.0
# The daemon dies at each step of each kind of change: just before the commit, and between the commit and the answer.

load crash.bash

setup() {
    crash_setup
    require_takeover
}
teardown() { ckptfs_teardown; }

# Changes before the first step, so that no daemon that is armed for its HITth commit dies five times in one run.
FILLERS=14

# die_at_each POINT FIRST LAST [MOUNT_OPTION...]: one mount for each hit, all on one store.
die_at_each() {
    local point=$1 first=$2 last=$3 hit died=0 filler
    shift 3
    for ((hit = first; hit <= last; hit++)); do
        CKPTFS_FAULT=$point:kill:$hit ckptfs_mount "$@"
        mkdir "$MNT/steps"
        for ((filler = 1; filler < FILLERS; filler++)); do mkdir "$MNT/filler-$filler"; done
        timeout 60 python3 "$CRASH_TREE/steps.py" "$MNT/steps" || {
            echo "with $point:kill:$hit"
            return 1
        }
        if [ "$(ckptfs_status_field generation)" -gt 1 ]; then died=$((died + 1)); fi
        umount_dying
        ckptfs_mount "$@"
        [ "$(find "$MNT" -mindepth 1 | wc -l)" -eq $FILLERS ]
        rmdir "$MNT"/*
        ckptfs_umount
    done
    echo "$died of $((last - first + 1)) mounts lost a daemon"
    # A point that is never hit would prove nothing.
    [ $died -gt $(((last - first + 1) / 2)) ]
}

@test "death before each commit" {
    die_at_each meta.commit 16 60
}

@test "death after each commit, before its answer" {
    die_at_each meta.committed 16 60
}

@test "death before and after each commit, served by the daemon" {
    die_at_each meta.commit 18 30 passthrough=off
    die_at_each meta.committed 18 30 passthrough=off
}

@test "death while files are made, sealed, synced and thrown away" {
    local point
    for point in object-create object-sync object-remove fs.seal fs.discard fs.open fs.rename; do
        # Some of these are steps of the recovery as well.
        CKPTFS_FAULT_STARTS=3 CKPTFS_FAULT=$point:kill:2 ckptfs_mount
        timeout 60 python3 "$CRASH_TREE/steps.py" "$MNT"
        umount_dying
        ckptfs_mount
        [ -z "$(ls -A "$MNT")" ]
        ckptfs_umount
    done
}

# SPDX-License-Identifier: Apache-2.0
# What the bats files here share: each test is one pytest module, run on a mount; what it counts is printed.

load ../lib/ckptfs.bash
load ../lib/loaded.bash

setup_file() { loaded_start; }
teardown_file() { loaded_end; }
setup() {
    ckptfs_setup
    mkdir "$TEST_DIR/plain"
}
teardown() { ckptfs_teardown; }

# run_module NAME: mounts, runs one pytest module with a directory on each side, ends the mount.
run_module() {
    local status=0
    ckptfs_mount
    export STORE MNT CKPTFS_LOG
    export CKPTFS_TEST_MOUNT=$MNT CKPTFS_TEST_MOUNTPOINT=$MNT CKPTFS_TEST_PLAIN=$TEST_DIR/plain
    export CKPTFS_TEST_REMOUNT="bash -c 'source \"$CKPTFS_TREE/tests/lib/ckptfs.bash\" && ckptfs_remount'"
    # Its own output last: bats shows it when the test failed.
    loaded_python "${CKPTFS_TEST_MODULE_SECONDS:-900}" 1 -mpytest -p no:cacheprovider -v -rP --tb=short "$CKPTFS_TREE/tests/trainer/$1.py" \
        >"$TEST_DIR/pytest.log" 2>&1 || status=$?
    sed -nE '/ (PASSED|FAILED|ERROR|SKIPPED)|^=+ .*(passed|failed|error|skipped)|^[0-9]+ kills, |^CKPTFS_TEST_SEED=/s/^/# /p' "$TEST_DIR/pytest.log" >&3
    if [ $status -ne 0 ]; then
        tail -n 150 "$TEST_DIR/pytest.log"
        return 1
    fi
    ckptfs_umount
}

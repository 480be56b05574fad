# SPDX-License-Identifier: Apache-2.0
# An unmodified HuggingFace Trainer on a mount. One test here is one pytest module; what it counts is printed.
# The Python environment is CKPTFS_VENV (default: build/venv, which contrib/setup --python makes).

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
    loaded_python 900 1 -mpytest -p no:cacheprovider -v --tb=short "$CKPTFS_TREE/tests/trainer/$1.py" \
        >"$TEST_DIR/pytest.log" 2>&1 || status=$?
    sed -nE '/ (PASSED|FAILED|ERROR|SKIPPED)|^=+ .*(passed|failed|error|skipped)/s/^/# /p' "$TEST_DIR/pytest.log" >&3
    if [ $status -ne 0 ]; then
        tail -n 150 "$TEST_DIR/pytest.log"
        return 1
    fi
    ckptfs_umount
}

@test "what a Trainer saves is identical to the plain disk, and loads" {
    run_module test_saving
}

@test "interrupted, resumed, killed in mid-save, saved over" {
    run_module test_resume
}

@test "killed in its saves, resumed each time" {
    run_module test_kills
}

@test "adapters, two processes, the Hub's folder" {
    run_module test_variants
}

@test "the other habits of a run directory" {
    run_module test_habits
}

@test "quantized models" {
    run_module test_quantized
}

@test "what a Trainer saves, served by the daemon" {
    export CKPTFS_MOUNT_OPTIONS=passthrough=off
    run_module test_saving
}

@test "the other habits of a run directory, served by the daemon" {
    export CKPTFS_MOUNT_OPTIONS=passthrough=off
    run_module test_habits
}

# The fifth death in a minute would end the mount.
require_takeover() {
    [ "$(uname -r | awk -F. '{ print ($1 * 1000 + $2 >= 6009) }')" = 1 ] || skip "needs kernel 6.9"
    export CKPTFS_TEST_KILL=4
}

@test "four kill -9 of the daemon in the middle of a run" {
    require_takeover
    run_module test_takeover
}

@test "four kill -9 of the daemon among the other habits of a run directory" {
    require_takeover
    run_module test_habits
}

# SPDX-License-Identifier: Apache-2.0
# An unmodified HuggingFace Trainer on a mount. One test here is one pytest module.
# The Python environment is CKPTFS_VENV (default: build/venv, which contrib/setup --python makes).

load trainer.bash

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

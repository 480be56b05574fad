#!/usr/bin/env bats
# SPDX-License-Identifier: Apache-2.0
# Random operations against a model in memory, across mounts, restarts and deaths of the daemon.
#
#   RANDOM_OPS_SEED      the first seed (default: a new one each run, which a failure prints)
#   RANDOM_OPS_ROUNDS    how many seeds each test takes (default: 2)
#   RANDOM_OPS           the program (default: where `make check` puts it, beside CKPTFS)

load ../fs/fs.bash

# run_seeds HOW OPTION...: HOW names what happens to the mount on the way (tests/random/remount).
run_seeds() {
    local how=$1 first=${RANDOM_OPS_SEED:-$RANDOM$RANDOM} round program
    shift
    program=$(realpath "${RANDOM_OPS:-$(dirname "$CKPTFS")/tests/random/random_ops}")
    export RANDOM_OPS_REMOUNT="'$BATS_TEST_DIRNAME/remount' $how"
    if fs_is_plain; then RANDOM_OPS_REMOUNT=true; else set -- --forks "$@"; fi
    cd /
    for round in $(seq "${RANDOM_OPS_ROUNDS:-2}"); do
        mkdir "$WORK/$round"
        "$program" --dir "$WORK/$round" --seed $((first + round)) "$@" 3>&-
    done
}

require_take_over() {
    if fs_is_plain; then skip "a plain directory has no daemon"; fi
    [ "$(ckptfs_status_field features.takeover)" = true ] || skip "a new daemon cannot take over here"
}

@test "trees, mounted again on the way" {
    run_seeds mount --ops 6000 --remount-every 1500
}

@test "one file, mounted again on the way" {
    run_seeds mount --single --ops 6000 --remount-every 1500
}

@test "trees with open files, the daemon restarted on the way" {
    require_take_over
    run_seeds restart --ops 4000 --remount-every 1000 --keep-open
}

@test "trees with open files, the daemon killed on the way" {
    require_take_over
    run_seeds kill --ops 4000 --remount-every 1000 --keep-open
}

@test "one file that stays open, the daemon killed on the way" {
    require_take_over
    run_seeds kill --single --ops 4000 --remount-every 500 --keep-open
}

@test "a byte that changed behind the test's back is found" {
    local program damage="$BATS_TEST_TMPDIR/damage"
    program=$(realpath "${RANDOM_OPS:-$(dirname "$CKPTFS")/tests/random/random_ops}")
    mkdir tree
    cat >"$damage" <<'SCRIPT'
file=$(find "$1" -type f -size +10k | sort | head -1)
byte=$(od -An -tu1 -j 5000 -N 1 "$file")
printf "\\x$(printf %x $((byte ^ 1)))" | dd of="$file" bs=1 seek=5000 conv=notrunc status=none
SCRIPT
    RANDOM_OPS_REMOUNT="bash '$damage' '$WORK/tree'" run "$program" --dir "$WORK/tree" --seed 7 --ops 2000 --remount-every 1000
    [ "$status" -eq 1 ]
    [[ "$output" == *"operation 1000"*"the last operations on node"* ]]
}

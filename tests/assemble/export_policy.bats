#!/usr/bin/env bats
# SPDX-License-Identifier: Apache-2.0
# Exports that a policy wants, by the daemon, as the user who set it.

load ../views/views.bash

setup() {
    views_setup
    if [ "$(id -u)" -eq 0 ]; then ckptfs_mount allow_other; else ckptfs_mount; fi
    OUT=$TEST_DIR/out
    RUN=$MNT/run
}
teardown() { cd / && ckptfs_teardown; }

export_() { "$CKPTFS" export "$@"; }
policy() { "$CKPTFS" policy "$@"; }
sums_hold() { (cd "$1" && sha256sum --quiet -c SHA256SUMS); }
# as_owner COMMAND...: as a user who is not root where the test is.
owner=${CKPTFS_TEST_USER:-nobody}

@test "the keys are checked, shown and inherited" {
    mkdir -p "$RUN/checkpoint-1"
    refused "export: expected an absolute path, found 'models'" policy set "$RUN" export=models
    local bad
    for bad in never "every" "every 0" "every 5x" "every -1" "every 99999999999999999999"; do
        refused "export-when: expected complete, latest, best, pinned or 'every N'" policy set "$RUN" "export-when=$bad"
    done
    policy set "$RUN" export="$OUT" "export-when=every 500"
    policy show --json "$RUN/checkpoint-1" | jq -e --arg out "$OUT" \
        '[.policies[] | select(.key | startswith("export")) | .value] == [$out, "every 500"] and
            ([.policies[].key | select(startswith("export."))] == [])'
    policy unset "$RUN" export-when
    policy show --json "$RUN" | jq -e '.policies[] | select(.key == "export-when") | .value == "complete"'
    refused "unknown key 'export.user'" policy set "$RUN" "export.user=0 0"
}

@test "what is asked for goes where the policy says, below it as it lies below the policy's directory" {
    save_model "$RUN/checkpoint-10" --mib 8
    save_model "$RUN/checkpoint-20" --mib 8 --seed 2
    refused "no policy says where to" export_ "$RUN/checkpoint-10"
    policy set "$MNT" export="$OUT"
    [ "$(export_ "$RUN/checkpoint-20")" = "$OUT/run/checkpoint-20" ]
    sums_hold "$OUT/run/checkpoint-20"
    [ "$(export_ "$RUN/checkpoint-10")" = "$OUT/run/checkpoint-10" ]
    # The later step stays the latest.
    [ "$(readlink "$OUT/run/latest")" = checkpoint-20 ]
    policy set "$RUN" export="$TEST_DIR/other/"
    [ "$(export_ "$RUN/checkpoint-10")" = "$TEST_DIR/other/checkpoint-10" ]
    jq -e '.read_back' "$TEST_DIR/other/checkpoint-10/ckptfs-export.json"
    grep -q 'exported path=".*/run/checkpoint-10" into=".*/other" uid=' "$CKPTFS_LOG"
    # It survives the mount that it is done.
    ckptfs_remount
    [ "$(export_ "$RUN/checkpoint-10")" = "$TEST_DIR/other/checkpoint-10" ]
    refused "exports go to the plain disk" policy_export_on_mount
    end_and_check
}
policy_export_on_mount() {
    policy set "$RUN" export="$MNT/exports"
    export_ "$RUN/checkpoint-10"
}

@test "it is the user who set the policy that exports, and nobody else" {
    require_root
    mkdir -m 777 "$OUT" "$TEST_DIR/open"
    mkdir -m 700 "$TEST_DIR/closed"
    mkdir "$RUN"
    chown "$owner" "$RUN"
    save_model "$RUN/checkpoint-1"
    chown -R "$owner" "$RUN"
    run_as_user "$CKPTFS" policy set "$RUN" export="$OUT"
    # Root asks; the user's rights are used.
    export_ "$RUN/checkpoint-1"
    [ "$(stat -c %U "$OUT/checkpoint-1" "$OUT/checkpoint-1/config.json" "$OUT/latest" | sort -u)" = "$owner" ]
    run_as_user "$CKPTFS" policy set "$RUN" export="$TEST_DIR/closed"
    refused "Permission denied" export_ "$RUN/checkpoint-1"
    [ -z "$(ls -A "$TEST_DIR/closed")" ]
    # A name in the run that leads elsewhere is not followed, least of all for root.
    echo secret >"$TEST_DIR/closed/secret"
    run_as_user ln -s "$TEST_DIR/closed/secret" "$RUN/checkpoint-1/LICENSE"
    policy set "$RUN" export="$TEST_DIR/open"
    export_ "$RUN/checkpoint-1"
    [ "$(stat -c %U "$TEST_DIR/open/checkpoint-1")" = root ]
    [ ! -e "$TEST_DIR/open/checkpoint-1/LICENSE" ]
    run_as_user "$CKPTFS" export "$MNT/run/checkpoint-1" "$TEST_DIR/open" --name a --no-links
    run_as_user mv "$RUN/checkpoint-1" "$RUN/real"
    run_as_user ln -s real "$RUN/checkpoint-1"
    refused "Too many levels of symbolic links" export_ "$RUN/checkpoint-1" "$TEST_DIR/open" --name b --no-links
    refused "only the directory's owner and root" run_as_user "$CKPTFS" policy set "$MNT" export="$OUT"
}

# An export that is under way, with the checkpoint open, for as long as the test has the lock of its name.
begin_slow_export() {
    save_model "$RUN/checkpoint-1"
    mkdir "$OUT"
    exec 7>"$OUT/.ckptfs-export-checkpoint-1.lock"
    flock 7
    policy set "$RUN" export="$OUT"
    (export_ "$RUN/checkpoint-1" >"$TEST_DIR/asked" 2>&1 || true) 7>&- &
    wait_until 60 lock_is_waited_for
}
lock_waiters() { grep -E -- "-> FLOCK .*:$(stat -c %i "$OUT/.ckptfs-export-checkpoint-1.lock") " /proc/locks; }
lock_is_waited_for() { lock_waiters >/dev/null; }
lock_is_not_waited_for() { ! lock_is_waited_for; }

# The export is made when the lock is free.
end_slow_export() {
    exec 7>&-
    wait_until 60 test -e "$OUT/checkpoint-1"
    sums_hold "$OUT/checkpoint-1"
    wait_until 30 nothing_hidden
    wait
}
nothing_hidden() { [ -z "$(find "$OUT" -maxdepth 1 -name '.?*')" ]; }

@test "an export that hangs keeps only its user's waiting, and one that fails is told of" {
    require_root
    mkdir -m 777 "$OUT" "$TEST_DIR/ours"
    mkdir -m 700 "$TEST_DIR/closed"
    mkdir "$MNT/theirs"
    save_model "$MNT/theirs/checkpoint-1"
    chown -R "$owner" "$MNT/theirs"
    exec 7>"$OUT/.ckptfs-export-checkpoint-1.lock"
    flock 7
    run_as_user "$CKPTFS" policy set "$MNT/theirs" export="$OUT" 7>&-
    (export_ "$MNT/theirs/checkpoint-1" >"$TEST_DIR/asked" 2>&1 || true) 7>&- &
    wait_until 60 lock_is_waited_for
    save_model "$RUN/checkpoint-1"
    policy set "$RUN" export="$TEST_DIR/ours"
    timeout 60 "$CKPTFS" export "$RUN/checkpoint-1"
    sums_hold "$TEST_DIR/ours/checkpoint-1"
    jq -e '[.exports[] | [.path, .state, .failures, .problem]] == [["/theirs/checkpoint-1", "running", 0, null]]' \
        <"$MNT/.ckptfs/status.json"
    exec 7>&-
    wait
    # The reason is there for whoever looks, and for who waits to be told.
    run_as_user "$CKPTFS" policy set "$MNT/theirs" export="$TEST_DIR/closed" hook-export-failed="cat >$OUT/told"
    refused "Permission denied" export_ "$MNT/theirs/checkpoint-1"
    run_as_user "$CKPTFS" events --json "$MNT" |
        jq -es 'map(select(.event == "export-failed")) | length == 1 and (.[0].reason | contains("Permission denied")) and
            .[0].path == "theirs/checkpoint-1"'
    wait_until 30 grep -q '"export-failed"' "$OUT/told"
    run_as_user cat "$MNT/.ckptfs/status.json" |
        jq -e '.exports[0] | .state == "failed" and .failures == 1 and (.problem | contains("Permission denied"))'
    grep -q '/theirs/checkpoint-1, failed once: .*Permission denied' "$MNT/.ckptfs/status"
    # Who may not look into the directory is not told of it.
    chmod 700 "$MNT/theirs"
    chown root "$MNT/theirs"
    run_as_user cat "$MNT/.ckptfs/status.json" | jq -e '.exports == []'
}

# save STEP...: checkpoints of the run as a Trainer writes them (tests/lib/checkpoint.py).
save() { timeout 60 python3 "$CKPTFS_TREE/tests/lib/checkpoint.py" "$RUN" "$@"; }
exported_events() { "$CKPTFS" events --json "$MNT" | jq -cs 'map(select(.event == "exported") | [.path, .step])'; }
nothing_is_pending() { [ "$("$CKPTFS" status --json "$MNT" | jq .unexported_checkpoints)" -eq 0 ]; }

nothing_waits() { "$CKPTFS" status --json "$MNT" | jq -e '.unlooked_directories == 0 and .behind_files == 0' >/dev/null; }

@test "what is added is exported too, and what is added all the time not each time" {
    ckptfs_umount
    # Some seconds are two then.
    export CKPTFS_TEST_CLOCK=$TEST_DIR/clock
    echo 0 >"$CKPTFS_TEST_CLOCK"
    ckptfs_mount
    mkdir "$RUN"
    policy set "$RUN" export="$OUT"
    python3 "$BATS_TEST_DIRNAME/../lib/checkpoint.py" "$RUN" 10
    wait_until 30 grep -q 'exported path=".*/run/checkpoint-10"' "$CKPTFS_LOG"
    local begun=$SECONDS exports
    while [ $((SECONDS - begun)) -lt 3 ]; do
        echo line >>"$RUN/checkpoint-10/README.md"
        wait_until 20 nothing_waits
    done
    exports=$(grep -c 'exported path=".*/run/checkpoint-10"' "$CKPTFS_LOG")
    [ "$exports" -le $((1 + (SECONDS - begun + 2) / 2)) ]
    wait_until 30 cmp "$RUN/checkpoint-10/README.md" "$OUT/checkpoint-10/README.md"
}

@test "one that was overtaken is not exported, and nobody is told that it was; what waited for its export goes then" {
    mkdir "$OUT" "$RUN"
    exec 7>"$OUT/.ckptfs-export-checkpoint-1.lock"
    flock 7
    policy set "$RUN" export="$OUT" export-when=latest keep-last=1
    save 1 7>&-
    wait_until 60 lock_is_waited_for
    save 2 3 7>&-
    wait_until 60 is_left_to_export 3
    [ -e "$RUN/checkpoint-1" ]
    exec 7>&-
    wait_until 60 nothing_is_pending
    [ "$(ls "$OUT")" = "$(printf '%s\n' checkpoint-1 checkpoint-3 latest)" ]
    [ "$(exported_events)" = '[["run/checkpoint-1",1],["run/checkpoint-3",3]]' ]
    # With no save after it, and long before policies are looked at again.
    wait_until 30 test ! -e "$RUN/checkpoint-1"
    wait_until 30 test ! -e "$RUN/checkpoint-2"
    [ -e "$RUN/checkpoint-3" ]
    refused "expected --pick beside it" export_ --expect checkpoint-3 "$RUN" "$TEST_DIR/other"
    refused "checkpoint-3 is picked, and not checkpoint-2" export_ --pick latest --expect checkpoint-2 "$RUN" "$TEST_DIR/other"
    [ ! -e "$TEST_DIR/other/checkpoint-3" ]
}
is_left_to_export() { [ "$("$CKPTFS" status --json "$MNT" | jq .unexported_checkpoints)" -eq "$1" ]; }

@test "an export under way keeps no mount from ending, and is made by the next" {
    begin_slow_export
    ckptfs_umount 7>&-
    wait_until 30 ckptfs_no_processes
    wait_until 30 lock_is_not_waited_for
    ckptfs_mount 7>&-
    end_slow_export
}

@test "umount(8) ends exports, too" {
    require_root
    begin_slow_export
    # Whoever asks has the directory open for moments.
    wait_until 30 umount "$MNT"
    wait_until 30 ckptfs_no_processes
    wait_until 30 lock_is_not_waited_for
    ckptfs_mount 7>&-
    end_slow_export
}

@test "an export outlives the death of its daemon" {
    require_takeover
    begin_slow_export
    local before
    before=$(lock_waiters | awk '{ print $6 }')
    kill_daemon
    wait_until 30 test ! -e "/proc/$before"
    end_slow_export
}

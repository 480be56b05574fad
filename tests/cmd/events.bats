#!/usr/bin/env bats
# SPDX-License-Identifier: Apache-2.0
# What the daemon tells: .ckptfs/events and `ckptfs events`. Policies that are set are told at once, so that the tests
# have something to hear.

load ../lib/ckptfs.bash

setup() {
    require_command jq
    ckptfs_setup
    ckptfs_mount
    EVENTS=$MNT/.ckptfs/events
    RUN=$MNT/run
    mkdir "$RUN"
}
teardown() {
    end_readers
    ckptfs_teardown
}

reader_pids=()
# reader NAME COMMAND...: runs it in the background; its output is $TEST_DIR/NAME.
reader() {
    local name=$1
    shift
    timeout 120 "$@" >"$TEST_DIR/$name" 2>&1 3>&- &
    reader_pids+=($!)
    READER=$!
}
end_readers() {
    local pid
    for pid in "${reader_pids[@]}"; do
        kill "$pid" 2>/dev/null || true
        wait "$pid" 2>/dev/null || true
    done
    reader_pids=()
}
python_reader() { reader "$1" python3 "$BATS_TEST_DIRNAME/event_reader.py" "$1" "$EVENTS"; }

# tell [DIRECTORY] [VALUE]: something happens to it.
tell() { "$CKPTFS" policy set "${1:-$RUN}" "assemble=${2:-ask}"; }
# Lines of a file, at least so many.
has_lines() { [ "$(wc -l <"$1")" -ge "$2" ]; }
is_ready() { grep -q ready "$TEST_DIR/$1"; }
reasons() { "$CKPTFS" events --json "$@" | jq -r .reason; }

@test "what is kept is printed, of a directory, since a number or a time, and as JSON" {
    mkdir "$MNT/other"
    tell "$RUN"
    tell "$MNT/other"
    tell "$RUN" off
    "$CKPTFS" events "$MNT" >"$TEST_DIR/all"
    [ "$(wc -l <"$TEST_DIR/all")" -eq 3 ]
    grep -qE '^20[0-9-]+T[0-9:.]+Z  policy     other: assemble=ask$' "$TEST_DIR/all"
    [ "$(reasons "$RUN" | paste -sd,)" = "assemble=ask,assemble=off" ]
    (cd "$RUN" && [ "$("$CKPTFS" events | wc -l)" -eq 2 ])
    [ "$("$CKPTFS" events --json "$MNT" | jq -s -c 'map(.sequence)')" = "[1,2,3]" ]
    "$CKPTFS" events --json "$MNT" | jq -es 'map(.event == "policy" and (.time | test("^20"))) | all'
    [ "$("$CKPTFS" events --json --since 2 "$MNT" | jq .sequence)" = 3 ]
    [ "$(reasons --since 1h "$MNT" | wc -l)" -eq 3 ]
    [ "$(reasons --since 2020-01-01 "$MNT" | wc -l)" -eq 3 ]
    [ "$(reasons --since "$(date -u -d '+1 hour' +%Y-%m-%dT%H:%M:%SZ)" "$MNT" | wc -l)" -eq 0 ]
    run "$CKPTFS" events --since yesterday "$MNT"
    [ "$status" -eq 2 ]
    [[ $output == *"expected a number, a time or an age"* ]]
    run "$CKPTFS" events "$TEST_DIR"
    [ "$status" -eq 30 ]
}

@test "a name makes no lines in the log" {
    local forged=$'run\n2026-01-01T00:00:00Z ckptfs: forged \e[31mline'
    mkdir "$MNT/$forged"
    python3 "$CKPTFS_TREE/tests/lib/checkpoint.py" "$MNT/$forged" 5 --bytes 1000
    wait_until 20 grep -qF 'run?2026-01-01T00:00:00Z ckptfs: forged ?[31mline/checkpoint-5' "$CKPTFS_LOG"
    [ "$(grep -c '^2026-01-01' "$CKPTFS_LOG")" -eq 0 ]
}

@test "events of a directory whose name is no UTF-8 are found by its path" {
    local name=$'odd\xff"\nname'
    mkdir "$RUN/$name"
    tell "$RUN/$name"
    tell "$RUN"
    [ "$("$CKPTFS" events --json "$RUN/$name" | jq -c .path)" = '"run/odd?\"\nname"' ]
}

@test "a reader of .ckptfs/events gets what comes, line by line, and waits for it" {
    tell "$RUN" off
    reader cat cat "$EVENTS"
    wait_until 20 ckptfs_events_have 1
    tell "$RUN"
    wait_until 20 has_lines "$TEST_DIR/cat" 1
    tell "$RUN" view
    wait_until 20 has_lines "$TEST_DIR/cat" 2
    [ "$(jq -r .reason "$TEST_DIR/cat" | paste -sd,)" = "assemble=ask,assemble=view" ]
    # All else about the file.
    [ "$(stat -c %a "$EVENTS")" = 444 ]
    run bash -c "echo x >'$EVENTS'"
    [ "$status" -ne 0 ]
    run "$CKPTFS" umount "$MNT"
    [ "$status" -eq 31 ]
    [[ $output == *"(cat)"* ]]
}

@test "select, O_NONBLOCK, small reads and signals" {
    [ "$(timeout 60 python3 "$BATS_TEST_DIRNAME/event_reader.py" nonblock "$EVENTS")" = EAGAIN ]
    [ "$(timeout 60 python3 "$BATS_TEST_DIRNAME/event_reader.py" signal "$EVENTS")" = interrupted ]
    python_reader select
    python_reader pieces
    wait_until 20 is_ready select
    wait_until 20 is_ready pieces
    tell
    wait_until 20 has_lines "$TEST_DIR/select" 2
    wait_until 20 has_lines "$TEST_DIR/pieces" 2
    [ "$(tail -n 1 "$TEST_DIR/select" | jq -r .reason)" = assemble=ask ]
    [ "$(tail -n 1 "$TEST_DIR/pieces" | jq -r .reason)" = assemble=ask ]
    # What is killed while it waits is gone at once.
    wait "${reader_pids[@]}"
    reader killed cat "$EVENTS"
    wait_until 20 ckptfs_events_have 1
    kill -9 "$(pgrep -P "$READER")"
    wait_until 20 bash -c "! kill -0 $READER 2>/dev/null"
}

@test "readers that wait keep no thread: more of them than threads, and everything goes on" {
    local i
    for i in {1..30}; do reader "many$i" cat "$EVENTS"; done
    wait_until 30 ckptfs_events_have 30
    timeout 20 bash -c "echo data >'$MNT/file' && sync '$MNT/file' && grep -q data '$MNT/file' && ls '$MNT' >/dev/null"
    tell
    for i in {1..30}; do wait_until 20 has_lines "$TEST_DIR/many$i" 1; done
}

@test "a reader that is too slow gets a line that says how many it lost" {
    local i words=()
    mkfifo "$TEST_DIR/go"
    exec 8<>"$TEST_DIR/go"
    timeout 120 python3 "$BATS_TEST_DIRNAME/event_reader.py" slow "$EVENTS" <"$TEST_DIR/go" >"$TEST_DIR/slow" 3>&- &
    reader_pids+=($!)
    wait_until 20 is_ready slow
    for i in {1..50}; do words+=(assemble=ask); done
    for i in {1..25}; do "$CKPTFS" policy set "$RUN" "${words[@]}"; done
    wait_until 20 bash -c "'$CKPTFS' events --json --since 1249 '$MNT' | grep -q 1250"
    echo >&8
    exec 8>&-
    wait "${reader_pids[-1]}"
    sed 1d "$TEST_DIR/slow" | jq -es '.[0].event == "lost" and .[0].count == 226 and .[1].sequence == 227 and .[-1].sequence == 1250
        and length == 1025'
}

@test "events and readers outlive the daemon, and events the mount" {
    [ "$(ckptfs_status_field features.takeover)" = true ] || skip "needs take-over"
    local before
    tell "$RUN" off
    reader cat cat "$EVENTS"
    python_reader select
    reader follow "$CKPTFS" events --json --follow "$MNT"
    wait_until 20 is_ready select
    wait_until 20 ckptfs_events_have 3
    before=$(ckptfs_daemon_pid)
    kill -9 "$before"
    wait_until 20 bash -c "'$CKPTFS' status --json '$MNT' | jq -e '.daemon_pid != $before'"
    tell "$RUN"
    wait_until 20 has_lines "$TEST_DIR/cat" 1
    wait_until 20 has_lines "$TEST_DIR/select" 2
    wait_until 20 has_lines "$TEST_DIR/follow" 1
    [ "$(jq -c '[.sequence, .reason]' "$TEST_DIR/cat")" = '[2,"assemble=ask"]' ]
    [ "$(tail -n 1 "$TEST_DIR/select" | jq .sequence)" = 2 ]
    [ "$(jq .sequence "$TEST_DIR/follow")" = 2 ]
    end_readers
    ckptfs_remount
    tell "$RUN" view
    [ "$("$CKPTFS" events --json "$MNT" | jq -s -c 'map(.sequence)')" = "[1,2,3]" ]
    ckptfs_umount
    "$CKPTFS" fsck "$STORE"
}

@test "a mount that is taken away under its readers ends them" {
    local keeper
    keeper=$(ckptfs_keeper_pid)
    reader cat cat "$EVENTS"
    wait_until 20 ckptfs_events_have 1
    if [ "$(id -u)" -eq 0 ]; then umount -l "$MNT"; else fusermount3 -uz "$MNT"; fi
    wait "$READER"
    wait_until 30 bash -c "! kill -0 $keeper 2>/dev/null"
}

@test "--follow prints what comes, what is kept first with --since, and ends with its reader" {
    tell "$RUN" off
    tell "$RUN" view
    reader new "$CKPTFS" events --follow "$RUN"
    reader all "$CKPTFS" events --follow --json --since 1 "$RUN"
    reader first bash -c "'$CKPTFS' events --follow '$RUN' | head -n 1"
    wait_until 20 ckptfs_events_have 3
    wait_until 20 has_lines "$TEST_DIR/all" 1
    tell "$RUN"
    wait_until 20 has_lines "$TEST_DIR/new" 1
    wait_until 20 has_lines "$TEST_DIR/all" 2
    grep -q "assemble=ask" "$TEST_DIR/new"
    [ "$(jq -s -c 'map(.sequence)' "$TEST_DIR/all")" = "[2,3]" ]
    wait "$READER"
    has_lines "$TEST_DIR/first" 1
}

@test "others see what is about their own directories, and no more" {
    require_root
    local user=${CKPTFS_TEST_USER:-nobody}
    ckptfs_umount
    ckptfs_mount allow_other
    mkdir "$MNT/theirs"
    chown "$user" "$MNT/theirs"
    chmod 755 "$MNT"
    run_as_user timeout 60 cat "$EVENTS" >"$TEST_DIR/cat" 3>&- &
    reader_pids+=($!)
    wait_until 20 ckptfs_events_have 1
    tell "$RUN"
    run_as_user "$CKPTFS" policy set "$MNT/theirs" assemble=off
    wait_until 20 has_lines "$TEST_DIR/cat" 1
    [ "$(jq -r .path "$TEST_DIR/cat")" = theirs ]
    [ "$(run_as_user "$CKPTFS" events --json "$MNT" | jq -r .path)" = theirs ]
    [ "$("$CKPTFS" events --json "$MNT" | wc -l)" -eq 2 ]
}

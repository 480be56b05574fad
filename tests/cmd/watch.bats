#!/usr/bin/env bats
# SPDX-License-Identifier: Apache-2.0
# What a mount says of saves under way, of its runs and of its space: `ckptfs status --watch`, .ckptfs/status,
# .ckptfs/status.json and .ckptfs/metrics.

load ../lib/ckptfs.bash
load ../lib/checkpoint.bash

MIB=1048576

setup() {
    require_command jq
    require_command python3
    ckptfs_setup
    RUN=$MNT/run
}
teardown() {
    exec 9>&-
    ckptfs_teardown
}

# weights DIRECTORY MIB: a model, and nothing to resume from.
weights() {
    mkdir -p "$1"
    echo '{}' >"$1/config.json"
    model "$1/model.safetensors" "$2"
}

# checkpoint DIRECTORY MIB: what a Trainer leaves that saves all.
checkpoint() {
    weights "$1" "$2"
    python3 - "$1" <<'END'
import sys, zipfile
for name in ("optimizer.pt", "scheduler.pt", "rng_state.pth"):
    with zipfile.ZipFile(f"{sys.argv[1]}/{name}", "w") as archive:
        archive.writestr("archive/data.pkl", b"\x80\x02}.")
END
    echo "{\"global_step\": ${1##*-}, \"log_history\": []}" >"$1/trainer_state.json"
}

# look FILTER: of what the mount says now.
look() { jq -r "$1" "$MNT/.ckptfs/status.json"; }

# says FILTER VALUE
says() { [ "$(look "$1")" = "$2" ]; }

metric() { python3 "$BATS_TEST_DIRNAME/metrics.py" "$MNT/.ckptfs/metrics" "$@"; }

# metric_is VALUE NAME [LABEL=VALUE...]
metric_is() { [ "$(metric "${@:2}")" = "$1" ]; }

# tell_of_a_save [MOUNT_OPTION...]
tell_of_a_save() {
    ckptfs_mount "$@"
    checkpoint "$RUN/checkpoint-100" 8
    local whole writer
    whole=$(cat "$RUN"/checkpoint-100/* | wc -c)
    wait_until 30 says '.runs[0].last | [.path, .state] | @json' '["/run/checkpoint-100","durable"]'
    says '.saves | length' 0
    grep -q '^saves under way *none$' "$MNT/.ckptfs/status"

    mkdir "$RUN/checkpoint-200"
    exec 9>"$RUN/checkpoint-200/model.safetensors"
    writer=$BASHPID
    # As safetensors does: the size comes first.
    truncate -s $((8 * MIB)) "$RUN/checkpoint-200/model.safetensors"
    head -c $((2 * MIB)) /dev/urandom >&9
    look '.saves[0] | [.path, .step, .open_files, .written_bytes, .expected_bytes] | @json' >"$TEST_DIR/save"
    [ "$(cat "$TEST_DIR/save")" = "[\"/run/checkpoint-200\",200,1,$((2 * MIB)),$whole]" ]
    says '.saves[0].writers | @json' "[{\"pid\":$writer,\"name\":\"$(cat "/proc/$writer/comm")\"}]"
    # The very first look has nothing to go by.
    wait_until 30 says '.saves[0].bytes_per_second > 0 and .saves[0].remaining_seconds > 0' true
    grep -q "^  /run/checkpoint-200  by .* ($writer)\$" "$MNT/.ckptfs/status"
    grep -q '^    2.0 MiB of 8.0 MiB (2[45] %), .*/s, .* left$' "$MNT/.ckptfs/status"
    metric_is 1 ckptfs_saves_in_progress
    metric_is $((2 * MIB)) ckptfs_run_saving_bytes run=/run
    # A file that is no checkpoint's is none.
    exec 8>"$RUN/log"
    says '.other_writers' 1
    says '.saves | length' 1
    exec 8>&-
    says '.runs[0].last.path' /run/checkpoint-100

    exec 9>&-
    checkpoint "$RUN/checkpoint-200" 8
    wait_until 30 says '.runs[0].last | [.path, .state] | @json' '["/run/checkpoint-200","durable"]'
    says '.saves | length' 0
    says '.runs[0] | [.checkpoints, .completed, .last.step] | @json' '[2,2,200]'
    metric_is 2 ckptfs_saves_completed_total
}

@test "a save under way: what, how much, how fast, by whom" { tell_of_a_save; }

@test "a save that the daemon serves is told of alike" { tell_of_a_save passthrough=off; }

@test "what is written is told of as its checkpoint, whatever lies in between; logs are none" {
    ckptfs_mount
    mkdir -p "$MNT/final"
    echo '{}' >"$MNT/final/config.json"
    local file fd fds=()
    for file in a/checkpoint-5/global_step5/rank_0.pt b/checkpoint-6/pytorch_model_fsdp_0/__0_0.distcp \
        c/step_7/__0_0.distcp d/tmp-checkpoint-8/optimizer.pt e/global_step9/mp_rank_00_model_states.pt \
        final/.tmpAbCdEf whole/model.safetensors a/runs/events.out.tfevents a/log.jsonl step_10; do
        mkdir -p "$(dirname "$MNT/$file")"
        exec {fd}>"$MNT/$file"
        fds+=("$fd")
    done
    says '.saves | map(.path) | @json' \
        '["/a/checkpoint-5","/b/checkpoint-6","/c/step_7","/d/tmp-checkpoint-8","/e/global_step9","/final","/whole"]'
    says '.saves | map(.step) | @json' '[5,6,7,8,9,null,null]'
    says '.other_writers' 3
    for fd in "${fds[@]}"; do exec {fd}>&-; done
}

@test "a run says what the next checkpoint takes, and when the disk will be full" {
    ckptfs_mount
    checkpoint "$RUN/checkpoint-10" 4
    checkpoint "$RUN/checkpoint-20" 4
    cp "$RUN/checkpoint-10/model.safetensors" "$RUN/checkpoint-20/model.safetensors"
    wait_until 30 says '.runs[0].last | [.path, .state] | @json' '["/run/checkpoint-20","durable"]'
    # The model is the older one's, too: next to nothing of the checkpoint is new.
    few_are_new() { [ "$(look '.runs[0].last | .new_bytes >= 0 and .new_bytes < 65536 and .bytes > 4000000')" = true ]; }
    wait_until 60 few_are_new
    local step fit
    fit=$(look '.runs[0].next.checkpoints_that_fit')
    step=$(look '.runs[0].next.full_at_step')
    [ "$fit" -gt 1000 ] && [ "$step" -gt 10000 ] && [ $((step % 10)) -eq 0 ]
    says '.runs[0].next.fits' true
    grep -qE "^    next  there is room for [0-9]+ more, full at step [0-9]+0(, 2[0-9]{3}-.*Z)?, if none is removed$" "$MNT/.ckptfs/status"
    "$CKPTFS" status "$MNT" | grep -q '^    next  there is room for '
    metric_is 20 ckptfs_run_last_step run=/run
    metric_is 1 ckptfs_run_next_fits run=/run
    metric_is 2 ckptfs_run_completed_checkpoints run=/run
}

@test "what will be freed next is told to root and whoever mounted" {
    require_root
    ckptfs_mount
    head -c $((4 * MIB)) /dev/urandom >"$MNT/file"
    exec 9<"$MNT/file"
    rm "$MNT/file"
    wait_until 30 says '.space.freed_next | any(.what == "deleted files that are open" and .bytes >= 4194304)' true
    grep -q '^  freed next  4.0 MiB  deleted files that are open, when they are closed$' "$MNT/.ckptfs/status"
    metric_is $((4 * MIB)) ckptfs_reclaimable_bytes 'what=deleted files that are open' 'when=when they are closed'
    [ "$(run_as_user cat "$MNT/.ckptfs/status.json" | jq '.space.freed_next')" = null ]
    exec 9>&-
    wait_until 30 says '.space.freed_next | length' 0
}

@test "what the trash and policies would give up is told" {
    require_root
    local step
    ckptfs_mount
    for step in 1 2 3; do checkpoint "$RUN/checkpoint-$step" 4; done
    "$CKPTFS" policy set "$RUN" keep-last=5
    wait_until 30 says '.runs[0].completed == 3 and .unlooked_directories == 0' true
    rm -r "$RUN/checkpoint-2"
    freed_is 'removed checkpoints in the trash' 'when the space is needed'
    freed_is 'checkpoints that policies can spare' 'when the space is needed'
    "$CKPTFS" pin "$RUN/checkpoint-1"
    touch "$RUN/note"
    wait_until 30 says '.space.freed_next | all(.what != "checkpoints that policies can spare")' true
}

# freed_is WHAT WHEN: about 4 MiB of it.
freed_is() {
    wait_until 30 says ".space.freed_next | any(.what == \"$1\" and .when == \"$2\" and .bytes >= 4194304 and .bytes < 4300000)" true
}

@test "who may not list a directory is not told of its runs and saves" {
    require_root
    ckptfs_mount
    mkdir -m 700 "$MNT/secret"
    weights "$MNT/secret/hidden-run/checkpoint-1" 1
    weights "$MNT/open-run/checkpoint-2" 1
    exec 9>"$MNT/secret/hidden-run/checkpoint-1/more.bin"
    wait_until 30 says '.runs | map(.path) | @json' '["/open-run","/secret/hidden-run"]'
    says '.saves | map(.path) | @json' '["/secret/hidden-run/checkpoint-1"]'
    local file
    for file in status status.json metrics; do
        grep -q hidden-run "$MNT/.ckptfs/$file"
        run_as_user cat "$MNT/.ckptfs/$file" >"$TEST_DIR/theirs"
        grep -q open-run "$TEST_DIR/theirs"
        if grep -q hidden-run "$TEST_DIR/theirs"; then return 1; fi
    done
    # By a group that may.
    chgrp "$(id -g "${CKPTFS_TEST_USER:-nobody}")" "$MNT/secret"
    chmod 750 "$MNT/secret"
    run_as_user grep -q hidden-run "$MNT/.ckptfs/status"
    chmod 710 "$MNT/secret"
    run_as_user grep -q hidden-run "$MNT/.ckptfs/status"
    chmod 740 "$MNT/secret"
    if run_as_user grep -q hidden-run "$MNT/.ckptfs/status"; then return 1; fi
}

@test "metrics are well formed, whatever runs are called" {
    ckptfs_mount
    python3 "$BATS_TEST_DIRNAME/metrics.py" "$MNT/.ckptfs/metrics"
    local names=('plain' 'a"b\c' $'new\nline' 'x\x0a' $'x\x0a' $'byte\xff' 'ünï') name
    for name in "${names[@]}"; do weights "$MNT/$name/checkpoint-1" 1; done
    wait_until 30 says '.runs | length' ${#names[@]}
    metric ckptfs_run_checkpoints run | sort >"$TEST_DIR/labels"
    [ "$(sort -u "$TEST_DIR/labels" | wc -l)" -eq ${#names[@]} ]
    grep -qxF '"/a\"b\\c"' "$TEST_DIR/labels"
    grep -qxF '"/new\\x0aline"' "$TEST_DIR/labels"
    jq -r . "$TEST_DIR/labels" | grep -qxF '/ünï'
    dd if=/dev/zero of="$MNT/synced" bs=1M count=1 conv=fsync status=none
    [ "$(metric ckptfs_fsync_duration_seconds_count)" -ge 1 ]
    [ "$(metric ckptfs_written_bytes_total)" -ge $((7 * MIB)) ]
    # As the JSON document has it, these names do not reach a terminal.
    [ "$(tr -d '\n' <"$MNT/.ckptfs/status" | LC_ALL=C tr -d '[:print:]\200-\377' | wc -c)" -eq 0 ]
    ckptfs_remount ro
    python3 "$BATS_TEST_DIRNAME/metrics.py" "$MNT/.ckptfs/metrics"
    wait_until 30 says '.runs | length' ${#names[@]}
}

@test "a user cannot have the daemon keep any number of texts" {
    ckptfs_mount
    python3 - "$MNT/.ckptfs/status" <<'END'
import errno, sys
files = []
try:
    while len(files) < 1000:
        files.append(open(sys.argv[1]))
except OSError as error:
    assert error.errno == errno.EMFILE and len(files) >= 64, (error, len(files))
else:
    sys.exit("there was no end to it")
for file in files:
    assert file.read()
    file.close()
open(sys.argv[1]).read()
END
}

@test "what is open stays as it was, and a new daemon goes on telling" {
    ckptfs_mount
    mkdir -p "$RUN/checkpoint-5"
    exec 9>"$RUN/checkpoint-5/optimizer.pt"
    head -c $MIB /dev/urandom >&9
    says '.saves[0].path' /run/checkpoint-5
    exec 8<"$MNT/.ckptfs/status.json"
    "$CKPTFS" restart "$MNT"
    [ "$(jq -r '.saves[0].path' <&8)" = /run/checkpoint-5 ]
    exec 8<&-
    says '.saves[0] | [.path, .written_bytes, .writers[0].pid] | @json' "[\"/run/checkpoint-5\",$MIB,$BASHPID]"
    metric_is 1 ckptfs_daemon_restarts_total
}

has_lines() { [ "$(wc -l <"$1")" -ge "$2" ]; }

@test "status --watch goes on until it is interrupted" {
    ckptfs_mount
    mkdir -p "$RUN/checkpoint-5"
    exec 9>"$RUN/checkpoint-5/optimizer.pt"
    "$CKPTFS" status --watch --interval 0.1 --json "$MNT" >"$TEST_DIR/looks" 9>&- &
    wait_until 20 has_lines "$TEST_DIR/looks" 2
    head -c $MIB /dev/urandom >&9
    wait_until 20 grep -q '"written_bytes":1048576' "$TEST_DIR/looks"
    kill -INT $!
    wait $!
    # An object a line, all of them whole.
    [ "$(jq -c '.mountpoint' "$TEST_DIR/looks" | sort -u)" = "\"$MNT\"" ]
    [ "$(jq -s 'length' "$TEST_DIR/looks")" -eq "$(wc -l <"$TEST_DIR/looks")" ]

    # For people, not on a terminal: looks below each other, and no control characters.
    "$CKPTFS" status -w -i 0.1 >"$TEST_DIR/text" 9>&- &
    watched_twice() { [ "$(grep -c '^saves under way' "$TEST_DIR/text")" -ge 2 ]; }
    wait_until 20 watched_twice
    kill -TERM $!
    wait $!
    grep -q '^  /run/checkpoint-5  by ' "$TEST_DIR/text"
    if grep -q $'\e' "$TEST_DIR/text"; then return 1; fi
}

@test "status --watch draws over itself on a terminal, in its width" {
    ckptfs_mount
    weights "$MNT/a-run-with-a-name-that-is-longer-than-the-terminal-is-wide/checkpoint-1" 1
    python3 - "$CKPTFS" "$MNT" <<'END'
import fcntl, os, pty, re, struct, sys, termios

child, terminal = pty.fork()
if child == 0:
    os.execv(sys.argv[1], ["ckptfs", "status", "--watch", "--interval", "0.1", sys.argv[2]])
fcntl.ioctl(terminal, termios.TIOCSWINSZ, struct.pack("HHHH", 10, 40, 0, 0))
seen = b""
while seen.count(b"A\r") < 4:
    seen += os.read(terminal, 4096)
os.write(terminal, b"\x03")
while True:
    try:
        more = os.read(terminal, 4096)
    except OSError:
        break
    if not more:
        break
    seen += more
_, status = os.waitpid(child, 0)
assert os.waitstatus_to_exitcode(status) == 0, status
last = re.split(rb"\x1b\[\d+A\r", seen)[-1].decode(errors="replace")
lines = re.sub(r"\x1b\[[KJ]", "", last).replace("^C", "").splitlines()
assert any(line.startswith("saves under way") for line in lines), lines
assert 3 <= len(lines) <= 10 and all(len(line) < 40 for line in lines), lines
END
}

@test "a watch ends with the mount, and says so" {
    ckptfs_mount
    "$CKPTFS" status -w -i 0.1 "$MNT" >"$TEST_DIR/text" 2>"$TEST_DIR/errors" &
    wait_until 20 has_lines "$TEST_DIR/text" 2
    ckptfs_umount
    local code=0
    wait $! || code=$?
    [ $code -eq 30 ]
    grep -q 'is not a ckptfs mount' "$TEST_DIR/errors"
    run "$CKPTFS" status --interval 2 "$MNT"
    [ "$status" -eq 2 ]
    run "$CKPTFS" status --watch --interval nothing "$MNT"
    [ "$status" -eq 2 ]
}

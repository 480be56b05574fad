#!/usr/bin/env bats
# SPDX-License-Identifier: Apache-2.0
# The directory .ckptfs: what it holds, who may look into it, and that nobody changes it.

load views.bash

setup() {
    views_setup
    ckptfs_mount
}
teardown() { ckptfs_teardown; }

# A run with two checkpoints that have a whole model each.
make_run() {
    mkdir -p "$MNT/run/checkpoint-1" "$MNT/run/checkpoint-2/inner" "$MNT/data"
    local checkpoint
    for checkpoint in 1 2; do
        head -c 300000 /dev/urandom >"$MNT/run/checkpoint-$checkpoint/model.safetensors"
        echo state >"$MNT/run/checkpoint-$checkpoint/optimizer.pt"
        echo "{\"step\": $checkpoint}" >"$MNT/run/checkpoint-$checkpoint/trainer_state.json"
    done
    echo '{"model_type": "llama"}' >"$MNT/run/checkpoint-1/config.json"
    echo '{"a": "tokenizer"}' >"$MNT/run/tokenizer.json"
    echo '{"epoch": 1}' >"$MNT/run/all_results.json"
    echo text >"$MNT/data/corpus.txt"
}

listed() { (cd "$1" && find . -mindepth 1 | LC_ALL=C sort | tr '\n' ' '); }

@test "no listing shows it, and by name it is there" {
    make_run
    [ -z "$(find "$MNT" -name '.ckptfs*')" ]
    [ "$(ls -A "$MNT" | tr '\n' ' ')" = "data run " ]
    [ "$(ls "$MNT/.ckptfs" | tr '\n' ' ')" = "best events latest metrics models status status.json torn trash " ]
    rm -rf "${MNT:?}"/* "$MNT"/.[a-z]*
    [ -z "$(ls -A "$MNT")" ]
    [ -d "$MNT/.ckptfs/models" ]
    [ "$(realpath "$MNT/.ckptfs/models/..")" = "$MNT/.ckptfs" ]
    [ "$(stat -c %i "$MNT/.ckptfs/..")" = "$(stat -c %i "$MNT")" ]
}

same_json() {
    local volatile='del(.open_handles, .uptime_seconds, .stored_bytes, .disk)'
    "$CKPTFS" status --json "$MNT" | jq -S "$volatile" >"$TEST_DIR/command"
    jq -S "$volatile | del(.saves, .other_writers, .exports, .runs, .runs_left_out, .space)" "$MNT/.ckptfs/status.json" >"$TEST_DIR/file"
    diff "$TEST_DIR/command" "$TEST_DIR/file"
}

same_text() {
    "$CKPTFS" status "$MNT" | grep -vE '^(open|uptime|stored|space| )' >"$TEST_DIR/command"
    grep -vE '^(open|uptime|stored|space| )' "$MNT/.ckptfs/status" >"$TEST_DIR/file"
    diff "$TEST_DIR/command" "$TEST_DIR/file"
}

# What a mount does by itself when it begins may come between the two.
@test "status is what the command prints, and more" {
    wait_until 20 same_json
    jq -e '.saves == [] and .space.reserve_bytes > 0' "$MNT/.ckptfs/status.json"
    wait_until 20 jq -e '.runs == []' "$MNT/.ckptfs/status.json"
    wait_until 20 same_text
    # What is read in pieces is of one moment.
    dd if="$MNT/.ckptfs/status.json" bs=7 status=none | jq -e .version
    [ "$(stat -c '%a %F' "$MNT/.ckptfs/status")" = "444 regular empty file" ]
}

@test "models has the tree's directories, with their owners and modes, and nobody may write" {
    make_run
    chmod 2775 "$MNT/data"
    chmod 750 "$MNT/run/checkpoint-2"
    (cd "$MNT" && find . -mindepth 1 -type d -printf '%p %m %U %G %n\n' | sed 's/ 2775 / 555 /; s/ 750 / 550 /; s/ 755 / 555 /' | sort) >"$TEST_DIR/tree"
    (cd "$VIEW" && find . -mindepth 1 -type d -printf '%p %m %U %G %n\n' | sort) >"$TEST_DIR/view"
    diff "$TEST_DIR/tree" "$TEST_DIR/view"
    [ "$(wc -l <"$TEST_DIR/view")" -eq 5 ]
}

@test "a checkpoint shows its model and what loaders read beside it, and borrows what it lacks" {
    make_run
    [ "$(listed "$VIEW/run/checkpoint-1")" = "./config.json ./model.safetensors ./tokenizer.json " ]
    # The configuration is its neighbour's, the tokenizer the run's.
    [ "$(listed "$VIEW/run/checkpoint-2")" = "./config.json ./inner ./model.safetensors ./tokenizer.json " ]
    [ "$(listed "$VIEW/data")" = "" ]
    cmp "$VIEW/run/checkpoint-1/model.safetensors" "$MNT/run/checkpoint-1/model.safetensors"
    cmp "$VIEW/run/checkpoint-2/config.json" "$MNT/run/checkpoint-1/config.json"
    cmp "$VIEW/run/checkpoint-2/tokenizer.json" "$MNT/run/tokenizer.json"
    [ ! -e "$VIEW/run/checkpoint-1/optimizer.pt" ]
    [ ! -e "$VIEW/run/checkpoint-1/trainer_state.json" ]
    [ ! -e "$VIEW/run/checkpoint-2/all_results.json" ]
    # Its own comes first, and a change is seen at once.
    echo '{"model_type": "gpt2"}' >"$MNT/run/checkpoint-2/config.json"
    grep -q gpt2 "$VIEW/run/checkpoint-2/config.json"
    echo '{"model_type": "opt"}' >"$MNT/run/checkpoint-2/config.json"
    grep -q opt "$VIEW/run/checkpoint-2/config.json"
    rm "$MNT/run/checkpoint-2/config.json"
    grep -q llama "$VIEW/run/checkpoint-2/config.json"
    rm "$MNT/run/checkpoint-1/config.json"
    [ ! -e "$VIEW/run/checkpoint-2/config.json" ]
    [ "$(listed "$VIEW/run/checkpoint-2")" = "./inner ./model.safetensors ./tokenizer.json " ]
}

@test "nothing in it can be changed, by root neither" {
    make_run
    local file=$VIEW/run/checkpoint-1/config.json
    unchangeable touch "$VIEW/new"
    unchangeable mkdir "$MNT/.ckptfs/new"
    unchangeable rmdir "$VIEW/data"
    unchangeable rm "$file"
    unchangeable rm "$MNT/.ckptfs/status"
    unchangeable truncate -s 0 "$MNT/.ckptfs/metrics"
    unchangeable ln -s x "$VIEW/link"
    unchangeable mkfifo "$VIEW/pipe"
    unchangeable mv "$file" "$MNT/away"
    unchangeable mv "$MNT/data" "$VIEW/run/"
    refused "not permitted" mv "$MNT/.ckptfs" "$MNT/other"
    refused "" rmdir "$MNT/.ckptfs"
    refused "not permitted" ln "$file" "$MNT/linked"
    unchangeable truncate -s 0 "$file"
    unchangeable bash -c "echo x >>'$file'"
    unchangeable touch "$file"
    unchangeable chmod 600 "$VIEW/run"
    unchangeable setfattr -n user.a -v b "$file"
    refused "" mkdir "$MNT/.ckptfs"
    refused "" bash -c "mkdir '$MNT/x' && mv -T '$MNT/x' '$MNT/.ckptfs'"
    [ "$(cat "$MNT/run/checkpoint-1/config.json")" = '{"model_type": "llama"}' ]
}

@test "the view of a path shows nothing that the path hides" {
    require_root
    make_run
    mkdir "$MNT/private"
    cp -r "$MNT/run/checkpoint-1" "$MNT/private/"
    chmod 711 "$MNT/run/checkpoint-2"
    chmod 600 "$MNT/run/checkpoint-1/config.json" "$MNT/run/checkpoint-1/model.safetensors"
    chmod 700 "$MNT/private"
    run_as_user ls "$VIEW/run/checkpoint-1" | grep -q model.safetensors
    refused "denied" run_as_user ls "$VIEW/private"
    refused "denied" run_as_user cat "$VIEW/private/checkpoint-1/config.json"
    refused "denied" run_as_user ls "$VIEW/run/checkpoint-2"
    run_as_user cat "$VIEW/run/checkpoint-2/model.safetensors" | cmp - "$MNT/run/checkpoint-2/model.safetensors"
    refused "denied" run_as_user cat "$VIEW/run/checkpoint-1/config.json"
    refused "denied" run_as_user cat "$VIEW/run/checkpoint-1/model.safetensors"
    # Opened up, it is seen; no other way has to be told.
    chmod 755 "$MNT/private"
    run_as_user cat "$VIEW/private/checkpoint-1/config.json" | cmp - "$MNT/private/checkpoint-1/config.json"
}

@test "nothing is lent by a directory that others cannot enter, or that is another's" {
    require_root
    make_run
    rm "$MNT/run/tokenizer.json"
    [ -e "$VIEW/run/checkpoint-2/config.json" ]
    chmod 700 "$MNT/run/checkpoint-1"
    [ ! -e "$VIEW/run/checkpoint-2/config.json" ]
    chmod 755 "$MNT/run/checkpoint-1"
    [ -e "$VIEW/run/checkpoint-2/config.json" ]
    chown nobody "$MNT/run/checkpoint-1"
    [ ! -e "$VIEW/run/checkpoint-2/config.json" ]
    chown root "$MNT/run/checkpoint-1"
    chown nobody "$MNT/run/checkpoint-1/config.json"
    [ ! -e "$VIEW/run/checkpoint-2/config.json" ]
}

@test "ls, find, cp, tar and du work on it" {
    make_run
    cp -r "$VIEW" "$TEST_DIR/copy"
    diff -r "$VIEW" "$TEST_DIR/copy"
    tar -C "$MNT/.ckptfs" -cf "$TEST_DIR/models.tar" models
    tar -tf "$TEST_DIR/models.tar" | grep -qx models/run/checkpoint-2/config.json
    tar -C "$MNT/.ckptfs" -df "$TEST_DIR/models.tar"
    [ "$(du -sb --apparent-size "$VIEW" | cut -f 1)" -ge 600000 ]
    [ "$(stat -f -c %T "$VIEW")" = "$(stat -f -c %T "$MNT")" ]
    cp --reflink=auto "$VIEW/run/checkpoint-1/model.safetensors" "$MNT/copied"
    cmp "$MNT/copied" "$MNT/run/checkpoint-1/model.safetensors"
    [ -z "$(getfattr -d -m - "$VIEW" "$VIEW/run" "$MNT/.ckptfs/status" "$MNT/.ckptfs/metrics" 2>&1)" ]
}

@test "a directory of thousands is listed whole, each entry once, whatever the buffer" {
    mkdir "$MNT/many"
    (cd "$MNT/many" && seq -f 'checkpoint-%g' 3000 | xargs mkdir)
    [ "$(find "$VIEW/many" -mindepth 1 | sort -u | wc -l)" -eq 3000 ]
    python3 - "$VIEW/many" <<'PY'
import os, sys
names = os.listdir(sys.argv[1])
assert len(names) == len(set(names)) == 3000, len(names)
with os.scandir(sys.argv[1]) as entries:
    assert all(entry.is_dir() for entry in entries)
PY
}

@test "numbers stay over a remount and are no other file's" {
    make_run
    (cd "$MNT/.ckptfs" && find . -printf '%i %p\n' | sort) >"$TEST_DIR/before"
    [ "$(cut -d ' ' -f 1 "$TEST_DIR/before" | uniq -d | wc -l)" -le 2 ] # what is lent is shown twice
    find "$MNT" -printf '%i\n' | sort -u >"$TEST_DIR/real"
    cut -d ' ' -f 1 "$TEST_DIR/before" | sort -u | comm -12 - "$TEST_DIR/real" >"$TEST_DIR/both"
    [ ! -s "$TEST_DIR/both" ]
    ckptfs_remount
    (cd "$MNT/.ckptfs" && find . -printf '%i %p\n' | sort) >"$TEST_DIR/after"
    diff "$TEST_DIR/before" "$TEST_DIR/after"
}

@test "an open file, an open status and a working directory outlive the daemon" {
    require_takeover
    make_run
    cd "$VIEW/run/checkpoint-2"
    exec 7<model.safetensors 8<../../../status 9<config.json
    head -c 1000 <&7 >/dev/null
    head -c 10 <&8 >/dev/null
    kill_daemon
    [ "$(ls | tr '\n' ' ')" = "config.json inner model.safetensors tokenizer.json " ]
    cat <&7 >"$TEST_DIR/rest"
    tail -c +1001 "$MNT/run/checkpoint-2/model.safetensors" | cmp - "$TEST_DIR/rest"
    [ -n "$(cat <&8)" ]
    grep -q llama <&9
    kill_daemon
    ls ../checkpoint-1 >/dev/null
    exec 7<&- 8<&- 9<&-
    end_and_check
}

@test "a file that is open through the view and removed keeps its bytes until it is closed" {
    make_run
    local expected
    expected=$(sha256sum <"$MNT/run/checkpoint-1/model.safetensors")
    exec 7<"$VIEW/run/checkpoint-1/model.safetensors"
    rm -r "$MNT/run"
    [ "$(sha256sum <&7)" = "$expected" ]
    [ ! -e "$VIEW/run" ]
    exec 7<&-
    wait_until 20 stored_at_most 0
    end_and_check
}

@test "a file that is written is shown through the view as it grows" {
    mkdir "$MNT/c"
    exec 7>"$MNT/c/model.safetensors"
    head -c 100000 /dev/zero >&7
    [ "$(stat -c %s "$VIEW/c/model.safetensors")" -eq 100000 ]
    [ "$(wc -c <"$VIEW/c/model.safetensors")" -eq 100000 ]
    head -c 100000 /dev/urandom >&7
    cmp "$VIEW/c/model.safetensors" "$MNT/c/model.safetensors"
    exec 7>&-
    cmp "$VIEW/c/model.safetensors" "$MNT/c/model.safetensors"
}

@test "assemble= takes auto, view, off and ask" {
    ckptfs_umount
    refused "expected auto, view, off or ask, found 'on'" ckptfs_mount assemble=on
    ckptfs_mount assemble=off
    [ -d "$VIEW" ]
}

#!/usr/bin/env bats
# SPDX-License-Identifier: Apache-2.0
# Templates: a directory's configuration, tokenizer and code, lent to the checkpoints of a run.

load views.bash

setup() {
    views_setup
    if [ "$(id -u)" -eq 0 ]; then ckptfs_mount allow_other; else ckptfs_mount; fi
    RUN=$MNT/run
    CHECKPOINT=$RUN/checkpoint-1
    SHOWN=$VIEW/run/checkpoint-1
    BASE=$TEST_DIR/base
    make_base "$BASE" base
}
teardown() { ckptfs_teardown; }

# make_base DIRECTORY WORD: a model's directory as a snapshot of the hub has it, symbolic links into blobs; WORD is in it.
make_base() {
    local file number=0
    mkdir -p "$1" "$1.blobs"
    for file in config.json generation_config.json tokenizer.json tokenizer_config.json modeling_base.py model.safetensors; do
        number=$((number + 1))
        printf '{"word": "%s", "file": "%s"}\n' "$2" "$file" >"$1.blobs/$number"
        ln -sf "../$(basename "$1").blobs/$number" "$1/$file"
    done
    # A tokenizer that is too large to live in the database.
    head -c 3000000 /dev/urandom >>"$1.blobs/3"
}

# A checkpoint of shards without a configuration.
save_bare() {
    save_model "$@"
    rm "$1/config.json"
}

template() { "$CKPTFS" template "$@"; }

shown_names() { ls "$SHOWN" | tr '\n' ' '; }

is_lent() { cmp "$BASE/config.json" "$SHOWN/config.json"; }

@test "configuration, tokenizer and code of a template are lent, weights and what is no file are not" {
    save_bare "$CHECKPOINT"
    appears "$SHOWN/model.safetensors"
    [ "$(shown_names)" = "model.safetensors " ]
    mkdir "$BASE/tokenizer_dir.json"
    mkfifo "$BASE/tokenizer_pipe.json"
    ln -s nowhere "$BASE/added_tokens.json"
    run template "$RUN" "$BASE"
    [ "$status" -eq 0 ]
    [[ $output == *"5 files"*"are lent"* ]]
    [[ $output == *"tokenizer_pipe.json: is no regular file; it is left out"* ]]
    [[ $output == *"added_tokens.json: No such file or directory; it is left out"* ]]
    [ "$(shown_names)" = "config.json generation_config.json model.safetensors modeling_base.py tokenizer.json tokenizer_config.json " ]
    local file
    for file in config.json generation_config.json modeling_base.py tokenizer.json tokenizer_config.json; do
        cmp "$BASE/$file" "$SHOWN/$file"
        [ -f "$SHOWN/$file" ]
    done
    unchangeable bash -c "echo >>'$SHOWN/config.json'"
    unchangeable rm "$SHOWN/config.json"
    # The run itself, and its checkpoint, have no new names.
    [ "$(ls -A "$RUN")" = checkpoint-1 ]
    [ ! -e "$CHECKPOINT/config.json" ]
    template --show "$CHECKPOINT" | grep -qF "template of $RUN: $BASE"
    [ "$(template --show --json "$CHECKPOINT" | jq -r '.run, .path, (.files | length), .files[0].name')" = \
        "$RUN"$'\n'"$BASE"$'\n'5$'\n'config.json ]
    "$CKPTFS" policy show "$CHECKPOINT" | grep -qE "^template +$BASE +$RUN\$"
    settle
    end_and_check
}

@test "it is there when its directory is gone, after a death and a remount, and when the run is renamed" {
    save_bare "$CHECKPOINT"
    template "$RUN" "$BASE"
    cp -rL "$BASE" "$TEST_DIR/kept"
    rm -r "$BASE" "$BASE.blobs"
    if [ "$(ckptfs_status_field features.takeover)" = true ]; then kill_daemon; fi
    appears "$SHOWN/config.json"
    settle
    ckptfs_remount
    cmp "$TEST_DIR/kept/config.json" "$SHOWN/config.json"
    cmp "$TEST_DIR/kept/tokenizer.json" "$SHOWN/tokenizer.json"
    mv "$RUN" "$MNT/other"
    cmp "$TEST_DIR/kept/tokenizer.json" "$VIEW/other/checkpoint-1/tokenizer.json"
    template --show "$MNT/other" | grep -qF "template of $MNT/other: $BASE"
    mkdir "$RUN"
    [ "$(template --show "$RUN")" = none ]
    "$CKPTFS" verify "$MNT"
    end_and_check
    ckptfs_mount ro
    cmp "$TEST_DIR/kept/tokenizer.json" "$VIEW/other/checkpoint-1/tokenizer.json"
}

@test "a store that is rebuilt from its backups has it" {
    save_bare "$CHECKPOINT"
    template "$RUN" "$BASE"
    appears "$SHOWN/config.json"
    settle
    end_and_check
    rm "$STORE"/meta.db*
    "$CKPTFS" fsck --rebuild "$STORE" || [ $? -eq 1 ]
    "$CKPTFS" fsck "$STORE"
    ckptfs_mount
    is_lent
    cmp "$BASE/tokenizer.json" "$SHOWN/tokenizer.json"
    template --show "$RUN" | grep -qF "template of $RUN: $BASE"
    [ ! -e "$MNT/lost+found" ]
}

@test "what the checkpoint, the run or a neighbour has comes first" {
    save_bare "$CHECKPOINT"
    template "$RUN" "$BASE"
    appears "$SHOWN/config.json"
    is_lent
    save_model "$RUN/checkpoint-2"
    cmp "$RUN/checkpoint-2/config.json" "$SHOWN/config.json"
    # A tokenizer that only the template has.
    cmp "$BASE/tokenizer.json" "$SHOWN/tokenizer.json"
    echo '{"of": "the run"}' >"$RUN/config.json"
    cmp "$RUN/config.json" "$SHOWN/config.json"
    echo '{"of": "the checkpoint"}' >"$CHECKPOINT/config.json"
    echo 'own = 1' >"$CHECKPOINT/modeling_base.py"
    cmp "$CHECKPOINT/config.json" "$SHOWN/config.json"
    cmp "$CHECKPOINT/modeling_base.py" "$SHOWN/modeling_base.py"
    [ "$(ls "$SHOWN" | sort | uniq -d)" = "" ]
    cmp "$BASE/generation_config.json" "$SHOWN/generation_config.json"
}

@test "the nearest run's template counts; another one takes its place, and it can be taken away" {
    save_bare "$CHECKPOINT"
    make_base "$TEST_DIR/second" second
    template "$MNT" "$BASE"
    appears "$SHOWN/config.json"
    is_lent
    template "$RUN" "$TEST_DIR/second"
    cmp "$TEST_DIR/second/config.json" "$SHOWN/config.json"
    # Who has one open reads on.
    exec 7<"$SHOWN/tokenizer.json"
    rm "$TEST_DIR/second/tokenizer.json"
    template "$RUN" "$TEST_DIR/second"
    [ ! -e "$SHOWN/tokenizer.json" ]
    [ "$(sha256sum <&7)" = "$(sha256sum <"$TEST_DIR/second.blobs/3")" ]
    exec 7<&-
    template --remove "$RUN"
    is_lent
    refused "has no template of its own" template --remove "$RUN"
    template --remove "$MNT"
    [ ! -e "$SHOWN/config.json" ]
    [ "$(template --show "$RUN")" = none ]
    [ "$(template --show --json "$RUN")" = null ]
    rm -r "$RUN"
    settle
    wait_until 20 stored_at_most 0
    end_and_check
}

@test "its bytes are the run's: du counts them, clones share them, and rm -r of the run frees them" {
    save_bare "$CHECKPOINT"
    settle
    local before after
    before=$("$CKPTFS" du -s --json "$RUN" | jq '.[0]')
    template "$RUN" "$BASE"
    settle
    after=$("$CKPTFS" du -s --json "$RUN" | jq '.[0]')
    [ "$(jq .files <<<"$after")" -eq "$(jq .files <<<"$before")" ]
    [ "$(jq .logical_bytes <<<"$after")" -eq "$(jq .logical_bytes <<<"$before")" ]
    [ $(($(jq .unique_bytes <<<"$after") - $(jq .unique_bytes <<<"$before"))) -ge 3000000 ]
    template --remove "$RUN"
    # From the mount itself nothing is stored twice.
    cp -rL "$BASE" "$MNT/base"
    settle
    before=$(stored_bytes)
    template "$RUN" "$MNT/base"
    settle
    wait_until 20 stored_at_most $((before + 65536))
    cmp "$BASE/tokenizer.json" "$SHOWN/tokenizer.json"
    rm -r "$MNT/base"
    settle
    cmp "$BASE/tokenizer.json" "$SHOWN/tokenizer.json"
    rm -r "$RUN"
    wait_until 20 stored_at_most 0
    end_and_check
}

@test "only the run's owner and root give templates, and only who may enter the run is shown them" {
    require_root
    local user=${CKPTFS_TEST_USER:-nobody}
    chmod 755 "$MNT"
    save_bare "$CHECKPOINT"
    save_bare "$MNT/theirs/checkpoint-1"
    chown -R "$user:$(id -g "$user")" "$MNT/theirs"
    refused "only the directory's owner and root" run_as_user "$CKPTFS" template "$RUN" "$BASE"
    [ "$(template --show "$RUN")" = none ]
    run_as_user "$CKPTFS" template "$MNT/theirs" "$BASE"
    appears "$VIEW/theirs/checkpoint-1/config.json"
    [ "$(stat -c %U "$VIEW/theirs/checkpoint-1/config.json")" = "$user" ]
    refused "only the directory's owner and root" run_as_user "$CKPTFS" template --remove "$RUN"
    # Root gives another's run one: it is the run's owner's, and as closed as the run.
    chmod 700 "$MNT/theirs"
    template "$MNT/theirs" "$BASE"
    [ "$(stat -c '%U %a' "$VIEW/theirs/checkpoint-1/config.json")" = "$user 600" ]
    run_as_user cmp "$BASE/config.json" "$VIEW/theirs/checkpoint-1/config.json"
    # The template of another owner's directory above is not lent.
    run_as_user "$CKPTFS" template --remove "$MNT/theirs"
    template "$MNT" "$BASE"
    [ ! -e "$VIEW/theirs/checkpoint-1/config.json" ]
    # What the user cannot read he cannot give.
    chmod 600 "$BASE.blobs/1"
    refused "Permission denied" run_as_user "$CKPTFS" template "$MNT/theirs" "$BASE"
    [ "$(template --show "$MNT/theirs/checkpoint-1" | head -n 1)" = "template of $MNT: $BASE" ]
    end_and_check
}

@test "what is no template is refused, and the one before stays" {
    save_bare "$CHECKPOINT"
    template "$RUN" "$BASE"
    mkdir "$TEST_DIR/empty" "$TEST_DIR/many" "$TEST_DIR/large"
    cp -L "$BASE/model.safetensors" "$TEST_DIR/empty"
    refused "holds no configuration, tokenizer or code" template "$RUN" "$TEST_DIR/empty"
    touch "$TEST_DIR/many/"{1..97}.py
    refused "more than 96 files" template "$RUN" "$TEST_DIR/many"
    truncate -s 257M "$TEST_DIR/large/config.json"
    refused "is larger than 256 MiB" template "$RUN" "$TEST_DIR/large"
    refused "No such file" template "$RUN" "$TEST_DIR/none"
    refused "Not a directory" template "$RUN" "$BASE/config.json"
    refused "not on a mount" template "$TEST_DIR/empty" "$BASE"
    refused "expected RUN DIR" template "$RUN"
    refused "expected RUN DIR" template --show "$RUN" "$BASE"
    refused "is set by \`ckptfs template\`" "$CKPTFS" policy set "$RUN" template=/tmp
    refused "is set by \`ckptfs template\`" "$CKPTFS" policy unset "$RUN" template
    unchangeable template "$VIEW/run" "$BASE"
    appears "$SHOWN/config.json"
    is_lent
    [ "$(ls -A "$RUN")" = checkpoint-1 ]
    ckptfs_remount ro
    refused "Read-only" template "$RUN" "$BASE"
    refused "Read-only" template --remove "$RUN"
    is_lent
}

@test "an adapter gets the template's adapter_config.json, and not its config.json" {
    echo '{"r": 8}' >"$BASE/adapter_config.json"
    mkdir -p "$CHECKPOINT"
    save_model "$TEST_DIR/whole"
    cp "$TEST_DIR/whole/model-00001-of-00003.safetensors" "$CHECKPOINT/adapter_model.safetensors"
    template "$RUN" "$BASE"
    appears "$SHOWN/adapter_config.json"
    cmp "$BASE/adapter_config.json" "$SHOWN/adapter_config.json"
    [ ! -e "$SHOWN/config.json" ]
    cmp "$BASE/tokenizer.json" "$SHOWN/tokenizer.json"
}

@test "a death at any step of giving one leaves the one before, or the new one" {
    require_takeover
    local point
    make_base "$TEST_DIR/second" second
    save_bare "$CHECKPOINT"
    template "$RUN" "$BASE"
    appears "$SHOWN/config.json"
    for point in fs.template.put fs.template.done; do
        ckptfs_umount
        CKPTFS_FAULT=$point:kill:1 CKPTFS_FAULT_STARTS=1 ckptfs_mount
        template "$RUN" "$TEST_DIR/second"
        [ "$(ckptfs_status_field generation)" -eq 2 ]
        cmp "$TEST_DIR/second/config.json" "$SHOWN/config.json"
        cmp "$TEST_DIR/second/tokenizer.json" "$SHOWN/tokenizer.json"
        settle
        end_and_check
        ckptfs_mount
        template "$RUN" "$BASE"
        is_lent
    done
    # What is refused leaves nothing.
    settle
    local before
    before=$(stored_bytes)
    ckptfs_umount
    CKPTFS_FAULT=fs.template.put:EIO:1 ckptfs_mount
    refused "Input/output error" template "$RUN" "$TEST_DIR/second"
    is_lent
    settle
    wait_until 20 stored_at_most $((before + 65536))
    rm -r "$RUN"
    wait_until 20 stored_at_most 0
    end_and_check
}

@test "from_pretrained loads a sharded checkpoint of FSDP with its base model's template" {
    local python=${CKPTFS_VENV:-$CKPTFS_TREE/build/venv}/bin/python
    [ -x "$python" ] || skip "needs a Python environment in CKPTFS_VENV"
    mkdir -p "$CHECKPOINT"
    HF_HUB_OFFLINE=1 OMP_NUM_THREADS=1 timeout 300 "$python" "$VIEWS_TREE/templated.py" "$CKPTFS" "$RUN" "$SHOWN" "$TEST_DIR/model"
    settle
    end_and_check
}

@test "assemble writes what a template lends beside the model, in the type that it names" {
    save_bare "$CHECKPOINT"
    appears "$SHOWN/model.safetensors"
    template "$RUN" "$BASE"
    "$CKPTFS" assemble "$CHECKPOINT" -o "$TEST_DIR/out" >"$TEST_DIR/said"
    cmp "$BASE/config.json" "$TEST_DIR/out/config.json"
    cmp "$BASE/tokenizer.json" "$TEST_DIR/out/tokenizer.json"
    cmp "$SHOWN/model.safetensors" "$TEST_DIR/out/model.safetensors"
    [ "$(ls "$TEST_DIR/out" | tr '\n' ' ')" = "config.json generation_config.json model.safetensors modeling_base.py tokenizer.json tokenizer_config.json " ]
    # The shards' type is F32.
    rm "$BASE/config.json"
    echo '{"dtype": "bfloat16"}' >"$BASE/config.json"
    template "$RUN" "$BASE"
    "$CKPTFS" assemble "$CHECKPOINT" -o "$TEST_DIR/other" >"$TEST_DIR/said"
    grep -qF "written as bfloat16, as config.json says" "$TEST_DIR/said"
    "$CKPTFS" inspect "$CHECKPOINT" | grep -qE "^config.json +bfloat16; the tensors are float32"
    "$CKPTFS" inspect "$CHECKPOINT" --check --python /bin/false --base "$TEST_DIR/nowhere" |
        grep -E "^loadable +not checked"
}

@test "inspect says who has the configuration, or that a template is missing and how to give one" {
    save_bare "$CHECKPOINT"
    appears "$SHOWN/model.safetensors"
    "$CKPTFS" inspect "$CHECKPOINT" | grep -qF "none: a template is missing; give the run one: ckptfs template $RUN DIR"
    "$CKPTFS" inspect --json "$CHECKPOINT" >"$TEST_DIR/json"
    [ "$(jq -r '.config, .config_source, .template_missing, .template_run' "$TEST_DIR/json")" = \
        false$'\n'null$'\n'true$'\n'"$RUN" ]
    template "$RUN" "$BASE"
    "$CKPTFS" inspect "$CHECKPOINT" | grep -qE "^config.json .*\(of the run's template, in the view"
    "$CKPTFS" inspect --json "$CHECKPOINT" >"$TEST_DIR/json"
    [ "$(jq -r '.config, .config_source, .template_missing, .template_run' "$TEST_DIR/json")" = \
        true$'\n'template$'\n'false$'\n'null ]
    cp "$BASE/config.json" "$RUN/config.json"
    [ "$("$CKPTFS" inspect --json "$CHECKPOINT" | jq -r .config_source)" = above ]
    rm "$RUN/config.json"
    save_model "$RUN/checkpoint-2"
    [ "$("$CKPTFS" inspect --json "$CHECKPOINT" | jq -r .config_source)" = neighbour ]
    cp "$BASE/config.json" "$CHECKPOINT"
    [ "$("$CKPTFS" inspect --json "$CHECKPOINT" | jq -r .config_source)" = directory ]
    # A checkpoint on the root of the mount can have a template of its own.
    save_bare "$TEST_DIR/plain"
    cp "$TEST_DIR/plain"/* "$MNT"
    [ "$("$CKPTFS" inspect --json "$MNT" | jq -r .template_run)" = "$MNT" ]
    # On a plain disk a template would not help.
    "$CKPTFS" inspect "$TEST_DIR/plain" | grep -qE "^config.json +none: it is missing"
    [ "$("$CKPTFS" inspect --json "$TEST_DIR/plain" | jq -r '.config_source, .template_missing')" = null$'\n'false ]
}

#!/usr/bin/env bats
# SPDX-License-Identifier: Apache-2.0
# Configuration and tokenizer beside the assembled model, in the checkpoint's own directory: clones of what others have.

load beside.bash

setup_file() { beside_setup_file; }
teardown_file() { loaded_end; }

setup() {
    beside_setup
    LENT=$CHECKPOINT/config.json
    SHOWN=$VIEW/run/checkpoint-1
}
teardown() { ckptfs_teardown; }

# save_checkpoint NUMBER [DIRECTORY]: and waits until its model is there.
save_checkpoint() {
    cp -r "$SAVED/fsdp-$1" "${2:-$CHECKPOINT}"
    appears "${2:-$CHECKPOINT}/model.safetensors"
    settle
}

# make_config DIRECTORY WORD: small files, and a tokenizer that is too large to live in the database.
make_config() {
    mkdir -p "$1"
    echo "{\"model_type\": \"llama\", \"word\": \"$2\"}" >"$1/config.json"
    echo "{\"word\": \"$2\"}" >"$1/generation_config.json"
    [ -e "$TEST_DIR/tokens" ] || head -c 300000 /dev/urandom >"$TEST_DIR/tokens"
    cp "$TEST_DIR/tokens" "$1/tokenizer.json"
}

make_base() {
    make_config "$1" "$2"
    echo "word = '$2'" >"$1/modeling_base.py"
    echo "# $2" | tee "$1/README.md" >"$1/LICENSE.txt"
    echo weights >"$1/model.safetensors"
}

names() { (cd "$1" && find . -mindepth 1 -maxdepth 1 -printf '%f\n' | LC_ALL=C sort | tr '\n' ' '); }
directory_times() { stat -c '%y %z %h %s' "$1"; }
is_of() { cmp "$1" "$2" 2>/dev/null; }

BARE="model.safetensors optimizer_0 pytorch_model_fsdp_0 scheduler.pt trainer_state.json "
WHOLE="config.json generation_config.json model.safetensors optimizer_0 pytorch_model_fsdp_0 scheduler.pt tokenizer.json trainer_state.json "

nothing_is_left_of_the_run() {
    rm -r "$RUN"
    ckptfs_remount trash=off
    wait_until 20 stored_at_most 0
    end_and_check
}

@test "the run's configuration and tokenizer are files of the checkpoint's directory, whose times stay" {
    cp -r "$SAVED/fsdp-1" "$CHECKPOINT"
    local before number
    before=$(directory_times "$CHECKPOINT")
    appears "$MODEL"
    settle
    # A name that was looked up in vain before.
    [ ! -e "$LENT" ]
    [ "$(names "$CHECKPOINT")" = "$BARE" ]
    make_config "$RUN" run
    appears "$LENT"
    settle
    [ "$(names "$CHECKPOINT")" = "$WHOLE" ]
    [ "$(directory_times "$CHECKPOINT")" = "$before" ]
    for name in config.json generation_config.json tokenizer.json; do
        cmp "$RUN/$name" "$CHECKPOINT/$name"
        cmp "$RUN/$name" "$SHOWN/$name"
        [ "$(stat -c '%F %a %h %U %Y' "$CHECKPOINT/$name")" = "$(stat -c '%F %a 1 %U %Y' "$RUN/$name")" ]
    done
    [ "$(ls "$SHOWN" | sort | uniq -d)" = "" ]
    # A new checkpoint has them with its model, and the clones share the tokenizer's bytes.
    local stored
    settle
    stored=$(stored_bytes)
    save_checkpoint 1 "$RUN/checkpoint-2"
    appears "$RUN/checkpoint-2/tokenizer.json"
    [ "$(($(stored_bytes) - stored))" -lt 300000 ]
    number=$(stat -c %i "$LENT")
    "$CKPTFS" verify "$MNT"
    ckptfs_remount
    settle
    [ "$(stat -c %i "$LENT")" = "$number" ]
    [ "$(names "$CHECKPOINT")" = "$WHOLE" ]
    [ "$(directory_times "$CHECKPOINT")" = "$before" ]
    if [ "$(ckptfs_status_field features.takeover)" = true ]; then
        kill_daemon
        settle
        cmp "$RUN/tokenizer.json" "$CHECKPOINT/tokenizer.json"
    fi
    end_and_check
}

@test "a template brings them, another one others, and none takes them away at once" {
    make_base "$TEST_DIR/base" first
    make_base "$TEST_DIR/second" second
    rm "$TEST_DIR/second/generation_config.json"
    save_checkpoint 1
    "$CKPTFS" template "$RUN" "$TEST_DIR/base"
    appears "$LENT"
    settle
    # Code too, but not what no loader reads, which trainers add to.
    [ "$(names "$CHECKPOINT")" = "${WHOLE/model.safetensors/model.safetensors modeling_base.py}" ]
    [ ! -e "$RUN/config.json" ]
    for name in config.json tokenizer.json modeling_base.py; do
        cmp "$TEST_DIR/base/$name" "$CHECKPOINT/$name"
    done
    "$CKPTFS" template "$RUN" "$TEST_DIR/second"
    wait_until 20 is_of "$TEST_DIR/second/config.json" "$LENT"
    settle
    cmp "$TEST_DIR/second/modeling_base.py" "$CHECKPOINT/modeling_base.py"
    [ ! -e "$CHECKPOINT/generation_config.json" ]
    "$CKPTFS" inspect "$CHECKPOINT" | grep -qE "^config.json .*\(of the run's template"
    [ "$("$CKPTFS" inspect --json "$CHECKPOINT" | jq -r '.config, .config_source')" = true$'\n'template ]
    "$CKPTFS" template --remove "$RUN"
    [ ! -e "$LENT" ]
    [ ! -e "$SHOWN/config.json" ]
    [ "$(names "$CHECKPOINT")" = "$BARE" ]
    settle
    [ "$(names "$CHECKPOINT")" = "$BARE" ]
    nothing_is_left_of_the_run
}

@test "they go with the model when a shard is changed, and come again with the next one" {
    make_config "$RUN" run
    save_checkpoint 1
    appears "$LENT"
    settle
    truncate -s -1 "$(find "$SHARDS" -name '*.distcp' | head -n 1)"
    [ ! -e "$MODEL" ]
    [ ! -e "$LENT" ]
    [ "$(names "$CHECKPOINT")" = "${BARE/model.safetensors }" ]
    settle
    [ ! -e "$LENT" ]
    cp "$SAVED"/fsdp-2/pytorch_model_fsdp_0/.metadata "$SAVED"/fsdp-2/pytorch_model_fsdp_0/* "$SHARDS"
    appears "$LENT"
    settle
    [ "$(names "$CHECKPOINT")" = "$WHOLE" ]
    # So do they with the shards' and the model's removal.
    rm -r "$SHARDS"
    settle
    [ "$(names "$CHECKPOINT")" = "${WHOLE/pytorch_model_fsdp_0 }" ]
    rm "$MODEL"
    settle
    [ ! -e "$MODEL" ]
    end_and_check
}

@test "what is lent follows who lends it, and stays when that is removed" {
    make_config "$RUN" run
    save_checkpoint 1
    appears "$LENT"
    echo '{"of": "later"}' >"$RUN/new"
    mv "$RUN/new" "$RUN/config.json"
    wait_until 20 is_of "$RUN/config.json" "$LENT"
    # The view shows it at once.
    echo '{"of": "in place"}' >"$RUN/config.json"
    cmp "$RUN/config.json" "$SHOWN/config.json"
    wait_until 20 is_of "$RUN/config.json" "$LENT"
    cp "$RUN/config.json" "$TEST_DIR/config.json"
    rm "$RUN/config.json"
    save_checkpoint 2 "$RUN/checkpoint-2"
    settle
    cmp "$TEST_DIR/config.json" "$LENT"
    cmp "$TEST_DIR/config.json" "$SHOWN/config.json"
    # A clone is not lent on.
    [ ! -e "$RUN/checkpoint-2/config.json" ]
    [ "$("$CKPTFS" inspect --json "$RUN/checkpoint-2" | jq -r .config_source)" = null ]
    # The newest neighbour that has one of its own lends it.
    echo '{"of": "the neighbour"}' >"$RUN/checkpoint-2/config.json"
    wait_until 20 is_of "$RUN/checkpoint-2/config.json" "$LENT"
    [ "$("$CKPTFS" inspect --json "$CHECKPOINT" | jq -r .config_source)" = neighbour ]
    end_and_check
}

@test "who makes a file of such a name gets it, and who writes to one has it" {
    require_root # who is not root may not ask what another process waits for, everywhere
    make_config "$RUN" run
    save_checkpoint 1
    appears "$LENT"
    settle
    python3 -c 'import os, sys; os.close(os.open(sys.argv[1], os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600))' "$LENT"
    [ "$(stat -c '%s %a' "$LENT")" = "0 600" ]
    settle
    [ "$(stat -c %s "$LENT")" -eq 0 ]
    # As save_pretrained does it; and written to in place.
    python3 -c 'open(__import__("sys").argv[1], "w").write("own")' "$CHECKPOINT/generation_config.json"
    printf x >>"$CHECKPOINT/tokenizer.json"
    settle
    [ "$(cat "$CHECKPOINT/generation_config.json")" = own ]
    [ "$(stat -c %s "$CHECKPOINT/tokenizer.json")" -eq 300001 ]
    cmp -n 300000 "$RUN/tokenizer.json" "$CHECKPOINT/tokenizer.json"
    [ "$(stat -c %s "$RUN/tokenizer.json")" -eq 300000 ]
    # They do not go with the model.
    truncate -s -1 "$(find "$SHARDS" -name '*.distcp' | head -n 1)"
    [ ! -e "$MODEL" ]
    [ "$(names "$CHECKPOINT")" = "${WHOLE/model.safetensors }" ]
    settle
    ckptfs_remount
    [ "$(cat "$CHECKPOINT/generation_config.json")" = own ]
    rm "$LENT"
    cp "$SAVED"/fsdp-2/pytorch_model_fsdp_0/.metadata "$SAVED"/fsdp-2/pytorch_model_fsdp_0/* "$SHARDS"
    appears "$LENT"
    cmp "$RUN/config.json" "$LENT"
    end_and_check
}

@test "removed or renamed, they stay away until the shards change" {
    make_config "$RUN" run
    save_checkpoint 1
    appears "$LENT"
    settle
    rm "$LENT"
    mv "$CHECKPOINT/tokenizer.json" "$RUN/mine.json"
    # The run's is another one now, and lent to nobody who does not want it.
    echo '{"of": "later"}' >"$RUN/config.json"
    settle
    [ ! -e "$LENT" ]
    [ ! -e "$CHECKPOINT/tokenizer.json" ]
    cmp "$RUN/tokenizer.json" "$RUN/mine.json"
    [ -e "$MODEL" ]
    ckptfs_remount
    settle
    [ ! -e "$LENT" ]
    cp "$SAVED"/fsdp-2/pytorch_model_fsdp_0/.metadata "$SAVED"/fsdp-2/pytorch_model_fsdp_0/* "$SHARDS"
    appears "$LENT"
    settle
    [ "$(names "$CHECKPOINT")" = "$WHOLE" ]
    end_and_check
}

@test "rmdir takes them along, copies and archives have them, and undelete brings a checkpoint back that gets them again" {
    make_config "$RUN" run
    save_checkpoint 1
    appears "$LENT"
    settle
    cp -a "$CHECKPOINT" "$TEST_DIR/copy"
    [ "$(names "$TEST_DIR/copy")" = "$WHOLE" ]
    cmp "$RUN/tokenizer.json" "$TEST_DIR/copy/tokenizer.json"
    tar -C "$CHECKPOINT" -cf "$TEST_DIR/archive.tar" .
    mkdir "$RUN/checkpoint-3"
    tar -C "$RUN/checkpoint-3" -xf "$TEST_DIR/archive.tar"
    settle
    [ "$(names "$RUN/checkpoint-3")" = "$WHOLE" ]
    cmp "$RUN/tokenizer.json" "$RUN/checkpoint-3/tokenizer.json"
    if type rsync >/dev/null 2>&1; then
        rsync -a "$CHECKPOINT/" "$TEST_DIR/synced"
        rsync -a --delete "$TEST_DIR/synced/" "$CHECKPOINT"
        [ "$(names "$CHECKPOINT")" = "$WHOLE" ]
    fi
    # Who goes by an older listing removes what he knows of, and then the directory.
    rm -r "$CHECKPOINT"/{optimizer_0,pytorch_model_fsdp_0,scheduler.pt,trainer_state.json}
    rmdir "$CHECKPOINT"
    save_checkpoint 2
    appears "$LENT"
    settle
    "$CKPTFS" ls --json "$RUN" | jq -e '[.. | objects | select(.path? // "" | endswith("checkpoint-1"))] | length > 0' >"$TEST_DIR/ls"
    python3 -c 'import shutil, sys; shutil.rmtree(sys.argv[1])' "$CHECKPOINT"
    [ ! -e "$CHECKPOINT" ]
    if "$CKPTFS" undelete "$CHECKPOINT" 2>"$TEST_DIR/said"; then
        appears "$LENT"
        settle
        [ "$(names "$CHECKPOINT")" = "$WHOLE" ]
    fi
    nothing_is_left_of_the_run
}

@test "a directory that has no model beside its shards is lent nothing" {
    make_config "$RUN" run
    cp -r "$SAVED/fsdp-1" "$RUN/index"
    echo '{}' >"$RUN/index/model.safetensors.index.json"
    cp -r "$SAVED/fsdp-1/pytorch_model_fsdp_0" "$RUN/bare"
    save_checkpoint 1
    appears "$LENT"
    appears "$VIEW/run/index/config.json"
    appears "$VIEW/run/bare/config.json"
    settle
    [ ! -e "$RUN/index/config.json" ]
    [ ! -e "$RUN/bare/config.json" ]
    # Weights that come later.
    cp "$SAVED/fsdp-1.safetensors" "$CHECKPOINT/model-00001-of-00002.safetensors"
    vanishes "$MODEL"
    vanishes "$LENT"
    cmp "$RUN/config.json" "$SHOWN/config.json"
    rm "$CHECKPOINT/model-00001-of-00002.safetensors"
    # The mount that shows models in the view alone.
    save_checkpoint 2 "$RUN/checkpoint-2"
    appears "$RUN/checkpoint-2/config.json"
    settle
    ckptfs_remount assemble=view
    [ ! -e "$RUN/checkpoint-2/config.json" ]
    [ ! -e "$RUN/checkpoint-2/model.safetensors" ]
    cmp "$RUN/config.json" "$VIEW/run/checkpoint-2/config.json"
    settle
    [ -z "$(find "$RUN/checkpoint-2" -name '*.json' ! -name trainer_state.json)" ]
    end_and_check
}

# has_names FILE NAME...: those are its tensors.
has_names() { [ "$(python3 "$VIEWS_TREE/beside.py" names "$1" 2>/dev/null)" = "${*:2}" ]; }

@test "an output layer that equals the embedding is kept where a lent configuration says that it is not tied" {
    mkdir "$TEST_DIR/tied" "$TEST_DIR/untied"
    echo '{"model_type": "llama"}' >"$TEST_DIR/tied/config.json"
    echo '{"model_type": "llama", "tie_word_embeddings": false}' >"$TEST_DIR/untied/config.json"
    save_checkpoint equal
    # In the view alone, where the shards are the directory.
    cp -r "$SAVED/fsdp-equal/pytorch_model_fsdp_0" "$RUN/bare"
    appears "$VIEW/run/bare/model.safetensors"
    has_names "$MODEL" model.embed_tokens.weight
    has_names "$VIEW/run/bare/model.safetensors" model.embed_tokens.weight
    "$CKPTFS" template "$RUN" "$TEST_DIR/untied"
    wait_until 20 has_names "$MODEL" lm_head.weight model.embed_tokens.weight
    wait_until 20 has_names "$VIEW/run/bare/model.safetensors" lm_head.weight model.embed_tokens.weight
    appears "$LENT"
    settle
    # Files that are made of it, too.
    "$CKPTFS" assemble "$RUN/bare" -o "$TEST_DIR/out"
    has_names "$TEST_DIR/out/model.safetensors" lm_head.weight model.embed_tokens.weight
    "$CKPTFS" inspect "$RUN/bare" | grep -qE "^tensors +2, 0 of them tied"
    # It was made so from the start where the configuration was there before, and stays so.
    save_checkpoint equal "$RUN/checkpoint-2"
    has_names "$RUN/checkpoint-2/model.safetensors" lm_head.weight model.embed_tokens.weight
    local number
    number=$(stat -c %i "$RUN/checkpoint-2/model.safetensors")
    "$CKPTFS" template "$RUN" "$TEST_DIR/untied"
    settle
    ckptfs_remount
    settle
    [ "$(stat -c %i "$RUN/checkpoint-2/model.safetensors")" = "$number" ]
    "$CKPTFS" template "$RUN" "$TEST_DIR/tied"
    wait_until 20 has_names "$MODEL" model.embed_tokens.weight
    mv "$CHECKPOINT" "$RUN/checkpoint-3"
    settle
    has_names "$RUN/checkpoint-3/model.safetensors" model.embed_tokens.weight
    # What cannot be made anew stays.
    rm -r "$RUN/checkpoint-3/pytorch_model_fsdp_0"
    "$CKPTFS" template "$RUN" "$TEST_DIR/untied"
    wait_until 20 has_names "$RUN/checkpoint-2/model.safetensors" lm_head.weight model.embed_tokens.weight
    settle
    has_names "$RUN/checkpoint-3/model.safetensors" model.embed_tokens.weight
    end_and_check
}

@test "what is no configuration is not lent, since whoever resumes would stumble over it" {
    make_config "$RUN" run
    echo '{"model_type": ' >"$RUN/config.json"
    save_checkpoint 1
    appears "$CHECKPOINT/tokenizer.json"
    settle
    [ ! -e "$LENT" ]
    cmp "$RUN/config.json" "$SHOWN/config.json"
    echo '{"model_type": "llama"}' >"$RUN/config.json"
    appears "$LENT"
    echo '["model_type"]' >"$RUN/config.json"
    vanishes "$LENT"
    end_and_check
}

#!/usr/bin/env bats
# SPDX-License-Identifier: Apache-2.0
# The assembled file beside the shards: there for everybody who looks, in nobody's way, and gone when it is not true.

load beside.bash

setup_file() { beside_setup_file; }
teardown_file() { loaded_end; }

setup() {
    beside_setup
    VIEWED=$VIEW/run/checkpoint-1/model.safetensors
}
teardown() { ckptfs_teardown; }

beside() { timeout 120 python3 "$VIEWS_TREE/beside.py" "$@"; }
same() { beside same "$1" "$SAVED/fsdp-$2.safetensors"; }

# save_checkpoint NUMBER [DIRECTORY]: and waits until its model is there.
save_checkpoint() {
    cp -r "$SAVED/fsdp-$1" "${2:-$CHECKPOINT}"
    appears "${2:-$CHECKPOINT}/model.safetensors"
    settle
}

names() { (cd "$1" && find . -mindepth 1 -maxdepth 1 -printf '%f\n' | sort | tr '\n' ' '); }
directory_times() { stat -c '%y %z %h %s' "$1"; }

@test "it is a file like others in the checkpoint's directory, whose times stay" {
    cp -r "$SAVED/fsdp-1" "$CHECKPOINT"
    local before
    before=$(directory_times "$CHECKPOINT")
    # A name that was looked up in vain before.
    [ ! -e "$MODEL" ]
    appears "$MODEL"
    settle
    [ "$(directory_times "$CHECKPOINT")" = "$before" ]
    same "$MODEL" 1
    [ "$(names "$CHECKPOINT")" = "model.safetensors optimizer_0 pytorch_model_fsdp_0 scheduler.pt trainer_state.json " ]
    [ "$(stat -c '%F %a %h %U' "$MODEL")" = "regular file $(stat -c %a "$CHECKPOINT/trainer_state.json") 1 $(id -un)" ]
    [ "$(find "$CHECKPOINT" -maxdepth 1 -name 'model*' -printf '%i')" = "$(stat -c %i "$MODEL")" ]
    # The view shows it once, and the shards' own directory has none.
    same "$VIEWED" 1
    [ "$(find "$VIEW/run/checkpoint-1" -maxdepth 1 -name 'model*' | wc -l)" -eq 1 ]
    [ ! -e "$SHARDS/model.safetensors" ]
    [ ! -e "$VIEW/run/checkpoint-1/pytorch_model_fsdp_0/model.safetensors" ]
    local number
    number=$(stat -c %i "$MODEL")
    ckptfs_remount
    [ "$(stat -c %i "$MODEL")" = "$number" ]
    same "$MODEL" 1
    [ "$(directory_times "$CHECKPOINT")" = "$before" ]
    end_and_check
}

@test "changing a shard takes it away at once, and the new set brings the new one" {
    local shard
    save_checkpoint 1
    shard=$(find "$SHARDS" -name '*.distcp' | head -n 1)
    local before
    before=$(directory_times "$CHECKPOINT")
    [ -n "$(find "$CHECKPOINT" -maxdepth 1 -name model.safetensors)" ]
    truncate -s -1 "$shard"
    [ ! -e "$MODEL" ]
    [ "$(names "$CHECKPOINT")" = "optimizer_0 pytorch_model_fsdp_0 scheduler.pt trainer_state.json " ]
    [ "$(directory_times "$CHECKPOINT")" = "$before" ]
    # Saved over in place, as the same step is saved twice.
    cp "$SAVED"/fsdp-2/pytorch_model_fsdp_0/.metadata "$SAVED"/fsdp-2/pytorch_model_fsdp_0/* "$SHARDS"
    appears "$MODEL"
    settle
    same "$MODEL" 2
    [ "$(directory_times "$CHECKPOINT")" = "$before" ]
    # Replaced by a rename.
    cp "$SAVED"/fsdp-1/pytorch_model_fsdp_0/*.distcp "$RUN/other"
    exec 7<"$MODEL"
    mv "$RUN/other" "$shard"
    [ ! -e "$MODEL" ]
    # Who has it open reads on.
    cat <&7 >"$TEST_DIR/read"
    exec 7<&-
    same "$TEST_DIR/read" 2
    end_and_check
}

@test "who makes a file of its name gets it, and is told of none" {
    require_root # who is not root may not ask what another process waits for, everywhere
    local way
    for way in open openat truncate mkdir symlink mknod link rename; do
        save_checkpoint 1
        echo "$way"
        beside make "$way" "$MODEL"
        case $way in open | truncate | link | rename) [ "$(cat "$MODEL")" = own ] ;; esac
        settle
        case $way in open | truncate | link | rename) [ "$(cat "$MODEL")" = own ] ;; esac
        [ "$(names "$CHECKPOINT" | grep -o 'model.safetensors ' | wc -l)" -eq 1 ]
        # When it is removed the assembled one is back.
        rm -r "$MODEL"
        appears "$MODEL"
        settle
        same "$MODEL" 1
        rm -r "$CHECKPOINT"
    done
    save_checkpoint 1
    mkdir "$RUN/other"
    echo own >"$RUN/other/weights"
    mv -n "$RUN/other/weights" "$MODEL"
    [ "$(cat "$MODEL")" = own ]
    end_and_check
}

@test "writing to it makes it an ordinary file that stays" {
    save_checkpoint 1
    local number
    number=$(stat -c %i "$MODEL")
    printf x >>"$MODEL"
    [ "$(stat -c %i "$MODEL")" = "$number" ]
    [ "$(tail -c 1 "$MODEL")" = x ]
    beside same "$SHARDS/../model.safetensors" "$SAVED/fsdp-1.safetensors"
    # It is nobody's but the writer's now.
    truncate -s -1 "$(find "$SHARDS" -name '*.distcp' | head -n 1)"
    [ -e "$MODEL" ]
    settle
    ckptfs_remount
    [ "$(tail -c 1 "$MODEL")" = x ]
    rm -r "$CHECKPOINT"
    save_checkpoint 1
    truncate -s 100 "$MODEL"
    settle
    [ "$(stat -c %s "$MODEL")" -eq 100 ]
    end_and_check
}

@test "attributes, links and names of it can be changed" {
    save_checkpoint 1
    chmod 600 "$MODEL"
    python3 -c 'import os, sys; os.utime(sys.argv[1], (1580601600, 1580601600))' "$MODEL"
    setfattr -n user.note -v x "$MODEL"
    [ "$(stat -c '%a %Y' "$MODEL")" = "600 1580601600" ]
    ckptfs_remount
    [ "$(stat -c '%a %Y' "$MODEL")" = "600 1580601600" ]
    # It is assembled still: a changed shard takes it away, but not what somebody linked.
    ln "$MODEL" "$RUN/kept"
    [ "$(stat -c %h "$MODEL")" -eq 2 ]
    truncate -s -1 "$(find "$SHARDS" -name '*.distcp' | head -n 1)"
    [ ! -e "$MODEL" ]
    same "$RUN/kept" 1
    [ "$(stat -c %h "$RUN/kept")" -eq 1 ]
    rm -r "$CHECKPOINT"
    # Moved, it is a file like others, and no other one comes.
    save_checkpoint 2
    mv "$MODEL" "$RUN/moved"
    settle
    [ ! -e "$MODEL" ]
    same "$RUN/moved" 2
    rm -r "$CHECKPOINT"
    settle
    same "$RUN/moved" 2
    end_and_check
}

@test "removed, it stays away until the shards change" {
    save_checkpoint 1
    rm "$MODEL"
    settle
    [ ! -e "$MODEL" ]
    [ ! -e "$VIEWED" ]
    ckptfs_remount
    touch "$CHECKPOINT/note"
    echo x >"$CHECKPOINT/note"
    settle
    [ ! -e "$MODEL" ]
    if [ "$(ckptfs_status_field features.takeover)" = true ]; then
        kill_daemon
        settle
        [ ! -e "$MODEL" ]
    fi
    cp "$SAVED"/fsdp-2/pytorch_model_fsdp_0/.metadata "$SAVED"/fsdp-2/pytorch_model_fsdp_0/* "$SHARDS"
    appears "$MODEL"
    settle
    same "$MODEL" 2
    end_and_check
}

@test "it outlives its shards, and a death of the daemon" {
    save_checkpoint 1
    rm -r "$SHARDS"
    settle
    same "$MODEL" 1
    if [ "$(ckptfs_status_field features.takeover)" = true ]; then
        kill_daemon
        settle
        same "$MODEL" 1
    fi
    ckptfs_remount
    settle
    same "$MODEL" 1
    rm -r "$CHECKPOINT"
    ckptfs_remount trash=off
    wait_until 20 stored_at_most 0
    end_and_check
}

@test "rmtree works with a listing from before and after" {
    cp -r "$SAVED/fsdp-1" "$CHECKPOINT"
    exec 7<"$CHECKPOINT"
    # Who goes by an older listing removes all but the model, and then the directory.
    names "$CHECKPOINT" >"$TEST_DIR/names"
    ! grep -q model.safetensors "$TEST_DIR/names"
    appears "$MODEL"
    settle
    (cd "$CHECKPOINT" && xargs rm -r <"$TEST_DIR/names")
    [ "$(names "$CHECKPOINT")" = "model.safetensors " ]
    rmdir "$CHECKPOINT"
    [ ! -e "$CHECKPOINT" ]
    exec 7<&-
    save_checkpoint 1
    python3 -c 'import shutil, sys; shutil.rmtree(sys.argv[1])' "$CHECKPOINT"
    [ ! -e "$CHECKPOINT" ]
    save_checkpoint 1
    find "$CHECKPOINT" -delete
    [ ! -e "$CHECKPOINT" ]
    # A directory that has nothing else is replaced like an empty one.
    save_checkpoint 1
    rm -r "$SHARDS" "$CHECKPOINT"/{optimizer_0,scheduler.pt,trainer_state.json}
    mkdir "$RUN/new"
    mv -T "$RUN/new" "$CHECKPOINT"
    [ -z "$(names "$CHECKPOINT")" ]
    # But one with anything else is not.
    rmdir "$CHECKPOINT"
    save_checkpoint 1
    refused "not empty" rmdir "$CHECKPOINT"
    rm -r "$RUN"
    ckptfs_remount trash=off
    wait_until 20 stored_at_most 0
    end_and_check
}

@test "copies and archives take it along, a rename of the directory keeps it" {
    save_checkpoint 1
    mv "$CHECKPOINT" "$RUN/checkpoint-2"
    same "$RUN/checkpoint-2/model.safetensors" 1
    settle
    same "$RUN/checkpoint-2/model.safetensors" 1
    cp -a "$RUN/checkpoint-2" "$TEST_DIR/copy"
    same "$TEST_DIR/copy/model.safetensors" 1
    tar -C "$RUN/checkpoint-2" -cf "$TEST_DIR/archive.tar" .
    mkdir "$CHECKPOINT"
    tar -C "$CHECKPOINT" -xf "$TEST_DIR/archive.tar"
    settle
    same "$MODEL" 1
    # Again, over what is there.
    tar -C "$RUN/checkpoint-2" -xf "$TEST_DIR/archive.tar"
    settle
    same "$RUN/checkpoint-2/model.safetensors" 1
    if type rsync >/dev/null 2>&1; then
        cp -r "$SAVED/fsdp-2" "$RUN/checkpoint-3"
        appears "$RUN/checkpoint-3/model.safetensors"
        rsync -a "$RUN/checkpoint-3/" "$TEST_DIR/synced"
        same "$TEST_DIR/synced/model.safetensors" 2
        # Made equal to a tree that has none.
        rsync -a --delete "$SAVED/fsdp-2/" "$RUN/checkpoint-3"
        [ ! -e "$RUN/checkpoint-3/model.safetensors" ]
    fi
    end_and_check
}

@test "it costs nothing, and is counted once" {
    save_checkpoint 1
    local size stored
    size=$(stat -c %s "$MODEL")
    stored=$(stored_bytes)
    [ "$stored" -lt $((2 * size)) ]
    # A file with its size like others, whose bytes are the shards'.
    "$CKPTFS" du -b -s "$CHECKPOINT" >"$TEST_DIR/usage"
    [ "$(awk 'NR == 2 { print $1 }' "$TEST_DIR/usage")" -eq "$(find "$CHECKPOINT" -type f -printf '%s\n' | awk '{ sum += $1 } END { print sum }')" ]
    [ "$(awk 'NR == 2 { print ($2 < 2 * '"$size"') }' "$TEST_DIR/usage")" -eq 1 ]
    "$CKPTFS" verify "$MNT"
    end_and_check
}

@test "it is not where it could be taken for something else" {
    # Weights of the directory's own, which loaders would leave aside for it.
    cp -r "$SAVED/fsdp-1" "$RUN/index"
    echo '{}' >"$RUN/index/model.safetensors.index.json"
    cp -r "$SAVED/fsdp-1" "$RUN/bin"
    echo x >"$RUN/bin/pytorch_model.bin"
    # The shards' own directory, without a checkpoint above.
    cp -r "$SAVED/fsdp-1/pytorch_model_fsdp_0" "$RUN/bare"
    save_checkpoint 1
    appears "$VIEW/run/index/model.safetensors"
    appears "$VIEW/run/bin/model.safetensors"
    appears "$VIEW/run/bare/model.safetensors"
    settle
    [ ! -e "$RUN/index/model.safetensors" ]
    [ ! -e "$RUN/bin/model.safetensors" ]
    [ ! -e "$RUN/bare/model.safetensors" ]
    # Weights that come later.
    cp "$SAVED/fsdp-1.safetensors" "$CHECKPOINT/model-00001-of-00002.safetensors"
    vanishes "$MODEL"
    appears "$VIEWED"
    settle
    [ ! -e "$MODEL" ]
    end_and_check
}

@test "assemble=view keeps it out of the directories" {
    save_checkpoint 1
    ckptfs_remount assemble=view
    [ ! -e "$MODEL" ]
    same "$VIEWED" 1
    cp -r "$SAVED/fsdp-2" "$RUN/checkpoint-2"
    appears "$VIEW/run/checkpoint-2/model.safetensors"
    settle
    [ ! -e "$RUN/checkpoint-2/model.safetensors" ]
    [ -z "$(find "$RUN" -name model.safetensors)" ]
    ckptfs_remount assemble=off
    same "$VIEWED" 1
    end_and_check
}

# resumes KIND: in a run of two ranks on CPU, against the plain disk (resume.py).
resumes() {
    not_repeated
    (cd "$TEST_DIR" && loaded_python 400 2 "$VIEWS_TREE/resume.py" "$1" "$TEST_DIR/plain" "$RUN/mounted") \
        >"$TEST_DIR/resume.log" 2>&1 || {
        tail -n 250 "$TEST_DIR/resume.log"
        return 1
    }
    grep -q "^$1: resumed and loaded" "$TEST_DIR/resume.log"
    end_and_check
}

@test "FSDP2 resumes beside it bit by bit, rotates, and from_pretrained loads the checkpoint" {
    resumes fsdp2
}

@test "DeepSpeed ZeRO-3 resumes beside it bit by bit, rotates, and from_pretrained loads the checkpoint" {
    "$PYTHON" -c 'import importlib.util, sys; sys.exit(not importlib.util.find_spec("deepspeed"))' || skip "needs DeepSpeed"
    resumes zero3
}

@test "DeepSpeed ZeRO-2 resumes beside it bit by bit, where the gathered model was removed" {
    long_only
    "$PYTHON" -c 'import importlib.util, sys; sys.exit(not importlib.util.find_spec("deepspeed"))' || skip "needs DeepSpeed"
    resumes zero2
}

#!/usr/bin/env bats
# SPDX-License-Identifier: Apache-2.0
# Shards become whole models in the view of their directory: without a copy, and as long as they are what they were.

load views.bash

setup() {
    views_setup
    ckptfs_mount
    RUN=$MNT/run
    CHECKPOINT=$RUN/checkpoint-1
    MODEL=$VIEW/run/checkpoint-1/model.safetensors
}
teardown() { ckptfs_teardown; }

@test "200 MiB of shards are one model that stores less than 1 MiB" {
    save_model "$CHECKPOINT" --mib 200
    appears "$MODEL"
    settle
    shards same "$MODEL" --mib 200
    [ "$(stat -c %s "$MODEL")" -gt $((200 << 20)) ]
    wait_until 20 stored_at_most $((201 << 20))
    # With cold caches too, and through a mapping.
    ckptfs_remount
    python3 - "$MODEL" <<'PY'
import mmap, sys
with open(sys.argv[1], "rb") as file, mmap.mmap(file.fileno(), 0, prot=mmap.PROT_READ) as mapped:
    step = 4096 * 17
    assert all(len(mapped[i : i + 16]) for i in range(0, len(mapped), step))
PY
    shards same "$MODEL" --mib 200
    "$CKPTFS" verify "$MNT"
    end_and_check
}

@test "the checkpoint's directory stays as it was, and the view has what loaders read" {
    save_model "$CHECKPOINT"
    local before
    before=$(stat -c '%y %z %h' "$CHECKPOINT"; ls -a "$CHECKPOINT")
    appears "$MODEL"
    settle
    [ "$(stat -c '%y %z %h' "$CHECKPOINT"; ls -a "$CHECKPOINT")" = "$before" ]
    [ "$(ls "$VIEW/run/checkpoint-1" | tr '\n' ' ')" = "config.json model.safetensors " ]
    [ "$(find "$RUN" -name 'checkpoint-*' | wc -l)" -eq 1 ]
    [ ! -e "$CHECKPOINT/model.safetensors" ]
    unchangeable rm "$MODEL"
    unchangeable bash -c "echo >>'$MODEL'"
    # cp -r of the run does not take it along, cp of the view does.
    cp -r "$RUN" "$TEST_DIR/run"
    [ -z "$(find "$TEST_DIR/run" -name model.safetensors)" ]
    cp -r "$VIEW/run/checkpoint-1" "$TEST_DIR/model"
    shards same "$TEST_DIR/model/model.safetensors"
}

@test "its mode is the configuration's, though safetensors makes 0600" {
    save_model "$CHECKPOINT"
    [ "$(stat -c %a "$CHECKPOINT/model-00001-of-00003.safetensors")" = 600 ]
    appears "$MODEL"
    [ "$(stat -c '%a %u %g %h' "$MODEL")" = "644 $(stat -c '%u %g' "$CHECKPOINT") 1" ]
    umask 077
    save_model "$RUN/checkpoint-2"
    appears "$VIEW/run/checkpoint-2/model.safetensors"
    [ "$(stat -c %a "$VIEW/run/checkpoint-2/model.safetensors")" = 600 ]
}

@test "shards of another owner, which not all may read, are not assembled" {
    require_root
    ckptfs_remount assemble=off
    save_model "$CHECKPOINT"
    save_model "$RUN/checkpoint-2"
    chown nobody "$CHECKPOINT"/*-00002-* "$RUN"/checkpoint-2/*
    chown nobody "$RUN/checkpoint-2"
    ckptfs_remount
    appears "$VIEW/run/checkpoint-2/model.safetensors"
    settle
    [ ! -e "$MODEL" ]
    wait_until 20 grep -q "several owners" "$CKPTFS_LOG"
    [ "$(stat -c %U "$VIEW/run/checkpoint-2/model.safetensors")" = nobody ]
}

# changed_by COMMAND...: what was assembled is gone when the command returns.
changed_by() {
    save_model "$CHECKPOINT" --seed 1
    appears "$MODEL"
    "$@"
    if [ -e "$MODEL" ]; then
        echo "still there after: $*"
        return 1
    fi
    # Incomplete as it is now, nothing comes back.
    settle
    [ ! -e "$MODEL" ]
    # With a new set it is the new one.
    rm -rf "$CHECKPOINT"
    save_model "$CHECKPOINT" --seed 2
    appears "$MODEL"
    shards same "$MODEL" --seed 2
    rm -r "$CHECKPOINT"
}

@test "writing, truncating, replacing or moving a shard withdraws it at once" {
    local shard=$CHECKPOINT/model-00002-of-00003.safetensors
    changed_by truncate -s 1000 "$shard"
    changed_by bash -c "printf x | dd of='$shard' conv=notrunc status=none"
    changed_by bash -c "echo x >'$shard'"
    changed_by bash -c "echo x >'$MNT/other' && mv '$MNT/other' '$shard'"
    changed_by mv "$shard" "$RUN/elsewhere"
    changed_by mv "$shard" "$CHECKPOINT/renamed"
    changed_by bash -c "echo '{}' >'$CHECKPOINT/model.safetensors.index.json'"
    end_and_check
}

@test "a checkpoint saved over is the old model, none, or the new one" {
    save_model "$CHECKPOINT" --seed 1
    appears "$MODEL"
    shards save "$CHECKPOINT" --seed 2 --only 1
    [ ! -e "$MODEL" ]
    # The shards fit together, and are of two saves: nothing is made of them while others come and go.
    sync "$CHECKPOINT"/*
    save_model "$RUN/checkpoint-2"
    appears "$VIEW/run/checkpoint-2/model.safetensors"
    [ ! -e "$MODEL" ]
    save_model "$CHECKPOINT" --seed 2
    appears "$MODEL"
    settle
    shards same "$MODEL" --seed 2
    # In place, as torch.save does it.
    save_model "$CHECKPOINT" --seed 3 --in-place
    settle
    appears "$MODEL"
    shards same "$MODEL" --seed 3
    end_and_check
}

@test "removing the shards keeps the model; removing the directory takes it along" {
    save_model "$CHECKPOINT"
    appears "$MODEL"
    rm "$CHECKPOINT"/model*
    settle
    shards same "$MODEL"
    ckptfs_remount
    settle
    shards same "$MODEL"
    [ "$(stored_bytes)" -gt $((5 << 20)) ]
    # What nobody could get by a name is counted where it lies.
    [ "$("$CKPTFS" du -b -s "$CHECKPOINT" | awk 'NR == 2 { print ($2 > 5000000 && $2 == $3) }')" = 1 ]
    rm -r "$CHECKPOINT"
    [ ! -e "$MODEL" ]
    wait_until 20 stored_at_most 0
    end_and_check
}

@test "what was made of one file, or lies in the root, goes with its shards" {
    ckptfs_remount trash=off
    save_model "$CHECKPOINT" --shards 1
    save_model "$MNT" --seed 5
    appears "$MODEL"
    appears "$VIEW/model.safetensors"
    shards same "$MODEL" --shards 1
    shards same "$VIEW/model.safetensors" --seed 5
    rm "$CHECKPOINT"/model*
    rm "$MNT"/model*
    vanishes "$MODEL"
    vanishes "$VIEW/model.safetensors"
    wait_until 20 stored_at_most 0
    # A file of weights under a name of its own is nobody's model.
    mkdir "$RUN/other"
    save_model "$MNT/source" --shards 1
    cp "$MNT/source"/*.safetensors "$RUN/other/unet.safetensors"
    settle
    [ -e "$VIEW/source/model.safetensors" ]
    [ ! -e "$VIEW/run/other/model.safetensors" ]
    end_and_check
}

@test "rmtree, a rename of the directory and a copy of it are as ever" {
    ckptfs_remount trash=off
    mkdir -p "$RUN/tmp-checkpoint-1"
    save_model "$RUN/tmp-checkpoint-1"
    mv "$RUN/tmp-checkpoint-1" "$CHECKPOINT"
    appears "$MODEL"
    mv "$CHECKPOINT" "$RUN/checkpoint-9"
    [ ! -e "$MODEL" ]
    shards same "$VIEW/run/checkpoint-9/model.safetensors"
    cp -r "$RUN/checkpoint-9" "$CHECKPOINT"
    appears "$MODEL"
    shards same "$MODEL"
    python3 -c 'import shutil, sys; shutil.rmtree(sys.argv[1])' "$RUN/checkpoint-9"
    [ ! -e "$VIEW/run/checkpoint-9" ]
    shards same "$MODEL"
    # An empty directory gives way to another.
    mkdir "$RUN/empty"
    mv -T "$CHECKPOINT" "$RUN/empty"
    shards same "$VIEW/run/empty/model.safetensors"
    rm -r "$RUN"
    wait_until 20 stored_at_most 0
    end_and_check
}

@test "who has it open reads on when it is withdrawn" {
    save_model "$CHECKPOINT"
    appears "$MODEL"
    exec 7<"$MODEL"
    head -c 100 <&7 >"$TEST_DIR/model"
    rm -r "$CHECKPOINT"
    settle
    cat <&7 >>"$TEST_DIR/model"
    shards same "$TEST_DIR/model"
    [ "$(stored_bytes)" -gt $((5 << 20)) ]
    exec 7<&-
    wait_until 20 stored_at_most 0
    end_and_check
}

@test "a model of the directory's own is what the view shows" {
    save_model "$CHECKPOINT"
    appears "$MODEL"
    echo own >"$CHECKPOINT/model.safetensors"
    [ "$(cat "$MODEL")" = own ]
    [ "$(ls "$VIEW/run/checkpoint-1" | grep -c '^model.safetensors$')" -eq 1 ]
    settle
    [ "$(cat "$MODEL")" = own ]
    rm "$CHECKPOINT/model.safetensors"
    wait_until $VIEWS_DEADLINE shards same "$MODEL"
}

@test "nothing is made of shards that are missing, torn in their middle, or still written" {
    save_model "$CHECKPOINT"
    rm "$CHECKPOINT/model-00003-of-00003.safetensors"
    save_model "$RUN/checkpoint-2"
    truncate -s -5 "$RUN/checkpoint-2/model-00002-of-00003.safetensors"
    save_model "$RUN/checkpoint-3"
    exec 7>>"$RUN/checkpoint-3/model-00001-of-00003.safetensors"
    # The third is looked at again and again: so only what is durable is waited for.
    sync "$RUN"/*/*
    save_model "$RUN/checkpoint-4"
    appears "$VIEW/run/checkpoint-4/model.safetensors"
    [ ! -e "$MODEL" ]
    [ ! -e "$VIEW/run/checkpoint-2/model.safetensors" ]
    [ ! -e "$VIEW/run/checkpoint-3/model.safetensors" ]
    exec 7>&-
    appears "$VIEW/run/checkpoint-3/model.safetensors"
    shards same "$VIEW/run/checkpoint-3/model.safetensors"
    settle
    [ ! -e "$MODEL" ]
    end_and_check
}

@test "small shards, which have no object, are copied" {
    save_model "$CHECKPOINT" --mib 0
    appears "$MODEL"
    shards same "$MODEL" --mib 0
    rm -r "$CHECKPOINT"
    wait_until 20 stored_at_most 0
}

@test "assemble=off makes nothing, keeps what there is, and the next mount takes it up" {
    save_model "$CHECKPOINT"
    appears "$MODEL"
    settle
    ckptfs_remount assemble=off
    save_model "$RUN/checkpoint-2" --seed 2
    settle
    shards same "$MODEL"
    [ ! -e "$VIEW/run/checkpoint-2/model.safetensors" ]
    echo x >>"$CHECKPOINT/model-00001-of-00003.safetensors"
    [ ! -e "$MODEL" ]
    ckptfs_remount
    appears "$VIEW/run/checkpoint-2/model.safetensors"
    shards same "$VIEW/run/checkpoint-2/model.safetensors" --seed 2
    # A mount that cannot write shows it too.
    ckptfs_remount ro
    shards same "$VIEW/run/checkpoint-2/model.safetensors" --seed 2
}

@test "checkpoints that share their bytes stay right, and cost them once" {
    save_model "$CHECKPOINT" --mib 20
    appears "$MODEL"
    settle
    save_model "$RUN/checkpoint-2" --mib 20
    appears "$VIEW/run/checkpoint-2/model.safetensors"
    wait_until $VIEWS_DEADLINE stored_at_most $((22 << 20))
    settle
    shards same "$MODEL" --mib 20
    shards same "$VIEW/run/checkpoint-2/model.safetensors" --mib 20
    rm -r "$RUN/checkpoint-2"
    settle
    shards same "$MODEL" --mib 20
    rm -r "$CHECKPOINT"
    wait_until 20 stored_at_most 0
    end_and_check
}

# die_at POINT COUNT: the daemon dies while it assembles, and the next one does it.
die_at() {
    ckptfs_umount
    CKPTFS_FAULT=$1:kill:$2 CKPTFS_FAULT_STARTS=1 ckptfs_mount
    save_model "$CHECKPOINT" --seed "$2"
    appears "$MODEL"
    [ "$(ckptfs_status_field generation)" -eq 2 ]
    shards same "$MODEL" --seed "$2"
    settle
    end_and_check
    ckptfs_mount
    shards same "$MODEL" --seed "$2"
    rm -r "$CHECKPOINT"
    wait_until 20 stored_at_most 0
}

@test "a death at any step leaves no half, and the next daemon assembles" {
    require_takeover
    die_at fs.assemble.write 1
    die_at fs.assemble.map 1
    die_at fs.assemble.publish 1
}

@test "a full disk or a failed write leaves the checkpoint as it is" {
    local fault
    ckptfs_umount
    for fault in fs.assemble.write:ENOSPC fs.assemble.map:EIO fs.assemble.publish:ENOSPC; do
        CKPTFS_FAULT=$fault:1+ ckptfs_mount
        save_model "$CHECKPOINT"
        wait_until 30 grep -q "nothing is assembled here now" "$CKPTFS_LOG"
        [ ! -e "$MODEL" ]
        : >"$CKPTFS_LOG"
        end_and_check
    done
    ckptfs_mount
    touch "$CHECKPOINT/config.json"
    echo '{}' >"$CHECKPOINT/config.json"
    appears "$MODEL"
    shards same "$MODEL"
}

# What the page cache holds of the store goes, so that the objects are read from the disk.
forget_objects() {
    sync
    find "$STORE/objects" -type f -exec dd of={} oflag=nocache conv=notrunc,fdatasync count=0 status=none \;
}

@test "pieces from several objects are right from the disk as from memory, in reads of any size" {
    save_model "$CHECKPOINT" --mib 9 --shards 5
    appears "$MODEL"
    settle
    cp "$MODEL" "$TEST_DIR/whole"
    shards same "$TEST_DIR/whole" --mib 9 --shards 5
    local size
    # By the page cache of the mount in large requests, and past it in those of the program, off any block.
    for size in 4M 1M 700001 65537 4097; do
        forget_objects
        dd if="$MODEL" of=/dev/null iflag=nocache count=0 status=none
        dd if="$MODEL" bs="$size" status=none | cmp - "$TEST_DIR/whole"
        [ "$size" = 4097 ] && continue
        forget_objects
        dd if="$MODEL" bs="$size" iflag=direct status=none | cmp - "$TEST_DIR/whole"
    done
    end_and_check
}

# Bytes that the daemon has had read from a disk.
daemon_read() { sed -n 's/^read_bytes: //p' "/proc/$(ckptfs_daemon_pid)/io"; }

@test "pieces of several objects are read from the disk once, and are not kept in memory twice" {
    require_command fincore
    save_model "$CHECKPOINT" --mib 64 --shards 5
    appears "$MODEL"
    settle
    ckptfs_remount
    local size before read
    size=$(stat -c %s "$MODEL")
    forget_objects
    before=$(daemon_read)
    python3 - "$MODEL" <<'PY'
import mmap, sys
with open(sys.argv[1], "rb") as file, mmap.mmap(file.fileno(), 0, prot=mmap.PROT_READ) as mapped:
    sum(mapped[i] for i in range(0, len(mapped), 4096))
PY
    read=$(($(daemon_read) - before))
    [ "$read" -gt 0 ] || skip "the store's disk is memory"
    echo "$read bytes read for $size"
    [ "$read" -ge $((size * 9 / 10)) ]
    [ "$read" -le $((size * 11 / 10)) ]
    # The shorter pieces of requests that have several.
    [ "$(fincore --bytes --noheadings --output RES "$STORE"/objects/*/* | awk '{ sum += $1 } END { print sum }')" -le $((size / 4)) ]
    end_and_check
}

@test "from_pretrained loads what save_pretrained wrote in shards" {
    not_repeated
    local python=${CKPTFS_VENV:-$CKPTFS_TREE/build/venv}/bin/python
    [ -x "$python" ] || skip "needs a Python environment in CKPTFS_VENV"
    HF_HUB_OFFLINE=1 timeout 300 "$python" "$VIEWS_TREE/pretrained.py" "$CHECKPOINT" "$VIEW/run/checkpoint-1"
}

@test "a checkpoint of torch.distributed.checkpoint is one model, and is withdrawn with its shards' change" {
    not_repeated
    local python=${CKPTFS_VENV:-$CKPTFS_TREE/build/venv}/bin/python
    [ -x "$python" ] || skip "needs a Python environment in CKPTFS_VENV"
    mkdir -p "$CHECKPOINT"
    timeout 300 "$python" "$VIEWS_TREE/distributed.py" "$CHECKPOINT" "$VIEW/run/checkpoint-1"
    settle
    [ -e "$MODEL" ]
    # The shards lie one level below the checkpoint.
    mv "$CHECKPOINT/pytorch_model_fsdp_0" "$RUN/away"
    vanishes "$MODEL"
    mv "$RUN/away" "$CHECKPOINT/pytorch_model_fsdp_0"
    appears "$MODEL"
    echo x >>"$(find "$CHECKPOINT" -name '*.distcp' | head -n 1)"
    [ ! -e "$MODEL" ]
    end_and_check
}

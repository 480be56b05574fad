#!/usr/bin/env bats
# SPDX-License-Identifier: Apache-2.0
# Trainers of several ranks, by FSDP and DeepSpeed, that are killed.

load trainer.bash

setup_file() {
    # Or each rank of each run loads it.
    export DS_ACCELERATOR=cpu DS_BUILD_OPS=0 CKPTFS_TEST_LOAD_TOO="deepspeed transformers.models.llama.modeling_llama"
    loaded_start
}

@test "two ranks, killed in their saves, started anew each time" {
    run_module test_killed_ranks
}

@test "two ranks of every kind, killed in thirty saves" {
    long_only
    export CKPTFS_TEST_RANK_KILLS=30 CKPTFS_TEST_WAYS="fsdp-sharded fsdp-full zero2 zero3" CKPTFS_TEST_MODULE_SECONDS=7200
    run_module test_killed_ranks
}

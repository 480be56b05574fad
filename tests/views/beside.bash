# SPDX-License-Identifier: Apache-2.0
# What the tests of the files beside shards have in common: shards of FSDP that are saved once, and copied by every test.

load views.bash
load ../lib/loaded.bash

beside_setup_file() {
    if [ -x "$PYTHON" ]; then
        loaded_start
        loaded_python 300 1 "$VIEWS_TREE/beside.py" save "$BATS_FILE_TMPDIR"
    fi
}

# shellcheck disable=SC2034 # the tests use them
beside_setup() {
    [ -x "$PYTHON" ] || skip "needs a Python environment in CKPTFS_VENV"
    SAVED=$BATS_FILE_TMPDIR
    views_setup
    ckptfs_mount
    RUN=$MNT/run
    CHECKPOINT=$RUN/checkpoint-1
    SHARDS=$CHECKPOINT/pytorch_model_fsdp_0
    MODEL=$CHECKPOINT/model.safetensors
    mkdir "$RUN"
}

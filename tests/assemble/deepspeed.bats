# SPDX-License-Identifier: Apache-2.0
# Checkpoints of DeepSpeed, made by the library, and of XLA FSDP and SageMaker, made from what is published of them. One
# test here is one pytest module; what it counts is printed.

load ../lib/ckptfs.bash

setup() {
    PYTHON=${CKPTFS_VENV:-$CKPTFS_TREE/build/venv}/bin/python
    if [ ! -x "$PYTHON" ]; then
        echo "no Python at $PYTHON: contrib/setup --python makes the environment, CKPTFS_VENV names another"
        return 1
    fi
}

# run_module NAME: its own output last, as bats shows it when the test failed.
run_module() {
    local status=0 log=$BATS_TEST_TMPDIR/pytest.log
    timeout -s INT -k 30 900 "$PYTHON" -B -m pytest -p no:cacheprovider --basetemp="$BATS_TEST_TMPDIR/pytest" -q \
        --tb=short "$CKPTFS_TREE/tests/assemble/$1.py" >"$log" 2>&1 || status=$?
    tail -n 1 "$log" | sed 's/^/# /' >&3
    if [ $status -ne 0 ]; then
        tail -n 150 "$log"
        return 1
    fi
}

@test "DeepSpeed: ZeRO, BF16_Optimizer, pipelines, tensor parallelism, and what is damaged" {
    run_module test_deepspeed
}

@test "XLA FSDP: parameters one by one, by rows, flattened, and what is damaged" {
    run_module test_xla_fsdp
}

@test "SageMaker: whole models, parts of the optimizer, partial saves" {
    run_module test_sagemaker
}

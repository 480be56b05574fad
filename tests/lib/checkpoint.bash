# SPDX-License-Identifier: Apache-2.0
# Checkpoints as trainers leave them, small, and of the same structure.

# model FILE [MIB]: a safetensors file of one tensor.
model() {
    local bytes=$((${2:-0} * 1048576 + 8)) header
    header="{\"w\":{\"dtype\":\"U8\",\"shape\":[$bytes],\"data_offsets\":[0,$bytes]}}"
    {
        printf "\\x$(printf %02x ${#header})\\0\\0\\0\\0\\0\\0\\0%s" "$header"
        head -c "$bytes" /dev/urandom
    } >"$1"
}

# checkpoint DIRECTORY [MIB]: what a Trainer with save_only_model leaves.
checkpoint() {
    mkdir -p "$1"
    echo '{}' >"$1/config.json"
    model "$1/model.safetensors" "${2:-0}"
    echo "{\"global_step\": ${1##*-}, \"log_history\": [{\"step\": ${1##*-}, \"eval_loss\": 0.5}]}" >"$1/trainer_state.json"
}

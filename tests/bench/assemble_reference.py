#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""assemble_reference.py KIND CHECKPOINT OUTPUT: the whole file as the library's own tool makes it.

Prints how long the tool took, and how long loading the libraries took before it. Other output goes to the standard
error. With KIND "same", OUTPUT is a second file: both have the same tensors, or it fails.
"""

import json
import os
import sys
import time

os.environ.update(DS_ACCELERATOR="cpu", DS_BUILD_OPS="0", ACCELERATE_USE_CPU="true", PYTHONWARNINGS="ignore")


def merge_fsdp(checkpoint, output):
    """What `accelerate merge-weights` calls."""
    import safetensors.torch  # noqa: F401 it loads it itself otherwise, and is measured by then
    import torch.distributed.checkpoint.format_utils  # noqa: F401
    from accelerate.utils import merge_fsdp_weights

    return lambda: merge_fsdp_weights(os.path.join(checkpoint, "pytorch_model_fsdp_0"), output)


def consolidate_hf(checkpoint, output):
    """DCP's consolidation, into one file."""
    from safetensors import safe_open
    from torch.distributed.checkpoint._consolidate_hf_safetensors import consolidate_safetensors_files

    names = set()
    for name in os.listdir(checkpoint):
        if name.endswith(".safetensors"):
            with safe_open(os.path.join(checkpoint, name), framework="pt") as shard:
                names.update(shard.keys())
    index = dict.fromkeys(names, 1)

    def consolidate():
        consolidate_safetensors_files(checkpoint, output, index)
        (only,) = (name for name in os.listdir(output) if name.endswith(".safetensors"))
        os.rename(os.path.join(output, only), os.path.join(output, "model.safetensors"))

    return consolidate


def merge_zero(checkpoint, output):
    """What zero_to_fp32.py calls."""
    from deepspeed.utils.zero_to_fp32 import convert_zero_checkpoint_to_fp32_state_dict

    return lambda: convert_zero_checkpoint_to_fp32_state_dict(checkpoint, output, safe_serialization=True)


TOOLS = {"fsdp": merge_fsdp, "hf": consolidate_hf, "zero2": merge_zero, "zero3": merge_zero}


def compare(one, other):
    import torch
    from safetensors import safe_open

    with safe_open(one, framework="pt") as left, safe_open(other, framework="pt") as right:
        if set(left.keys()) != set(right.keys()):
            sys.exit(f"{one} and {other} have other tensors: {sorted(set(left.keys()) ^ set(right.keys()))[:3]}")
        for name in left.keys():
            a, b = left.get_tensor(name), right.get_tensor(name)
            if a.dtype != b.dtype or not torch.equal(a, b):
                sys.exit(f"{one} and {other} differ in {name}")


def main():
    kind, checkpoint, output = sys.argv[1:]
    if kind == "same":
        compare(checkpoint, output)
        return
    answers = os.dup(1)
    os.dup2(2, 1)
    begun = time.monotonic()
    tool = TOOLS[kind](checkpoint, output)
    os.makedirs(output, exist_ok=True)
    loaded = time.monotonic()
    tool()
    result = {"seconds": time.monotonic() - loaded, "loading": loaded - begun}
    os.write(answers, json.dumps(result).encode())


if __name__ == "__main__":
    main()

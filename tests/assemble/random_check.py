#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""What random_saves.py made, assembled, and compared tensor by tensor with the live model and the libraries' own tools.

random_check.py DIRECTORY...     fails when one of the checkpoints in them is not assembled as it should be
"""

import contextlib
import io
import json
import logging
import sys
import tempfile
import warnings
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file

import tool

TIED = ("head.weight", "embed.weight")


def load(path):
    return torch.load(path, weights_only=False)


def assembled(source, *options):
    """What assemble makes of it; a text where it refuses."""
    with tempfile.TemporaryDirectory() as directory:
        out = Path(directory) / "out"
        done = tool.run("assemble", "--plain", source, "-o", out, *options)
        if done.returncode != 0:
            return done.stderr.strip() or "refused without a word"
        if file := next(out.glob("*.bin"), None):
            return torch.load(file, weights_only=True)
        return load_file(next(out.glob("*.safetensors")))


def assembled_for_all(source):
    """In torch's format where this version of safetensors does not know a type of element."""
    try:
        return assembled(source)
    except SafetensorError:
        return assembled(source, "--format", "bin")


def difference(found, expected, may_lack=()):
    """In words; "" where all is bit for bit the same."""
    if isinstance(found, str):
        return f"refused: {found}"
    lacking = set(expected) - set(found) - set(may_lack)
    if lacking or set(found) - set(expected):
        return f"lacks {sorted(lacking)}, has besides {sorted(set(found) - set(expected))}"
    for name, value in found.items():
        right = expected[name].contiguous()
        if (value.dtype, value.shape) != (right.dtype, right.shape):
            return f"{name}: {value.dtype} {tuple(value.shape)} for {right.dtype} {tuple(right.shape)}"
        if not torch.equal(value.reshape(-1).view(torch.uint8), right.reshape(-1).view(torch.uint8)):
            return f"{name} differs"
    return ""


def as_fp32(tensors):
    return {name: value.float() if value.is_floating_point() else value for name, value in tensors.items()}


# -- the libraries' tools ----------------------------------------------------------------------------------------------


def flat(state, path=""):
    for name, value in state.items():
        if isinstance(value, dict):
            yield from flat(value, f"{path}{name}.")
        elif isinstance(value, torch.Tensor):
            yield f"{path}{name}", value


def converted_by_torch(source, prefix):
    from torch.distributed.checkpoint.format_utils import dcp_to_torch_save

    with tempfile.TemporaryDirectory() as directory:
        dcp_to_torch_save(str(source), f"{directory}/whole")
        tensors = dict(flat(load(f"{directory}/whole")))
    return {name.removeprefix(prefix): value for name, value in tensors.items() if name.startswith(prefix)}


def merged_by_accelerate(source):
    from accelerate.utils import merge_fsdp_weights

    with tempfile.TemporaryDirectory() as directory:
        merge_fsdp_weights(str(source), directory)
        return load_file(f"{directory}/model.safetensors")


def converted_by_deepspeed(source):
    from deepspeed.utils.zero_to_fp32 import get_fp32_state_dict_from_zero_checkpoint

    with contextlib.redirect_stdout(io.StringIO()):
        return as_fp32(get_fp32_state_dict_from_zero_checkpoint(str(source)))


# -- each family -------------------------------------------------------------------------------------------------------

PREFIXES = {"bare": "", "model": "model.", "nested": "model.", "trainer": "app.model."}


def check_dcp(source, made, live):
    found = assembled_for_all(source)
    yield "live", difference(found, live)
    if made["form"] in PREFIXES:
        yield "dcp_to_torch_save", difference(found, converted_by_torch(source, PREFIXES[made["form"]]))


def check_fsdp(source, made, live):
    found = assembled(source)
    tied = TIED if made["tied"] else ()
    if "LOCAL" in made["form"] and isinstance(found, str) and "LOCAL_STATE_DICT" in found:
        return
    yield "live", difference(found, live, tied)
    if "SHARDED" in made["form"]:
        yield "merge-weights", difference(found, merged_by_accelerate(source / "pytorch_model_fsdp_0"), tied)


def check_deepspeed(source, made, live):
    tied = TIED if made["tied"] else ()
    stage = made["config"]["zero_optimization"]["stage"]
    masters = load(f"{source}.masters")
    if made["excluded"]:
        live = {name: value for name, value in live.items() if name in masters or name not in made["parameters"]}
    if stage < 3:
        yield "live", difference(assembled(source), live, tied)
    found = assembled(source, "--fp32")
    if made["config"]["zero_optimization"].get("round_robin_gradients"):
        # safe_get_full_fp32_param reads as if parameters were not dealt out in turns. What it rounds to is right.
        rounded = found if isinstance(found, str) else {name: found[name].to(live[name].dtype) for name in found}
        yield "live of fp32", difference(rounded, live, tied)
    else:
        yield "masters", difference(found, {**as_fp32(live), **masters}, tied)
    try:
        expected = converted_by_deepspeed(source)
    except ValueError as error:
        if "is not a zero checkpoint" not in str(error):
            raise
        return
    dropped = set(found) - set(expected) if isinstance(found, dict) else set()
    # Before 0.16 or so the tool makes numbers with a point of all buffers.
    expected = {
        name: value.to(live[name].dtype) if not live[name].is_floating_point() else value
        for name, value in expected.items()
    }
    if stage == 1 or dropped == {"empty"}:
        found = {name: value for name, value in found.items() if name in expected}
    yield "zero_to_fp32", difference(found, expected, tied)


CHECKS = {"dcp": check_dcp, "fsdp": check_fsdp, "deepspeed": check_deepspeed}


def check(directory):
    """The names of what was looked at, and what is wrong, in words."""
    seen, wrong = [], []
    for described in sorted(Path(directory).glob("*.json")):
        source = described.with_suffix("")
        family = source.name.partition("-")[0]
        made = json.loads(described.read_text())
        for judge, words in CHECKS[family](source, made, load(f"{source}.live")):
            seen.append(f"{source.name} {judge}")
            if words:
                wrong.append(f"{source.name} ({made['form']}) {judge}: {words}")
    return seen, wrong


def main():
    logging.disable(logging.WARNING)
    warnings.simplefilter("ignore")
    failed = False
    for directory in sys.argv[1:]:
        seen, wrong = check(directory)
        failed |= bool(wrong)
        print(f"{directory}: {len(seen)} compared, {len(wrong)} wrong")
        for line in wrong:
            print(f"    {line[:600]}")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())

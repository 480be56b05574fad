#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Asks transformers what from_pretrained would make of tensors of these names, shapes and types.

The question comes on standard input: a line with a length, a config.json of that many bytes, and a JSON object:
"tensors", an array of [name, type as safetensors calls it, shape], and "dtype", as from_pretrained takes it. The answer
is one JSON object on standard output; `ckptfs` reads it (src/ckpt/architecture.h). With "reason" in it nothing was
found out.

The library's own loader does the work, as it alone knows which names it renames, joins, ties or does without; but on
the meta device, where tensors have no bytes. Nothing is loaded: the config's text and the list are all that there is.
What the config says of code, caches and kernels is taken out, and once the libraries are imported no program is
started and no connection is made.
"""

import json
import os
import re
import sys

# More is not sent: the lists are for people. The counts are whole.
LISTED = 100

# What would make the library fetch or run something: of the config and of every config in it.
FORBIDDEN = {"auto_map", "trust_remote_code", "quantization_config", "attn_implementation", "_attn_implementation",
             "_attn_implementation_internal", "experts_implementation", "_experts_implementation",
             "_experts_implementation_internal", "_name_or_path", "name_or_path", "use_pretrained_backbone",
             "adapter_kwargs", "dtype", "torch_dtype"}

STARTING = ("subprocess.Popen", "os.system", "os.exec", "os.posix_spawn", "os.spawn", "os.fork", "os.forkpty",
            "socket.connect", "socket.getaddrinfo", "socket.bind")

TYPES = {"F64": "float64", "F32": "float32", "F16": "float16", "BF16": "bfloat16", "I64": "int64", "I32": "int32",
         "I16": "int16", "I8": "int8", "U8": "uint8", "BOOL": "bool", "F8_E4M3": "float8_e4m3fn",
         "F8_E5M2": "float8_e5m2"}


class Unknown(Exception):
    """Nothing can be said, for this reason."""


def read_question():
    stream = sys.stdin.buffer
    config = stream.read(int(stream.readline()))
    return json.loads(config), json.loads(stream.read())


def keep_answer():
    """Where the answer goes; whatever the libraries print goes nowhere."""
    answer = os.fdopen(os.dup(1), "w", encoding="utf-8")
    nowhere = os.open(os.devnull, os.O_RDWR)
    for number in (0, 1, 2):
        os.dup2(nowhere, number)
    return answer


def set_environment():
    os.environ.update(HF_HUB_OFFLINE="1", TRANSFORMERS_OFFLINE="1", HF_HUB_DISABLE_TELEMETRY="1",
                      HF_HUB_CACHE="/dev/null/none", HF_MODULES_CACHE="/dev/null/none", CUDA_VISIBLE_DEVICES="",
                      TRANSFORMERS_VERBOSITY="critical", TOKENIZERS_PARALLELISM="false", USE_TF="0", USE_FLAX="0",
                      OMP_NUM_THREADS="1", OPENBLAS_NUM_THREADS="1", MKL_NUM_THREADS="1")
    # A job's launcher may have set these: nobody is to be waited for here.
    for name in ("RANK", "LOCAL_RANK", "WORLD_SIZE", "ACCELERATE_USE_FSDP", "ACCELERATE_USE_DEEPSPEED"):
        os.environ.pop(name, None)


def import_libraries():
    try:
        import torch
        import transformers
        import accelerate  # noqa: F401: without it nothing is made on the meta device
    except ImportError as error:
        raise Unknown(f"{sys.executable or 'python'} cannot import {error.name or 'transformers'}") from None
    return torch, transformers


def refuse_to_start(event, _):
    if event in STARTING:
        raise PermissionError(f"{event} is not for a check")


def without_forbidden(value):
    if isinstance(value, dict):
        return {key: without_forbidden(inner) for key, inner in value.items() if key not in FORBIDDEN}
    return [without_forbidden(inner) for inner in value] if isinstance(value, list) else value


def find_class(transformers, config):
    """The class that config.json names, of the library and of nowhere else."""
    names = config.get("architectures") if isinstance(config, dict) else None
    if not isinstance(names, list) or not names or not isinstance(names[0], str):
        raise Unknown("config.json names no architecture")
    found = getattr(transformers, names[0], None) if re.fullmatch(r"[A-Za-z]\w*", names[0], re.ASCII) else None
    if not isinstance(found, type) or not issubclass(found, transformers.PreTrainedModel):
        raise Unknown(f"transformers {transformers.__version__} has no {names[0][:100]}")
    kind, theirs = config.get("model_type"), getattr(found.config_class, "model_type", None)
    if kind is not None and kind != theirs:
        raise Unknown(f"config.json calls the model {str(kind)[:100]}, its architecture is {names[0]}")
    return found


def make_tensors(torch, rows):
    return {name: torch.empty(shape, dtype=getattr(torch, TYPES.get(kind, "uint8")), device="meta")
            for name, kind, shape in rows}


def natural(name):
    return [(int(part), "") if part.isdigit() else (-1, part) for part in re.split(r"(\d+)", name)]


def sizes(shape):
    return list(shape) if shape is not None else []


def find_kept(torch, model, names, dtype):
    """Those of the names whose tensors the library leaves in another floating-point type."""
    kept = {name for name, value in model.state_dict().items() if value.is_floating_point() and value.dtype != dtype}
    prefix = f"{model.base_model_prefix}."
    return [name for name in names
            if {name, prefix + name, name.removeprefix(prefix)} & kept]


def ask(torch, transformers, config, question):
    found = find_class(transformers, config)
    dtype = getattr(torch, question["dtype"])
    model, told = found.from_pretrained(
        None, config=found.config_class.from_dict(without_forbidden(config)),
        state_dict=make_tensors(torch, question["tensors"]), device_map={"": "meta"}, dtype=dtype,
        attn_implementation="eager", ignore_mismatched_sizes=True, output_loading_info=True, local_files_only=True)
    missing = sorted(told["missing_keys"], key=natural)
    unexpected = sorted(told["unexpected_keys"], key=natural)
    mismatched = sorted(told["mismatched_keys"], key=lambda row: natural(row[0]))
    prefix = model.base_model_prefix
    heads = hasattr(model, prefix) and not any(name.startswith(f"{prefix}.") for name in missing)
    return {
        "library": f"transformers {transformers.__version__}",
        "class": found.__name__,
        "missing_count": len(missing), "missing": missing[:LISTED], "only_heads": bool(heads),
        "unexpected_count": len(unexpected), "unexpected": unexpected[:LISTED],
        "mismatched_count": len(mismatched),
        "mismatched": [{"name": row[0], "found": sizes(row[1]), "expected": sizes(row[2])}
                       for row in mismatched[:LISTED]],
        "kept": find_kept(torch, model, [row[0] for row in question["tensors"]], dtype),
    }


def explain(error):
    if isinstance(error, Unknown):
        return str(error)
    if isinstance(error, MemoryError):
        return "the model that config.json describes takes too much memory"
    return f"transformers fails: {type(error).__name__}: {' '.join(str(error).split())}"[:300]


def main():
    config, question = read_question()
    answer = keep_answer()
    set_environment()
    try:
        torch, transformers = import_libraries()
        sys.addaudithook(refuse_to_start)
        told = ask(torch, transformers, config, question)
    except Exception as error:
        told = {"reason": explain(error)}
    json.dump(told, answer)
    answer.close()
    # Libraries' threads and exit handlers have nothing to do any more.
    os._exit(0)


if __name__ == "__main__":
    main()

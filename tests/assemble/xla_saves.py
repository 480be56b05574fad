# SPDX-License-Identifier: Apache-2.0
"""What XLA FSDP saves, written without a TPU, from what torch_xla publishes of it (distributed/fsdp,
xla_fully_sharded_data_parallel.py and xla_flatten_params_wrapper.py): the layout, not the code.

A wrapped module's parameters are divided between the ranks one by one, or, when they are flattened, lie one behind the
other in flat_param_0. What is divided is flattened and padded to a multiple of ranks * 128 elements; or only padded in
its first dimension (shard_param_on_dim_0). Buffers stay whole, in the type that the device computes with.
"""

from collections import OrderedDict

import torch

SHARD_MULTIPLE = 128  # _shard_size_multiple
WRAPPED = "_fsdp_wrapped_module"
FLATTENED = "_fpw_module"


def model():
    """name → tensor of a model in which `first` and `second` are wrapped, and so is the whole of it."""
    numbers = torch.Generator().manual_seed(5)

    def of(*shape):
        return torch.randn(*shape, generator=numbers)

    return {
        "embed.weight": of(13, 7),
        "first.linear.weight": of(11, 7),
        "first.linear.bias": of(11),
        "first.scale": of(1),
        "second.linear.weight": of(40, 33),
        "second.linear.bias": of(40),
        "head.bias": of(3, 1, 5),
        "table": torch.arange(4),
        "second.mean": torch.tensor([1.0, 0.5, -2.0]),  # exact in bfloat16
        "mask": torch.tensor([True, False]),
    }


BUFFERS = ("table", "second.mean", "mask")
UNITS = ("first", "second", "")  # innermost first


def split_units(tensors):
    """unit → its own parameters, names relative to it."""
    units = OrderedDict((unit, OrderedDict()) for unit in UNITS)
    for name, value in tensors.items():
        if name in BUFFERS:
            continue
        unit = next(unit for unit in UNITS if name.startswith(unit and unit + "."))
        units[unit][name.removeprefix(unit and unit + ".")] = value
    return units


def divide(value, rank, ranks, by_rows):
    """The shard of one rank."""
    multiple = ranks if by_rows else ranks * SHARD_MULTIPLE
    value = value if by_rows else value.flatten()
    missing = -value.size(0) % multiple
    padded = torch.cat([value, value.new_zeros(missing, *value.shape[1:])])
    size = padded.size(0) // ranks
    return padded[rank * size : (rank + 1) * size].clone()


def state_dict(tensors, rank, ranks, flatten, by_rows):
    """The state dict of one rank and its shard_metadata."""
    state, shard_info, flatten_info = OrderedDict(), {}, {}
    for unit, parameters in split_units(tensors).items():
        # Where the unit's wrapper is: inside that of the whole model, but for the whole itself.
        prefix = f"{WRAPPED}.{unit}" if unit else ""
        if flatten:
            flat = torch.cat([value.flatten() for value in parameters.values()])
            lists = list(parameters), [v.shape for v in parameters.values()], [v.numel() for v in parameters.values()]
            name = ".".join(filter(None, (prefix, WRAPPED, "flat_param_0")))
            flatten_info[name] = lists
            originals = {f"{WRAPPED}.flat_param_0": flat}
        else:
            originals = {f"{WRAPPED}.{FLATTENED}.{name}": value for name, value in parameters.items()}
        shard_info[prefix] = {}
        for name, value in originals.items():
            key = f"_fsdp_shard.{name}".replace(".", "_FSDP_SHARD_SEPARATOR_")
            shard_info[prefix][key] = {"_orig_size": value.size(), "_orig_name": name}
            state[".".join(filter(None, (prefix, key)))] = divide(value, rank, ranks, by_rows and not flatten)
    buffer_info = {}
    for name in BUFFERS:
        unit, _, rest = name.rpartition(".")
        key = ".".join(filter(None, (WRAPPED, unit, unit and WRAPPED, rest)))
        floating = tensors[name].is_floating_point()
        state[key] = tensors[name].bfloat16() if floating else tensors[name].clone()
        if floating:
            buffer_info[key] = {"_orig_dtype": tensors[name].dtype}
    metadata = {"shard_info": shard_info, "flatten_info": flatten_info, "buffer_info": buffer_info}
    return state, {**metadata, "world_size": ranks, "rank": rank}


def save(directory, ranks, flatten=False, by_rows=False):
    """rankR-of-W-pytorch_model.bin of all ranks, as transformers' Trainer calls them. Gives the whole model back."""
    tensors = model()
    for rank in range(ranks):
        state, metadata = state_dict(tensors, rank, ranks, flatten, by_rows)
        path = directory / f"rank{rank}-of-{ranks}-pytorch_model.bin"
        torch.save({"model": state, "shard_metadata": metadata}, path)
    return tensors


def consolidate(directory):
    """What is published of consolidate_sharded_model_checkpoints, in plain torch: the tool's answer."""
    saved = [torch.load(path, weights_only=False) for path in directory.glob("rank*-of-*-pytorch_model.bin")]
    saved.sort(key=lambda one: one["shard_metadata"]["rank"])
    metadata = saved[0]["shard_metadata"]
    assert len(saved) == metadata["world_size"]
    whole = OrderedDict()
    for key, value in saved[0]["model"].items():
        parts = key.split(".")
        at = next((i for i, part in enumerate(parts) if part.startswith("_fsdp_shard")), None)
        if at is None:
            whole[key] = value.to(metadata["buffer_info"].get(key, {}).get("_orig_dtype", value.dtype))
            continue
        prefix, suffix = ".".join(parts[:at]), ".".join(parts[at:])
        info = metadata["shard_info"][prefix][suffix]
        joined = torch.cat([one["model"][key] for one in saved])
        size = info["_orig_size"]
        flat = joined.dim() == 1
        value = joined[: size.numel()].view(size) if flat else joined[: size[0]]
        whole[".".join(filter(None, (prefix, info["_orig_name"])))] = value
    for key in [key for key in whole if f"{WRAPPED}.flat_param_" in key]:
        names, shapes, numels = metadata["flatten_info"][key]
        prefix = key.rpartition(".")[0]
        for name, shape, value in zip(names, shapes, whole.pop(key).split(numels)):
            whole[f"{prefix}.{name}"] = value.view(shape)
    return {key.replace(f"{WRAPPED}.", "").replace(f"{FLATTENED}.", ""): value for key, value in whole.items()}

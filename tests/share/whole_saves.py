#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""A sharded save and the whole model file beside it, as the libraries write them, at any number of ranks.

    whole_saves.py dcp DIRECTORY [OPTION...]     shards of torch.distributed.checkpoint: Shard(0), some Shard(1)
    whole_saves.py zero3 DIRECTORY [OPTION...]   DeepSpeed's ZeRO-3 partitions
    whole_saves.py whole FILE [OPTION...]        the same model in one file: safetensors or, by its suffix, torch's
    whole_saves.py expect FILE [OPTION...]       fails unless the file holds that model

One process plays all ranks, one after the other: each has its own plan, and writes with the library's own writer. What
a tensor holds depends on --seed and its name alone; tensors whose names contain --changed are another seed's.
"""

import argparse
import hashlib
import os
from pathlib import Path

import torch

os.environ["PYTHONWARNINGS"] = "ignore"


def shapes(options):
    """Those of a small Llama: no number of ranks divides the rows of all of them."""
    hidden, between = options.hidden, options.hidden * 8 // 3 + 1
    yield "model.embed_tokens.weight", (options.vocabulary, hidden)
    for layer in range(options.layers):
        name = f"model.layers.{layer}"
        for part in "qkvo":
            yield f"{name}.self_attn.{part}_proj.weight", (hidden, hidden)
        yield f"{name}.mlp.gate_proj.weight", (between, hidden)
        yield f"{name}.mlp.up_proj.weight", (between, hidden)
        yield f"{name}.mlp.down_proj.weight", (hidden, between)
        yield f"{name}.input_layernorm.weight", (hidden,)
        yield f"{name}.post_attention_layernorm.weight", (hidden,)
    yield "model.norm.weight", (hidden,)


def tensors(options):
    kind = getattr(torch, options.dtype)
    state = {}
    for name, shape in shapes(options):
        seed = options.with_seed if options.changed and options.changed in name else options.seed
        digest = hashlib.sha256(f"{seed}/{name}".encode()).digest()
        generator = torch.Generator().manual_seed(int.from_bytes(digest[:7], "big"))
        state[name] = torch.randn(shape, generator=generator).to(kind)
    return state


def synced(path):
    for file in [path, *path.rglob("*")] if path.is_dir() else [path]:
        descriptor = os.open(file, os.O_RDONLY)
        os.fsync(descriptor)
        os.close(descriptor)


# -- DCP --------------------------------------------------------------------------------------------------------


def local_state(state, rank, options):
    """What a rank of FSDP holds; must be called with the process group of that rank."""
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.tensor import DTensor, Shard

    mesh = init_device_mesh("cpu", (options.world,))
    local = {}
    for name, tensor in state.items():
        dimension = 1 if options.columns and options.columns in name and tensor.dim() == 2 else 0
        parts = list(torch.chunk(tensor, options.world, dim=dimension))
        none = tensor.narrow(dimension, 0, 0)
        part = (parts[rank] if rank < len(parts) else none).contiguous()
        local[name] = DTensor.from_local(part, mesh, [Shard(dimension)], run_check=False, shape=tensor.shape,
                                         stride=tensor.stride())
    return local


def save_dcp(directory, options):
    import torch.distributed as dist
    from torch.distributed.checkpoint.default_planner import DefaultSavePlanner
    from torch.distributed.checkpoint.filesystem import FileSystemWriter
    from torch.testing._internal.distributed.fake_pg import FakeStore

    state, planners, plans = tensors(options), [], []
    directory.mkdir(parents=True, exist_ok=True)
    writer = FileSystemWriter(directory, sync_files=True)
    writer.set_up_storage_writer(True)
    for rank in range(options.world):
        dist.init_process_group("fake", store=FakeStore(), rank=rank, world_size=options.world)
        planner = DefaultSavePlanner()
        planner.set_up_planner({"model": local_state(state, rank, options)}, is_coordinator=rank == 0)
        plans.append(writer.prepare_local_plan(planner.create_local_plan()))
        planners.append(planner)
        dist.destroy_process_group()
    plans, metadata = planners[0].create_global_plan(plans)
    results = []
    for planner, plan in zip(planners, writer.prepare_global_plan(plans)):
        results.append(writer.write_data(planner.finish_plan(plan), planner).wait())
    writer.finish(metadata, results)


# -- DeepSpeed --------------------------------------------------------------------------------------------------


def save_zero3(directory, options):
    """Each rank has an equal part of each parameter, padded; deepspeed's zero_to_fp32 reads the same keys."""
    import deepspeed

    state, place = tensors(options), directory / "global_step7"
    place.mkdir(parents=True, exist_ok=True)
    names = {name: tensor.shape for name, tensor in state.items()}
    for rank in range(options.world):
        parts = []
        for tensor in state.values():
            size = -(-tensor.numel() // options.world)
            flat = torch.zeros(size * options.world, dtype=tensor.dtype)
            flat[: tensor.numel()] = tensor.flatten()
            parts.append(flat[rank * size : (rank + 1) * size])
        torch.save({"module": {}, "buffer_names": [], "param_shapes": [names], "shared_params": {},
                    "frozen_param_shapes": None, "frozen_param_fragments": None, "mp_world_size": 1, "ds_config": {},
                    "ds_version": deepspeed.__version__, "dp_world_size": options.world, "global_steps": 7},
                   place / f"zero_pp_rank_{rank}_mp_rank_00_model_states.pt")
        torch.save({"optimizer_state_dict": {"zero_stage": 3, "partition_count": options.world,
                                             "fp32_flat_groups": [torch.cat(parts)], "loss_scaler": None},
                    "ds_config": {}, "ds_version": deepspeed.__version__},
                   place / f"zero_pp_rank_{rank}_mp_rank_00_optim_states.pt")
    (directory / "latest").write_text("global_step7")
    synced(directory)


# -- in one file ------------------------------------------------------------------------------------------------


def save_whole(path, options):
    from safetensors.torch import save_file

    state = {options.prefix + name.removeprefix("model."): tensor for name, tensor in tensors(options).items()}
    if options.part:
        state = dict(list(state.items())[options.part - 1 :: 2])
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.suffix == ".safetensors":
        save_file(state, path, metadata={"format": "pt"})
    else:
        torch.save(state, path)
    synced(path)


def expect_whole(path, options):
    from safetensors.torch import load_file

    found = load_file(path) if path.suffix == ".safetensors" else torch.load(path, weights_only=True)
    expected = tensors(options)
    found = {"model." + name.removeprefix(options.prefix).removeprefix("model."): found[name] for name in found}
    if found.keys() != expected.keys():
        raise SystemExit(f"{path}: other tensors: {found.keys() ^ expected.keys()}")
    for name, tensor in expected.items():
        if not torch.equal(found[name], tensor):
            raise SystemExit(f"{path}: {name} differs")


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("what", choices=["dcp", "zero3", "whole", "expect"])
    parser.add_argument("path", type=Path)
    parser.add_argument("--world", type=int, default=3)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--changed", default="")
    parser.add_argument("--with-seed", type=int, default=2)
    parser.add_argument("--columns", default="", help="tensors with this in their name are split by columns")
    parser.add_argument("--dtype", default="float32")
    parser.add_argument("--prefix", default="model.", help="of the names in the whole file")
    parser.add_argument("--part", type=int, default=0, help="1 or 2: every second tensor of the whole file")
    parser.add_argument("--hidden", type=int, default=250)
    parser.add_argument("--layers", type=int, default=2)
    parser.add_argument("--vocabulary", type=int, default=1501)
    options = parser.parse_args()
    saves = {"dcp": save_dcp, "zero3": save_zero3, "whole": save_whole, "expect": expect_whole}
    saves[options.what](options.path, options)


if __name__ == "__main__":
    main()

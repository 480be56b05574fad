#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Checkpoints of models that are drawn at random, written by torch.distributed.checkpoint, FSDP and DeepSpeed.

    random_saves.py FAMILY DIRECTORY WORLD SEED COUNT

FAMILY is dcp, fsdp or deepspeed. DIRECTORY/NAME is a checkpoint; NAME.json beside it says how it was made, NAME.live
has the full tensors of the live model under the names that an assembled file has, NAME.masters the optimizer's FP32
copies. The same seed draws the same models. It runs with the versions of the libraries that can be had for Python 3.11,
from torch 2.4, accelerate 0.34 and deepspeed 0.15 on: what a version does not have is not drawn, and a draw that a
library itself refuses is left out, with a line in NAME.refused.
"""

import contextlib
import json
import os
import random
import shutil
import sys
import tempfile
import time
import traceback
from pathlib import Path
from types import SimpleNamespace

os.environ.update(
    DS_ACCELERATOR="cpu",
    DS_BUILD_OPS="0",
    OMP_NUM_THREADS="1",
    ACCELERATE_USE_CPU="true",
    HF_HUB_OFFLINE="1",
    PYTHONWARNINGS="ignore",
)

# pylint: disable=wrong-import-position
import torch  # noqa: E402
import torch.distributed as dist  # noqa: E402
import torch.distributed.checkpoint as dcp  # noqa: E402
import torch.multiprocessing  # noqa: E402
from torch import nn  # noqa: E402

RANKS_DEADLINE = 90
FLOATS = [torch.float32, torch.float32, torch.bfloat16, torch.float16, torch.float64]
OTHERS = [torch.int64, torch.int32, torch.int16, torch.int8, torch.uint8, torch.bool, torch.complex64]
# Plain tensors may be of these too.
RARE = [
    getattr(torch, name)
    for name in ("float8_e4m3fn", "float8_e5m2", "uint16", "uint32", "uint64")
    if hasattr(torch, name)
]


def draw_tensor(chance, shape, kind):
    generator = torch.Generator().manual_seed(chance.randrange(2**40))
    values = torch.randn(shape, generator=generator)
    return (values * 50).to(kind) if not kind.is_floating_point and not kind.is_complex else values.to(kind)


def draw_shape(chance, least=0):
    if chance.random() < 0.1:
        return (chance.choice([257, 1023, 2049]), chance.randint(3, 9))
    return tuple(
        chance.choice([1, 1, 2, 3, 4, 5, 7, 8, 13, 16, 0 if chance.random() < 0.3 else 6])
        for _ in range(chance.choice([least, 1, 1, 2, 2, 2, 3, 4]))
    )


def draw_name(chance, number):
    """Short, long, with dots and other letters."""
    part = chance.choice(["weight", "w" * 250, "gewicht.größe", "a-b c", "0.1.2", "model.model", "x/y", "k\u4e2d"])
    return f"layers.{number}.{part}"


# -- torch.distributed.checkpoint --------------------------------------------------------------------------------------


def draw_mesh(chance):
    from torch.distributed.device_mesh import init_device_mesh

    world = dist.get_world_size()
    sides = [side for side in range(2, world) if world % side == 0]
    if sides and chance.random() < 0.6:
        side = chance.choice(sides)
        return init_device_mesh("cpu", (side, world // side), mesh_dim_names=("outer", "inner"))
    return init_device_mesh("cpu", (world,))


def distribute(chance, whole, mesh):
    """A DTensor of which this rank has what torch deals out to it."""
    try:
        from torch.distributed.tensor import DTensor, Replicate, Shard
    except ImportError:
        from torch.distributed._tensor import DTensor, Replicate, Shard
    placements = [
        Replicate() if chance.random() < 0.25 else Shard(chance.randrange(whole.dim())) for _ in range(mesh.ndim)
    ]
    local = whole
    for place, placement in enumerate(placements):
        if isinstance(placement, Shard):
            parts = torch.chunk(local, mesh.size(place), dim=placement.dim)
            at = mesh.get_local_rank(place)
            none = local.narrow(placement.dim, 0, 0)
            local = parts[at] if at < len(parts) else none
    return DTensor.from_local(
        local.contiguous(), mesh, placements, run_check=False, shape=whole.shape, stride=whole.stride()
    )


def draw_plain(chance):
    """A tensor in a storage of another layout, and the elements that it has."""
    kind = chance.choice(FLOATS + OTHERS + RARE)
    form = chance.choice(["whole", "transposed", "view", "strided", "expanded", "overlapping", "scalar", "empty"])
    base = draw_tensor(chance, (9, 8), torch.float32 if kind in RARE else kind).to(kind)
    return {
        "whole": lambda: base,
        "transposed": base.t,
        "view": lambda: base[2:5],
        "strided": lambda: base[::2, 1::3],
        "expanded": lambda: base[:, :1].expand(9, 4),
        "overlapping": lambda: base.as_strided((5, 4), (3, 2), 1),
        "scalar": lambda: base[3, 3],
        "empty": lambda: base[:0],
    }[form]()


def draw_state(chance, mesh):
    """What this rank saves, and the whole of it."""
    state, whole = {}, {}
    for number in range(chance.randint(1, 14)):
        name = draw_name(chance, number)
        if chance.random() < 0.3:
            state[name] = draw_plain(chance)
            whole[name] = state[name].clone()
            continue
        tensor = draw_tensor(chance, draw_shape(chance, 1), chance.choice(FLOATS + OTHERS))
        whole[name], state[name] = tensor, distribute(chance, tensor, mesh)
    for rank in range(dist.get_world_size()) if chance.random() < 0.3 else ():
        whole[f"stage{rank}.weight"] = draw_tensor(chance, (5, 3), torch.float32)
        if rank == dist.get_rank():
            state[f"stage{rank}.weight"] = whole[f"stage{rank}.weight"]
    return state, whole


def save_dcp(chance, path):
    from torch.distributed.checkpoint.filesystem import FileSystemWriter

    state, whole = draw_state(chance, draw_mesh(chance))
    form = chance.choice(["bare", "model", "nested", "trainer", "huggingface"])
    writer = FileSystemWriter(
        path, single_file_per_rank=chance.random() < 0.7, sync_files=False, thread_count=chance.choice([1, 1, 2, 3])
    )
    if form == "huggingface":
        from torch.distributed.checkpoint.hf_storage import HuggingFaceStorageWriter

        state = {name: value.contiguous() for name, value in state.items()}
        whole = {name: value.contiguous() for name, value in whole.items()}
        writer = HuggingFaceStorageWriter(str(path), save_distributed=True)
    elif form == "model":
        state = {"model": state}
    elif form == "nested":
        state = {
            "model": state,
            "optimizer": {"state": {"0": {"exp_avg": torch.ones(3)}}, "param_groups": [{"lr": 0.1}]},
        }
    elif form == "trainer":
        state = {"app": {"model": state, "optim": {"step": torch.tensor(3)}, "epoch": 3, "name": "x" * 300}}
    dcp.save(state, storage_writer=writer)
    return {"form": form, "live": whole}


# -- FSDP --------------------------------------------------------------------------------------------------------------


class Block(nn.Module):
    """Of a class that no library knows."""

    def __init__(self, chance, size, other, batches):
        super().__init__()
        self.first = nn.Linear(size, other, bias=chance.random() < 0.7)
        self.norm = nn.BatchNorm1d(other) if batches and chance.random() < 0.5 else nn.LayerNorm(other)
        self.add_module("second" * chance.choice([1, 30]), nn.Linear(other, size, bias=False))
        if chance.random() < 0.5:
            self.register_buffer("table", draw_tensor(chance, (3, 5), chance.choice(OTHERS[:-1])))

    def forward(self, x):
        for part in self.children():
            x = part(x)
        return x


class Model(nn.Module):
    def __init__(self, chance, tied=False, batches=True):
        super().__init__()
        size = chance.choice([3, 5, 8, 13])
        self.embed = nn.Embedding(chance.choice([7, 16, 31]), size)
        self.blocks = nn.ModuleList(
            Block(chance, size, chance.choice([1, 2, 6, 11, 40]), batches) for _ in range(chance.randint(1, 4))
        )
        self.scale = nn.Parameter(draw_tensor(chance, (1,), torch.float32))
        self.head = nn.Linear(size, self.embed.num_embeddings, bias=False)
        if chance.random() < 0.5:
            self.register_buffer("steps", torch.tensor(chance.randrange(1000)))
            self.register_buffer("mask", torch.tensor([True, False, True]))
            self.register_buffer("nothing", torch.zeros(0, 4))
            self.register_buffer("scalar", torch.tensor(2.5))
        if tied:
            self.head.weight = self.embed.weight

    def forward(self, ids):
        x = self.embed(ids) * self.scale
        for block in self.blocks:
            x = block(x)
        return self.head(x).float().square().mean()


def accelerator():
    rank, world = dist.get_rank(), dist.get_world_size()
    return SimpleNamespace(
        process_index=rank, num_processes=world, is_main_process=rank == 0, wait_for_everyone=dist.barrier
    )


def plugin(version, kind):
    from accelerate.utils import FullyShardedDataParallelPlugin

    try:
        return FullyShardedDataParallelPlugin(fsdp_version=version, state_dict_type=kind)
    except TypeError:
        return FullyShardedDataParallelPlugin(state_dict_type=kind)


def shard_fsdp1(chance, model):
    from torch.distributed.fsdp import FullyShardedDataParallel, ShardingStrategy
    from torch.distributed.fsdp.wrap import ModuleWrapPolicy

    strategy = chance.choice([ShardingStrategy.FULL_SHARD, ShardingStrategy.SHARD_GRAD_OP])
    policy = ModuleWrapPolicy({Block}) if chance.random() < 0.6 else None
    return FullyShardedDataParallel(
        model,
        device_id=torch.device("cpu"),
        use_orig_params=chance.random() < 0.5,
        auto_wrap_policy=policy,
        sharding_strategy=strategy,
    )


def shard_fsdp2(chance, model, mesh):
    try:
        from torch.distributed.fsdp import fully_shard
    except ImportError:
        from torch.distributed._composable.fsdp import fully_shard

    for block in model.blocks:
        if chance.random() < 0.7:
            fully_shard(block, mesh=mesh)
    fully_shard(model, mesh=mesh)
    return model


def save_fsdp(chance, path):
    """As the Trainer calls accelerate for each of the types of state."""
    from accelerate.utils import save_fsdp_model
    from torch.distributed.device_mesh import init_device_mesh

    version = chance.choice([1, 2])
    tied = chance.random() < 0.3
    torch.manual_seed(chance.randrange(2**30))
    model = Model(chance, tied)
    if chance.random() < 0.4:
        model = model.to(torch.bfloat16)
    live = {name: value.detach().clone() for name, value in model.state_dict().items()}
    kind = chance.choice(["SHARDED_STATE_DICT", "SHARDED_STATE_DICT", "FULL_STATE_DICT", "LOCAL_STATE_DICT"])
    kind = "SHARDED_STATE_DICT" if version == 2 and kind == "LOCAL_STATE_DICT" else kind
    if version == 1:
        model = shard_fsdp1(chance, model)
    else:
        model = shard_fsdp2(chance, model, init_device_mesh("cpu", (dist.get_world_size(),)))
    try:
        save_fsdp_model(plugin(version, kind), accelerator(), model, path)
    except (AttributeError, KeyError, TypeError):
        if version == 1 or kind != "SHARDED_STATE_DICT":
            raise
        # Before accelerate knew of it: what it does, with torch alone.
        dcp.save({"model": model.state_dict()}, checkpoint_id=path / "pytorch_model_fsdp_0")
    return {"form": f"fsdp{version} {kind}", "live": live, "tied": tied}


# -- DeepSpeed ---------------------------------------------------------------------------------------------------------


def draw_zero(chance):
    stage = chance.choice([1, 2, 2, 3, 3, 3])
    zero = {"stage": stage, "stage3_param_persistence_threshold": chance.choice([0, 30])}
    if stage == 3:
        zero["sub_group_size"] = chance.choice([20, 150, 1e9])
    if chance.random() < 0.3:
        zero["offload_optimizer"] = {"device": "cpu"}
    if stage == 3 and chance.random() < 0.2:
        zero["offload_param"] = {"device": "cpu"}
    if stage < 3 and chance.random() < 0.2:
        zero["round_robin_gradients"] = True
    if stage < 3:
        zero["reduce_bucket_size"] = zero["allgather_bucket_size"] = chance.choice([64, 10**8])
    return zero


def draw_groups(chance, model):
    """One to five groups of the parameters that are trained, in any order."""
    parameters = [p for p in model.parameters() if p.requires_grad]
    chance.shuffle(parameters)
    cuts = sorted(chance.sample(range(1, len(parameters)), min(chance.randint(0, 4), len(parameters) - 1)))
    bounds = list(zip([0, *cuts], [*cuts, len(parameters)]))
    return torch.optim.AdamW([{"params": parameters[start:end]} for start, end in bounds], lr=1e-2)


def gather(model, stage):
    import deepspeed
    from deepspeed.utils import safe_get_full_fp32_param

    parameters = dict(model.named_parameters(remove_duplicate=False))
    gathered = deepspeed.zero.GatheredParameters(list(model.parameters())) if stage == 3 else contextlib.nullcontext()
    with gathered:
        live = {name: value.detach().clone() for name, value in parameters.items()}
    live.update({name: value.clone() for name, value in model.state_dict().items() if name not in parameters})
    masters = {
        name: safe_get_full_fp32_param(value).clone()
        for name, value in parameters.items()
        if value.requires_grad and live[name].numel() > 0
    }
    return live, masters


def save_deepspeed(chance, path):
    import deepspeed

    zero, tied = draw_zero(chance), chance.random() < 0.4
    precision = chance.choice(["bf16", "bf16", "fp16", None])
    torch.manual_seed(chance.randrange(2**30))
    model = Model(chance, tied, batches=False)
    for parameter in model.parameters():
        parameter.requires_grad = chance.random() < (1 if zero["stage"] == 1 else 0.8)
    model.scale.requires_grad = model.embed.weight.requires_grad = True
    if zero["stage"] < 3 and chance.random() < 0.3:
        model.empty = nn.Parameter(torch.zeros(0, 3))
    config = {
        "train_micro_batch_size_per_gpu": 1,
        "zero_optimization": zero,
        "zero_allow_untested_optimizer": True,
        "zero_force_ds_cpu_optimizer": False,
        **({precision: {"enabled": True}} if precision else {}),
    }
    if precision == "bf16" and zero["stage"] == 1 and chance.random() < 0.5:
        config["data_types"] = {"grad_accum_dtype": "fp32"}
    engine, *_ = deepspeed.initialize(model=model, optimizer=draw_groups(chance, model), config=config)
    for step in range(2):
        ids = (torch.arange(4) + 3 * step + dist.get_rank()) % 7
        engine.backward(engine(ids))
        engine.step()
    exclude = chance.random() < 0.1
    engine.save_checkpoint(str(path), **({"exclude_frozen_parameters": True} if exclude else {}))
    live, masters = gather(model, zero["stage"])
    return {
        "form": f"zero{zero['stage']}",
        "live": live,
        "masters": masters,
        "tied": tied,
        "config": config,
        "excluded": exclude,
        "parameters": sorted(name for name, _ in model.named_parameters(remove_duplicate=False)),
    }


# -- ranks -------------------------------------------------------------------------------------------------------------

FAMILIES = {"dcp": save_dcp, "fsdp": save_fsdp, "deepspeed": save_deepspeed}


def save_one(family, directory, seed):
    """One checkpoint. All ranks draw the same; a draw that the library refuses, it refuses on all of them."""
    name = f"{family}-{seed}-{dist.get_world_size()}"
    if dist.get_rank() == 0:
        (directory / name).mkdir()
    dist.barrier()
    try:
        made = FAMILIES[family](random.Random(f"{family} {seed} {dist.get_world_size()}"), directory / name)
    except Exception:  # noqa: BLE001  whatever the library says
        if dist.get_rank() == 0:
            (directory / f"{name}.refused").write_text(traceback.format_exc())
            shutil.rmtree(directory / name)
        dist.barrier()
        return
    if dist.get_rank() == 0:
        for what in ("live", "masters"):
            if what in made:
                torch.save(made.pop(what), directory / f"{name}.{what}")
        (directory / f"{name}.json").write_text(json.dumps(made, default=str))
    dist.barrier()


def start_group(family, rank, world, meeting):
    os.environ.update(RANK=str(rank), LOCAL_RANK=str(rank), WORLD_SIZE=str(world), LOCAL_WORLD_SIZE=str(world))
    if family == "deepspeed":
        import deepspeed

        deepspeed.init_distributed(
            "gloo", auto_mpi_discovery=False, init_method=f"file://{meeting}", rank=rank, world_size=world
        )
        return
    dist.init_process_group("gloo", init_method=f"file://{meeting}", rank=rank, world_size=world)
    if family == "fsdp":
        from accelerate import PartialState

        PartialState(cpu=True)


def run_rank(rank, family, directory, world, seed, meeting):
    log = os.open(directory / f"rank{rank}.log", os.O_CREAT | os.O_WRONLY | os.O_APPEND)
    os.dup2(log, 1)
    os.dup2(log, 2)
    os.fsync = lambda file: None  # what is written is looked at, not how safe it is
    torch.set_num_threads(1)
    start_group(family, rank, world, meeting)
    print("==", family, seed, flush=True)
    save_one(family, directory, seed)
    dist.destroy_process_group()


def load_libraries(family):
    """Before the ranks are forked."""
    if family == "deepspeed":
        import deepspeed

        # Else it is compiled at its first use, into the user's cache, under a lock that a death leaves behind.
        with contextlib.suppress(AttributeError):
            deepspeed.ops.__compatible_ops__["deepspeed_shm_comm"] = False
    elif family == "fsdp":
        import accelerate.utils  # noqa: F401


def run_ranks(family, directory, world, seed):
    """Which ranks ended badly."""
    context = torch.multiprocessing.get_context("fork")
    with tempfile.TemporaryDirectory() as meeting:
        ranks = [
            context.Process(target=run_rank, args=(rank, family, directory, world, seed, f"{meeting}/file"))
            for rank in range(world)
        ]
        for rank in ranks:
            rank.start()
        deadline = time.monotonic() + RANKS_DEADLINE
        for rank in ranks:
            rank.join(max(0, deadline - time.monotonic()))
        for rank in ranks:
            rank.kill()
            rank.join()
    return [f"rank {number}: {rank.exitcode}" for number, rank in enumerate(ranks) if rank.exitcode != 0]


def save(family, directory, world, seeds):
    """Makes the checkpoints. Each has ranks of its own: a library may die of a draw, which is refused then."""
    directory = Path(directory).resolve()
    directory.mkdir(parents=True, exist_ok=True)
    load_libraries(family)
    for seed in seeds:
        bad = run_ranks(family, directory, world, seed)
        if bad:
            name = f"{family}-{seed}-{world}"
            (directory / f"{name}.refused").write_text("; ".join(bad) + "\n")
            (directory / f"{name}.json").unlink(missing_ok=True)


if __name__ == "__main__":
    save(sys.argv[1], sys.argv[2], int(sys.argv[3]), range(int(sys.argv[4]), int(sys.argv[4]) + int(sys.argv[5])))

#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""assemble_shards.py KIND DIRECTORY WORLD MIB: a checkpoint of a Llama, saved in shards by WORLD ranks on the CPU.

    fsdp   accelerate's save of an FSDP2 model with SHARDED_STATE_DICT (torch.distributed.checkpoint)
    hf     torch.distributed.checkpoint's HuggingFaceStorageWriter: shard-*-model-*.safetensors
    zero2  DeepSpeed, bf16 with AdamW, stage 2
    zero3  the same, stage 3

MIB is the size of the weights as the reference tool writes them, in FP32. DIRECTORY is made; config.json is beside
the shards. The weights are random numbers.
"""

import os
import sys
import tempfile
import traceback
from types import SimpleNamespace

os.environ.update(DS_ACCELERATOR="cpu", DS_BUILD_OPS="0", OMP_NUM_THREADS="1", ACCELERATE_USE_CPU="true",
                  HF_HUB_OFFLINE="1", PYTHONWARNINGS="ignore")

# pylint: disable=wrong-import-position
import torch  # noqa: E402
import torch.distributed as dist  # noqa: E402
from transformers import LlamaConfig, LlamaForCausalLM  # noqa: E402

KINDS = ("fsdp", "hf", "zero2", "zero3")
BYTES_A_WEIGHT = 4


def configuration(mib):
    """Layers of 49 MiB between an embedding and a head; both are smaller where all is small."""
    hidden, inner = (1024, 2816) if mib >= 256 else (256, 704)
    words = 8192
    layer = 4 * hidden * hidden + 3 * hidden * inner + 2 * hidden
    rest = (mib << 20) // BYTES_A_WEIGHT - 2 * words * hidden
    return LlamaConfig(vocab_size=words, hidden_size=hidden, intermediate_size=inner,
                       num_hidden_layers=max(1, round(rest / layer)), num_attention_heads=hidden // 64,
                       num_key_value_heads=hidden // 64, tie_word_embeddings=False)


def sharded_model(config, world):
    """An FSDP2 model of which each rank makes its own part only: no rank ever has the whole."""
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.fsdp import fully_shard

    mesh = init_device_mesh("cpu", (world,))
    with torch.device("meta"):
        model = LlamaForCausalLM(config)
    for layer in model.model.layers:
        fully_shard(layer, mesh=mesh)
    fully_shard(model, mesh=mesh)
    model.to_empty(device="cpu")
    torch.manual_seed(dist.get_rank())
    for value in model.state_dict().values():
        value.to_local().normal_()
    return model


def save_fsdp(directory, config, world):
    from accelerate import PartialState
    from accelerate.utils import FullyShardedDataParallelPlugin, save_fsdp_model

    PartialState(cpu=True)
    rank = dist.get_rank()
    accelerator = SimpleNamespace(process_index=rank, num_processes=world, is_main_process=rank == 0)
    plugin = FullyShardedDataParallelPlugin(fsdp_version=2, state_dict_type="SHARDED_STATE_DICT")
    save_fsdp_model(plugin, accelerator, sharded_model(config, world), directory)


def save_hf(directory, config, world):
    import torch.distributed.checkpoint as dcp
    from torch.distributed.checkpoint.hf_storage import HuggingFaceStorageWriter

    writer = HuggingFaceStorageWriter(str(directory), save_distributed=True)
    dcp.save(sharded_model(config, world).state_dict(), storage_writer=writer)


def save_zero(directory, config, stage):
    import deepspeed

    torch.manual_seed(1)
    zero = {"stage": stage, "stage3_param_persistence_threshold": 0}
    settings = {"train_micro_batch_size_per_gpu": 1, "zero_optimization": zero, "bf16": {"enabled": True},
                "zero_allow_untested_optimizer": True, "zero_force_ds_cpu_optimizer": False}
    with deepspeed.zero.Init(config_dict_or_path=settings, enabled=stage == 3):
        model = LlamaForCausalLM(config)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-4)
    engine, *_ = deepspeed.initialize(model=model, optimizer=optimizer, config=settings)
    words = torch.arange(4)[None]
    engine.backward(engine(input_ids=words, labels=words).loss)
    engine.step()  # from the first step on the optimizer has moments, which are saved
    engine.save_checkpoint(str(directory))


def run_rank(rank, kind, directory, world, mib, meeting):
    os.environ.update(RANK=str(rank), LOCAL_RANK=str(rank), WORLD_SIZE=str(world), LOCAL_WORLD_SIZE=str(world))
    torch.set_num_threads(1)
    config = configuration(mib)
    if kind.startswith("zero"):
        import deepspeed

        deepspeed.init_distributed("gloo", auto_mpi_discovery=False, init_method=meeting, rank=rank, world_size=world)
        save_zero(directory, config, int(kind[-1]))
    else:
        dist.init_process_group("gloo", init_method=meeting, rank=rank, world_size=world)
        {"fsdp": save_fsdp, "hf": save_hf}[kind](directory, config, world)
    dist.barrier()


def fork_rank(rank, *arguments):
    """The libraries are loaded once; what they print goes to the standard error."""
    pid = os.fork()
    if pid > 0:
        return pid
    status = 1
    try:
        os.dup2(2, 1)
        run_rank(rank, *arguments)
        status = 0
    except BaseException:  # noqa: BLE001 pylint: disable=broad-except
        traceback.print_exc()
    finally:
        sys.stderr.flush()
        os._exit(status)


def save(kind, directory, world, mib):
    if kind.startswith("zero"):
        import deepspeed

        # Else it is compiled at its first use.
        deepspeed.ops.__compatible_ops__["deepspeed_shm_comm"] = False
    os.makedirs(directory)
    configuration(mib).save_pretrained(directory)
    with tempfile.TemporaryDirectory() as meeting:
        ranks = {fork_rank(rank, kind, directory, world, mib, f"file://{meeting}/file") for rank in range(world)}
        while ranks:
            pid, status = os.wait()
            ranks.discard(pid)
            if status != 0:
                for other in ranks:
                    os.kill(other, 9)
                    os.waitpid(other, 0)
                raise SystemExit(f"a rank of {world} ended with status {status}")


if __name__ == "__main__":
    if len(sys.argv) != 5 or sys.argv[1] not in KINDS:
        raise SystemExit(__doc__)
    save(sys.argv[1], os.path.abspath(sys.argv[2]), int(sys.argv[3]), int(sys.argv[4]))

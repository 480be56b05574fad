#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""torchrun ... resume.py KIND PLAIN MOUNT: a sharded run of the Trainer on CPU, saved and resumed in both directories.

KIND is fsdp2 (SHARDED_STATE_DICT), zero3 or zero2. On MOUNT the assembled model lies in the checkpoint's directory when
it is resumed from, and with it the configuration and tokenizer that the run's directory lends; losses and every rank's
weights must be those of PLAIN, bit by bit. Then from_pretrained loads the checkpoint's directory.
"""

import json
import os
import shutil
import sys
import time

kind, plain, mount = sys.argv[1:]
os.environ |= {"HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1", "DS_ACCELERATOR": "cpu", "DS_BUILD_OPS": "0"}
if kind == "fsdp2":
    os.environ["ACCELERATE_USE_CPU"] = "true"

import torch  # noqa: E402
import torch.distributed as dist  # noqa: E402
import transformers.trainer  # noqa: E402
from accelerate.state import PartialState  # noqa: E402
from accelerate.utils import DistributedType  # noqa: E402
from tokenizers import Tokenizer, models  # noqa: E402
from torch.distributed.tensor import DTensor  # noqa: E402
from transformers import (  # noqa: E402
    AutoModelForCausalLM,
    AutoTokenizer,
    LlamaConfig,
    LlamaForCausalLM,
    PreTrainedTokenizerFast,
    Trainer,
    TrainingArguments,
    set_seed,
)
from transformers.integrations.deepspeed import unset_hf_deepspeed_config  # noqa: E402

if kind != "fsdp2" and os.environ["RANK"] != "0":
    # With DeepSpeed on CPUs each rank takes itself for the only one, and removes what another is about to look at.
    transformers.trainer.rotate_checkpoints = lambda **asked: None
    transformers.trainer.remove_dummy_checkpoint = lambda *asked: None

ZERO = {
    "train_micro_batch_size_per_gpu": "auto",
    "gradient_accumulation_steps": "auto",
    "zero_force_ds_cpu_optimizer": False,
    "zero_allow_untested_optimizer": True,
    "zero_optimization": {"stage": int(kind[-1]), "stage3_gather_16bit_weights_on_model_save": False},
}
WAYS = {
    "fsdp2": {"use_cpu": True, "fsdp": True, "fsdp_config": {"version": 2, "state_dict_type": "SHARDED_STATE_DICT"}},
    "zero3": {"deepspeed": ZERO},
    "zero2": {"deepspeed": ZERO},
}


def make_model():
    shape = {"hidden_size": 48, "intermediate_size": 96, "num_hidden_layers": 2, "num_attention_heads": 4}
    return LlamaForCausalLM(LlamaConfig(vocab_size=301, tie_word_embeddings=False, **shape))


def make_trainer(directory, **more):
    arguments = TrainingArguments(
        output_dir=directory,
        max_steps=4,
        save_steps=2,
        logging_steps=1,
        per_device_train_batch_size=2,
        learning_rate=1e-3,
        report_to="none",
        disable_tqdm=True,
        seed=5,
        **WAYS[kind],
        **more,
    )
    if kind == "fsdp2":
        # accelerate takes CPUs for nothing that FSDP can run on; torch does not mind.
        PartialState._shared_state["distributed_type"] = DistributedType.MULTI_GPU
    set_seed(5)
    model = make_model()
    data = [{"input_ids": row, "labels": row} for row in torch.randint(0, 301, (64, 16)).tolist()]
    return Trainer(model=model, args=arguments, train_dataset=data, data_collator=collate)


def collate(rows):
    return {key: torch.tensor([row[key] for row in rows]) for key in rows[0]}


def local_weights(model):
    """What this rank holds."""
    weights = {}
    for name, parameter in model.named_parameters():
        part = parameter.to_local() if isinstance(parameter, DTensor) else getattr(parameter, "ds_tensor", parameter)
        weights[name] = part.detach().clone()
    return weights


def run(directory, resume=None, **more):
    trainer = make_trainer(directory, **more)
    trainer.train(resume_from_checkpoint=resume)
    losses = [(entry["step"], entry["loss"]) for entry in trainer.state.log_history if "loss" in entry]
    weights = local_weights(trainer.accelerator.unwrap_model(trainer.model_wrapped))
    dist.barrier()
    return losses, weights


def assert_same(expected, found):
    assert found[0] == expected[0], f"losses {found[0]}, expected {expected[0]}"
    assert found[1].keys() == expected[1].keys()
    for name, tensor in expected[1].items():
        assert torch.equal(tensor, found[1][name]), name


def wait_for(path):
    deadline = time.monotonic() + 60
    while not os.path.exists(path):
        assert time.monotonic() < deadline, f"{path} did not appear"
        time.sleep(0.05)


def lend(run):
    """What a sharded checkpoint lacks lies in the run's directory; the library is another one than ours."""
    model = make_model()
    model.config.save_pretrained(run)
    model.generation_config.save_pretrained(run)
    path = os.path.join(run, "config.json")
    with open(path) as file:
        config = json.load(file)
    with open(path, "w") as file:
        json.dump(config | {"transformers_version": "4.0.0"}, file)
    tokenizer = Tokenizer(models.WordLevel({"[UNK]": 0, "a": 1, "word": 2}, unk_token="[UNK]"))
    PreTrainedTokenizerFast(tokenizer_object=tokenizer, unk_token="[UNK]").save_pretrained(run)


def prepare(checkpoint):
    """What rank 0 does before the run is resumed; ZeRO-2 gathers a model of its own, which shall not be there."""
    model = os.path.join(checkpoint, "model.safetensors")
    shutil.rmtree(os.path.join(os.path.dirname(checkpoint), "checkpoint-4"))
    if kind == "zero2":
        os.unlink(model)
    if checkpoint.startswith(mount):
        lend(os.path.dirname(checkpoint))
        for name in ("model.safetensors", "config.json", "generation_config.json", "tokenizer.json"):
            wait_for(os.path.join(checkpoint, name))
    assert os.path.exists(model) == checkpoint.startswith(mount)


def check_loads(directory):
    """The last checkpoint's directory is a model, of the weights that were saved there."""
    checkpoint = os.path.join(directory, "checkpoint-4")
    if kind == "zero2":
        os.unlink(os.path.join(checkpoint, "model.safetensors"))
    wait_for(os.path.join(checkpoint, "model.safetensors"))
    for name in ("config.json", "tokenizer.json"):
        wait_for(os.path.join(checkpoint, name))
    unset_hf_deepspeed_config()  # or it would be loaded in parts, by all ranks
    assert AutoTokenizer.from_pretrained(checkpoint)("word")["input_ids"] == [2]
    return AutoModelForCausalLM.from_pretrained(checkpoint).state_dict()


def gathered(trainer_weights):
    """Whole tensors of FSDP's dim-0 shards, or of the flat ones of ZeRO-3, cut to size by the caller."""
    whole = {}
    for name, part in trainer_weights.items():
        parts = [None] * dist.get_world_size()
        dist.all_gather_object(parts, part)
        whole[name] = parts[0] if kind == "zero2" else torch.cat(parts)
    return whole


def main():
    if kind != "fsdp2":
        import deepspeed

        # It would be compiled first.
        deepspeed.ops.__compatible_ops__["deepspeed_shm_comm"] = False
        deepspeed.init_distributed("gloo", auto_mpi_discovery=False)
    whole_run = run(plain)
    assert_same(whole_run, run(mount))
    for directory in (plain, mount):
        if dist.get_rank() == 0:
            prepare(os.path.join(directory, "checkpoint-2"))
        dist.barrier()
        resumed = run(directory, os.path.join(directory, "checkpoint-2"), save_total_limit=1)
        assert_same(whole_run, resumed)
        assert sorted(name for name in os.listdir(directory) if name.startswith("checkpoint")) == ["checkpoint-4"]
    weights = gathered(whole_run[1])
    if dist.get_rank() == 0:
        loaded = check_loads(mount)
        assert loaded.keys() == weights.keys(), loaded.keys() ^ weights.keys()
        for name, tensor in loaded.items():
            expected = weights[name].flatten()[: tensor.numel()].reshape(tensor.shape)
            assert torch.equal(expected, tensor), name
        print(f"{kind}: resumed and loaded, losses {whole_run[0]}")
    dist.barrier()
    dist.destroy_process_group()


main()

# SPDX-License-Identifier: Apache-2.0
"""How a Trainer's model is divided between two ranks, on the CPU."""

import json
from dataclasses import dataclass
from pathlib import Path

RANKS = 2
SCRIPTS = Path(__file__).resolve().parent


@dataclass(frozen=True)
class Way:
    """A run of several ranks: its script, options, environment, and the files that no two runs agree on."""

    script: Path
    options: tuple
    configuration: dict
    variables: dict
    # .metadata of DCP holds the path and a random id of the save, training_args.bin the options.
    differ: tuple = (".metadata", "training_args.bin")

    def write_configuration(self, directory):
        (directory / "ranks.json").write_text(json.dumps(self.configuration))


def fsdp(kind):
    layers = {"transformer_layer_cls_to_wrap": ["LlamaDecoderLayer"]}
    return Way(
        script=SCRIPTS.parent / "assemble" / "sharded_trainer.py",
        options=("--fsdp", "full_shard", "--fsdp_config", "ranks.json", "--full_determinism", "False"),
        configuration={"version": 2, "state_dict_type": kind, **layers},
        variables={"ACCELERATE_USE_CPU": "true"},
    )


def zero(stage):
    gather = {"stage3_gather_16bit_weights_on_model_save": False} if stage == 3 else {}
    return Way(
        script=SCRIPTS / "train_deepspeed.py",
        options=("--deepspeed", "ranks.json", "--full_determinism", "False"),
        configuration={
            "train_micro_batch_size_per_gpu": "auto",
            "gradient_accumulation_steps": "auto",
            "zero_force_ds_cpu_optimizer": False,
            "zero_allow_untested_optimizer": True,
            "zero_optimization": {"stage": stage, **gather},
        },
        variables={"DS_ACCELERATOR": "cpu", "DS_BUILD_OPS": "0"},
    )


WAYS = {
    "fsdp-sharded": fsdp("SHARDED_STATE_DICT"),
    "fsdp-full": fsdp("FULL_STATE_DICT"),
    "zero2": zero(2),
    "zero3": zero(3),
}

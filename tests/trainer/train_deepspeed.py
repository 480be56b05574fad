#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""The Trainer of train.py with --deepspeed CONFIG, on the CPU: ranks know of each other, and nothing is compiled."""

import os

import deepspeed
from accelerate.state import PartialState
from accelerate.utils import DistributedType

import train


class DeepSpeedTrainer(train.Trainer):
    def __init__(self, *arguments, **options):
        # accelerate takes CPUs for nothing that DeepSpeed runs on. By now TrainingArguments has set the ranks up.
        os.environ.pop("ACCELERATE_USE_CPU", None)
        PartialState._shared_state["distributed_type"] = DistributedType.MULTI_GPU
        super().__init__(*arguments, **options)


deepspeed.ops.__compatible_ops__["deepspeed_shm_comm"] = False
train.Trainer = DeepSpeedTrainer
train.main()

#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""The Trainer of tests/trainer/train.py, with FSDP on the CPU.

accelerate shards only where it has found accelerators; that the ranks are of the CPU is all that is changed here.
"""

import sys
from pathlib import Path

from accelerate.state import PartialState
from accelerate.utils import DistributedType

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "trainer"))

import train  # noqa: E402


class ShardedTrainer(train.Trainer):
    def __init__(self, *arguments, **options):
        # By now TrainingArguments has set it up.
        PartialState._shared_state["distributed_type"] = DistributedType.MULTI_GPU
        super().__init__(*arguments, **options)


train.Trainer = ShardedTrainer
train.main()

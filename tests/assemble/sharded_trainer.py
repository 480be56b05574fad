#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""The Trainer of tests/trainer/train.py, with FSDP on the CPU.

accelerate shards only where it has found accelerators; that the ranks are of the CPU is all that is changed here.
"""

import sys
from pathlib import Path

import accelerate.state

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "trainer"))

import train  # noqa: E402

begin = accelerate.state.AcceleratorState.__init__


def begin_sharded(self, *arguments, **options):
    plugin = options.get("fsdp_plugin")
    begin(self, *arguments, **options)
    if plugin is not None and self.distributed_type == accelerate.state.DistributedType.MULTI_CPU:
        self.distributed_type = accelerate.state.DistributedType.FSDP
        self.fsdp_plugin = plugin


accelerate.state.AcceleratorState.__init__ = begin_sharded
train.main()

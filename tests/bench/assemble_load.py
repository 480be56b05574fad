#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Loads models with from_pretrained: a directory a line on the standard input, a line of JSON each on the output.

The libraries are loaded once, and have loaded a tiny model before; each model is loaded by a fork. from_pretrained maps the file and leaves it to whoever
computes to read the pages, so the time ends when each page of each parameter was touched.
"""

import json
import os
import resource
import sys
import tempfile
import time

os.environ.update(HF_HUB_OFFLINE="1", PYTHONWARNINGS="ignore", OMP_NUM_THREADS="1")

# pylint: disable=wrong-import-position
import torch  # noqa: E402
from transformers import AutoModelForCausalLM, LlamaConfig, LlamaForCausalLM  # noqa: E402

PAGE = 4096


def load(directory):
    before = resource.getrusage(resource.RUSAGE_SELF)
    begun = time.monotonic()
    model = AutoModelForCausalLM.from_pretrained(directory)
    loaded = time.monotonic()
    total = 0.0
    for value in model.parameters():
        flat = value.detach().view(-1)
        total += float(flat[:: PAGE // flat.element_size()].float().sum())
    ended = time.monotonic()
    after = resource.getrusage(resource.RUSAGE_SELF)
    cpu = after.ru_utime - before.ru_utime + after.ru_stime - before.ru_stime
    return {"seconds": ended - begun, "from_pretrained": loaded - begun, "cpu": cpu, "sum": total}


def load_tiny():
    """What the libraries load at their first use is there for all forks."""
    config = LlamaConfig(vocab_size=64, hidden_size=32, intermediate_size=64, num_hidden_layers=1,
                         num_attention_heads=2, num_key_value_heads=2)
    with tempfile.TemporaryDirectory() as folder:
        LlamaForCausalLM(config).save_pretrained(folder)
        load(folder)


def main():
    answers = os.dup(1)
    os.dup2(2, 1)
    torch.set_num_threads(1)
    load_tiny()
    os.write(answers, b'{"ready": true}\n')
    for line in sys.stdin:
        pid = os.fork()
        if pid == 0:
            try:
                text = json.dumps(load(line.rstrip("\n")))
            except Exception as error:  # noqa: BLE001 pylint: disable=broad-except
                text = json.dumps({"error": f"{type(error).__name__}: {error}"})
            os.write(answers, text.encode() + b"\n")
            os._exit(0)
        os.waitpid(pid, 0)


if __name__ == "__main__":
    main()

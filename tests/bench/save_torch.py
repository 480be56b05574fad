# SPDX-License-Identifier: Apache-2.0
"""Saves a model and its AdamW state with the real torch and safetensors; prints what it took as bench_io does.

usage: save_torch.py DIRECTORY MODEL_BYTES
"""

import json
import os
import resource
import sys
import time

import torch
from safetensors.torch import save_file

WIDTH = 1024


def cpu_seconds():
    usage = resource.getrusage(resource.RUSAGE_SELF)
    return usage.ru_utime + usage.ru_stime


def main():
    folder, size = sys.argv[1], int(sys.argv[2])
    torch.manual_seed(time.monotonic_ns() & 0xFFFFFFFF)
    layers = max(1, size // (4 * WIDTH * WIDTH))
    model = torch.nn.Sequential(*[torch.nn.Linear(WIDTH, WIDTH, bias=False) for _ in range(layers)])
    optimizer = torch.optim.AdamW(model.parameters())
    for parameter in model.parameters():
        parameter.grad = torch.randn_like(parameter)
    optimizer.step()

    wall, cpu = time.monotonic(), cpu_seconds()
    os.mkdir(folder)
    save_file(model.state_dict(), os.path.join(folder, "model.safetensors"), metadata={"format": "pt"})
    torch.save(optimizer.state_dict(), os.path.join(folder, "optimizer.pt"))
    closed = time.monotonic() - wall
    total = 0
    for entry in os.scandir(folder):
        fd = os.open(entry.path, os.O_RDONLY)
        os.fsync(fd)
        os.close(fd)
        total += entry.stat().st_size
    print(json.dumps({"seconds": time.monotonic() - wall, "closed": closed, "cpu": cpu_seconds() - cpu,
                      "bytes": total}))


if __name__ == "__main__":
    main()

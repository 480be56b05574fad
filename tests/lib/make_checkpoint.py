#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Writes a whole checkpoint as the HuggingFace Trainer does, without any library of its.

    make_checkpoint.py DIRECTORY [BYTES]

BYTES: of the model's one tensor, random; the optimizer's state has twice as many. The step is the number that the
directory's name ends with.
"""

import json
import os
import pickle
import re
import struct
import sys
import zipfile


def write_model(path, size):
    header = json.dumps({"w": {"dtype": "U8", "shape": [size], "data_offsets": [0, size]}}).encode()
    with open(path, "wb") as file:
        file.write(struct.pack("<Q", len(header)) + header)
        for at in range(0, size, 1 << 20):
            file.write(os.urandom(min(1 << 20, size - at)))


def write_torch(path, value):
    """What torch.save makes of a value without tensors: bytes in it stay in the pickle."""
    name = os.path.splitext(os.path.basename(path))[0]
    with zipfile.ZipFile(path, "w", zipfile.ZIP_STORED) as archive:
        archive.writestr(f"{name}/data.pkl", pickle.dumps(value, protocol=2))
        archive.writestr(f"{name}/byteorder", "little")
        archive.writestr(f"{name}/version", "3\n")


def main():
    directory = sys.argv[1]
    size = int(sys.argv[2]) if len(sys.argv) > 2 else 100_000
    step = int(re.search(r"(\d+)/*$", directory).group(1))
    os.makedirs(directory)
    write_model(os.path.join(directory, "model.safetensors"), size)
    state = {"state": {0: {"step": step, "exp_avg": os.urandom(size).hex()}}, "param_groups": [{"lr": 0.1}]}
    write_torch(os.path.join(directory, "optimizer.pt"), state)
    write_torch(os.path.join(directory, "scheduler.pt"), {"last_epoch": step})
    write_torch(os.path.join(directory, "rng_state.pth"), {"python": (3, (1, 2, 3), None)})
    for name, content in (
        ("config.json", {"model_type": "bert", "architectures": ["BertModel"]}),
        ("trainer_state.json", {"global_step": step, "max_steps": 100, "log_history": []}),
    ):
        with open(os.path.join(directory, name), "w", encoding="utf-8") as file:
            json.dump(content, file)


if __name__ == "__main__":
    main()

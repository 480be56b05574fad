#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Writes checkpoints as the HuggingFace Trainer does: the same files with the same structure, small, without torch.

    checkpoint.py RUN STEP... [--bytes N] [--loss LOSS] [--best STEP] [--seed N] [--weights-only] [--ranks N]
                  [--leave-out NAME]... [--only NAME]...
                  [--hang-in NAME FILE] [--hang-after NAME FILE] [--how truncate|replace|overwrite|map|remove]
                  [--name NAME]

Each STEP becomes RUN/checkpoint-STEP, or that of --name, the files in the order of the Trainer. A file is written
under its own name and closed; nothing is synced. With --hang-in the process stops in the middle of the file NAME,
which is open, makes FILE and waits for its end, or for SIGUSR1 to go on; with --hang-after it does so when NAME is
written and closed. --bytes is the size of the weights; the optimizer takes twice that. With --ranks each rank's random
generators have a file of their own.

--how says how a file is written that is there already: after it was cut; to another file that takes its name; over its
bytes; through a mapping; or after it was removed.
"""

import argparse
import io
import json
import mmap
import os
import pickle
import random
import signal
import struct
import zipfile


def torch_file(content, payload=b""):
    """What torch.save makes: a stored zip with a pickle, and the bytes of one storage. The same at any time."""
    out = io.BytesIO()
    members = {"data.pkl": pickle.dumps(content, protocol=2), "byteorder": "little", "data/0": payload, "version": "3\n"}
    with zipfile.ZipFile(out, "w", zipfile.ZIP_STORED) as archive:
        for name, member in members.items():
            archive.writestr(zipfile.ZipInfo(f"archive/{name}"), member)
    return out.getvalue()


def safetensors_file(data):
    header = {"__metadata__": {"format": "pt"},
              "model.weight": {"dtype": "U8", "shape": [len(data)], "data_offsets": [0, len(data)]}}
    text = json.dumps(header).encode()
    return struct.pack("<Q", len(text)) + text + data


def trainer_state(step, loss, best):
    state = {"global_step": step, "epoch": step / 100, "log_history": [{"step": step, "eval_loss": loss}]}
    if best is not None:
        state.update(best_global_step=best, best_metric=loss, best_model_checkpoint=f"run/checkpoint-{best}")
    return json.dumps(state).encode()


def files_of(step, options):
    randomness = random.Random(options.seed * 1000003 + step)
    yield "config.json", b'{"model_type": "llama", "architectures": ["LlamaForCausalLM"]}'
    yield "model.safetensors", safetensors_file(randomness.randbytes(options.bytes))
    if not options.weights_only:
        yield "optimizer.pt", torch_file({"state": {}, "param_groups": []}, randomness.randbytes(2 * options.bytes))
        yield "scheduler.pt", torch_file({"last_epoch": step})
        for name in [f"rng_state_{rank}.pth" for rank in range(options.ranks)] or ["rng_state.pth"]:
            yield name, torch_file({"python": step})
    yield "trainer_state.json", trainer_state(step, options.loss, options.best)
    yield "training_args.bin", torch_file({"learning_rate": 0.001})


def hang(mark):
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGUSR1})
    with open(mark, "w", encoding="ascii"):
        pass
    signal.sigwait({signal.SIGUSR1})


def open_anew(path, how):
    """The file to write, and the name that it has until it is written."""
    if how == "replace":
        return open(f"{path}.new", "wb"), f"{path}.new"
    if how in ("overwrite", "map") and os.path.exists(path):
        return open(path, "r+b"), path
    if how == "remove" and os.path.exists(path):
        os.remove(path)
    return open(path, "wb"), path


def put(file, how, content, offset):
    if how != "map":
        file.write(content)
        file.flush()
        return
    if os.fstat(file.fileno()).st_size < offset + len(content):
        os.truncate(file.fileno(), offset + len(content))
    with mmap.mmap(file.fileno(), offset + len(content)) as mapped:
        mapped[offset:] = content


def write(path, content, how, mark):
    """With a mark the process stops in the middle."""
    file, name = open_anew(path, how)
    with file:
        half = len(content) // 2
        put(file, how, content[:half], 0)
        if mark:
            hang(mark)
        put(file, how, content[half:], half)
        if how in ("overwrite", "map"):
            file.truncate(len(content))
    if name != path:
        os.rename(name, path)


def main():
    parser = argparse.ArgumentParser(allow_abbrev=False)
    parser.add_argument("run")
    parser.add_argument("steps", nargs="+", type=int)
    parser.add_argument("--bytes", type=int, default=40000)
    parser.add_argument("--loss", type=float, default=0.5)
    parser.add_argument("--best", type=int)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--weights-only", action="store_true")
    parser.add_argument("--ranks", type=int, default=0)
    parser.add_argument("--leave-out", action="append", default=[])
    parser.add_argument("--only", action="append", default=[])
    parser.add_argument("--hang-in", nargs=2, default=(None, None))
    parser.add_argument("--name")
    parser.add_argument("--hang-after", nargs=2, default=(None, None))
    parser.add_argument("--how", default="truncate", choices=["truncate", "replace", "overwrite", "map", "remove"])
    options = parser.parse_args()
    for step in options.steps:
        directory = f"{options.run}/{options.name or f'checkpoint-{step}'}"
        os.makedirs(directory, exist_ok=True)
        for name, content in files_of(step, options):
            if name in options.leave_out or (options.only and name not in options.only):
                continue
            write(f"{directory}/{name}", content, options.how, name == options.hang_in[0] and options.hang_in[1])
            if name == options.hang_after[0]:
                hang(options.hang_after[1])


if __name__ == "__main__":
    main()

# SPDX-License-Identifier: Apache-2.0
"""What the deduplication bench stores: each case is a tree of files and the number of bytes that differ in it."""

import hashlib
import os
import random
import shutil
import subprocess
import sys

import dedup_formats
from sides import BenchError

MIB = 1 << 20
BLOCK = 16 * MIB
LAYERS = 16
SAVES = 10
STEP = 100
CHECKPOINTS = 3  # of the Trainer's runs
FROZEN = 0.9
SEED = 20240229
RANKS = 6
SAVES_OF_SHARDS = os.path.join(os.path.dirname(os.path.dirname(os.path.abspath(__file__))), "share", "whole_saves.py")
TRAIN = os.path.join(os.path.dirname(os.path.dirname(os.path.abspath(__file__))), "trainer", "train.py")


def random_bytes(source, length):
    return b"".join(source.randbytes(min(BLOCK, length - at)) for at in range(0, length, BLOCK))


def digest_file(path):
    digest = hashlib.blake2b(digest_size=16)
    with open(path, "rb") as file:
        while block := file.read(MIB):
            digest.update(block)
    return digest.hexdigest()


class Distinct:
    """Counts the bytes of different pieces."""

    def __init__(self):
        self.lengths = {}

    def add(self, piece):
        self.lengths[hashlib.blake2b(piece, digest_size=16).digest()] = len(piece)

    def add_length(self, what, length):
        """Bytes that are in no other piece and are not looked at."""
        self.lengths[what] = length

    def total(self):
        return sum(self.lengths.values())


class Case:
    """A tree of files under `source`; their sizes and digests by relative path, once it is finished.

    `ideal` bytes are what a store must keep that knows each piece once. `timed`: the file whose reads and saves are
    timed besides; without it, the largest one of the newest checkpoint.
    """

    def __init__(self, key, title, source):
        self.key = key
        self.title = title
        self.source = source
        self.timed = None
        self.distinct = Distinct()
        self.sizes = {}
        self.digests = {}
        os.makedirs(source)

    @property
    def ideal(self):
        return self.distinct.total()

    @property
    def bytes(self):
        return sum(self.sizes.values())

    def write(self, name, pieces):
        path = os.path.join(self.source, name)
        os.makedirs(os.path.dirname(path), exist_ok=True)
        with open(path, "wb") as file:
            for piece in pieces:
                file.write(piece)
                self.distinct.add(piece)

    def files(self):
        """Relative path -> size."""
        found = {}
        for folder, _, names in os.walk(self.source):
            for name in names:
                path = os.path.join(folder, name)
                found[os.path.relpath(path, self.source)] = os.path.getsize(path)
        return found

    def finish(self):
        self.sizes = self.files()
        self.digests = {name: digest_file(os.path.join(self.source, name)) for name in self.sizes}
        return self

    def newest(self):
        """The file that is timed besides, relative."""
        def rank(name):
            number = os.path.basename(os.path.dirname(name)).rpartition("-")[2]
            return int(number) if number.isdigit() else -1, self.sizes[name]

        return self.timed or max(self.sizes, key=rank)

    def remove(self):
        shutil.rmtree(self.source)


# -- models that are made up --------------------------------------------------------------------------------------


def model_shapes(size):
    """Names and shapes of a decoder with 32-bit floats, `size` bytes but for a row: the embedding takes the rest."""
    width = max(8, int((size / (4 * 17 * LAYERS)) ** 0.5) // 8 * 8)
    rows = size // (4 * width) - LAYERS * (16 * width + 2)
    shapes = [("model.embed_tokens.weight", [rows, width])]
    for layer in range(LAYERS):
        prefix = f"model.layers.{layer:02d}."
        shapes += [(prefix + f"self_attn.{part}_proj.weight", [width, width]) for part in "qkvo"]
        shapes += [(prefix + f"mlp.{part}_proj.weight", [4 * width, width]) for part in ("gate", "up", "down")]
        shapes += [(prefix + f"{part}_layernorm.weight", [width]) for part in ("input", "post_attention")]
    return shapes


def random_tensor(source, shape):
    count = 4
    for length in shape:
        count *= length
    return shape, random_bytes(source, count)


def random_model(size, source):
    return {name: random_tensor(source, shape) for name, shape in model_shapes(size)}


def last_tensors(model, size):
    """The names of as many of the last tensors as fit into `size` bytes."""
    names = []
    for name in reversed(model):
        size -= len(model[name][1])
        if size < 0:
            break
        names.append(name)
    return names


def make_frozen(case, options):
    """Only the last layers change from save to save."""
    source = random.Random(SEED)
    model = random_model(options.size, source)
    changing = last_tensors(model, (1 - FROZEN) * options.size)
    for save in range(1, SAVES + 1):
        for name in changing:
            model[name] = random_tensor(source, model[name][0])
        pieces = dedup_formats.safetensors_pieces(model, {"format": "pt"})
        case.write(f"run/checkpoint-{save * STEP}/model.safetensors", pieces)


def make_header(case, options):
    model = random_model(options.size, random.Random(SEED + 1))
    longer = {"format": "pt", "note": "a longer header moves every tensor by a number of bytes that is no block's"}
    for save, metadata in ((1, {"format": "pt"}), (2, longer)):
        pieces = dedup_formats.safetensors_pieces(model, metadata)
        case.write(f"run/checkpoint-{save * STEP}/model.safetensors", pieces)


def make_formats(case, options):
    model = random_model(options.size, random.Random(SEED + 2))
    case.write(f"run/checkpoint-{STEP}/model.safetensors", dedup_formats.safetensors_pieces(model, {"format": "pt"}))
    case.write(f"run/checkpoint-{2 * STEP}/pytorch_model.bin", dedup_formats.torch_pieces(model, "pytorch_model"))


def make_insert(case, options):
    content = random_bytes(random.Random(SEED + 3), options.size)
    case.write(f"run/checkpoint-{STEP}/state.data", [content])
    case.write(f"run/checkpoint-{2 * STEP}/state.data", [b"\x01", content])


# -- models that are trained --------------------------------------------------------------------------------------


def train(case, options, *more):
    """Runs the tests' training script on a model of about `options.size` bytes; what it wrote are the case's files."""
    width = max(64, int((options.size / 256) ** 0.5) // 64 * 64)
    command = [os.path.join(options.venv, "bin", "python"), TRAIN, "--output_dir", os.path.join(case.source, "run"),
               "--hidden_size", width, "--layers", 4, "--max_steps", 2 * CHECKPOINTS, "--save_steps", 2, *more]
    offline = {"HF_HUB_OFFLINE": "1", "TOKENIZERS_PARALLELISM": "false", "TRANSFORMERS_VERBOSITY": "error"}
    done = subprocess.run(list(map(str, command)), env={**os.environ, **offline}, stdin=subprocess.DEVNULL,
                          stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, errors="replace", check=False)
    if done.returncode != 0:
        raise BenchError(f"the training for case {case.key} failed:\n{done.stdout[-2000:]}")
    for name in case.files():
        for piece in dedup_formats.file_pieces(os.path.join(case.source, name)):
            case.distinct.add(piece)


def make_lora(case, options):
    """What a LoRA run comes from, what it saves, and what is served at the end."""
    merged = os.path.join(case.source, "run-merged")
    train(case, options, "--lora", "True", "--lora_rank", 16, "--save_base_to", os.path.join(case.source, "base"),
          "--save_merged_to", merged)
    case.timed = "run-merged/model.safetensors"


def make_full(case, options):
    train(case, options)


# -- models in shards ---------------------------------------------------------------------------------------------


def make_shards(case, options):
    """Shards as FSDP's ranks write them, and then the whole model. What is around the shards' tensors is new."""
    hidden = max(64, int((options.size / 4 / 48) ** 0.5))
    sizes = ["--world", RANKS, "--hidden", hidden, "--vocabulary", 12 * hidden + 1, "--layers", 3]
    shards, whole = f"run/checkpoint-{STEP}", "run/final/model.safetensors"
    for what, name in ("dcp", shards), ("whole", whole):
        python, path = os.path.join(options.venv, "bin", "python"), os.path.join(case.source, name)
        command = [python, SAVES_OF_SHARDS, what, path, *sizes]
        done = subprocess.run(list(map(str, command)), stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                              stderr=subprocess.STDOUT, text=True, errors="replace", check=False)
        if done.returncode != 0:
            raise BenchError(f"the saves for case {case.key} failed:\n{done.stdout[-2000:]}")
    for piece in dedup_formats.file_pieces(os.path.join(case.source, whole)):
        case.distinct.add(piece)
    files = case.files()
    around = sum(size for name, size in files.items() if name.startswith(shards)) - files[whole]
    case.distinct.add_length("around the shards' tensors", max(0, around))
    case.timed = whole


# key: what makes it, its title, whether it needs torch
CASES = {
    "frozen": (make_frozen, f"{SAVES} saves, {FROZEN:.0%} of the weights frozen, safetensors", False),
    "header": (make_header, "the same tensors behind headers of different length, safetensors", False),
    "formats": (make_formats, "the same tensors in safetensors and in a file of torch.save", False),
    "insert": (make_insert, "a byte inserted at the front of an unknown format", False),
    "lora": (make_lora, "Trainer, LoRA of rank 16: base, three checkpoints, final adapter, merged model", True),
    "shards": (make_shards, f"FSDP's shards of {RANKS} ranks, and the whole model after them", True),
    "full": (make_full, "Trainer, full fine-tuning with AdamW: three checkpoints, final model", True),
}


def make(key, options, work):
    maker, title, _ = CASES[key]
    if sys.byteorder != "little":
        raise BenchError("the files of the cases are written on little-endian machines only")
    case = Case(key, title, os.path.join(work, f"source-{key}"))
    maker(case, options)
    return case.finish()

# SPDX-License-Identifier: Apache-2.0
"""The program under test (CKPTFS), as the tests here call it, and files made by hand."""

import json
import os
import struct
import subprocess
from pathlib import Path

PROGRAM = os.environ["CKPTFS"]

os.environ.update(HF_HUB_OFFLINE="1", TRANSFORMERS_OFFLINE="1", TOKENIZERS_PARALLELISM="false")


def run(*arguments, timeout=60, **options):
    """The finished process; it has not died of a signal."""
    done = subprocess.run([PROGRAM, *map(str, arguments)], capture_output=True, text=True, errors="surrogateescape",
                          timeout=timeout, **options)
    assert done.returncode >= 0, done
    return done


def assemble(source, output, *options, **rest):
    """Assembles, which works; the output directory and what was said."""
    done = run("assemble", "--plain", source, "-o", output, *options, **rest)
    assert done.returncode == 0, done.stderr
    return Path(output), done


def refuse(source, output, *options, code=1, **rest):
    """Assembling fails, with this code, and leaves nothing; the messages."""
    there = sorted(os.listdir(output)) if os.path.isdir(output) else None
    done = run("assemble", "--plain", source, "-o", output, *options, **rest)
    assert done.returncode == code, done
    assert done.stderr.strip(), "no message"
    assert (sorted(os.listdir(output)) if os.path.isdir(output) else None) == there
    return done.stderr


def inspect(path, *options):
    """What inspect --json says."""
    done = run("inspect", "--json", path, *options)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def write_safetensors(path, header, data=b"", length=None):
    """A file with this header: a dict, or bytes."""
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    Path(path).write_bytes(struct.pack("<Q", len(text) if length is None else length) + text + data)

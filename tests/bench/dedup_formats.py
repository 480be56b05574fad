# SPDX-License-Identifier: Apache-2.0
"""Model files, byte for byte as safetensors and torch.save write them, and how files divide into pieces.

A model is a dictionary: the tensor's name -> (shape, bytes), all of 32-bit floats. A writer yields a file's pieces in
order: each tensor is one piece, so that the caller can tell what two files have in common.
"""

import collections
import io
import json
import os
import pickle
import struct
import sys
import types
import zipfile
import zlib

TORCH_ALIGNMENT = 64
ZIP_LOCAL, ZIP_DESCRIPTOR, ZIP_CENTRAL, ZIP_END = b"PK\3\4", b"PK\7\x08", b"PK\1\2", b"PK\5\6"
ZIP64_END, ZIP64_LOCATOR = b"PK\6\6", b"PK\6\7"
ZIP_FLAGS = 0x0808  # sizes after the data; names are UTF-8
ZIP_LOCAL_BYTES = 30
SAFETENSORS_HEADER_MAX = 100 << 20

# -- safetensors ------------------------------------------------------------------------------------------------


def safetensors_pieces(model, metadata):
    """As safetensors.torch.save_file: names sorted, compact JSON, padded with spaces to eight bytes."""
    header, offset = {"__metadata__": metadata}, 0
    for name in sorted(model):
        shape, data = model[name]
        header[name] = {"dtype": "F32", "shape": shape, "data_offsets": [offset, offset + len(data)]}
        offset += len(data)
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    yield struct.pack("<Q", len(text)) + text
    for name in sorted(model):
        yield model[name][1]


# -- torch.save -------------------------------------------------------------------------------------------------


class FloatStorage:
    """Stands for torch.FloatStorage in a pickle."""

    def __init__(self, key, count):
        self.persistent_id = ("storage", FloatStorage, key, "cpu", count)


def _rebuild_tensor_v2():
    """Stands for torch's function of that name in a pickle."""


class Tensor:
    """Stands for torch.Tensor in a pickle."""

    def __init__(self, key, shape, count):
        self.storage = FloatStorage(key, count)
        self.shape = tuple(shape)

    def strides(self):
        strides = [1]
        for length in reversed(self.shape[1:]):
            strides.insert(0, strides[0] * length)
        return tuple(strides)

    def __reduce_ex__(self, protocol):
        hooks = collections.OrderedDict()
        return _rebuild_tensor_v2, (self.storage, 0, self.shape, self.strides(), False, hooks)


class TorchPickler(pickle.Pickler):
    """Storages become references to the archive's entries."""

    def persistent_id(self, obj):
        return obj.persistent_id if isinstance(obj, FloatStorage) else None


def torch_pickle(model):
    """The entry data.pkl. For the time of the call, modules of torch's names hold what stands for torch's own."""
    names = {"torch": FloatStorage, "torch._utils": _rebuild_tensor_v2}
    kept = {name: sys.modules.get(name) for name in names}
    for name, thing in names.items():
        thing.__module__ = name
        sys.modules[name] = types.ModuleType(name)
        setattr(sys.modules[name], thing.__name__, thing)
    try:
        text = io.BytesIO()
        tensors = {name: Tensor(str(i), shape, len(data) // 4) for i, (name, (shape, data)) in enumerate(model.items())}
        TorchPickler(text, protocol=2).dump(tensors)
        return text.getvalue()
    finally:
        for name, module in kept.items():
            if module is None:
                del sys.modules[name]
            else:
                sys.modules[name] = module


def torch_entries(model):
    yield "data.pkl", torch_pickle(model)
    yield ".format_version", b"1"
    yield ".storage_alignment", str(TORCH_ALIGNMENT).encode()
    yield "byteorder", b"little"
    for i, (_, data) in enumerate(model.values()):
        yield f"data/{i}", data
    yield "version", b"3\n"
    yield ".data/serialization_id", f"{zlib.crc32(torch_pickle(model)):040d}".encode()


def torch_padding(offset):
    """The extra field that aligns what follows it; it is there even when nothing is left to align."""
    length = TORCH_ALIGNMENT - (offset + 4) % TORCH_ALIGNMENT
    return b"FB" + struct.pack("<H", length) + b"Z" * length


def torch_pieces(model, archive):
    """As torch 2.13 saves a dictionary of tensors into ARCHIVE.bin: a zip of stored entries, data aligned to 64 bytes.

    Only the serialization id is another number: torch computes it from names and checksums.
    """
    offset, directory, count = 0, b"", 0
    for name, data in torch_entries(model):
        path = f"{archive}/{name}".encode()
        extra = torch_padding(offset + ZIP_LOCAL_BYTES + len(path))
        local = ZIP_LOCAL + struct.pack("<5H3I2H", 0, ZIP_FLAGS, 0, 0, 0, 0, 0, 0, len(path), len(extra))
        sizes = struct.pack("<3I", zlib.crc32(data), len(data), len(data))
        directory += ZIP_CENTRAL + struct.pack("<6H", 0, 0, ZIP_FLAGS, 0, 0, 0) + sizes
        directory += struct.pack("<5H2I", len(path), 0, 0, 0, 0, 0, offset) + path
        yield local + path + extra
        yield data
        yield ZIP_DESCRIPTOR + sizes
        offset += len(local) + len(path) + len(extra) + len(data) + len(ZIP_DESCRIPTOR) + len(sizes)
        count += 1
    end = offset + len(directory)
    yield directory
    yield ZIP64_END + struct.pack("<Q2H2I4Q", 44, 0x31E, 45, 0, 0, count, count, len(directory), offset)
    yield ZIP64_LOCATOR + struct.pack("<IQI", 0, end, 1)
    yield ZIP_END + struct.pack("<4H2IH", 0, 0, count, count, len(directory), offset, 0)


# -- the pieces of a file that somebody else wrote --------------------------------------------------------------


def safetensors_ranges(fd, size):
    """(offset, length) of each tensor, or None when it is no safetensors file."""
    try:
        (length,) = struct.unpack("<Q", os.pread(fd, 8, 0))
        if length > min(size - 8, SAFETENSORS_HEADER_MAX):
            return None
        tensors = json.loads(os.pread(fd, length, 8))
        offsets = [tensor["data_offsets"] for name, tensor in tensors.items() if name != "__metadata__"]
        return [(8 + length + begin, end - begin) for begin, end in offsets]
    except (struct.error, ValueError, TypeError, KeyError, AttributeError):
        return None


def zip_ranges(path, fd):
    """(offset, length) of each stored entry's data, or None when it is no zip."""
    if not zipfile.is_zipfile(path):
        return None
    ranges = []
    with zipfile.ZipFile(path) as archive:
        for entry in archive.infolist():
            name, extra = struct.unpack("<2H", os.pread(fd, 4, entry.header_offset + 26))
            ranges.append((entry.header_offset + ZIP_LOCAL_BYTES + name + extra, entry.compress_size))
    return ranges


def file_pieces(path):
    """A file's bytes: each tensor is a piece, so is what lies between two of them, or the whole of another file."""
    with open(path, "rb") as file:
        fd, size, done = file.fileno(), os.path.getsize(path), 0
        ranges = safetensors_ranges(fd, size) or zip_ranges(path, fd) or []
        for offset, length in sorted(ranges) + [(size, 0)]:
            if offset > done:
                yield os.pread(fd, offset - done, done)
            yield os.pread(fd, length, offset)
            done = max(done, offset + length)

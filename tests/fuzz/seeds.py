#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Writes small valid files for the fuzz targets: seeds.py TARGET DIRECTORY"""

import collections
import io
import json
import pathlib
import pickle
import struct
import sys
import zipfile
import zlib


def safetensors(tensors, metadata=None, padding=0, tail=0):
    header = {"__metadata__": metadata} if metadata else {}
    at = 0
    for name, dtype, shape, size in tensors:
        header[name] = {"dtype": dtype, "shape": shape, "data_offsets": [at, at + size]}
        at += size
    text = json.dumps(header, separators=(",", ":")).encode() + b" " * padding
    return struct.pack("<Q", len(text)) + text + bytes(range(256))[:at] + b"x" * tail


class TorchArchive:
    """A zip archive as torch.save writes it: data aligned to 64, sizes in descriptors, zip64 records."""

    def __init__(self, alignment=64, crc=True, zip64=False):
        self.alignment, self.crc, self.zip64 = alignment, crc, zip64
        self.bytes, self.directory, self.count = b"", b"", 0

    def add(self, name, data):
        name = name.encode()
        offset = len(self.bytes)
        padding = -(offset + 30 + len(name) + 4) % self.alignment
        extra = struct.pack("<HH", 0x4246, padding) + b"Z" * padding
        crc = zlib.crc32(data) if self.crc else 0
        size, place, extra64, width = len(data), offset, b"", "I"
        if self.zip64:
            extra64 = struct.pack("<HHQQQ", 1, 24, size, size, offset)
            size, place, width = 0xFFFFFFFF, 0xFFFFFFFF, "Q"
        self.bytes += struct.pack("<IHHHIIIIHH", 0x04034B50, 0, 0x808, 0, 0, 0, 0, 0, len(name), len(extra))
        self.bytes += name + extra + data
        self.bytes += struct.pack("<II2" + width, 0x08074B50, crc, len(data), len(data))
        self.directory += struct.pack("<IHHHHIIIIHHHHHII", 0x02014B50, 0, 0, 0x808, 0, 0, crc, size, size,
                                      len(name), len(extra64), 0, 0, 0, 0, place)
        self.directory += name + extra64
        self.count += 1
        return self

    def finish(self):
        start, size = len(self.bytes), len(self.directory)
        end64 = struct.pack("<IQHHIIQQQQ", 0x06064B50, 44, 0, 0, 0, 0, self.count, self.count, size, start)
        locator = struct.pack("<IIQI", 0x07064B50, 0, start + size, 1)
        end = struct.pack("<IHHHHIIH", 0x06054B50, 0, 0, self.count, self.count, size, start, 0)
        return self.bytes + self.directory + end64 + locator + end


def torch_zip(size=40, **options):
    archive = TorchArchive(**options)
    archive.add("archive/data.pkl", b"\x80\x02}q\x00.")
    archive.add("archive/byteorder", b"little")
    archive.add("archive/data/0", bytes(range(size)))
    return archive.add("archive/version", b"3\n").finish()


def plain_zip(method):
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", method) as archive:
        archive.writestr("arr_0.npy", b"\x93NUMPY" * 20)
        archive.writestr("arr_1.npy", b"")
    return file.getvalue()


def format_segments():
    yield safetensors([])
    yield safetensors([("a", "F32", [2], 8)])
    yield safetensors([("b.weight", "BF16", [2, 2], 8), ("empty", "F32", [0], 0), ("m", "BOOL", [], 1)],
                      {"format": "pt"}, padding=5)
    yield safetensors([("a", "U8", [3], 3)], {"a": 'x"\\\n\u00e9'}, tail=9)
    yield torch_zip()
    yield torch_zip(size=0, crc=False)
    yield torch_zip(alignment=16, zip64=True)
    yield torch_zip() + torch_zip(size=9) + torch_zip(size=0)
    yield torch_zip()[:300] + torch_zip(size=9)
    yield plain_zip(zipfile.ZIP_STORED)
    yield plain_zip(zipfile.ZIP_DEFLATED)


class Opaque:
    """An object that pickles as a call of any global, with a state; nothing of that name has to be there."""

    def __init__(self, name, *arguments, state=None):
        self.name, self.arguments, self.state = name, arguments, state


class Storage(Opaque):
    """What a persistent id is made of."""


class Pickler(pickle._Pickler):  # the one in Python: the other cannot write a global that is not there
    def persistent_id(self, obj):
        if not isinstance(obj, Storage):
            return None
        return ("storage", Opaque("torch " + obj.name)) + obj.arguments

    def save(self, obj, **options):
        if not isinstance(obj, Opaque) or isinstance(obj, Storage):
            return super().save(obj, **options)
        module, name = obj.name.split()
        if self.proto >= 4:
            super().save(module)
            super().save(name)
            self.write(pickle.STACK_GLOBAL)
        else:
            self.write(pickle.GLOBAL + module.encode() + b"\n" + name.encode() + b"\n")
        if obj.arguments:
            super().save(obj.arguments)
            self.write(pickle.REDUCE)
        if obj.state is not None:
            super().save(obj.state)
            self.write(pickle.BUILD)
        return None


def pickled(obj, protocol=2):
    file = io.BytesIO()
    Pickler(file, protocol).dump(obj)
    return file.getvalue()


def tensor(key="0", sizes=(2, 3), strides=(3, 1), offset=0, kind="FloatStorage", count=6, dtype=None, legacy=False):
    storage = Storage(kind, key, "cpu", count, *([None] if legacy else []))
    arguments = (storage, offset, sizes, strides, False, collections.OrderedDict())
    if dtype:
        return Opaque("torch._utils _rebuild_tensor_v3", *arguments, Opaque("torch " + dtype))
    return Opaque("torch._utils _rebuild_tensor_v2", *arguments)


def state_dict(legacy=False):
    plain = tensor(legacy=legacy)
    parameter = Opaque("torch._utils _rebuild_parameter_with_state", plain, True, collections.OrderedDict(), {"a": 1})
    local = Opaque("torch._tensor _rebuild_from_type_v2", Opaque("torch._utils _rebuild_tensor_v2"),
                   Opaque("torch Tensor"), plain.arguments, {"_local_tensor": plain})
    small = tensor("1", (4,), (1,), 2, "UntypedStorage", 8, "float8_e4m3fn", legacy)
    rows = {"weight": plain, "turned": tensor(sizes=(3, 2), strides=(1, 3), legacy=legacy), "parameter": parameter}
    state = collections.OrderedDict(rows, small=small, local=local, scalar=tensor("1", (), (), 1, "ByteStorage", 8,
                                                                                   legacy=legacy))
    return {"module": state, "step": 3, "size": Opaque("torch Size", (2, 3)), "dtype": Opaque("torch float32")}


def format_pickle():
    cyclic = [1]
    cyclic.append(cyclic)
    values = [None, True, False, 0, -1, 255, 65536, -(2**31), 2**63, -(2**80), 1.5, "a\u00e9\n\U0001f600", b"\0\xff",
              bytearray(b"b"), (), (1,), (1, 2), (1, 2, 3), (1, 2, 3, 4), [], [[]], {}, {"a": {"b": 1}}, {1, 2},
              frozenset([3]), cyclic, collections.OrderedDict(a=1), collections.defaultdict(int, a=1),
              collections.Counter("aab"), pathlib.PurePosixPath("a/b"), slice(1, 2), complex(1, 2),
              Opaque("a.b C", 1, state={"key": 2}), Opaque("a.b D", 1, state=(None, {"key": 2}))]
    for protocol in range(6):
        yield pickled(values, protocol)
        yield pickled({"key": values[:12], "state": {str(i): i for i in range(40)}}, protocol)
    yield b"(I01\nL-5L\nF1.5\nS'a\\x41\\n'\nVa\\u00e9\np0\ng0\n(lp1\nI2\na(dS'k'\nNs(ic\nd\n(NoP5\nt."
    yield b"\x80\x02(\x82\x01\x83\x01\x00\x84\x01\x00\x00\x00N02(N1t."
    yield b"\x80\x05(\x97\x98\x8f(K\x01\x90(K\x01\x91t."
    yield b"\x80\x04cm\nC\n)}\x92}\x8c\x03keyNsb."


def torch_archive(obj, protocol=2, order=b"little", **options):
    archive = TorchArchive(**options).add("a/data.pkl", pickled(obj, protocol)).add("a/byteorder", order)
    return archive.add("a/data/0", bytes(range(24))).add("a/data/1", bytes(8)).add("a/version", b"3\n").finish()


def torch_legacy(protocol=2):
    system = {"protocol_version": 1001, "little_endian": True, "type_sizes": {"short": 2, "int": 4, "long": 4}}
    parts = [0x1950A86A20F9469CFC6C, 1001, system, state_dict(True), ["0", "1"]]
    storages = struct.pack("<q", 6) + bytes(range(24)) + struct.pack("<q", 8) + bytes(8)
    return b"".join(pickled(part, protocol) for part in parts) + storages


def format_torch():
    for protocol in (1, 2, 4, 5):
        yield torch_archive(state_dict(), protocol)
        yield torch_legacy(protocol)
    yield torch_archive(state_dict(), zip64=True, alignment=16)
    yield torch_archive(state_dict(), order=b"big")
    yield torch_archive(tensor("2"))
    yield torch_archive(tensor(sizes=(2**62, 4)), crc=False)
    yield torch_archive(Opaque("torch._utils _rebuild_sparse_tensor", 1))
    yield TorchArchive().add("a/constants.pkl", b"\x80\x02).").finish()
    yield plain_zip(zipfile.ZIP_DEFLATED)


def format_safetensors():
    widths = {"BOOL": 8, "F4": 4, "F6_E2M3": 6, "F6_E3M2": 6, "U8": 8, "I8": 8, "F8_E5M2": 8, "F8_E4M3": 8,
              "F8_E8M0": 8, "F8_E4M3FNUZ": 8, "F8_E5M2FNUZ": 8, "I16": 16, "U16": 16, "F16": 16, "BF16": 16, "I32": 32,
              "U32": 32, "F32": 32, "C64": 64, "F64": 64, "I64": 64, "U64": 64}
    yield safetensors([])
    yield safetensors([(name, name, [2, 4], bits) for name, bits in widths.items() if bits <= 16], {"format": "pt"})
    yield safetensors([(name, name, [1, 1], bits // 8) for name, bits in widths.items() if bits > 16], padding=3)
    yield safetensors([("scalar", "F32", [], 4), ("empty", "I64", [0, 7], 0), ("\U0001f600\u00e9\"\\\n", "U8", [3], 3)],
                      {"k\u00e9": "v\"\\\n"})
    yield safetensors([("gap", "F32", [2], 9)])
    yield json.dumps({"metadata": {"total_size": 12}, "weight_map": {"b\u00e9": "model-00002-of-00002.safetensors",
                      "a": "model-00001-of-00002.safetensors"}}).encode()
    yield b'{"metadata":{"total_size":1.5e3,"x":[null]},"weight_map":{"a":"../b"}}'


DCP = "torch.distributed.checkpoint.metadata "


def torch_size(*sizes):
    return Opaque("torch Size", sizes)


def dcp_tensor(sizes, *boxes, dtype="float32"):
    chunks = [Opaque(DCP + "ChunkStorageMetadata", 0, state={"offsets": torch_size(*starts), "sizes": torch_size(*box)})
              for starts, box in boxes]
    properties = Opaque(DCP + "TensorProperties", 0, state=(Opaque("torch " + dtype), None, False, None, False))
    return Opaque(DCP + "TensorStorageMetadata", 0,
                  state={"properties": properties, "size": torch_size(*sizes), "chunks": chunks})


def dcp_metadata(items, places, paths=None):
    storage = [(Opaque(DCP + "MetadataIndex", 0, state={"fqn": name, "index": None, "offset": starts}),
                Opaque("torch.distributed.checkpoint.filesystem _StorageInfo", 0,
                       state={"relative_path": file, "offset": offset, "length": length, **more}))
               for name, starts, file, offset, length, more in places]
    # Objects of one class are told apart by their identity here: a dictionary takes each.
    return Opaque(DCP + "Metadata", 0, state={"state_dict_metadata": items, "planner_data": paths,
                                              "storage_data": dict(storage), "version": "1.0.0"})


def format_dcp_metadata():
    items = {"model.a": dcp_tensor((4, 2), ((0, 0), (3, 2)), ((3, 0), (1, 2)), ((4, 0), (0, 2))),
             "model.s": dcp_tensor((), ((), ()), dtype="int64"),
             "epoch": Opaque(DCP + "BytesStorageMetadata", 0, state={}),
             "model.h": dcp_tensor((2, 3), ((0, 0), (2, 3)), dtype="float4_e2m1fn_x2"),
             "model.q": dcp_tensor((1,), ((0,), (1,)), dtype="quint8")}
    places = [("model.a", torch_size(0, 0), "__0_0.distcp", 0, 700, {}),
              ("model.a", torch_size(3, 0), "__1_0.distcp", 0, 600, {"transform_descriptors": ["zstd"]}),
              ("model.s", None, "__0_0.distcp", 700, 500, {"transform_descriptors": None})]
    paths = {"model.a": ("model", "a"), "model.s": ("model", "s"), "epoch": ("epoch",), "model.h": ("model", 1, "h")}
    for protocol in (2, 4, 5):
        yield pickled(dcp_metadata(items, places, paths), protocol)
        yield pickled(dcp_metadata({"a": items["model.a"]}, places[:1]), protocol)
    yield pickled(dcp_metadata(items, [("model.a", torch_size(0, 0), "../x", 0, 700, {})]))
    yield pickled(dcp_metadata(items, [("model.a", torch_size(0, 0), "x", 2**63 - 1, 1, {})]))
    yield pickled(dcp_metadata(items, places + places[:1]))
    yield pickled(dcp_metadata({"a": dcp_tensor((4,), ((3,), (2,)))}, []))


def folder(*files):
    """Files by the number that fuzz_ckpt_model.c gives their names."""
    return b"".join(struct.pack("<BH", number, len(data)) + data for number, data in files)


def dcp_folder():
    """The files of pytorch_model_fsdp_0, by their numbers."""
    parts = [torch_archive(tensor(sizes=(rows, 3), strides=(3, 1))) for rows in (1, 1)]
    places = [("model.w", torch_size(row, 0), f"__{row}_0.distcp", 0, len(part), {}) for row, part in enumerate(parts)]
    items = {"model.w": dcp_tensor((2, 3), ((0, 0), (1, 3)), ((1, 0), (1, 3)))}
    yield 13, pickled(dcp_metadata(items, places, {"model.w": ("model", "w")}), 4)
    yield 14, parts[0]
    yield 15, parts[1]


def dcp_shard(start, rows):
    info = json.dumps({"w": {"saved_offsets": [start, 0]}})
    return safetensors([("w", "F32", [rows, 2], rows * 8)], {"DCP_SHARDING_INFO": info, "format": "pt"})


def dtensor(rank, rows, ranks):
    """Of three rows of one element: two on the first rank, one on the second."""
    name = "torch.distributed.tensor"
    axis = Opaque("torch.distributed._mesh_layout _FlatLayout", 0, state={"shape": (ranks,), "stride": (1,)})
    mesh = Opaque("torch.distributed.device_mesh DeviceMesh", 0, state={
        "_layout": Opaque("torch.distributed._mesh_layout _MeshLayout", 0, state={"axes": (axis,)}),
        "_coordinate_on_dim": (rank,)})
    split = Opaque(name + ".placement_types _StridedShard", 0, state={"dim": 0, "split_factor": 1})
    meta = Opaque(name + "._dtensor_spec TensorMeta", torch_size(rows, 1), (1, 1), Opaque("torch float32"))
    spec = Opaque(name + "._dtensor_spec DTensorSpec", 0,
                  state={"mesh": mesh, "placements": (split,), "tensor_meta": meta, "shard_order": None})
    local = tensor(sizes=(2 - rank, 1), strides=(1, 1))
    return Opaque("torch._tensor _rebuild_from_type_v2", Opaque("torch._utils _rebuild_wrapper_subclass"),
                  Opaque(name + " DTensor"), (), {"_local_tensor": local, "_spec": spec})


def sharded_tensor(rank):
    name = "torch.distributed._shard."
    place = Opaque(name + "metadata ShardMetadata", 0,
                   state=(None, {"shard_offsets": [2 * rank], "shard_sizes": [2 - rank]}))
    shard = Opaque(name + "sharded_tensor.shard Shard", 0,
                   state=(None, {"tensor": tensor(sizes=(2 - rank,), strides=(1,)), "metadata": place}))
    properties = Opaque(name + "sharded_tensor.metadata TensorProperties", 0, state=(Opaque("torch float32"), None))
    metadata = Opaque(name + "sharded_tensor.metadata ShardedTensorMetadata", 0,
                      state={"size": torch_size(3), "tensor_properties": properties})
    return Opaque("torch._tensor _rebuild_from_type_v2", Opaque("torch._utils _rebuild_wrapper_subclass"),
                  Opaque(name + "sharded_tensor.api ShardedTensor"), (), ([shard], metadata, None, None, True))


def flat(count, offset=0):
    return tensor(sizes=(count,), strides=(1,), offset=offset)


def deepspeed_states(zero_stage, **more):
    """Two ranks, one parameter of six elements, a buffer, one of which is frozen."""
    small = tensor("1", (2,), (1,), 0, "FloatStorage", 2)
    fragment = small if zero_stage < 3 else tensor("1", (1,), (1,), 0, "FloatStorage", 2)
    parameter = tensor() if zero_stage < 3 else flat(0)
    return {"module": collections.OrderedDict(a=parameter, b=small, tied=parameter), "buffer_names": ["b"],
            "param_shapes": [collections.OrderedDict(a=Opaque("torch Size", (2, 3)))], "shared_params": {"tied": "a"},
            "frozen_param_shapes": {"c": Opaque("torch Size", (2,))}, "frozen_param_fragments": {"c": fragment},
            "ds_config": {"zero_optimization": {"stage": zero_stage}}, "global_steps": 5, "dp_world_size": 2, **more}


def deepspeed_optimizer(zero_stage, rank, **more):
    address = Opaque("deepspeed.utils.tensor_fragment fragment_address", 0, state={"start": 0, "numel": 3})
    groups = "fp32_flat_groups" if zero_stage == 3 else "single_partition_of_fp32_groups"
    count = 2 if zero_stage == 3 else [2]
    stage = Opaque("deepspeed.runtime.zero.config ZeroStageEnum", zero_stage)
    return {"optimizer_state_dict": {"zero_stage": stage, "partition_count": count, groups: [flat(3, 3 * rank)],
                                     "param_slice_mappings": [{"a": address}], "param_alignment_paddings": [[0]], **more},
            "ds_config": {"zero_optimization": {"round_robin_gradients": False}}}


def deepspeed_slices(rank):
    pieces = [{"shape": [1, 3], "source": [3 * number, [3, 1]], "dest": [0, [3, 1]], "locations": [number]}
              for number in range(2)]
    ranks = {number: {"shard_shape": [1, 3], "pieces": [piece]} for number, piece in enumerate(pieces)}
    info = {"affine_map": {"version": 1, "params": {"^a\\.w$": {"logical_shape": [2, 3], "ranks": ranks}}}}
    module = {"a.w": tensor(sizes=(1, 3), offset=3 * rank)}
    return {"module": module, "universal_checkpoint_info": info, "mp_world_size": 2}


def ckpt_deepspeed():
    masters = 4 * 33  # of the first file's number: the FP32 copy is asked for
    for first in (0, masters):
        yield folder((first + 16, torch_archive(deepspeed_states(2))), *[
            (18 + rank, torch_archive(deepspeed_optimizer(2, rank))) for rank in range(2)])
    yield folder((17, torch_archive(deepspeed_states(3))), (21, torch_archive(deepspeed_states(3))), *[
        (18 + rank, torch_archive(deepspeed_optimizer(3, rank))) for rank in range(2)])
    yield folder((16, torch_archive(deepspeed_slices(0))), (20, torch_archive(deepspeed_slices(1))))
    yield folder((22, torch_archive({"weight": tensor()})), (16, torch_archive(deepspeed_states(1, module=None))))


def ckpt_xla_fsdp():
    names = "_fsdp_wrapped_module.flat_param_0", "_fsdp_wrapped_module.b"
    key = "_fsdp_shard." + names[0]
    shards = {key.replace(".", "_FSDP_SHARD_SEPARATOR_"): {"_orig_size": Opaque("torch Size", (5,)),
                                                             "_orig_name": names[0]}}
    parts = (["a", "c.d"], [Opaque("torch Size", (2, 2)), Opaque("torch Size", (1,))], [4, 1])
    files = []
    for rank in range(2):
        state = collections.OrderedDict([(next(iter(shards)), flat(3, 3 * rank)), (names[1], flat(2))])
        metadata = {"shard_info": {"": shards}, "flatten_info": {names[0]: parts}, "world_size": 2, "rank": rank,
                    "buffer_info": {names[1]: {"_orig_dtype": Opaque("torch bfloat16")}}}
        files.append((23 + rank, torch_archive({"model": state, "shard_metadata": metadata})))
    yield folder(*files)


def ckpt_model():
    shards = [safetensors([("a", "F32", [2, 3], 24)]), safetensors([("b\u00e9", "BF16", [4], 8), ("c", "I64", [], 8)])]
    names = [f"model-0000{number}-of-00002.safetensors" for number in (1, 2)]
    index = {"metadata": {"total_size": 40}, "weight_map": {"a": names[0], "b\u00e9": names[1], "c": names[1]}}
    tensors = {"a": tensor(), "tied": tensor(), "turned": tensor(sizes=(3, 2), strides=(1, 3)),
               "small": tensor("1", (4,), (1,), 2, "UntypedStorage", 8, "float8_e4m3fn")}
    yield folder((0, shards[1]), (9, b'{"x": NaN, "global_step": 5}'), (10, b'{"dtype": "float32"}'))
    log = [{"step": 4, "eval_loss": 1.5}, {"step": 5, "loss": float("inf"), "eval_loss": -2e-3}]
    state = {"best_global_step": 4, "best_metric": 1.5, "best_model_checkpoint": "a/checkpoint-4", "global_step": 5}
    yield folder((0, shards[0]), (9, json.dumps({**state, "log_history": log}).encode()), (10, b"{}"))
    yield folder((1, json.dumps(index).encode()), (2, shards[0]), (3, shards[1]))
    yield folder((2, shards[0]), (3, shards[1]))
    yield folder((4, torch_archive(tensors)))
    yield folder((4, torch_archive({"state_dict": tensors})))
    yield folder((8, shards[0]))
    yield folder(*dcp_folder())
    for protocol in (2, 4):
        yield folder((27, dcp_shard(0, 2)), (28, dcp_shard(2, 1)))
        yield folder(*((29 + rank, torch_archive({"w": dtensor(rank, 3, 2)}, protocol)) for rank in range(2)))
        yield folder(*((31 + rank, torch_archive({"w": sharded_tensor(rank)}, protocol)) for rank in range(2)))
        yield folder((6, torch_archive(tensors, protocol)), (7, torch_archive({"d": tensor()}, protocol)))
    yield from ckpt_deepspeed()
    yield from ckpt_xla_fsdp()


def sums_table():
    """Only something to start from: the hash at the end needs the store's secret, which the target fixes up."""
    for chunks in ([], [5], [262144, 262144, 7]):
        head = b"CKPTSUM\1" + struct.pack("<IIQq", 1, 1, len(chunks), sum(chunks)) + bytes(16)
        body = b"".join(struct.pack("<I", length | (index == 0) << 31) + bytes(range(16))
                        for index, length in enumerate(chunks))
        yield head + body + bytes(16)


TARGETS = {
    "fuzz_ckpt_model": ckpt_model,
    "fuzz_format_dcp_metadata": format_dcp_metadata,
    "fuzz_format_pickle": format_pickle,
    "fuzz_format_safetensors": format_safetensors,
    "fuzz_format_segments": format_segments,
    "fuzz_format_torch": format_torch,
    "fuzz_sums_table": sums_table,
}


def main():
    target, directory = sys.argv[1], pathlib.Path(sys.argv[2])
    directory.mkdir(parents=True, exist_ok=True)
    for number, seed in enumerate(TARGETS[target]()):
        (directory / f"seed-{number:02}").write_bytes(seed)


main()

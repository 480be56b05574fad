/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What torch.save wrote: the zip form (PyTorch, torch/serialization.py and
 * caffe2/serialize/inline_container.cc, 2.13) and the older form without a zip. The object is a tree of
 * pickle nodes; a tensor in it is found by torch_file_tensor. Nothing is run (format/pickle.h).
 *
 * One file may hold several archives (.distcp): `start` and `length` say which range is read.
 */
#ifndef CKPTFS_FORMAT_TORCH_FILE_H
#define CKPTFS_FORMAT_TORCH_FILE_H

#include "format/pickle.h"
#include "format/tensor.h"

struct torch_storage; /* key, offset in the file, length in bytes */

struct torch_file {
    struct arena arena; /* owns the nodes and everything that tensors point to */
    const struct pickle_node *root;
    struct torch_storage *storages; /* sorted by key */
    size_t storage_count;
    bool legacy;
};

/*
 * Reads the archive in [start, start + length) of the source. 0; FORMAT_FOREIGN with `problem` filled: no
 * torch.save file, damaged, compressed, big-endian, or a TorchScript archive; a negative errno. `out` is
 * given to torch_file_release in any case. Memory: at most 1 GiB, and 80 times the pickle and the zip
 * directory.
 */
int torch_file_read(const struct format_source *source, int64_t start, int64_t length, struct torch_file *out,
                    struct format_problem *problem);
void torch_file_release(struct torch_file *file);

/* Whether the source starts like one, by its first bytes: worth a torch_file_read. */
bool torch_file_is_likely(const struct format_source *source);

/*
 * The tensor that a node describes: _rebuild_tensor_v2 and _v3, _rebuild_parameter and with state,
 * _rebuild_from_type_v2, and what these wrap. Every byte that it names lies in its storage, and that in the
 * source. `out->name` is NULL. 0; FORMAT_FOREIGN with `problem` filled when it is no tensor, or one of a kind
 * that has no bytes of its own (sparse, quantized, conjugated, meta, DTensor: see torch_file_attribute).
 * float4_e2m1fn_x2 has twice the elements in its last dimension here, as safetensors counts them.
 */
int torch_file_tensor(struct torch_file *file, const struct pickle_node *node, struct tensor *out,
                      struct format_problem *problem);
/* A Python attribute of a tensor or parameter, of one of a class of its own too ("_local_tensor" of a
 * DTensor); or of any other object, as pickle_attribute. NULL: none. */
const struct pickle_node *torch_file_attribute(const struct pickle_node *node, const char *name);
/* A quick look: whether the node calls one of torch's functions that make a tensor. */
bool torch_file_is_tensor(const struct pickle_node *node);

/* The bytes of the storage that the tensor lies in: views of one storage share it. -1: it is no tensor of the
 * kinds that torch_file_tensor understands. */
int64_t torch_file_storage_offset(struct torch_file *file, const struct pickle_node *node, int64_t *length);

#define cleanup_torch_file __attribute__((cleanup(torch_file_release)))

#endif

/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What an XLA FSDP checkpoint says of its shards: the `shard_metadata` beside each rank's state dict
 * (torch_xla/distributed/fsdp/xla_fully_sharded_data_parallel.py, get_shard_metadata, and
 * state_dict_utils.py, 2.9). Looks at nodes only; they outlive what is read here.
 *
 * Functions return 0; FORMAT_FOREIGN with `problem` filled; or -ENOMEM.
 */
#ifndef CKPTFS_FORMAT_XLA_METADATA_H
#define CKPTFS_FORMAT_XLA_METADATA_H

#include "base/name_table.h"
#include "format/pickle.h"
#include "format/tensor.h"

/* A parameter that is divided between the ranks. */
struct xla_shard {
    const char *name; /* of the whole parameter, with the module's in front */
    struct tensor_shape shape;
    int64_t count; /* elements */
};

/* One of the parameters that lie one behind the other in a flat one. */
struct xla_part {
    const char *name;
    struct tensor_shape shape;
    int64_t count;
};

struct xla_metadata {
    int64_t world_size, rank;
    struct xla_shard *shards;
    struct name_table shards_by_key; /* by the key of the state dict */
    const struct pickle_node *flat;  /* a dict from a flat parameter's name to what is in it */
    struct name_table flat_by_name;
    const struct pickle_node *buffers;
    struct name_table buffers_by_name;
};

/* `node`: the value of "shard_metadata". `out` is given to xla_metadata_release in any case. */
int xla_metadata_read(const struct pickle_node *node, struct arena *arena, struct xla_metadata *out,
                      struct format_problem *problem);
void xla_metadata_release(struct xla_metadata *metadata);

/* Only "world_size" and "rank". */
int xla_metadata_read_rank(const struct pickle_node *node, struct xla_metadata *out,
                           struct format_problem *problem);
/* Whether the key of a state dict is that of a shard: a component of it begins with _fsdp_shard. */
bool xla_is_shard_key(const char *key);
/* The shard of that key; NULL: the metadata do not have it. */
const struct xla_shard *xla_find_shard(const struct xla_metadata *metadata, const char *key);
/* Whether a parameter of that name is a flat one, by its name alone. */
bool xla_is_flat_name(const char *name);
/* What is in it, as many as *count. */
int xla_read_flat(const struct xla_metadata *metadata, const char *name, struct arena *arena,
                  struct xla_part **out, size_t *count, struct format_problem *problem);
/* The type that a buffer had before it was cast for the device; false: nothing is said about it. */
bool xla_buffer_type(const struct xla_metadata *metadata, const char *name, enum tensor_type *type);
/* The name as the model has it, without the wrappers' components; NULL: no memory. */
const char *xla_plain_name(const char *name, struct arena *arena);

#define cleanup_xla_metadata __attribute__((cleanup(xla_metadata_release)))

#endif

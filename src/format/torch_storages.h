/* SPDX-License-Identifier: Apache-2.0 */
/* The storages of a torch.save file, by key: what fills torch_file.storages, and finds one in it. */
#ifndef CKPTFS_FORMAT_TORCH_STORAGES_H
#define CKPTFS_FORMAT_TORCH_STORAGES_H

#include "format/torch_file.h"

struct torch_storage {
    const char *key;
    size_t key_length;
    int64_t offset, length; /* of its bytes in the source; offset -1: the file has none */
};

/* The file's own memory bound. */
#define TORCH_FILE_MEMORY ((size_t)1 << 30)

/* Sorts by key; FORMAT_FOREIGN when two are equal. */
int torch_storages_sort(struct torch_file *file, struct format_problem *problem);
struct torch_storage *torch_storages_find(const struct torch_file *file, const char *key, size_t length);

/* The class that a persistent id names, as the type of its elements: any module, as torch.load has it. */
bool torch_storage_type(const struct pickle_node *class, enum tensor_type *type);
/* A persistent id ("storage", class, key, location, numel[, view]): its key, type and bytes. */
int torch_storage_reference(const struct pickle_node *node, const struct pickle_node **key,
                            enum tensor_type *type, int64_t *bytes, struct format_problem *problem);

/* The two forms of a file: each fills root and storages. */
int torch_archive_read(const struct format_source *source, int64_t start, int64_t length,
                       struct torch_file *file, struct format_problem *problem);
int torch_legacy_read(const struct format_source *source, int64_t start, int64_t length,
                      struct torch_file *file, struct format_problem *problem);
/* Whether the bytes start with the number that the older form starts with. */
bool torch_legacy_is_likely(const struct format_source *source, int64_t start, int64_t length);

#endif

/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A folder in memory, for tests of what reads checkpoints; and the bytes of a plan's file.
 */
#ifndef CKPTFS_TESTS_UNIT_TEST_CKPT_FOLDER_H
#define CKPTFS_TESTS_UNIT_TEST_CKPT_FOLDER_H

#include "ckpt/assemble.h"
#include "ckpt/folder.h"

enum { MEMORY_FILES_MAX = 64 };

struct memory_file {
    const char *path;
    const uint8_t *bytes; /* NULL: zeros */
    int64_t size;
};

struct memory_folder {
    struct memory_file files[MEMORY_FILES_MAX];
    size_t count;
};

void memory_folder_add(struct memory_folder *memory, const char *path, const void *bytes, int64_t size);
/* The file of that path; NULL: none. */
const struct memory_file *memory_folder_find(const struct memory_folder *memory, const char *path);
struct folder memory_folder_open(struct memory_folder *memory);

/* A file of a plan as a source: what it will be when it is written. */
struct plan_reader {
    struct memory_folder *memory;
    const struct model *model;
    const struct assemble_file *file;
};
errint plan_reader_read(void *context, void *buffer, size_t length, int64_t offset);
struct format_source plan_reader_source(struct plan_reader *reader);

#endif

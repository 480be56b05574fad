/* SPDX-License-Identifier: Apache-2.0 */
/* The fuzzer's bytes as a source that ends the program at a read outside of them. */
#ifndef CKPTFS_TESTS_FUZZ_SOURCE_H
#define CKPTFS_TESTS_FUZZ_SOURCE_H

#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "format/source.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

struct fuzz_input {
    const uint8_t *data;
    size_t size;
};

static errint fuzz_read(void *context, void *buffer, size_t length, int64_t offset)
{
    const struct fuzz_input *input = context;
    if (length == 0 || offset < 0 || (uint64_t)offset > input->size || length > input->size - (size_t)offset)
        abort();
    memcpy(buffer, input->data + offset, length);
    return 0;
}

static inline struct format_source fuzz_source(struct fuzz_input *input)
{
    return (struct format_source){.context = input, .size = (int64_t)input->size, .read = fuzz_read};
}

#endif

/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Sizes and spans of time as people write them: "1.5GiB", "12h".
 */
#ifndef CKPTFS_BASE_QUANTITY_H
#define CKPTFS_BASE_QUANTITY_H

#include <stdbool.h>
#include <stdint.h>

/* Bytes, at least 1: "5GB", "200MB" (decimal, as huggingface_hub reads them), "1.5GiB", "10G" (binary, as df
 * writes them), or a number. False: it is none of these. */
bool quantity_parse_size(const char *text, int64_t *bytes);

/* Nanoseconds, at least a second: "90s", "30m", "12h", "7d", "2w". False: it is none of these. */
bool quantity_parse_span(const char *text, int64_t *ns);

#endif

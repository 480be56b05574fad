/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Bytes that are put together piece by piece. Starts as {0}. The first failure stays: later calls do nothing,
 * so that it may be looked at once, at the end. One thread's at a time.
 */
#ifndef CKPTFS_BASE_TEXT_H
#define CKPTFS_BASE_TEXT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/cleanup.h"

struct text {
    char *at;
    size_t length, capacity;
    bool failed; /* no memory */
};

void text_append(struct text *text, const void *bytes, size_t length);
void text_append_word(struct text *text, const char *word);
void text_append_byte(struct text *text, uint8_t byte);
/* Little-endian in `size` bytes. */
void text_append_number(struct text *text, uint64_t number, size_t size);
void text_print(struct text *text, const char *format, ...) __attribute__((format(printf, 2, 3)));
void text_release(struct text *text);

#define cleanup_text __attribute__((cleanup(text_release)))

#endif

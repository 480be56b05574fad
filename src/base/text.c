/* SPDX-License-Identifier: Apache-2.0 */
/* A growing buffer. */
#include "base/text.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>

/* Room for `length` bytes more; NULL: none. */
static char *text_reserve(struct text *text, size_t length)
{
    size_t needed = 0;
    if (text->failed || __builtin_add_overflow(text->length, length, &needed))
        text->failed = true;
    if (!text->failed && needed > text->capacity) {
        size_t capacity = needed + needed / 2 + 64;
        char *at = capacity > needed ? realloc(text->at, capacity) : NULL;
        text->failed = !at;
        if (at) {
            text->at = at;
            text->capacity = capacity;
        }
    }
    return text->failed ? NULL : text->at + text->length;
}

void text_append(struct text *text, const void *bytes, size_t length)
{
    char *at = text_reserve(text, length);
    if (!at || length == 0)
        return;
    memcpy(at, bytes, length);
    text->length += length;
}

void text_append_word(struct text *text, const char *word)
{
    text_append(text, word, strlen(word));
}

void text_append_byte(struct text *text, uint8_t byte)
{
    text_append(text, &byte, 1);
}

void text_append_number(struct text *text, uint64_t number, size_t size)
{
    for (size_t i = 0; i < size; i++)
        text_append_byte(text, i < sizeof number ? (uint8_t)(number >> (8 * i)) : 0);
}

void text_print(struct text *text, const char *format, ...)
{
    char line[256];
    va_list arguments;
    va_start(arguments, format);
    int length = vsnprintf(line, sizeof line, format, arguments);
    va_end(arguments);
    if (length >= 0 && (size_t)length < sizeof line) {
        text_append(text, line, (size_t)length);
        return;
    }
    char *at = length < 0 ? NULL : text_reserve(text, (size_t)length + 1);
    if (!at) {
        text->failed = true;
        return;
    }
    va_start(arguments, format);
    vsnprintf(at, (size_t)length + 1, format, arguments);
    va_end(arguments);
    text->length += (size_t)length;
}

void text_release(struct text *text)
{
    free(text->at);
    *text = (struct text){0};
}

/* SPDX-License-Identifier: Apache-2.0 */
/* Texts that are safe to print: C0, DEL and the C1 control characters go. */
#include "cmd/plain_text.h"

#include <stdlib.h>
#include <string.h>

#include "format/utf8.h"

/* The length of the character at `text`, at most `length`; 0: it is none, or one that steers terminals. */
static size_t plain_text_character(const char *text, size_t length)
{
    unsigned char first = (unsigned char)text[0];
    if (first < 0x20 || first == 0x7f || (first == 0xc2 && length > 1 && (unsigned char)text[1] < 0xa0))
        return 0;
    for (size_t size = 1; size <= UTF8_LONGEST && size <= length; size++) {
        if (utf8_is_valid(text, size))
            return size;
    }
    return 0;
}

char *plain_text(const char *text)
{
    size_t length = strlen(text), done = 0;
    char *copy = malloc(length + 1);
    for (size_t at = 0; copy && at < length;) {
        size_t size = plain_text_character(text + at, length - at);
        if (size == 0) {
            copy[done++] = '?';
            at++;
            continue;
        }
        memcpy(copy + done, text + at, size);
        done += size;
        at += size;
    }
    if (copy)
        copy[done] = '\0';
    return copy;
}

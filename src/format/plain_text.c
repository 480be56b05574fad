/* SPDX-License-Identifier: Apache-2.0 */
/* Texts that are safe to print: C0, DEL and the C1 control characters go. */
#include "format/plain_text.h"

#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

#include "format/utf8.h"

/* The length of the character at `text`, at most `length`; of bytes that are none, 1. `*fine`: it may be
 * shown. */
static size_t plain_text_character(const char *text, size_t length, bool *fine)
{
    unsigned char first = (unsigned char)text[0];
    *fine = false;
    for (size_t size = 1; size <= UTF8_LONGEST && size <= length; size++) {
        if (!utf8_is_valid(text, size))
            continue;
        *fine = size == 1 ? first >= 0x20 && first != 0x7f : first != 0xc2 || (unsigned char)text[1] >= 0xa0;
        return size;
    }
    return 1;
}

char *plain_text(const char *text)
{
    size_t length = strlen(text), done = 0;
    char *copy = malloc(length + 1);
    for (size_t at = 0; copy && at < length;) {
        bool fine;
        size_t size = plain_text_character(text + at, length - at, &fine);
        memcpy(copy + done, fine ? text + at : "?", fine ? size : 1);
        done += fine ? size : 1;
        at += size;
    }
    if (copy)
        copy[done] = '\0';
    return copy;
}

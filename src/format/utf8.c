/* SPDX-License-Identifier: Apache-2.0 */
/* UTF-8, judged and written. */
#include "format/utf8.h"

static bool utf8_is_character(uint32_t character)
{
    return character <= 0x10ffff && (character < 0xd800 || character > 0xdfff);
}

/* The length of the character that starts here; 0: none does. */
static size_t utf8_measure(const uint8_t *at, size_t left)
{
    static const uint32_t smallest[UTF8_LONGEST + 1] = {0, 0, 0x80, 0x800, 0x10000};
    if (at[0] < 0x80)
        return 1;
    size_t length = at[0] >= 0xf0 && at[0] < 0xf8   ? 4
                    : at[0] >= 0xe0 && at[0] < 0xf0 ? 3
                    : at[0] >= 0xc0 && at[0] < 0xe0 ? 2
                                                    : 0;
    if (length == 0 || length > left)
        return 0;
    uint32_t character = at[0] & (0x7fu >> length);
    for (size_t i = 1; i < length; i++) {
        if ((at[i] & 0xc0) != 0x80)
            return 0;
        character = character << 6 | (at[i] & 0x3f);
    }
    return character >= smallest[length] && utf8_is_character(character) ? length : 0;
}

bool utf8_is_valid(const char *text, size_t length)
{
    const uint8_t *at = (const uint8_t *)text;
    while (length > 0) {
        size_t step = utf8_measure(at, length);
        if (step == 0)
            return false;
        at += step;
        length -= step;
    }
    return true;
}

size_t utf8_encode(uint32_t character, char *out)
{
    if (!utf8_is_character(character))
        return 0;
    if (character < 0x80) {
        out[0] = (char)character;
        return 1;
    }
    size_t length = character < 0x800 ? 2 : character < 0x10000 ? 3 : 4;
    for (size_t i = length - 1; i > 0; i--) {
        out[i] = (char)(0x80 | (character & 0x3f));
        character >>= 6;
    }
    out[0] = (char)(uint8_t)(0xf00u >> length | character);
    return length;
}

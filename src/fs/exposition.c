/* SPDX-License-Identifier: Apache-2.0 */
/* Metrics as text. */
#include "fs/exposition.h"

#include <math.h>
#include <string.h>

#include "format/utf8.h"

/* Whole numbers up to here are shown as such. */
#define EXPOSITION_WHOLE 9007199254740992.0

void exposition_family(struct text *out, const char *name, const char *type, const char *help)
{
    text_print(out, "# HELP %s ", name);
    for (; *help; help++) {
        if (*help == '\\' || *help == '\n')
            text_append_word(out, *help == '\n' ? "\\n" : "\\\\");
        else
            text_append(out, help, 1);
    }
    text_print(out, "\n# TYPE %s %s\n", name, type);
}

static void exposition_value(struct text *out, double value)
{
    if (isnan(value))
        text_append_word(out, "NaN");
    else if (isinf(value))
        text_append_word(out, value > 0 ? "+Inf" : "-Inf");
    else if (fabs(value) <= EXPOSITION_WHOLE && value == (double)(int64_t)value)
        text_print(out, "%.0f", value);
    else
        text_print(out, "%.17g", value);
}

/* The length of the character that is to be shown as it is; 0: the byte is not. */
static size_t exposition_character(const char *at, size_t length)
{
    unsigned char first = (unsigned char)at[0];
    if (first < 0x20 || first == 0x7f)
        return 0;
    for (size_t size = 1; size <= UTF8_LONGEST && size <= length; size++) {
        if (utf8_is_valid(at, size))
            return first == 0xc2 && (unsigned char)at[1] < 0xa0 ? 0 : size;
    }
    return 0;
}

void exposition_label_value(struct text *out, const char *value)
{
    for (size_t length = strlen(value); length > 0;) {
        size_t size = exposition_character(value, length);
        if (size == 0 || (value[0] == '\\' && value[1] == 'x'))
            text_print(out, "\\\\x%02x", (unsigned char)value[0]);
        else if (value[0] == '\\' || value[0] == '"')
            text_print(out, "\\%c", value[0]);
        else
            text_append(out, value, size);
        value += size ? size : 1;
        length -= size ? size : 1;
    }
}

void exposition_sample(struct text *out, const char *name, const struct exposition_label *labels,
                       double value)
{
    text_append_word(out, name);
    for (size_t i = 0; labels && labels[i].name; i++) {
        text_print(out, "%s%s=\"", i ? "," : "{", labels[i].name);
        exposition_label_value(out, labels[i].value);
        text_append_word(out, "\"");
    }
    if (labels && labels[0].name)
        text_append_word(out, "}");
    text_append_word(out, " ");
    exposition_value(out, value);
    text_append_word(out, "\n");
}

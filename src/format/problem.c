/* SPDX-License-Identifier: Apache-2.0 */
/* Why a file could not be understood. */
#include "format/problem.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include "format/internal.h"
#include "format/utf8.h"

/* Names come from the file: what would not print becomes '?', and a character that was cut at the end goes.
 */
static void format_problem_clean(char *text)
{
    size_t length = strlen(text), whole = length;
    while (whole > 0 && length - whole < UTF8_LONGEST && !utf8_is_valid(text, whole))
        whole--;
    bool valid = utf8_is_valid(text, whole);
    if (valid)
        text[whole] = '\0';
    for (unsigned char *at = (unsigned char *)text; *at; at++) {
        if (*at < ' ' || *at == 0x7f || (*at >= 0x80 && !valid))
            *at = '?';
    }
}

int format_problem_set(struct format_problem *problem, int64_t offset, const char *format, ...)
{
    /* The first one is nearest to the cause. */
    if (!problem || problem->text[0])
        return FORMAT_FOREIGN;
    va_list arguments;
    va_start(arguments, format);
    int length = vsnprintf(problem->text, sizeof problem->text, format, arguments);
    va_end(arguments);
    problem->offset = offset;
    if (length < 0)
        problem->text[0] = '\0';
    format_problem_clean(problem->text);
    return FORMAT_FOREIGN;
}

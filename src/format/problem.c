/* SPDX-License-Identifier: Apache-2.0 */
/* Why a file could not be understood. */
#include "format/problem.h"

#include <stdarg.h>
#include <stdio.h>

#include "format/internal.h"

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
    for (char *at = problem->text; *at; at++) {
        if ((unsigned char)*at < ' ' || *at == 0x7f)
            *at = '?';
    }
    return FORMAT_FOREIGN;
}

/* SPDX-License-Identifier: Apache-2.0 */
/* Sizes for people. */
#include "base/size_text.h"

#include <stddef.h>
#include <stdio.h>

const char *size_text(double bytes, char *text)
{
    static const char *const units[] = {"bytes", "KiB", "MiB", "GiB", "TiB", "PiB"};
    size_t unit = 0;
    for (; bytes >= 1024 && unit + 1 < sizeof units / sizeof *units; unit++)
        bytes /= 1024;
    snprintf(text, SIZE_TEXT_MAX, "%.*f %s", unit == 0 ? 0 : 1, bytes, units[unit]);
    return text;
}

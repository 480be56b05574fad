/* SPDX-License-Identifier: Apache-2.0 */
/* A number and its unit. */
#include "base/quantity.h"

#include <stddef.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include "base/clock.h"

/* Beyond these a sum may not fit. */
#define QUANTITY_BYTES_MAX   0x1p62
#define QUANTITY_SECONDS_MAX 1e9

struct quantity_unit {
    const char *name;
    double factor;
};

/* The number times its unit; -1: it is none. */
static double quantity_parse(const char *text, const struct quantity_unit *units, size_t count)
{
    char *unit;
    /* Only what begins with a digit: strtod also knows signs, blanks and words. */
    if (*text < '0' || *text > '9' || strpbrk(text, "xX"))
        return -1;
    double number = strtod(text, &unit);
    for (size_t i = 0; i < count; i++) {
        if (strcasecmp(unit, units[i].name) == 0)
            return number * units[i].factor;
    }
    return -1;
}

bool quantity_parse_size(const char *text, int64_t *bytes)
{
    static const struct quantity_unit units[] = {
        {"", 1},         {"B", 1},        {"KB", 1e3},     {"MB", 1e6},     {"GB", 1e9},    {"TB", 1e12},
        {"PB", 1e15},    {"K", 0x1p10},   {"M", 0x1p20},   {"G", 0x1p30},   {"T", 0x1p40},  {"P", 0x1p50},
        {"KiB", 0x1p10}, {"MiB", 0x1p20}, {"GiB", 0x1p30}, {"TiB", 0x1p40}, {"PiB", 0x1p50}};
    double size = quantity_parse(text, units, sizeof units / sizeof *units);
    if (!(size >= 1 && size < QUANTITY_BYTES_MAX))
        return false;
    *bytes = (int64_t)size;
    return true;
}

bool quantity_parse_span(const char *text, int64_t *ns)
{
    static const struct quantity_unit units[] = {
        {"s", 1}, {"m", 60}, {"h", 3600}, {"d", 86400}, {"w", 604800}};
    double seconds = quantity_parse(text, units, sizeof units / sizeof *units);
    if (!(seconds >= 1 && seconds < QUANTITY_SECONDS_MAX))
        return false;
    *ns = (int64_t)(seconds * (double)CLOCK_NS_PER_SECOND);
    return true;
}

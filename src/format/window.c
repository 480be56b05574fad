/* SPDX-License-Identifier: Apache-2.0 */
/* A buffer over a range of a source. */
#include "format/window.h"

#include <errno.h>

errint window_aim(struct window *window, const struct format_source *source, int64_t start, int64_t end,
                  size_t ahead)
{
    if (!window->buffer && !(window->buffer = malloc(WINDOW_SIZE)))
        return -ENOMEM;
    window->source = source;
    window->start = start;
    window->end = end;
    window->ahead = ahead;
    window->length = 0;
    return 0;
}

int window_get(struct window *window, int64_t offset, size_t length, const uint8_t **bytes)
{
    if (offset < window->start || offset > window->end || length > WINDOW_SIZE ||
        (int64_t)length > window->end - offset)
        return FORMAT_FOREIGN;
    int64_t from = offset - window->offset;
    if (from < 0 || from > (int64_t)window->length || length > window->length - (size_t)from) {
        size_t want = length > window->ahead ? length : window->ahead;
        if ((int64_t)want > window->end - offset)
            want = (size_t)(window->end - offset);
        window->length = 0;
        errint error = window->source->read(window->source->context, window->buffer, want, offset);
        /* What is behind it may be damaged, or given up: nobody has asked for it. */
        if (error == -EIO && want > length) {
            want = length;
            error = window->source->read(window->source->context, window->buffer, want, offset);
        }
        if (error)
            return error;
        window->offset = offset;
        window->length = want;
        from = 0;
    }
    *bytes = window->buffer + from;
    return 0;
}

void window_release(struct window *window)
{
    free(window->buffer);
    *window = (struct window){0};
}

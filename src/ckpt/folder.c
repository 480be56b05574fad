/* SPDX-License-Identifier: Apache-2.0 */
/* Folders: the check of paths, sorted listings, small texts. */
#include "ckpt/folder.h"

#include <errno.h>
#include <string.h>

#include "base/grow.h"

enum { FOLDER_PATH_MAX = 4096 };

/* -- paths ------------------------------------------------------------------------------------------------
 */

bool folder_path_is_safe(const char *path)
{
    if (strlen(path) >= FOLDER_PATH_MAX)
        return false;
    for (const char *at = path; *at; at++) {
        size_t length = strcspn(at, "/");
        if (length == 0 || (length == 1 && at[0] == '.') || (length == 2 && at[0] == '.' && at[1] == '.'))
            return false;
        at += length;
        if (*at == '\0')
            return true;
    }
    /* Empty, or with a slash at the end. */
    return *path == '\0';
}

errint folder_list(const struct folder *folder, const char *path,
                   bool (*visit)(void *visit_context, const struct folder_entry *entry), void *visit_context)
{
    return folder_path_is_safe(path) ? folder->list(folder->context, path, visit, visit_context) : -EINVAL;
}

errint folder_open(const struct folder *folder, const char *path, struct format_source *out)
{
    if (*path == '\0')
        return -EISDIR;
    return folder_path_is_safe(path) ? folder->open(folder->context, path, out) : -EINVAL;
}

void folder_close(const struct folder *folder, struct format_source *source)
{
    folder->close(folder->context, source);
}

bool folder_is_shed(const struct folder *folder, const char *path)
{
    return folder->is_shed && folder_path_is_safe(path) && folder->is_shed(folder->context, path);
}

/* -- listings ---------------------------------------------------------------------------------------------
 */

static bool folder_is_digit(char byte)
{
    return byte >= '0' && byte <= '9';
}

/* Compares the numbers that both texts start with, of any length, and steps behind them. */
static int folder_compare_numbers(const char **a, const char **b)
{
    while (**a == '0')
        (*a)++;
    while (**b == '0')
        (*b)++;
    size_t a_length = strspn(*a, "0123456789"), b_length = strspn(*b, "0123456789");
    int order = (a_length > b_length) - (a_length < b_length);
    if (order == 0)
        order = memcmp(*a, *b, a_length);
    *a += a_length;
    *b += b_length;
    return order;
}

int folder_compare_names(const char *one, const char *other)
{
    const char *a = one, *b = other;
    while (*a || *b) {
        int order;
        if (folder_is_digit(*a) && folder_is_digit(*b)) {
            order = folder_compare_numbers(&a, &b);
        } else {
            order = (uint8_t)*a - (uint8_t)*b;
            a++;
            b++;
        }
        if (order != 0)
            return order;
    }
    /* "7" and "007" */
    return strcmp(one, other);
}

static int folder_compare_entries(const void *one, const void *other)
{
    const struct folder_entry *a = one, *b = other;
    return folder_compare_names(a->name, b->name);
}

struct folder_collect {
    struct folder_listing *listing;
    size_t capacity;
    errint error;
};

static bool folder_collect_entry(void *context, const struct folder_entry *entry)
{
    struct folder_collect *collect = context;
    struct folder_listing *listing = collect->listing;
    if (!grow_reserve(listing->at, collect->capacity, listing->count + 1)) {
        collect->error = -ENOMEM;
        return false;
    }
    char *name = strdup(entry->name);
    if (!name) {
        collect->error = -ENOMEM;
        return false;
    }
    listing->at[listing->count] = *entry;
    listing->at[listing->count++].name = name;
    return true;
}

errint folder_read(const struct folder *folder, const char *path, struct folder_listing *out)
{
    *out = (struct folder_listing){0};
    struct folder_collect collect = {.listing = out};
    errint error = folder_list(folder, path, folder_collect_entry, &collect);
    if (!error)
        error = collect.error;
    if (error)
        folder_listing_release(out);
    else if (out->count > 0)
        qsort(out->at, out->count, sizeof *out->at, folder_compare_entries);
    return error;
}

void folder_listing_release(struct folder_listing *listing)
{
    for (size_t i = 0; i < listing->count; i++)
        free((char *)listing->at[i].name);
    free(listing->at);
    *listing = (struct folder_listing){0};
}

const struct folder_entry *folder_find(const struct folder_listing *listing, const char *name)
{
    const struct folder_entry wanted = {.name = name};
    if (listing->count == 0)
        return NULL;
    return bsearch(&wanted, listing->at, listing->count, sizeof wanted, folder_compare_entries);
}

/* -- texts ------------------------------------------------------------------------------------------------
 */

errint folder_read_text(const struct folder *folder, const char *path, size_t limit, char **out,
                        size_t *length)
{
    struct format_source source;
    errint error = folder_open(folder, path, &source);
    if (error)
        return error;
    cleanup_free char *text = NULL;
    if ((uint64_t)source.size > limit)
        error = -EFBIG;
    else if (!(text = malloc((size_t)source.size + 1)))
        error = -ENOMEM;
    else if (source.size > 0)
        error = source.read(source.context, text, (size_t)source.size, 0);
    size_t size = (size_t)source.size;
    folder_close(folder, &source);
    if (error)
        return error;
    text[size] = '\0';
    *length = size;
    *out = steal_pointer(text);
    return 0;
}

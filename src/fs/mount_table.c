/* SPDX-License-Identifier: Apache-2.0 */
/* Reading /proc/self/mountinfo. */
#include "fs/mount_table.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* The kernel writes space, tab, newline and backslash as \ooo. In place. */
static void mount_table_unescape(char *text)
{
    char *to = text;
    for (const char *from = text; *from;) {
        if (from[0] == '\\' && from[1] >= '0' && from[1] <= '3' && from[2] >= '0' && from[2] <= '7' &&
            from[3] >= '0' && from[3] <= '7') {
            *to++ = (char)((from[1] - '0') << 6 | (from[2] - '0') << 3 | (from[3] - '0'));
            from += 4;
        } else {
            *to++ = *from++;
        }
    }
    *to = '\0';
}

static void mount_entry_release(struct mount_entry *entry)
{
    free(entry->source);
    free(entry->mountpoint);
    free(entry->type);
    free(entry->device);
}

void mount_table_release(struct mount_table *table)
{
    for (size_t i = 0; i < table->count; i++)
        mount_entry_release(&table->entries[i]);
    free(table->entries);
    *table = (struct mount_table){0};
}

static char *mount_table_copy_field(const char *field)
{
    char *copy = strdup(field);
    if (copy)
        mount_table_unescape(copy);
    return copy;
}

/*
 * "36 35 98:0 /root /mountpoint rw,noatime master:1 - type source options": the third and the fifth field,
 * and the first two after the hyphen. `out` points into the line. False for a line that is none.
 */
static bool mount_table_split(char *line, struct mount_entry *out)
{
    char *rest = NULL, *field = strtok_r(line, " \n", &rest);
    for (int i = 1; field && i < 5; i++) {
        field = strtok_r(NULL, " \n", &rest);
        if (i == 2)
            out->device = field;
    }
    out->mountpoint = field;
    while (field && strcmp(field, "-") != 0)
        field = strtok_r(NULL, " \n", &rest);
    out->type = field ? strtok_r(NULL, " \n", &rest) : NULL;
    out->source = out->type ? strtok_r(NULL, " \n", &rest) : NULL;
    return out->source != NULL;
}

static errint mount_table_append(struct mount_table *table, char *line)
{
    struct mount_entry fields;
    if (!mount_table_split(line, &fields))
        return 0;
    struct mount_entry *entries = reallocarray(table->entries, table->count + 1, sizeof *entries);
    if (!entries)
        return -ENOMEM;
    table->entries = entries;
    struct mount_entry entry = {.source = mount_table_copy_field(fields.source),
                                .mountpoint = mount_table_copy_field(fields.mountpoint),
                                .type = mount_table_copy_field(fields.type),
                                .device = mount_table_copy_field(fields.device)};
    if (!entry.source || !entry.mountpoint || !entry.type || !entry.device) {
        mount_entry_release(&entry);
        return -ENOMEM;
    }
    table->entries[table->count++] = entry;
    return 0;
}

errint mount_table_read(struct mount_table *out)
{
    *out = (struct mount_table){0};
    FILE *file = fopen("/proc/self/mountinfo", "re");
    if (!file)
        return -errno;
    cleanup_free char *line = NULL;
    size_t room = 0;
    errint error = 0;
    while (!error && getline(&line, &room, file) >= 0)
        error = mount_table_append(out, line);
    fclose(file);
    return error;
}

bool mount_entry_is_ours(const struct mount_entry *entry)
{
    return strcmp(entry->type, MOUNT_TYPE) == 0;
}

const struct mount_entry *mount_table_find(const struct mount_table *table, const char *mountpoint)
{
    for (size_t i = table->count; i-- > 0;) {
        if (strcmp(table->entries[i].mountpoint, mountpoint) == 0)
            return &table->entries[i];
    }
    return NULL;
}

const struct mount_entry *mount_table_find_store(const struct mount_table *table, const char *store)
{
    for (size_t i = table->count; i-- > 0;) {
        if (mount_entry_is_ours(&table->entries[i]) && strcmp(table->entries[i].source, store) == 0)
            return &table->entries[i];
    }
    return NULL;
}

static char *mount_table_make_absolute(const char *path)
{
    char *text = NULL;
    cleanup_free char *directory = path[0] == '/' ? strdup("") : getcwd(NULL, 0);
    if (!directory || asprintf(&text, "%s%s%s", directory, path[0] == '/' ? "" : "/", path) < 0)
        return NULL;
    for (size_t length = strlen(text); length > 1 && text[length - 1] == '/'; length--)
        text[length - 1] = '\0';
    return text;
}

char *mount_table_resolve(const char *path, errint *error_out)
{
    *error_out = 0;
    /* O_PATH walks to the root of a mount and asks its filesystem nothing. */
    cleanup_fd int fd = open(path, O_PATH | O_CLOEXEC);
    if (fd >= 0) {
        char link[64], target[PATH_MAX];
        snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
        ssize_t length = readlink(link, target, sizeof target - 1);
        if (length > 0) {
            target[length] = '\0';
            return strdup(target);
        }
    }
    *error_out = -errno;
    return mount_table_make_absolute(path);
}

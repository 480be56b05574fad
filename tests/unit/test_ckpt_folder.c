/* SPDX-License-Identifier: Apache-2.0 */
/* A folder in memory. */
#include "test_ckpt_folder.h"

#include <errno.h>
#include <string.h>

void memory_folder_add(struct memory_folder *memory, const char *path, const void *bytes, int64_t size)
{
    memory->files[memory->count++] = (struct memory_file){.path = path, .bytes = bytes, .size = size};
}

const struct memory_file *memory_folder_find(const struct memory_folder *memory, const char *path)
{
    for (size_t i = 0; i < memory->count; i++) {
        if (strcmp(memory->files[i].path, path) == 0)
            return &memory->files[i];
    }
    return NULL;
}

static errint memory_file_read(void *context, void *buffer, size_t length, int64_t offset)
{
    const struct memory_file *file = context;
    if (offset < 0 || offset > file->size || (int64_t)length > file->size - offset)
        return -EIO;
    if (file->bytes)
        memcpy(buffer, file->bytes + offset, length);
    else
        memset(buffer, 0, length);
    return 0;
}

static errint memory_folder_list(void *context, const char *path,
                                 bool (*visit)(void *visit_context, const struct folder_entry *entry),
                                 void *visit_context)
{
    const struct memory_folder *memory = context;
    for (size_t i = 0; i < memory->count && *path == '\0'; i++) {
        struct folder_entry entry = {.name = memory->files[i].path, .size = memory->files[i].size};
        if (!visit(visit_context, &entry))
            break;
    }
    return *path ? -ENOENT : 0;
}

static errint memory_folder_open_file(void *context, const char *path, struct format_source *out)
{
    const struct memory_file *file = memory_folder_find(context, path);
    if (!file)
        return -ENOENT;
    *out = (struct format_source){.context = (void *)file, .size = file->size, .read = memory_file_read};
    return 0;
}

static void memory_folder_close(void *context, struct format_source *source)
{
    (void)context;
    (void)source;
}

struct folder memory_folder_open(struct memory_folder *memory)
{
    return (struct folder){.context = memory,
                           .list = memory_folder_list,
                           .open = memory_folder_open_file,
                           .close = memory_folder_close};
}

/* -- plans ------------------------------------------------------------------------------------------------
 */

static errint plan_reader_read_model(void *context, uint32_t file, void *buffer, size_t length,
                                     int64_t offset)
{
    const struct plan_reader *reader = context;
    const struct memory_file *found = memory_folder_find(reader->memory, reader->model->files[file].path);
    return found ? memory_file_read((void *)found, buffer, length, offset) : -ENOENT;
}

static errint plan_reader_read_part(struct plan_reader *reader, const struct assemble_part *part,
                                    int64_t from, size_t length, void *out)
{
    switch (part->kind) {
    case ASSEMBLE_BYTES: memcpy(out, part->bytes + from, length); return 0;
    case ASSEMBLE_COPY:
        return plan_reader_read_model(reader, part->file, out, length, part->file_offset + from);
    case ASSEMBLE_COMPUTE:
        return assemble_compute(reader->model, part, from, length, out, plan_reader_read_model, reader);
    }
    return -EINVAL;
}

errint plan_reader_read(void *context, void *buffer, size_t length, int64_t offset)
{
    struct plan_reader *reader = context;
    uint8_t *out = buffer;
    for (size_t i = 0; i < reader->file->part_count && length > 0; i++) {
        const struct assemble_part *part = &reader->file->parts[i];
        if (offset >= part->offset + part->length)
            continue;
        int64_t from = offset - part->offset, left = part->length - from;
        size_t taken = left < (int64_t)length ? (size_t)left : length;
        errint error = plan_reader_read_part(reader, part, from, taken, out);
        if (error)
            return error;
        out += taken;
        offset += (int64_t)taken;
        length -= taken;
    }
    return length > 0 ? -EIO : 0;
}

struct format_source plan_reader_source(struct plan_reader *reader)
{
    return (struct format_source){.context = reader, .size = reader->file->size, .read = plan_reader_read};
}

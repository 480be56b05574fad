/* SPDX-License-Identifier: Apache-2.0 */
/* Any bytes as a safetensors file, and as an index: tensors tile the file; names are text. */
/* fuzz-sources: src/format src/base/arena.c src/base/grow.c src/base/name_table.c */
/* fuzz-libs: -lxxhash */
#include "format/hf_index.h"
#include "format/safetensors_file.h"
#include "format/segments.h"
#include "format/utf8.h"

#include "fuzz_source.h"

static void fuzz_check_text(const char *text)
{
    if (!utf8_is_valid(text, strlen(text)))
        abort();
}

static void fuzz_check_tensors(const struct format_source *source, const struct safetensors_file *file)
{
    int64_t at = file->data, count, bytes;
    for (size_t i = 0; i < file->tensor_count; i++) {
        const struct tensor *tensor = &file->tensors[i];
        if (tensor->offset != at || tensor->strides || !tensor_count(&tensor->shape, &count) ||
            !tensor_bytes(tensor->type, count, &bytes) ||
            safetensors_file_tensor(file, tensor->name) != tensor)
            abort();
        fuzz_check_text(tensor->name);
        at += bytes;
    }
    if (at != source->size)
        abort();
    for (size_t i = 0; i < file->metadata_count; i++) {
        fuzz_check_text(file->metadata[i].value);
        if (safetensors_file_metadata(file, file->metadata[i].key) != file->metadata[i].value)
            abort();
    }
}

/* What is understood strictly is understood where less is asked for, unless there is space in front. */
static void fuzz_check_segments(const struct format_source *source, const uint8_t *data)
{
    cleanup_segments struct format_segments segments;
    if (format_segments_find(source, &segments) != 0 ||
        (data[8] == '{' && segments.kind != FORMAT_SAFETENSORS))
        abort();
}

static void fuzz_index(const struct format_source *source)
{
    cleanup_hf_index struct hf_index index;
    struct format_problem problem = {0};
    int result = hf_index_read(source, &index, &problem);
    if (result < 0 || (result == 0) != (problem.text[0] == '\0') || index.total_size < -1)
        abort();
    for (size_t i = 0; i < index.count && result == 0; i++) {
        fuzz_check_text(index.entries[i].name);
        fuzz_check_text(index.entries[i].file);
        if (strchr(index.entries[i].file, '/') || strcmp(index.entries[i].file, "..") == 0)
            abort();
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct fuzz_input input = {data, size};
    const struct format_source source = fuzz_source(&input);
    cleanup_safetensors_file struct safetensors_file file;
    struct format_problem problem = {0};
    int result = safetensors_file_read(&source, &file, &problem);
    if (result < 0 || (result == 0) != (problem.text[0] == '\0'))
        abort();
    if (result == 0) {
        fuzz_check_tensors(&source, &file);
        fuzz_check_segments(&source, data);
    }
    fuzz_index(&source);
    return 0;
}

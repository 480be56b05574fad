/* SPDX-License-Identifier: Apache-2.0 */
/* Files of weights: their names, and reading either format. */
#include "ckpt/weights.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "format/safetensors_file.h"
#include "format/torch_file.h"

const struct weights_kind weights_kinds[] = {
    {"model", "safetensors", "model"},
    {"pytorch_model", "bin", "model"},
    {"adapter_model", "safetensors", "adapter_model"},
    {"adapter_model", "bin", "adapter_model"},
    {"diffusion_pytorch_model", "safetensors", "diffusion_pytorch_model"},
    {"diffusion_pytorch_model", "bin", "diffusion_pytorch_model"},
};

_Static_assert(sizeof weights_kinds / sizeof *weights_kinds == WEIGHTS_KIND_COUNT, "as the header says");

/* -- names ------------------------------------------------------------------------------------------------
 */

const char *weights_whole_name(const struct weights_kind *kind, char *text)
{
    snprintf(text, WEIGHTS_NAME_MAX, "%s.%s", kind->stem, kind->suffix);
    return text;
}

const char *weights_index_name(const struct weights_kind *kind, char *text)
{
    snprintf(text, WEIGHTS_NAME_MAX, "%s.%s.index.json", kind->stem, kind->suffix);
    return text;
}

const char *weights_shard_name(const struct weights_kind *kind, int64_t number, int64_t count, char *text)
{
    snprintf(text, WEIGHTS_NAME_MAX, "%s-%05" PRId64 "-of-%05" PRId64 ".%s", kind->stem, number, count,
             kind->suffix);
    return text;
}

/* Five digits or more; 0: there are none. */
static int64_t weights_parse_number(const char **at)
{
    size_t length = strspn(*at, "0123456789");
    int64_t number = length >= 5 && length <= 9 ? strtol(*at, NULL, 10) : 0;
    *at += length;
    return number;
}

static bool weights_is_shard_of(const char *name, const struct weights_kind *kind, int64_t *number,
                                int64_t *count)
{
    size_t stem = strlen(kind->stem);
    if (strncmp(name, kind->stem, stem) != 0 || name[stem] != '-')
        return false;
    const char *at = name + stem + 1;
    *number = weights_parse_number(&at);
    if (strncmp(at, "-of-", 4) != 0)
        return false;
    at += 4;
    *count = weights_parse_number(&at);
    return *at == '.' && strcmp(at + 1, kind->suffix) == 0 && *number > 0 && *number <= *count;
}

bool weights_is_shard(const char *name, const struct weights_kind **kind, int64_t *number, int64_t *count)
{
    for (size_t i = 0; i < WEIGHTS_KIND_COUNT; i++) {
        int64_t found_number, found_count;
        if (!weights_is_shard_of(name, &weights_kinds[i], &found_number, &found_count))
            continue;
        if (kind)
            *kind = &weights_kinds[i];
        if (number)
            *number = found_number;
        if (count)
            *count = found_count;
        return true;
    }
    return false;
}

/* -- reading ----------------------------------------------------------------------------------------------
 */

/* One file while it is read. */
struct weights_reading {
    struct format_source source;
    const char *path;
    uint32_t file;
    struct model *model;
    weights_visit *visit;
    void *context;
    struct format_problem problem;
};

static errint weights_add(void *context, struct model *model, const struct tensor *tensor, const char *name,
                          uint32_t file)
{
    (void)context;
    return model_add_whole(model, tensor, name, file);
}

static int weights_read_safetensors(struct weights_reading *reading)
{
    cleanup_safetensors_file struct safetensors_file file = {0};
    int result = safetensors_file_read(&reading->source, &file, &reading->problem);
    for (size_t i = 0; i < file.metadata_count && !result; i++)
        result = model_add_metadata(reading->model, file.metadata[i].key, file.metadata[i].value);
    for (size_t i = 0; i < file.tensor_count && !result; i++)
        result = reading->visit(reading->context, reading->model, &file.tensors[i], file.tensors[i].name,
                                reading->file);
    return result;
}

/* Where in a torch file the tensors are: people save them under a key too. */
static const struct pickle_node *weights_find_dict(const struct torch_file *file)
{
    static const char *const keys[] = {"state_dict", "model_state_dict", "model", "module"};
    for (size_t i = 0; i < sizeof keys / sizeof *keys; i++) {
        const struct pickle_node *inner = pickle_get(file->root, keys[i]);
        if (pickle_is_dict(inner))
            return inner;
    }
    return file->root;
}

/* An entry of a dict of tensors. What is no tensor is told and left out. */
static int weights_read_entry(struct weights_reading *reading, struct torch_file *file,
                              const struct pickle_node *key, const struct pickle_node *value)
{
    struct tensor tensor;
    struct format_problem problem = {.offset = -1};
    if (!key || key->kind != PICKLE_TEXT || strlen(key->text) != key->length)
        return model_add_note(reading->model, false, "%s: an entry whose key is no text is left out",
                              reading->path);
    if (!torch_file_is_tensor(value))
        return model_add_note(reading->model, false, "%s: %s is no tensor and is left out", reading->path,
                              key->text);
    int result = torch_file_tensor(file, value, &tensor, &problem);
    if (result == FORMAT_FOREIGN)
        return model_add_note(reading->model, true, "%s: tensor %s: %s", reading->path, key->text,
                              problem.text);
    return result ? result
                  : reading->visit(reading->context, reading->model, &tensor, key->text, reading->file);
}

static int weights_read_torch(struct weights_reading *reading)
{
    cleanup_torch_file struct torch_file file = {0};
    int result = torch_file_read(&reading->source, 0, reading->source.size, &file, &reading->problem);
    if (result)
        return result;
    const struct pickle_node *dict = weights_find_dict(&file);
    if (!pickle_is_dict(dict))
        return format_problem_set(&reading->problem, -1, "expected a dict of tensors, found another object");
    for (size_t i = 0; i < pickle_dict_count(dict) && !result; i++)
        result = weights_read_entry(reading, &file, pickle_dict_key(dict, i), pickle_dict_value(dict, i));
    return result;
}

errint weights_read(const struct folder *folder, const char *path, struct model *model, weights_visit *visit,
                    void *context)
{
    struct weights_reading reading = {.path = path,
                                      .model = model,
                                      .visit = visit ? visit : weights_add,
                                      .context = context,
                                      .problem = {.offset = -1}};
    errint error = folder_open(folder, path, &reading.source);
    if (error == -ENOENT || error == -EISDIR || error == -EINVAL)
        return model_add_note(model, true, "%s is missing", path);
    if (error)
        return error;
    int result = model_add_file(model, path, reading.source.size, &reading.file);
    if (!result && torch_file_is_likely(&reading.source))
        result = weights_read_torch(&reading);
    else if (!result)
        result = weights_read_safetensors(&reading);
    folder_close(folder, &reading.source);
    return result == FORMAT_FOREIGN ? model_add_problem(model, path, &reading.problem) : result;
}

/* SPDX-License-Identifier: Apache-2.0 */
/* Whether one file is all there, by its own format. */
#include "ckpt/file_check.h"

#include <errno.h>
#include <fnmatch.h>
#include <stdlib.h>
#include <string.h>

#include "ckpt/side_files.h"
#include "format/json.h"
#include "format/safetensors_file.h"
#include "format/torch_file.h"
#include "format/zip.h"

/* What a name says that the file has to be. */
enum file_kind {
    FILE_SAFETENSORS,
    FILE_TORCH,       /* torch.save wrote it */
    FILE_MAYBE_TORCH, /* as a rule it did */
    FILE_JSON,
    FILE_TEXT, /* not empty; no more can be told */
    FILE_ANY,
};

static const struct {
    const char *pattern;
    enum file_kind kind;
} file_kinds[] = {
    {"*.safetensors", FILE_SAFETENSORS},
    {"user_content.pt", FILE_ANY}, /* SageMaker's: empty as a rule */
    {"*.json", FILE_JSON},
    {"*.pt", FILE_TORCH},
    {"*.pth", FILE_TORCH},
    {"*.ckpt", FILE_TORCH},
    {"*optimizer*.bin", FILE_TORCH},
    {"*pytorch_model*.bin", FILE_TORCH},
    {"adapter_model*.bin", FILE_TORCH},
    {"scheduler*.bin", FILE_TORCH},
    {"sampler*.bin", FILE_TORCH},
    {"training_args.bin", FILE_TORCH},
    {"random_states_*.pkl", FILE_TORCH},
    {"custom_checkpoint_*.pkl", FILE_TORCH},
    {"*.bin", FILE_MAYBE_TORCH},
    {"*.pkl", FILE_MAYBE_TORCH},
    {"latest", FILE_TEXT},
    {"latest_checkpointed_iteration.txt", FILE_TEXT},
};

/* No text of a trainer is as large; it would take long to read. */
enum { FILE_JSON_MAX = 256 << 20 };

static enum file_kind file_kind_of(const char *name)
{
    for (size_t i = 0; i < sizeof file_kinds / sizeof *file_kinds; i++) {
        if (fnmatch(file_kinds[i].pattern, name, 0) == 0)
            return file_kinds[i].kind;
    }
    /* A Python package has empty files. */
    return side_file_is(name) && fnmatch("*.py", name, 0) != 0 ? FILE_TEXT : FILE_ANY;
}

/* -- the formats ------------------------------------------------------------------------------------------
 */

static int file_check_safetensors(const struct format_source *source, struct format_problem *problem)
{
    cleanup_safetensors_file struct safetensors_file file = {0};
    return safetensors_file_read(source, &file, problem);
}

static int file_check_json(const struct format_source *source, struct format_problem *problem)
{
    cleanup_free struct json *json = malloc(sizeof *json);
    if (!json)
        return -ENOMEM;
    json_begin(json, source, 0, source->size);
    json->python = true;
    json_skip(json);
    json_end(json);
    if (json->status != FORMAT_FOREIGN)
        return json->status;
    return format_problem_set(problem, json_tell(json), "expected JSON to its end, found none here");
}

/* The directory lists every entry, and lies behind them all. */
static int file_check_zip(const struct format_source *source, struct format_problem *problem)
{
    cleanup_zip_directory struct zip_directory directory = {0};
    struct zip_archive archive;
    struct zip_entry entry;
    int result = zip_find_archive(source, source->size, &archive);
    if (result == FORMAT_FOREIGN || (!result && archive.start != 0))
        return format_problem_set(problem, source->size, "expected the end of a torch.save archive");
    if (!result)
        result = zip_directory_open(&directory, source, &archive);
    while (!result && directory.left > 0)
        result = zip_directory_next(&directory, &entry);
    if (result == FORMAT_FOREIGN)
        return format_problem_set(problem, directory.at, "expected an entry of the archive's directory");
    return result;
}

static int file_check_torch(const struct format_source *source, bool certain, enum file_state *state,
                            struct format_problem *problem)
{
    static const uint8_t zip_start[] = {'P', 'K', 3, 4};
    uint8_t start[sizeof zip_start] = {0};
    if (source->size < (int64_t)sizeof start)
        return format_problem_set(problem, 0, "expected a file of torch.save, found %d bytes",
                                  (int)source->size);
    errint error = source->read(source->context, start, sizeof start, 0);
    if (error)
        return error;
    if (memcmp(start, zip_start, sizeof start) == 0)
        return file_check_zip(source, problem);
    if (torch_file_is_likely(source)) {
        cleanup_torch_file struct torch_file file = {0};
        return torch_file_read(source, 0, source->size, &file, problem);
    }
    static const uint8_t nothing[sizeof start];
    if (certain || memcmp(start, nothing, sizeof start) == 0)
        return format_problem_set(problem, 0, "expected a file of torch.save, found something else");
    *state = FILE_OPAQUE;
    return 0;
}

static int file_check_source(const struct format_source *source, enum file_kind kind, enum file_state *state,
                             struct format_problem *problem)
{
    if (source->size == 0)
        return format_problem_set(problem, -1, "it is empty");
    switch (kind) {
    case FILE_SAFETENSORS: return file_check_safetensors(source, problem);
    case FILE_TORCH:
    case FILE_MAYBE_TORCH: return file_check_torch(source, kind == FILE_TORCH, state, problem);
    case FILE_JSON:
        if (source->size <= FILE_JSON_MAX)
            return file_check_json(source, problem);
        break;
    case FILE_TEXT:
    case FILE_ANY: break;
    }
    *state = FILE_OPAQUE;
    return 0;
}

errint file_check(const struct folder *folder, const char *path, enum file_state *state,
                  struct format_problem *problem)
{
    struct format_source source;
    const char *slash = strrchr(path, '/');
    enum file_kind kind = file_kind_of(slash ? slash + 1 : path);
    *problem = (struct format_problem){.offset = -1};
    *state = kind == FILE_ANY ? FILE_OPAQUE : FILE_WHOLE;
    if (kind == FILE_ANY)
        return 0;
    errint error = folder_open(folder, path, &source);
    if (error)
        return error;
    int result = file_check_source(&source, kind, state, problem);
    folder_close(folder, &source);
    if (result == FORMAT_FOREIGN)
        *state = FILE_CUT;
    return result < 0 ? result : 0;
}

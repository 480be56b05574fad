/* SPDX-License-Identifier: Apache-2.0 */
/* What a model is checked against, in order. */
#include "cmd/loadable_check.h"

#include <cjson/cJSON.h>
#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>

#include "ckpt/adapter_config.h"
#include "ckpt/base_model.h"
#include "ckpt/framework.h"
#include "cmd/architecture_run.h"
#include "cmd/command.h"
#include "format/plain_text.h"

/* As much as side_config_read takes. */
enum { CHECK_CONFIG_MAX = 16 << 20 };

struct check {
    const struct loadable_subject *subject;
    const struct loadable_options *options;
    struct base_models bases;
    struct adapter_config adapter;
    char *config; /* config.json's text; NULL: none is there */
    size_t config_length;
    char *real; /* the checkpoint's directory */
    struct loadable *out;
};

static void check_release(struct check *check)
{
    base_models_release(&check->bases);
    adapter_config_release(&check->adapter);
    free(check->config);
    free(check->real);
}

bool loadable_take_option(struct loadable_options *options, int option, const char *value, const char **wrong)
{
    *wrong = NULL;
    switch (option) {
    case LOADABLE_OPTION_CHECK: break;
    case LOADABLE_OPTION_PYTHON: options->python = value; break;
    case LOADABLE_OPTION_BASE:
        if (options->base_count == LOADABLE_BASES_MAX)
            *wrong = "--base: too many directories";
        else
            options->bases[options->base_count++] = value;
        break;
    case LOADABLE_OPTION_TIMEOUT:
        if (!command_parse_seconds(value, &options->seconds) || options->seconds == 0)
            *wrong = "--timeout: expected a number of seconds";
        break;
    default: return false;
    }
    options->wanted = true;
    return true;
}

/* -- base models ------------------------------------------------------------------------------------------
 */

/* Adds what the Hub's cache has of a name, wherever the cache is. */
static errint check_add_cached(struct check *check, const char *name)
{
    static const struct {
        const char *variable, *below;
    } places[] = {{"HF_HUB_CACHE", ""},
                  {"HUGGINGFACE_HUB_CACHE", ""},
                  {"HF_HOME", "/hub"},
                  {"XDG_CACHE_HOME", "/huggingface/hub"},
                  {"HOME", "/.cache/huggingface/hub"}};
    for (size_t i = 0; i < sizeof places / sizeof *places; i++) {
        const char *start = getenv(places[i].variable);
        char *made;
        if (!start || !*start)
            continue;
        if (asprintf(&made, "%s%s", start, places[i].below) < 0)
            return -ENOMEM;
        cleanup_free char *cache = made;
        return base_models_add_cached(&check->bases, cache, name, check->real);
    }
    return 0;
}

/* A name out of a config: a directory, or a model of the Hub. */
static errint check_add_named(struct check *check, const char *name)
{
    errint error = base_models_add(&check->bases, name, check->real);
    return error ? error : check_add_cached(check, name);
}

static errint check_add_config_name(struct check *check)
{
    cJSON *root = cJSON_ParseWithLength(check->config, check->config_length);
    const char *name = cJSON_GetStringValue(cJSON_GetObjectItemCaseSensitive(root, "_name_or_path"));
    errint error = name && *name ? check_add_named(check, name) : 0;
    cJSON_Delete(root);
    return error;
}

static bool check_is_adapter(const struct check *check)
{
    return strcmp(check->subject->model->stem, "adapter_model") == 0;
}

static errint check_find_bases(struct check *check)
{
    errint error = 0;
    for (size_t i = 0; i < check->options->base_count && !error; i++)
        error = base_models_add(&check->bases, check->options->bases[i], check->real);
    if (!error && check->adapter.base)
        error = check_add_named(check, check->adapter.base);
    if (!error && check->subject->side->base)
        error = base_models_add(&check->bases, check->subject->side->base, check->real);
    if (!error && check->config)
        error = check_add_config_name(check);
    if (!error && check->real && !check_is_adapter(check))
        error = base_models_add_run(&check->bases, check->real);
    return error;
}

/* Reads a model to compare with: one that loaders take as it lies there. False: there is none, or it cannot
 * be read. */
static bool check_load_base(const char *path, struct model *base)
{
    cleanup_folder_plain struct folder folder = {0};
    if (folder_plain(path, &folder) || framework_load(&folder, NULL, base))
        return false;
    bool plain = strcmp(base->framework, framework_single.name) == 0 ||
                 strcmp(base->framework, framework_sharded.name) == 0;
    return plain && model_is_whole(base) && strcmp(base->stem, "model") == 0;
}

/* The first of the directories that has a model; NULL: none has. */
static const char *check_choose_base(const struct check *check, struct model *base)
{
    for (size_t i = 0; i < check->bases.count; i++) {
        model_release(base);
        if (check_load_base(check->bases.at[i], base))
            return check->bases.at[i];
    }
    return NULL;
}

/* -- config.json ------------------------------------------------------------------------------------------
 */

static errint check_read_config(struct check *check, const struct folder *folder)
{
    errint error =
        folder_read_text(folder, "config.json", CHECK_CONFIG_MAX, &check->config, &check->config_length);
    return error == -ENOMEM || error == -EIO ? error : 0;
}

/* A save of shards has no config of its own: the one beside the base model is as good. */
static errint check_borrow_config(struct check *check)
{
    errint error = 0;
    for (size_t i = 0; i < check->bases.count && !check->config && !error; i++) {
        cleanup_folder_plain struct folder folder = {0};
        if (folder_plain(check->bases.at[i], &folder) == 0)
            error = check_read_config(check, &folder);
    }
    return error;
}

/* Whether it is what FSDP or DeepSpeed put shards into, inside a checkpoint. */
static bool check_is_inner(const char *name)
{
    static const char *const starts[] = {"pytorch_model_fsdp", "global_step"};
    for (size_t i = 0; i < sizeof starts / sizeof *starts; i++) {
        if (strncmp(name, starts[i], strlen(starts[i])) == 0)
            return true;
    }
    return false;
}

/* The checkpoint's own directory: the path may be a file in it, or the shards' directory. */
static errint check_find_directory(struct check *check)
{
    struct stat status;
    check->real = realpath(check->subject->path, NULL);
    char *slash = check->real ? strrchr(check->real, '/') : NULL;
    if (!slash)
        return errno == ENOMEM ? -ENOMEM : 0;
    bool file = stat(check->real, &status) == 0 && !S_ISDIR(status.st_mode);
    if (slash > check->real && (file || check_is_inner(slash + 1)))
        *slash = '\0';
    return 0;
}

/* -- the verdict ------------------------------------------------------------------------------------------
 */

static errint check_architecture(struct check *check)
{
    const struct loadable_subject *subject = check->subject;
    if (!check->config)
        return loadable_say_reason(check->out, "no config.json is there");
    const struct architecture_request request = {.python = check->options->python,
                                                 .seconds = check->options->seconds ? check->options->seconds
                                                                                    : LOADABLE_SECONDS,
                                                 .config = check->config,
                                                 .config_length = check->config_length,
                                                 .model = subject->model,
                                                 .names_tied = subject->names_tied,
                                                 .type = subject->type};
    return architecture_run(&request, check->out);
}

static errint check_against_base(struct check *check)
{
    cleanup_model struct model base = {0};
    const char *path = check_choose_base(check, &base);
    if (check_is_adapter(check)) {
        errint error = adapter_config_check(&check->adapter, check->subject->model, path ? &base : NULL, path,
                                            check->out);
        if (error || path || check->out->state != LOADABLE_NOT_CHECKED || check->out->reason)
            return error;
        return loadable_say_reason(check->out,
                                   "its pairs have the rank that adapter_config.json says, but the base "
                                   "model%s%s is not here (--base names a directory)",
                                   check->adapter.base ? " " : "",
                                   check->adapter.base ? check->adapter.base : "");
    }
    if (!path)
        return loadable_say_reason(check->out, "no base model is here (--base names a directory)");
    errint error = loadable_say_against(check->out, "the model in %s", path);
    return error ? error : loadable_compare(check->subject->model, &base, check->out);
}

static errint check_all(struct check *check)
{
    const struct loadable_subject *subject = check->subject;
    errint error = check_find_directory(check);
    if (!error)
        error = adapter_config_read(&subject->side->folder, &subject->side->listing, &check->adapter);
    if (!error && subject->config->found)
        error = check_read_config(check, &subject->side->folder);
    if (!error)
        error = check_find_bases(check);
    if (error || check_is_adapter(check))
        return error ? error : check_against_base(check);
    if (!check->config)
        error = check_borrow_config(check);
    if (!error)
        error = check_architecture(check);
    return error || check->out->state != LOADABLE_NOT_CHECKED ? error : check_against_base(check);
}

errint loadable_check(const struct loadable_subject *subject, const struct loadable_options *options,
                      struct loadable *out)
{
    __attribute__((cleanup(check_release))) struct check check = {
        .subject = subject, .options = options, .out = out};
    if (!model_is_whole(subject->model))
        return loadable_say_reason(out, "the model is not whole");
    if (subject->config->quantized)
        return loadable_say_reason(out, "the model is quantized");
    return check_all(&check);
}

char *loadable_check_line(const struct loadable *loadable, bool wanted)
{
    cleanup_text struct text line = {0};
    loadable_print(loadable, &line);
    text_append_word(&line, wanted ? "" : " (--check does)");
    text_append_byte(&line, '\0');
    return line.failed ? NULL : plain_text(line.at);
}

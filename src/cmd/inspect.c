/* SPDX-License-Identifier: Apache-2.0 */
/* `ckptfs inspect`: what a checkpoint is, what is in it, and why it cannot be assembled. */
#include "cmd/inspect.h"
#include "ckpt/tied.h"

#include <errno.h>
#include <getopt.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/log.h"
#include "base/size_text.h"
#include "ckpt/tied.h"
#include "cmd/assemble_type.h"
#include "cmd/command.h"
#include "cmd/exit.h"
#include "format/plain_text.h"

enum { INSPECT_LABEL_WIDTH = 14 };

static void inspect_release(struct inspect *inspect)
{
    inspect_source_release(&inspect->source);
    loadable_release(&inspect->loadable);
    model_release(&inspect->model);
    side_source_release(&inspect->side);
    folder_plain_release(&inspect->folder);
}

/* -- looking ----------------------------------------------------------------------------------------------
 */

/* The step that a directory's name tells: checkpoint-500 (transformers), global_step500 (DeepSpeed); -1:
 * none. */
static int64_t inspect_step_of_name(const char *path)
{
    static const char *const starts[] = {"checkpoint-", "global_step"};
    cleanup_free char *real = realpath(path, NULL);
    const char *slash = real ? strrchr(real, '/') : NULL;
    for (size_t i = 0; i < sizeof starts / sizeof *starts && slash; i++) {
        const char *digits = slash + 1 + strlen(starts[i]);
        if (strncmp(slash + 1, starts[i], strlen(starts[i])) != 0)
            continue;
        size_t length = strspn(digits, "0123456789");
        if (length > 0 && length <= 18 && digits[length] == '\0')
            return strtoll(digits, NULL, 10);
    }
    return -1;
}

static errint inspect_read(struct inspect *inspect)
{
    struct framework_wish wish = {0};
    errint error = side_source_open(inspect->path, false, &inspect->side);
    if (!error)
        error = tied_is_ruled_out(&inspect->side.folder, &wish.untied);
    if (!error)
        error = framework_load(&inspect->folder, &wish, &inspect->model);
    return error ? error : side_config_read(&inspect->side.folder, &inspect->side.listing, &inspect->config);
}

static void inspect_count(struct inspect *inspect)
{
    const struct model *model = &inspect->model;
    model_count(model, &inspect->elements, &inspect->bytes);
    for (size_t i = 0; i < model->tensor_count; i++) {
        const struct model_tensor *tensor = &model->tensors[i];
        struct inspect_type *row = &inspect->types[tensor->type];
        int64_t count, bytes;
        inspect->tied += tensor->tied != NULL;
        if (tensor->tied || !tensor_count(&tensor->shape, &count) ||
            !tensor_bytes(tensor->type, count, &bytes))
            continue;
        row->tensors++;
        row->elements += count;
        row->bytes += bytes;
        inspect->parameters += tensor->buffer ? 0 : count;
    }
}

/* The type of most bytes; TENSOR_TYPE_COUNT: there are none. */
static enum tensor_type inspect_main_type(const struct inspect *inspect)
{
    enum tensor_type most = TENSOR_TYPE_COUNT;
    int64_t bytes = 0;
    for (unsigned type = 0; type < TENSOR_TYPE_COUNT; type++) {
        if (inspect->types[type].bytes > bytes) {
            most = (enum tensor_type)type;
            bytes = inspect->types[type].bytes;
        }
    }
    return most;
}

/* As what assemble would write the parameters; false: as they are. */
static bool inspect_would_cast(const struct inspect *inspect, enum tensor_type *type)
{
    struct assemble_wish form = {0};
    bool cast = assemble_type_follow_config(&inspect->model, &inspect->config, &form);
    *type = form.type;
    return cast;
}

static errint inspect_check(struct inspect *inspect)
{
    enum tensor_type type = assemble_type_most(&inspect->model, NULL), other;
    if (inspect_would_cast(inspect, &other))
        type = other;
    const struct loadable_subject subject = {
        .path = inspect->path,
        .side = &inspect->side,
        .config = &inspect->config,
        .model = &inspect->model,
        .type = model_can_cast(type, TENSOR_F32) ? type : TENSOR_F32,
    };
    return loadable_check(&subject, &inspect->check, &inspect->loadable);
}

/* -- telling ----------------------------------------------------------------------------------------------
 */

static void inspect_print_label(const char *label)
{
    printf("%-*s", INSPECT_LABEL_WIDTH, label);
}

static void inspect_print_types(const struct inspect *inspect)
{
    char text[SIZE_TEXT_MAX];
    for (unsigned type = 0; type < TENSOR_TYPE_COUNT; type++) {
        const struct inspect_type *row = &inspect->types[type];
        if (row->tensors == 0)
            continue;
        inspect_print_label("");
        printf("%" PRId64 " of %s, %s\n", row->tensors, tensor_type_name((enum tensor_type)type),
               size_text((double)row->bytes, text));
    }
}

/* Of a checkpoint without a config.json of its own; of an adapter it is another file. */
static void inspect_print_source(const struct inspect_source *source)
{
    cleanup_free char *line = inspect_source_line(source);
    if ((int)strlen(source->name) < INSPECT_LABEL_WIDTH)
        inspect_print_label(source->name);
    else
        printf("%s ", source->name);
    puts(line ? line : "no memory");
}

static void inspect_print_config(const struct inspect *inspect)
{
    enum tensor_type type = inspect_main_type(inspect), made;
    if (!inspect->config.found) {
        inspect_print_source(&inspect->source);
        return;
    }
    inspect_print_label("config.json");
    printf("%s%s", inspect->config.has_type ? tensor_type_torch_name(inspect->config.type) : "no dtype",
           inspect->config.quantized ? ", quantized" : "");
    if (inspect->config.has_type && type != TENSOR_TYPE_COUNT && type != inspect->config.type)
        printf("; the tensors are %s%s", tensor_type_torch_name(type),
               inspect_would_cast(inspect, &made) ? ", and assembled as config.json says" : "");
    if (inspect_source_is_lent(&inspect->source)) {
        cleanup_free char *line = inspect_source_line(&inspect->source);
        printf(" (%s)", line ? line : "no memory");
    }
    putchar('\n');
}

static void inspect_print_notes(const struct model *model)
{
    for (size_t i = 0; i < model->note_count; i++) {
        cleanup_free char *text = plain_text(model->notes[i].text);
        inspect_print_label(model->notes[i].missing ? "missing" : "note");
        puts(text ? text : "no memory");
    }
}

static void inspect_print_tensor(const struct model_tensor *tensor)
{
    cleanup_free char *name = plain_text(tensor->name);
    printf("%s  %s  [", name ? name : "no memory", tensor_type_name(tensor->type));
    for (uint32_t d = 0; d < tensor->shape.rank; d++)
        printf("%s%" PRId64, d > 0 ? ", " : "", tensor->shape.sizes[d]);
    printf("]");
    if (tensor->type != tensor->stored)
        printf("  stored as %s", tensor_type_name(tensor->stored));
    if (tensor->tied) {
        cleanup_free char *tied = plain_text(tensor->tied);
        printf("  same as %s\n", tied ? tied : "no memory");
        return;
    }
    printf("  %zu piece%s%s\n", tensor->piece_count, tensor->piece_count == 1 ? "" : "s",
           tensor->buffer ? ", buffer" : "");
}

static void inspect_print_loadable(const struct inspect *inspect)
{
    cleanup_free char *text = loadable_check_line(&inspect->loadable, inspect->check.wanted);
    inspect_print_label("loadable");
    puts(text ? text : "no memory");
}

static void inspect_print(const struct inspect *inspect)
{
    const struct model *model = &inspect->model;
    char text[SIZE_TEXT_MAX];
    cleanup_free char *path = plain_text(inspect->path);
    printf("%s\n", path ? path : "no memory");
    inspect_print_label("framework");
    printf("%s (%s)\n", model->summary, model->framework);
    if (model->world_size > 0) {
        inspect_print_label("world size");
        printf("%" PRId64 "\n", model->world_size);
    }
    if (model->step >= 0) {
        inspect_print_label("step");
        printf("%" PRId64 "\n", model->step);
    }
    /* Quantizers pack several into an element. */
    inspect_print_label(inspect->config.quantized ? "elements" : "parameters");
    printf("%" PRId64, inspect->config.quantized ? inspect->elements : inspect->parameters);
    if (!inspect->config.quantized && inspect->elements > inspect->parameters)
        printf(", %" PRId64 " elements of buffers", inspect->elements - inspect->parameters);
    printf(", %s\n", size_text((double)inspect->bytes, text));
    inspect_print_label("tensors");
    printf("%zu, %zu of them tied, in %zu file%s\n", model->tensor_count, inspect->tied, model->file_count,
           model->file_count == 1 ? "" : "s");
    inspect_print_types(inspect);
    inspect_print_config(inspect);
    inspect_print_notes(model);
    inspect_print_label("assembled");
    puts(model_is_whole(model) ? "can be" : "cannot be");
    inspect_print_loadable(inspect);
    for (size_t i = 0; i < model->tensor_count && inspect->tensors; i++)
        inspect_print_tensor(&model->tensors[i]);
}

/* -- the command ------------------------------------------------------------------------------------------
 */

static int inspect_path(struct inspect *inspect, bool json)
{
    errint error = folder_plain(inspect->path, &inspect->folder);
    if (error) {
        log_error("%s: %s", inspect->path, strerror(-error));
        return EXIT_FAILED;
    }
    error = inspect_read(inspect);
    if (error == -ENOENT) {
        log_error("%s: no checkpoint of a known kind is there", inspect->path);
        return EXIT_FAILED;
    }
    if (!error) {
        if (inspect->model.step < 0)
            inspect->model.step = inspect_step_of_name(inspect->path);
        inspect_count(inspect);
        inspect_source_find(inspect->path, strcmp(inspect->model.stem, "adapter_model") == 0,
                            &inspect->source);
        if (inspect->check.wanted)
            error = inspect_check(inspect);
        if (!error && !json)
            inspect_print(inspect);
        else if (!error)
            error = inspect_print_json(inspect);
    }
    if (error)
        log_error("%s: %s", inspect->path, strerror(-error));
    return error ? EXIT_FAILED : EXIT_FINE;
}

static int inspect_command(int argc, char **argv)
{
    static const struct option long_options[] = {
        {"json", no_argument, NULL, 'j'}, {"tensors", no_argument, NULL, 't'}, LOADABLE_LONG_OPTIONS, {0}};
    __attribute__((cleanup(inspect_release))) struct inspect inspect = {0};
    bool json = false;
    int option;
    loadable_begin(&inspect.loadable);
    while ((option = getopt_long(argc, argv, ":jtcb:", long_options, NULL)) != -1) {
        const char *wrong;
        if (loadable_take_option(&inspect.check, option, optarg, &wrong)) {
            if (wrong)
                return command_usage_error(&command_inspect, "%s, found '%s'", wrong, optarg);
            continue;
        }
        switch (option) {
        case 'j': json = true; break;
        case 't': inspect.tensors = true; break;
        default:
            return command_usage_error(&command_inspect, "unknown option or missing argument: %s",
                                       argv[optind - 1]);
        }
    }
    if (argc - optind != 1)
        return command_usage_error(&command_inspect, "expected PATH");
    inspect.path = argv[optind];
    return inspect_path(&inspect, json);
}

const struct command command_inspect = {
    .name = "inspect",
    .synopsis = "[-j] [-t] [-c] [-b DIR] PATH",
    .summary = "show what a checkpoint is, what is in it, and what keeps it from being assembled",
    .details = "  -j, --json                 one JSON document\n"
               "  -t, --tensors              every tensor too\n" LOADABLE_DETAILS "\n"
               "PATH is the directory of a checkpoint or a file of weights, on a mount or on any disk.\n",
    .run = inspect_command,
};

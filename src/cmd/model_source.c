/* SPDX-License-Identifier: Apache-2.0 */
/* Reading a checkpoint, and the type that its parameters are written as. */
#include "cmd/model_source.h"

#include <errno.h>
#include <string.h>

#include "base/log.h"
#include "ckpt/tied.h"
#include "cmd/exit.h"
#include "format/plain_text.h"

static void source_log_note(const struct model_source *source, const struct model_note *note)
{
    cleanup_free char *text = plain_text(note->text);
    if (note->missing)
        log_error("%s: %s", source->path, text ? text : "no memory");
    else
        log_warning("%s: %s", source->path, text ? text : "no memory");
}

int model_source_open(struct model_source *source, const struct framework_wish *wish, const char *outcome)
{
    const char *path = source->path;
    errint error =
        source->strict ? folder_plain_strict(path, &source->folder) : folder_plain(path, &source->folder);
    if (!error)
        error = side_source_open(path, source->strict, &source->side);
    struct framework_wish whole = wish ? *wish : (struct framework_wish){0};
    if (!error)
        error = tied_is_ruled_out(&source->side.folder, &whole.untied);
    if (!error)
        error = framework_load(&source->folder, &whole, &source->model);
    if (error == -ENOENT && source->folder.context) {
        log_error("%s: no checkpoint of a known kind is there", path);
        return EXIT_FAILED;
    }
    if (!error)
        error = side_config_read(&source->side.folder, &source->side.listing, &source->config);
    if (error) {
        log_error("%s: %s", path, strerror(-error));
        return EXIT_FAILED;
    }
    for (size_t i = 0; i < source->model.note_count; i++)
        source_log_note(source, &source->model.notes[i]);
    if (model_is_whole(&source->model))
        return EXIT_FINE;
    log_error("%s: %s; %s", path,
              source->model.tensor_count == 0 ? "no tensors are there" : "the model is not whole", outcome);
    return EXIT_FAILED;
}

void model_source_release(struct model_source *source)
{
    model_release(&source->model);
    side_source_release(&source->side);
    folder_plain_release(&source->folder);
}

/* Which type parameters become, and what config.json says of it. The FP32 copy is what its user asked for. */
int model_source_choose_type(const struct model_source *source, struct model_source_wish *wish)
{
    const struct side_config *config = &source->config;
    if (wish->form.cast && config->quantized) {
        log_error("%s: config.json says that the model is quantized; --dtype would break it", source->path);
        return EXIT_FAILED;
    }
    if (wish->framework.master && assemble_type_most(&source->model, NULL) != TENSOR_F32) {
        log_error("%s: no FP32 copy of the parameters is there", source->path);
        return EXIT_FAILED;
    }
    if (!config->found && strcmp(source->model.stem, "model") == 0)
        log_warning("%s: no config.json is there: the files cannot be loaded without one from elsewhere",
                    source->path);
    if (wish->type == ASSEMBLE_TYPE_CONFIG && !wish->framework.master)
        wish->as_config_says = assemble_type_follow_config(&source->model, config, &wish->form);
    enum tensor_type type = assemble_type_most(&source->model, &wish->form);
    if (config->has_type && config->type != type)
        log_warning("%s: config.json says %s and is left as it is; the tensors are %s", source->path,
                    tensor_type_torch_name(config->type), tensor_type_torch_name(type));
    return EXIT_FINE;
}

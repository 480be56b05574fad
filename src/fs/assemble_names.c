/* SPDX-License-Identifier: Apache-2.0 */
/* Names of models, and who has them already. */
#include "fs/assemble_names.h"

#include <errno.h>
#include <string.h>
#include <sys/stat.h>

#include "fs/models.h"
#include "meta/assembled.h"

/* SageMaker's trainer makes it beside every whole model. */
static const char names_sagemaker[] = "user_content.pt";

static const char *const names_safetensors[] = {"model.safetensors", "adapter_model.safetensors"};

/* A file that is not an assembled one: 1, 0 or an error. */
static int names_own(struct filesystem *fs, uint64_t directory, const char *name)
{
    struct meta_inode row;
    errint error = meta_lookup(fs->meta, directory, name, strlen(name), &row);
    if (!error && (row.state & META_ASSEMBLED)) {
        struct meta_inode shown;
        error = meta_assembled_find(fs->meta, directory, name, strlen(name), &shown);
        if (!error)
            return shown.ino != row.ino;
        error = error == -ENOENT ? 0 : error;
    }
    return error ? (error == -ENOENT ? 0 : error) : 1;
}

static int names_shown(struct filesystem *fs, uint64_t directory, const char *name)
{
    struct meta_inode row;
    errint error = meta_assembled_find(fs->meta, directory, name, strlen(name), &row);
    return error ? (error == -ENOENT ? 0 : error) : 1;
}

/* Any of the two: 1, 0 or an error. */
static int names_any(struct filesystem *fs, uint64_t directory,
                     int (*has)(struct filesystem *fs, uint64_t directory, const char *name))
{
    int found = has(fs, directory, names_safetensors[0]);
    return found ? found : has(fs, directory, names_safetensors[1]);
}

errint assemble_names_look(struct filesystem *fs, uint64_t directory, struct assemble_names *out)
{
    int safetensors = names_any(fs, directory, names_own);
    int sagemaker = safetensors < 0 ? safetensors : names_own(fs, directory, names_sagemaker);
    int torch = sagemaker <= 0 ? sagemaker : names_own(fs, directory, ASSEMBLE_TORCH_NAME);
    *out = (struct assemble_names){safetensors == 0, sagemaker > 0 && torch == 0};
    return torch < 0 ? torch : 0;
}

int assemble_names_hold(struct filesystem *fs, uint64_t directory)
{
    struct assemble_names names;
    errint error = assemble_names_look(fs, directory, &names);
    if (error)
        return error;
    int safetensors = names_any(fs, directory, names_shown);
    int torch = safetensors < 0 ? safetensors : names_shown(fs, directory, ASSEMBLE_TORCH_NAME);
    return torch < 0 ? torch : (safetensors > 0) == names.safetensors && (torch > 0) == names.torch;
}

bool assemble_names_has(const char *name)
{
    return models_is_model(name, strlen(name)) || strcmp(name, ASSEMBLE_TORCH_NAME) == 0;
}

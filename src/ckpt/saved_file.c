/* SPDX-License-Identifier: Apache-2.0 */
/* A file that torch.save wrote, open in a folder. */
#include "ckpt/saved_file.h"

#include <errno.h>
#include <string.h>

int saved_file_told(struct model *model, struct saved_file *file, int result)
{
    if (result != FORMAT_FOREIGN)
        return result;
    errint error = model_add_problem(model, file->path, &file->problem);
    return error ? error : FORMAT_FOREIGN;
}

int saved_file_open(const struct folder *folder, struct model *model, const char *path,
                    struct saved_file *out)
{
    *out = (struct saved_file){.folder = folder, .path = strdup(path), .problem.offset = -1};
    if (!out->path)
        return -ENOMEM;
    errint error = folder_open(folder, path, &out->source);
    if (error == -ENOENT || error == -EISDIR)
        return saved_file_told(model, out,
                               format_problem_set(&out->problem, -1, "expected a file, found %s",
                                                  error == -ENOENT ? "none" : "a directory"));
    if (error)
        return error;
    out->open = true;
    error = model_add_file(model, path, out->source.size, &out->index);
    if (error)
        return error;
    int result = torch_file_read(&out->source, 0, out->source.size, &out->torch, &out->problem);
    if (result == 0 && !pickle_is_dict(out->torch.root))
        result = format_problem_set(&out->problem, -1, "expected a dict, found something else");
    return saved_file_told(model, out, result);
}

void saved_file_close(struct saved_file *file)
{
    torch_file_release(&file->torch);
    if (file->open)
        folder_close(file->folder, &file->source);
    free(file->path);
    *file = (struct saved_file){0};
}

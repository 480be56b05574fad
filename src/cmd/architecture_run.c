/* SPDX-License-Identifier: Apache-2.0 */
/* The program that asks the library: where it is, how it is run, how it may end. */
#include "cmd/architecture_run.h"

#include <errno.h>
#include <limits.h>
#include <stdio.h>
#include <string.h>
#include <sys/wait.h>

#include "cmd/child.h"

#define ARCHITECTURE_PROGRAM "ckptfs-architecture.py"

/* Importing torch and transformers takes less than one GiB; a model without bytes little more. */
#define ARCHITECTURE_MEMORY ((size_t)8 << 30)

enum { ARCHITECTURE_NOT_STARTED = 127 };

/* Beside the running program, where a build has it, or where it was installed. The caller frees it; NULL: no
 * memory. */
static char *architecture_find_program(void)
{
    char path[PATH_MAX];
    ssize_t length = readlink("/proc/self/exe", path, sizeof path - 1);
    char *slash, *made;
    path[length < 0 ? 0 : length] = '\0';
    slash = strrchr(path, '/');
    if (slash && asprintf(&made, "%.*s/%s", (int)(slash - path), path, ARCHITECTURE_PROGRAM) >= 0) {
        if (access(made, R_OK) == 0)
            return made;
        free(made);
    }
    return strdup(CKPTFS_DATA_DIR "/" ARCHITECTURE_PROGRAM);
}

/* The interpreter, by a path that is still right in another directory. The caller frees it. */
static char *architecture_find_python(const char *named)
{
    const char *variable = getenv("CKPTFS_PYTHON");
    const char *python = named ? named : variable && *variable ? variable : "python3";
    if (*python == '/' || !strchr(python, '/'))
        return strdup(python);
    cleanup_free char *here = getcwd(NULL, 0);
    char *made;
    return here && asprintf(&made, "%s/%s", here, python) >= 0 ? made : NULL;
}

static errint architecture_explain(errint error, int status, const struct architecture_request *request,
                                   const char *python, struct loadable *out)
{
    if (error == -ETIME)
        return loadable_say_reason(out, "the library did not answer within %u seconds", request->seconds);
    if (error == -EFBIG)
        return loadable_say_reason(out, "the library's answer is too long");
    if (error == -ENOMEM || error == -EINTR)
        return error;
    if (error)
        return loadable_say_reason(out, "%s cannot be run: %s", python, strerror(-error));
    if (WIFEXITED(status) && WEXITSTATUS(status) == ARCHITECTURE_NOT_STARTED)
        return loadable_say_reason(out, "%s cannot be started", python);
    if (WIFSIGNALED(status))
        return loadable_say_reason(out, "%s died of signal %d", python, WTERMSIG(status));
    return loadable_say_reason(out, "%s failed with status %d", python, WEXITSTATUS(status));
}

errint architecture_run(const struct architecture_request *request, struct loadable *out)
{
    cleanup_text struct text question = {0}, answer = {0};
    cleanup_free char *program = architecture_find_program();
    cleanup_free char *python = architecture_find_python(request->python);
    int status = 0;
    if (!program || !python)
        return -ENOMEM;
    errint error = architecture_ask(request->model, request->config, request->config_length,
                                    request->names_tied, request->type, &question);
    if (error)
        return error;
    const char *const arguments[] = {python, program, NULL};
    const struct child child = {.arguments = arguments,
                                .input = question.at,
                                .input_length = question.length,
                                .output_max = ARCHITECTURE_ANSWER_MAX,
                                .memory_max = ARCHITECTURE_MEMORY,
                                .seconds = request->seconds};
    error = child_run(&child, &answer, &status);
    if (error || !WIFEXITED(status) || WEXITSTATUS(status) != 0)
        return architecture_explain(error, status, request, python, out);
    return architecture_read(answer.at ? answer.at : "", answer.length, request->model, out);
}

/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Checking whether a model would load, for the commands: against the architecture that config.json names,
 * where transformers can be asked, else against a base model that is found.
 */
#ifndef CKPTFS_CMD_LOADABLE_CHECK_H
#define CKPTFS_CMD_LOADABLE_CHECK_H

#include "ckpt/folder.h"
#include "ckpt/loadable.h"
#include "ckpt/side_files.h"
#include "cmd/side_source.h"

/* What the command line says of it. Starts as {0}. */
enum { LOADABLE_BASES_MAX = 16, LOADABLE_SECONDS = 300 };
struct loadable_options {
    bool wanted;        /* the command line has any of these options */
    const char *python; /* a program; NULL: $CKPTFS_PYTHON, else python3 */
    const char *bases[LOADABLE_BASES_MAX];
    size_t base_count;
    unsigned seconds; /* that the library may take; 0: LOADABLE_SECONDS */
};

/* For getopt_long(3). */
enum {
    LOADABLE_OPTION_CHECK = 'c',
    LOADABLE_OPTION_BASE = 'b',
    LOADABLE_OPTION_PYTHON = 0x100,
    LOADABLE_OPTION_TIMEOUT,
};
#define LOADABLE_LONG_OPTIONS                                                                                \
    {"check", no_argument, NULL, LOADABLE_OPTION_CHECK},                                                     \
        {"base", required_argument, NULL, LOADABLE_OPTION_BASE},                                             \
        {"python", required_argument, NULL, LOADABLE_OPTION_PYTHON},                                         \
    {                                                                                                        \
        "timeout", required_argument, NULL, LOADABLE_OPTION_TIMEOUT                                          \
    }
/* The lines that usage texts have of them. */
#define LOADABLE_DETAILS                                                                                     \
    "  -c, --check                ask transformers, else a base model, whether it would load\n"              \
    "  -b, --base DIR             a base model; implies --check, as these do:\n"                             \
    "      --python PROGRAM       the Python that has transformers\n"                                        \
    "      --timeout SECONDS      how long that may take (300)\n"

/* Takes an option of these. False: it is none of them. `wrong`: what is wrong with its value, or NULL. */
bool loadable_take_option(struct loadable_options *options, int option, const char *value,
                          const char **wrong);

struct loadable_subject {
    const char *path;                 /* of the checkpoint, or a file in it */
    const struct side_source *side;   /* its */
    const struct side_config *config; /* of that */
    struct model *model;              /* `keeps_type` of its tensors is set where the library says so */
    bool names_tied;                  /* the file will have the names of tied tensors too */
    enum tensor_type type;            /* that floating-point parameters will have */
};

/* 0, or a negative errno of reading, of memory, or -EINTR after a signal that has a handler. `out` was begun.
 */
errint loadable_check(const struct loadable_subject *subject, const struct loadable_options *options,
                      struct loadable *out);

/* The verdict for people, fit for a terminal; not `wanted`: how to get one. The caller frees it; NULL: no
 * memory. */
char *loadable_check_line(const struct loadable *loadable, bool wanted);

#endif

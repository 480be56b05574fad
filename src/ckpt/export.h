/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Exporting a model: its files become a directory of ordinary files, whole or not at all.
 *
 * The directory is built beside its place, under a hidden name (".ckptfs-export-NAME"), each file synced, and
 * then renamed; what had the name before is exchanged for it and removed afterwards. What an interrupted
 * export has written stays there: a file of state beside it says how far each file is and what its bytes'
 * SHA-256 is, and the next export of the same files goes on from there.
 */
#ifndef CKPTFS_CKPT_EXPORT_H
#define CKPTFS_CKPT_EXPORT_H

#include "base/sha256.h"
#include "ckpt/assemble.h"
#include "ckpt/folder.h"

/* What an exported directory has besides: sums for `sha256sum -c`, and where it comes from. */
#define EXPORT_SUMS  "SHA256SUMS"
#define EXPORT_FACTS "ckptfs-export.json"
/* What the hidden names in the target directory start with. */
#define EXPORT_HIDDEN ".ckptfs-export-"

/* Longer names have no room for what is put before and behind them. */
enum { EXPORT_NAME_MAX = 200 };

/* A file of the exported directory. */
struct export_file {
    const char *name;                    /* its path there, as folders have it */
    const struct assemble_file *planned; /* NULL: it is a copy */
    const struct folder *folder;         /* of which file it is a copy */
    const char *path;
    int64_t size;
    uint8_t sum[SHA256_BYTES]; /* once it is written */
};

/* What is to be exported. Names are distinct; everything outlives the export. */
struct export_job {
    const struct model *model; /* that the planned files are made of */
    const struct folder *folder;
    struct export_file *files;
    size_t count;
    /* Stands for the bytes of all files: it is the same as long as no source is changed. */
    char fingerprint[SHA256_TEXT];
    bool verify; /* what was written is read again from the disk and compared */
    /* As assemble_output has it. */
    bool (*progress)(void *context, int64_t done, int64_t total);
    void *context;
};

/* Whether a name may be that of an exported directory or of a link to one: one component, not hidden,
 * printable, not too long. */
bool export_name_is_fine(const char *name);

/*
 * Fills `fingerprint`: of the names and sizes of the files, of who their sources are (number, size, times of
 * the last changes), and of `form`, which says how the planned ones are made. 0 or -errno, after one line.
 */
errint export_identify(struct export_job *job, const char *form);

#endif

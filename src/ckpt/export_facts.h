/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What an exported directory says of itself: SHA256SUMS, which `sha256sum -c` takes, and a JSON object with
 * where it comes from and the same sums. By the latter an export is known for one: nothing else is ever
 * replaced.
 */
#ifndef CKPTFS_CKPT_EXPORT_FACTS_H
#define CKPTFS_CKPT_EXPORT_FACTS_H

#include "ckpt/export.h"

struct export_facts {
    const char *checkpoint; /* its path, as it was found */
    const char *origin;     /* the same for every mountpoint of a store */
    const char *framework;
    const char *dtype;
    int64_t step;      /* -1: not known */
    bool store_hashes; /* the source's bytes were compared with the hashes of its store */
    bool read_back;    /* what was written was read again */
};

/* Writes both files into the directory and syncs them. The job's files have their sums. 0 or -errno. */
errint export_facts_write(int directory, const struct export_job *job, const struct export_facts *facts);

/* What is known of an exported directory. */
struct export_found {
    char *origin, *checkpoint; /* as in export_facts */
    char *fingerprint;
    int64_t step;
};

/* Of DIR/NAME. -ENOENT: there is nothing; -EEXIST: what is there is no export. The caller gives `out` to
 * export_found_release in any case. */
errint export_facts_read(int directory, const char *name, struct export_found *out);
void export_found_release(struct export_found *found);

/*
 * Whether DIR/NAME has all files of the job in their sizes; where the job verifies, with the bytes that it
 * has told the sums of.
 */
bool export_facts_hold(int directory, const char *name, const struct export_job *job);
/* Whether the sums that DIR/NAME tells are those of the job, and its files bear them out likewise. */
bool export_facts_are_equal(int directory, const char *name, const struct export_job *job);
/* Gives DIR/NAME the JSON object of the directory that was built, which has the same sums. 0 or -errno. */
errint export_facts_renew(int directory, const char *name, int building);

#define cleanup_export_found __attribute__((cleanup(export_found_release)))

#endif

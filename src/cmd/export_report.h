/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What `ckptfs export` says at its end.
 */
#ifndef CKPTFS_CMD_EXPORT_REPORT_H
#define CKPTFS_CMD_EXPORT_REPORT_H

#include "ckpt/export_facts.h"
#include "ckpt/export_write.h"

struct export_outcome {
    const char *target, *name; /* DIR and NAME */
    const struct export_job *job;
    const struct export_facts *facts;
    struct export_written written;
    bool unchanged; /* it was there already */
    bool replaced;  /* another was there */
    const char *const *links;
    size_t link_count;
};

void export_report_print(const struct export_outcome *outcome);
/* 0 or -ENOMEM. */
errint export_report_json(const struct export_outcome *outcome);

#endif

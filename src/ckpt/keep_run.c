/* SPDX-License-Identifier: Apache-2.0 */
/* From a run to what is judged. */
#include "ckpt/keep_run.h"

#include <string.h>

void keep_run_take(const struct run *run, struct keep_checkpoint *out)
{
    for (size_t i = 0; i < run->count; i++) {
        const struct run_checkpoint *from = &run->at[i];
        out[i] = (struct keep_checkpoint){
            .path = from->path,
            .step = from->step,
            .time = from->complete.time,
            .bytes = from->complete.bytes,
            .state = from->complete.state,
            .numbered = from->file ? from->step >= 0 : detect_step_of_name(from->path) >= 0,
            .progress = &from->complete.progress,
            .best = from->best,
            .named = from->named,
            .unsettled = from->error != 0,
        };
    }
}

void keep_run_choose_metric(const struct run *run, struct keep_policy *policy)
{
    const char *metric = run_metric_name(run);
    if (!*policy->metric && metric)
        strcpy(policy->metric, metric);
}

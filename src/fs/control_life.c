/* SPDX-License-Identifier: Apache-2.0 */
/* How safe the files of a tree are, and who writes them: for `ckptfs ls`. */
#include <errno.h>

#include "fs/checkpoints.h"
#include "fs/control.h"
#include "fs/control_report.h"
#include "fs/life.h"
#include "fs/report.h"
#include "fs/rewrite.h"
#include "fs/writers.h"

/* A checkpoint that is written over is so between two files, too. */
static bool life_is_rewritten(struct filesystem *fs, uint64_t directory)
{
    struct rewrite_seen seen;
    struct meta_checkpoint row;
    return rewrite_find(fs, directory, &seen) && checkpoints_get(fs, directory, &row) == 0 &&
           row.state == CHECKPOINT_WRITING;
}

static void life_answer(struct report *report)
{
    struct life life;
    const struct life_asked asked = {.ino = report->ino,
                                     .of_one = !report_sees_everybody(report),
                                     .uid = report->uid,
                                     .stops = report_stops,
                                     .context = report};
    struct meta_checkpoint row;
    errint error = life_count(report->fs, &asked, &life);
    bool known = !error && checkpoints_get(report->fs, report->ino, &row) == 0;
    const struct control_life answer = {.files = life.files,
                                        .writing = life.writing + life_is_rewritten(report->fs, report->ino),
                                        .unsynced = life.unsynced,
                                        .torn = life.torn,
                                        .state = known ? row.state + 1 : 0,
                                        .waiting = checkpoints_waiting(report->fs)};
    report_reply(report, error, &answer, sizeof answer);
}

void control_life(fuse_req_t request, uint64_t ino, size_t room)
{
    report_within(request, room, sizeof(struct control_life),
                  &(struct report){.ino = ino, .answer = life_answer});
}

static void life_answer_writers(struct report *report)
{
    struct meta_checkpoint row;
    struct writers_seen seen;
    bool known = checkpoints_get(report->fs, report->ino, &row) == 0;
    errint error = writers_ask(report->fs, known ? row.run : report->ino, &seen);
    const struct control_writers answer = {
        .alive = !error && seen.state == WRITERS_ALIVE,
        .since = !error && seen.state == WRITERS_ALIVE ? seen.since : 0,
    };
    report_reply(report, error, &answer, sizeof answer);
}

void control_writers(fuse_req_t request, uint64_t ino, size_t room)
{
    report_within(request, room, sizeof(struct control_writers),
                  &(struct report){.ino = ino, .answer = life_answer_writers});
}

/* SPDX-License-Identifier: Apache-2.0 */
/* What the thread does that looks for what can be assembled. */
#include "fs/assembler.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "base/log.h"
#include "fs/assemble_build.h"
#include "fs/assemble_former.h"
#include "fs/assemble_lend.h"
#include "fs/assemble_request.h"
#include "fs/directory_queue.h"
#include "fs/events.h"
#include "fs/filesystem.h"
#include "fs/policy.h"
#include "fs/trees.h"
#include "fs/writeback.h"
#include "meta/assembled.h"

/* A save is many files: a directory is looked at when nothing was sealed in it for so long. */
#define ASSEMBLER_QUIET_NS (CLOCK_NS_PER_SECOND / 2)
/* But not put off for longer than this. */
#define ASSEMBLER_LATEST_NS (10 * CLOCK_NS_PER_SECOND)
/* While a file is written, or not on stable storage; doubled each time. */
#define ASSEMBLER_RETRY_NS     (CLOCK_NS_PER_SECOND / 2)
#define ASSEMBLER_RETRY_MAX_NS (30 * CLOCK_NS_PER_SECOND)
/* While only some of an older save's shards were saved over: each new one brings the directory back anyway.
 */
#define ASSEMBLER_MIXED_NS (60 * CLOCK_NS_PER_SECOND)
/* After a look that read, so many times as long as it took is rest, up to this. */
#define ASSEMBLER_REST_MAX_NS (2 * CLOCK_NS_PER_SECOND)
/* Files up to this inode number were looked at; kept in the database whenever all were. */
#define ASSEMBLER_SETTING "assembled-up-to"
/* Directories whose policy was changed, until all below them was looked at; in the database too. */
#define ASSEMBLER_TREES_SETTING "assemble-below"

enum { ASSEMBLER_REST = 4 };

struct assembler {
    struct directory_queue *queue;
    struct trees trees;
    struct assemble_requests *requests;
    struct assemble_lenders lenders;
};

static bool assembler_stops(struct filesystem *fs)
{
    return directory_queue_stops(fs->assembler->queue);
}

static struct directory_queue *assembler_queue(struct filesystem *fs)
{
    return fs->assembler ? fs->assembler->queue : NULL;
}

/* -- what others tell it ----------------------------------------------------------------------------------
 */

void assembler_touch(struct filesystem *fs, uint64_t ino)
{
    directory_queue_touch(assembler_queue(fs), ino);
}

/* What is looked at reads the namespace: so the thread finds the directory above by itself. */
void assembler_touch_directory(struct filesystem *fs, uint64_t directory)
{
    directory_queue_add(assembler_queue(fs), directory, false);
}

void assembler_look_below(struct filesystem *fs, uint64_t directory)
{
    struct assembler *assembler = fs->assembler;
    if (!assembler)
        return;
    errint error = trees_add(fs, &assembler->trees, directory);
    if (error)
        log_warning("inode %llu: what is below it is not looked at for models: %s",
                    (unsigned long long)directory, strerror(-error));
    directory_queue_wake(assembler->queue);
}

void assembler_move_directory(struct filesystem *fs, uint64_t directory, uint64_t from, uint64_t to)
{
    enum policy_assembling before, after;
    if (from != to && policy_assemble(fs, from, &before, NULL) == 0 &&
        policy_assemble(fs, to, &after, NULL) == 0 && before != after)
        assembler_look_below(fs, directory);
}

errint assembler_request(struct filesystem *fs, uint64_t directory)
{
    struct assembler *assembler = fs->assembler;
    if (!assembler)
        return -EROFS;
    errint error = assemble_requests_add(assembler->requests, directory);
    if (!error)
        directory_queue_add(assembler->queue, directory, true);
    return error;
}

errint assembler_tell(struct filesystem *fs, uint64_t directory, struct control_assemble *answer)
{
    if (!fs->assembler)
        return -EROFS;
    assemble_requests_tell(fs->assembler->requests, directory, answer);
    return 0;
}

size_t assembler_waiting(struct filesystem *fs)
{
    return directory_queue_waiting(assembler_queue(fs));
}

/* -- one directory ----------------------------------------------------------------------------------------
 */

/* Somebody has turned it off for the directory. */
static errint assembler_withdraw(struct filesystem *fs, uint64_t directory)
{
    bool changed = false;
    errint error = meta_assembled_withdraw(fs->meta, directory, &changed);
    if (!error)
        error = meta_assembled_drop_input(fs->meta, directory, ASSEMBLE_ASKED_NAME);
    if (changed) {
        writeback_kick(fs); /* that one removes what was withdrawn */
        events_emit(fs, &(struct event){.kind = EVENT_WITHDRAWN,
                                        .ino = directory,
                                        .step = -1,
                                        .bytes = -1,
                                        .reason = "the policy is assemble=off"});
    }
    return error;
}

static errint assembler_refuse(struct assemble_asked *asked)
{
    snprintf(asked->reason, sizeof asked->reason, "the policy of this directory is assemble=off");
    return -EPERM;
}

/* Whether a model is made here unasked: 1, 0 or an error. What was asked for once comes again with its
 * shards. */
static int assembler_wants(struct filesystem *fs, uint64_t directory, enum policy_assembling assembling)
{
    switch (assembling) {
    case POLICY_ASSEMBLING_AUTO:
    case POLICY_ASSEMBLING_VIEW: return 1;
    case POLICY_ASSEMBLING_ASK: return assemble_was_asked(fs, directory);
    default: return 0;
    }
}

/* What was to be made anew, and was not, goes. */
static errint assembler_withdraw_outdated(struct filesystem *fs, uint64_t directory, uint64_t outdated)
{
    struct meta_inode shown;
    errint error = outdated ? meta_assembled_find(fs->meta, directory, NULL, 0, &shown) : -ENOENT;
    if (!error && shown.ino == outdated) {
        error = meta_assembled_withdraw(fs->meta, directory, NULL);
        writeback_kick(fs); /* that one removes what was withdrawn */
    }
    return error == -ENOENT ? 0 : error;
}

static errint assembler_look(struct filesystem *fs, uint64_t directory, struct assemble_asked *asked)
{
    struct meta_inode row;
    enum policy_assembling assembling;
    bool set;
    errint error = meta_get(fs->meta, directory, &row);
    if (!error && (!S_ISDIR(row.mode) || row.nlink == 0))
        error = -ENOENT;
    if (error)
        return error == -ENOENT && !asked ? 0 : error;
    error = policy_assemble(fs, directory, &assembling, &set);
    if (error)
        return error;
    if (assembling == POLICY_ASSEMBLING_OFF && set)
        return asked ? assembler_refuse(asked) : assembler_withdraw(fs, directory);
    uint64_t outdated;
    int holds = assemble_check(fs, directory, assembler_stops, &outdated);
    if (holds)
        return holds < 0 ? holds : 0;
    int wanted = asked ? 1 : assembler_wants(fs, directory, assembling);
    if (wanted < 0)
        return wanted;
    if (wanted && atomic_load(&fs->disk_full))
        return asked ? -ENOSPC : -EBUSY;
    error = wanted ? assemble_build(fs, directory, asked, assembler_stops) : 0;
    errint withdrawn = error ? 0 : assembler_withdraw_outdated(fs, directory, outdated);
    return error ? error : withdrawn;
}

static void assembler_progress(void *context, uint64_t directory, int64_t done, int64_t total)
{
    assemble_requests_progress(context, directory, done, total);
}

/* What was asked for: who asks hears how it ended, and it is taken up again only where files are written
 * still. */
static errint assembler_look_asked(struct filesystem *fs, uint64_t directory)
{
    struct assemble_requests *requests = fs->assembler->requests;
    struct assemble_asked asked = {.progress = assembler_progress, .context = requests};
    errint error = assembler_look(fs, directory, &asked);
    if (error == -ECANCELED)
        return error;
    if (error == -EBUSY) {
        assemble_requests_wait(requests, directory, "files are written, or not on stable storage yet");
        return error;
    }
    if (error == -EAGAIN)
        assemble_requests_finish(requests, directory,
                                 "a save over an older one seems to be under way: some shards are of each");
    else if (error == -EACCES)
        assemble_requests_finish(requests, directory, "the shards are of several owners");
    else
        assemble_requests_finish(requests, directory,
                                 error && !asked.reason[0] ? strerror(-error) : asked.reason);
    return 0;
}

static void assembler_report(uint64_t directory, errint error)
{
    if (error == -EACCES)
        log_info("inode %llu: nothing is assembled here: the shards are of several owners",
                 (unsigned long long)directory);
    else if (error && error != -EBUSY && error != -EAGAIN && error != -ECANCELED)
        log_warning("inode %llu: nothing is assembled here now: %s", (unsigned long long)directory,
                    strerror(-error));
}

static int64_t assembler_visit(struct filesystem *fs, struct directory_turn *turn)
{
    int64_t begun = clock_monotonic();
    bool asked = assemble_requests_wants(fs->assembler->requests, turn->directory);
    errint error =
        asked ? assembler_look_asked(fs, turn->directory) : assembler_look(fs, turn->directory, NULL);
    if (!error)
        error = assemble_lend_around(fs, &fs->assembler->lenders, turn->directory, assembler_stops);
    assembler_report(turn->directory, error);
    int64_t rest = (clock_monotonic() - begun) * ASSEMBLER_REST;
    turn->rest = rest < ASSEMBLER_REST_MAX_NS ? rest : ASSEMBLER_REST_MAX_NS;
    if (asked)
        turn->delay = ASSEMBLER_RETRY_NS / 2; /* who waits does not wait longer each time */
    int64_t delay = turn->delay;
    turn->delay = delay * 2 < ASSEMBLER_RETRY_MAX_NS ? delay * 2 : ASSEMBLER_RETRY_MAX_NS;
    if (error == -EBUSY)
        return delay;
    turn->delay = ASSEMBLER_RETRY_NS;
    return error == -EAGAIN ? ASSEMBLER_MIXED_NS : DIRECTORY_DONE;
}

/* -- the work ---------------------------------------------------------------------------------------------
 */

static uint64_t assembler_next(struct filesystem *fs)
{
    return trees_next(fs, &fs->assembler->trees);
}

static size_t assembler_left(struct filesystem *fs)
{
    return trees_left(&fs->assembler->trees);
}

/* The next start need not look at all again. Unless its mount's option lets it assemble what this one's does
 * not. */
static bool assembler_rested(struct filesystem *fs)
{
    trees_finish(fs, &fs->assembler->trees);
    return fs->options->assemble <= POLICY_ASSEMBLING_VIEW;
}

/* A checkpoint's shards may lie one level below it. */
static const struct directory_work assembler_work = {
    .thread = "assemble",
    .setting = ASSEMBLER_SETTING,
    .quiet = ASSEMBLER_QUIET_NS,
    .latest = ASSEMBLER_LATEST_NS,
    .retry = ASSEMBLER_RETRY_NS,
    .levels = 1,
    .visit = assembler_visit,
    .next = assembler_next,
    .left = assembler_left,
    .rested = assembler_rested,
};

static void assembler_free(struct filesystem *fs)
{
    struct assembler *assembler = fs->assembler;
    fs->assembler = NULL;
    trees_release(&assembler->trees);
    assemble_requests_free(assembler->requests);
    free(assembler);
}

errint assembler_start(struct filesystem *fs)
{
    if (fs->options->read_only)
        return 0;
    struct assembler *assembler = calloc(1, sizeof *assembler);
    struct assemble_requests *requests = assembler ? assemble_requests_make() : NULL;
    errint error = requests ? trees_start(fs, &assembler->trees, ASSEMBLER_TREES_SETTING) : -ENOMEM;
    if (error) {
        assemble_requests_free(requests);
        free(assembler);
        return error;
    }
    assembler->requests = requests;
    fs->assembler = assembler;
    error = directory_queue_start(fs, &assembler_work, &assembler->queue);
    if (error)
        assembler_free(fs);
    return error;
}

void assembler_stop(struct filesystem *fs)
{
    if (!fs->assembler)
        return;
    directory_queue_stop(fs->assembler->queue);
    assembler_free(fs);
}

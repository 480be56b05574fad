/* SPDX-License-Identifier: Apache-2.0 */
/* The thread that compares model files with shards. */
#include "fs/share_models.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "base/log.h"
#include "fs/directory_queue.h"
#include "fs/filesystem.h"
#include "fs/share_vicinity.h"

/* A save is many files: a directory is looked at when none of it was settled for so long. */
#define SHARE_MODELS_QUIET_NS CLOCK_NS_PER_SECOND
/* But not put off for longer than this. */
#define SHARE_MODELS_LATEST_NS (20 * CLOCK_NS_PER_SECOND)
/* While a file is seen in a way that forbids to touch it, or is not hashed yet; doubled each time. */
#define SHARE_MODELS_RETRY_NS     (5 * CLOCK_NS_PER_SECOND)
#define SHARE_MODELS_RETRY_MAX_NS (300 * CLOCK_NS_PER_SECOND)
/* Files up to this inode number were looked at; kept in the database whenever all were. */
#define SHARE_MODELS_SETTING "models-shared-up-to"
/* After each look, so that what an earlier daemon left does not keep the namespace busy. */
#define SHARE_MODELS_PAUSE_NS (CLOCK_NS_PER_SECOND / 200)

enum { SHARE_MODELS_UNREADY = 6 /* so often a directory is looked at again for a file that is not hashed */ };

struct share_models {
    struct directory_queue *queue;
    struct vicinity_known known; /* the thread's own */
};

static bool share_models_stops(struct filesystem *fs)
{
    return directory_queue_stops(fs->share_models->queue);
}

static struct directory_queue *share_models_queue(struct filesystem *fs)
{
    return fs->share_models ? fs->share_models->queue : NULL;
}

void share_models_touch(struct filesystem *fs, uint64_t ino)
{
    directory_queue_touch(share_models_queue(fs), ino);
}

void share_models_pass(struct filesystem *fs, uint64_t ino)
{
    directory_queue_pass(share_models_queue(fs), ino);
}

void share_models_touch_directory(struct filesystem *fs, uint64_t directory)
{
    directory_queue_add(share_models_queue(fs), directory, false);
}

size_t share_models_waiting(struct filesystem *fs)
{
    return directory_queue_waiting(share_models_queue(fs));
}

static void share_models_report(uint64_t directory, errint error)
{
    if (error && error != -EBUSY && error != -EAGAIN && error != -ECANCELED && error != -ENOENT)
        log_warning("inode %llu: model files are not compared with shards here now: %s",
                    (unsigned long long)directory, strerror(-error));
}

static int64_t share_models_visit(struct filesystem *fs, struct directory_turn *turn)
{
    errint error = vicinity_share(fs, turn->directory, &fs->share_models->known, share_models_stops);
    share_models_report(turn->directory, error);
    turn->rest = SHARE_MODELS_PAUSE_NS;
    int64_t delay = turn->delay;
    turn->delay = delay * 2 < SHARE_MODELS_RETRY_MAX_NS ? delay * 2 : SHARE_MODELS_RETRY_MAX_NS;
    if (error == -EAGAIN)
        turn->unready++;
    bool again = error == -EBUSY || (error == -EAGAIN && turn->unready < SHARE_MODELS_UNREADY);
    return again ? delay : DIRECTORY_DONE;
}

/* Shards may lie one level below their checkpoint. */
static const struct directory_work share_models_work = {
    .thread = "share-models",
    .setting = SHARE_MODELS_SETTING,
    .quiet = SHARE_MODELS_QUIET_NS,
    .latest = SHARE_MODELS_LATEST_NS,
    .retry = SHARE_MODELS_RETRY_NS,
    .levels = 1,
    .visit = share_models_visit,
};

errint share_models_start(struct filesystem *fs)
{
    if (fs->options->sharing == FS_SHARING_OFF || fs->options->read_only)
        return 0;
    fs->share_models = calloc(1, sizeof *fs->share_models);
    if (!fs->share_models)
        return -ENOMEM;
    errint error = directory_queue_start(fs, &share_models_work, &fs->share_models->queue);
    if (error) {
        free(fs->share_models);
        fs->share_models = NULL;
    }
    return error;
}

void share_models_stop(struct filesystem *fs)
{
    struct share_models *models = fs->share_models;
    if (!models)
        return;
    directory_queue_stop(models->queue);
    fs->share_models = NULL;
    free(models);
}

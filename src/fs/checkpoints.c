/* SPDX-License-Identifier: Apache-2.0 */
/* Judging directories when somebody asks. */
#include "fs/checkpoints.h"

#include <pthread.h>
#include <string.h>

#include "base/clock.h"
#include "ckpt/run.h"
#include "fs/filesystem.h"
#include "fs/namespace_folder.h"

/* A part of a checkpoint is no deeper below it. */
enum { CHECKPOINTS_LEVELS = 2, CHECKPOINTS_KNOWN = 64 };

/* So long it is not asked again whether a directory that is in none has become a part of one; and so many
 * times as long as it took to tell. */
#define CHECKPOINTS_ASK_AGAIN_NS    CLOCK_NS_PER_SECOND
#define CHECKPOINTS_ASK_AGAIN_TIMES 50

static pthread_mutex_t checkpoints_lock = PTHREAD_MUTEX_INITIALIZER;
static struct {
    uint64_t directory;
    int64_t until; /* clock_monotonic() */
} checkpoints_none[CHECKPOINTS_KNOWN];

static bool checkpoints_is_none(uint64_t directory)
{
    size_t slot = directory % CHECKPOINTS_KNOWN;
    pthread_mutex_lock(&checkpoints_lock);
    bool none =
        checkpoints_none[slot].directory == directory && clock_monotonic() < checkpoints_none[slot].until;
    pthread_mutex_unlock(&checkpoints_lock);
    return none;
}

static void checkpoints_note_none(uint64_t directory, int64_t since)
{
    size_t slot = directory % CHECKPOINTS_KNOWN;
    int64_t took = (clock_monotonic() - since) * CHECKPOINTS_ASK_AGAIN_TIMES;
    pthread_mutex_lock(&checkpoints_lock);
    checkpoints_none[slot].directory = directory;
    checkpoints_none[slot].until =
        clock_monotonic() + (took > CHECKPOINTS_ASK_AGAIN_NS ? took : CHECKPOINTS_ASK_AGAIN_NS);
    pthread_mutex_unlock(&checkpoints_lock);
}

static bool checkpoints_stops(struct filesystem *fs)
{
    return atomic_load(&fs->stopping);
}

/* The directory itself is one, not only what lies below it. `alone`: no other lies below it. */
static bool checkpoints_judge(struct filesystem *fs, uint64_t directory, bool alone)
{
    cleanup_namespace_folder struct namespace_folder namespace = {0};
    cleanup_run struct run run = {0};
    struct folder folder;
    struct meta_name name;
    size_t count = 0;
    const struct run_asked asked = {.name = name.bytes};
    if (meta_find_names(fs->meta, directory, NULL, &name, 1, &count) != 0 || count == 0)
        name.bytes[0] = '\0';
    if (namespace_folder_open(fs, directory, checkpoints_stops, &namespace, &folder) != 0)
        return false;
    namespace.compares = true;
    if (run_read(&folder, &asked, &run) != 0 || (alone && run.count != 1))
        return false;
    for (size_t i = 0; i < run.count; i++) {
        enum complete_state state = run.at[i].complete.state;
        if (!*run.at[i].path && (state == COMPLETE_YES || state == COMPLETE_WEIGHTS))
            return true;
    }
    return false;
}

uint64_t checkpoints_root(struct filesystem *fs, uint64_t directory)
{
    uint64_t above[CHECKPOINTS_LEVELS];
    size_t count = 0;
    int64_t since = clock_monotonic();
    if (directory == META_ROOT_INO || checkpoints_is_none(directory))
        return 0;
    for (uint64_t at = directory; count < CHECKPOINTS_LEVELS && at != META_ROOT_INO;) {
        above[count++] = at;
        if (meta_parent(fs->meta, at, &at) != 0 || at == 0)
            break;
    }
    while (count-- > 0) {
        if (checkpoints_judge(fs, above[count], count > 0))
            return above[count];
    }
    checkpoints_note_none(directory, since);
    return 0;
}

bool checkpoints_is_complete(struct filesystem *fs, uint64_t directory)
{
    return checkpoints_root(fs, directory) != 0;
}

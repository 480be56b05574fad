/* SPDX-License-Identifier: Apache-2.0 */
/* Transactions: begin, commit or roll back, try again with the reserve; and the numbers that they give out.
 */
#include <errno.h>
#include <time.h>

#include "base/fault.h"
#include "base/log.h"
#include "meta/internal.h"

/*
 * A batch of numbers is taken with one write. A power cut may lose that write together with everything that
 * was made with the numbers, but not what others outside remember of them (object files, file handles). So
 * after a stop that was not clean, more numbers are skipped than can be given out before a commit is synced.
 */
enum { CHANGE_BATCH = 1024, CHANGE_SKIP = 1 << 20 };

enum { CHANGE_FREED_TRIES = 5, CHANGE_FREED_MS = 2 };

struct meta *meta_lock(struct meta *meta)
{
    pthread_mutex_lock(&meta->lock);
    return meta;
}

void meta_unlock_scope(struct meta **meta)
{
    pthread_mutex_unlock(&(*meta)->lock);
}

/* -- numbers ----------------------------------------------------------------------------------------------
 */

static errint change_write_counters(struct meta *meta, const uint64_t limit[META_COUNTERS], bool clean)
{
    return db_run(meta->db, "UPDATE counter SET ino = $1, object = $2, cookie = $3, clean = $4 WHERE id = 1",
                  DB_INTEGER(limit[META_COUNTER_INO]), DB_INTEGER(limit[META_COUNTER_OBJECT]),
                  DB_INTEGER(limit[META_COUNTER_COOKIE]), DB_INTEGER(clean));
}

errint change_take_number(struct meta *meta, enum meta_counter which, uint64_t *number)
{
    struct meta_numbers *numbers = &meta->known.numbers[which];
    if (numbers->next == numbers->limit) {
        uint64_t limit[META_COUNTERS];
        for (int i = 0; i < META_COUNTERS; i++)
            limit[i] = meta->known.numbers[i].limit;
        limit[which] += CHANGE_BATCH;
        errint error = change_write_counters(meta, limit, false);
        if (error)
            return error;
        numbers->limit = limit[which];
    }
    *number = numbers->next++;
    return 0;
}

uint64_t meta_cookie_next(struct meta *meta)
{
    META_LOCKED(meta);
    return meta->known.numbers[META_COUNTER_COOKIE].next;
}

uint64_t meta_object_next(struct meta *meta)
{
    META_LOCKED(meta);
    struct meta_numbers *numbers = &meta->known.numbers[META_COUNTER_OBJECT];
    if (numbers->next < numbers->limit)
        return numbers->next++;
    uint64_t object = 0;
    struct meta_known known = meta->known;
    errint error = db_begin(meta->db);
    if (!error)
        error = change_take_number(meta, META_COUNTER_OBJECT, &object);
    if (!error)
        error = db_commit(meta->db);
    if (error) {
        db_rollback(meta->db);
        meta->known = known;
        return 0;
    }
    meta->commit_last++;
    return object;
}

/* -- begin, commit, roll back -----------------------------------------------------------------------------
 */

static struct ids *change_shadows(struct change *change)
{
    return change->shadows ? change->shadows : &change->meta->released;
}

static errint change_begin(struct change *change)
{
    struct meta *meta = change->meta;
    change->known = meta->known;
    change->freed_count = change->freed ? change->freed->count : 0;
    change->shadows_count = change_shadows(change)->count;
    change->nothing = false;
    errint error = fault_hit("meta.begin");
    if (!error)
        error = db_begin(meta->db);
    if (!error && meta->totals_kept)
        error = db_run(meta->db, "DELETE FROM total");
    return error;
}

static errint change_commit(struct change *change)
{
    struct meta *meta = change->meta;
    errint error = 0;
    if (change->request)
        error = db_run(meta->db, "UPDATE answered SET request = $1, ino = $2 WHERE id = 1",
                       DB_INTEGER(change->request), DB_INTEGER(change->ino));
    if (!error)
        error = fault_hit("meta.commit");
    if (!error)
        error = db_commit(meta->db);
    if (error)
        return error;
    meta->totals_kept = false;
    meta->commit_last++;
    fault_hit("meta.committed"); /* too late for an error: it is there to kill or to hang */
    if (change->request) {
        meta->request = change->request;
        meta->request_ino = change->ino;
        if (meta->committed)
            meta->committed(meta->committed_context, change->request, change->ino);
    }
    if (db_log_size(meta->db) >= meta->log_wake)
        pthread_cond_signal(&meta->log_grown);
    return 0;
}

static void change_roll_back(struct change *change)
{
    db_rollback(change->meta->db);
    change->meta->known = change->known;
    if (change->freed)
        change->freed->count = change->freed_count;
    change_shadows(change)->count = change->shadows_count;
}

static bool change_spend(struct change *change)
{
    struct meta *meta = change->meta;
    if (change->spent || !meta->spend)
        return false;
    change->spent = true;
    if (meta->spend(meta->spend_context) != 0)
        return false;
    atomic_store(&meta->journal_refused, true);
    /* On a full disk the log has no room to grow: its pages go into the database's own blocks now. */
    meta->log_trim = 0;
    meta->log_wake = 0;
    return true;
}

static bool change_may_retry(struct change *change)
{
    if (change->error != -ENOSPC || !change->spends)
        return false;
    if (change_spend(change))
        return true;
    /* Other changes come in between, and may take the room that was made. */
    if (change->again++ == CHANGE_FREED_TRIES)
        return false;
    if (db_log_size(change->meta->db) > 0)
        return meta_empty_log(change->meta);
    /* ext4 hands out what was freed only a moment after the sync that has freed it. */
    const struct timespec moment = {.tv_nsec = CHANGE_FREED_MS * 1000000L};
    return nanosleep(&moment, NULL) == 0;
}

bool change_next(struct change *change)
{
    bool again = !change->begun;
    if (!change->begun) {
        meta_lock(change->meta);
        meta_keep_log_short(change->meta);
        change->begun = true;
    } else {
        if (!change->error && !change->nothing)
            change->error = change_commit(change);
        if (change->error || change->nothing)
            change_roll_back(change);
        again = change_may_retry(change);
    }
    while (again) {
        change->error = change_begin(change);
        if (!change->error)
            return true;
        change_roll_back(change);
        again = change_may_retry(change);
    }
    pthread_mutex_unlock(&change->meta->lock);
    return false;
}

/* -- start, stop ------------------------------------------------------------------------------------------
 */

static errint change_read_counters(struct meta *meta, bool *clean)
{
    cleanup_rows struct db_rows rows;
    errint error = db_select(meta->db, &rows, "SELECT ino, object, cookie, clean FROM counter WHERE id = 1");
    int found = error ? error : db_next(&rows);
    if (found <= 0)
        return found < 0 ? found : -EUCLEAN;
    for (int i = 0; i < META_COUNTERS; i++)
        meta->known.numbers[i].next = meta->known.numbers[i].limit = (uint64_t)db_integer(&rows, i);
    *clean = db_integer(&rows, META_COUNTERS) != 0;
    return 0;
}

static errint change_read_answered(struct meta *meta)
{
    cleanup_rows struct db_rows rows;
    errint error = db_select(meta->db, &rows, "SELECT request, ino FROM answered WHERE id = 1");
    int found = error ? error : db_next(&rows);
    if (found <= 0)
        return found < 0 ? found : -EUCLEAN;
    meta->request = (uint64_t)db_integer(&rows, 0);
    meta->request_ino = (uint64_t)db_integer(&rows, 1);
    return 0;
}

/* The totals as the last stop left them: 1, 0 when something was changed since, or an error. */
static int change_read_kept_totals(struct meta *meta)
{
    struct meta_known *known = &meta->known;
    cleanup_rows struct db_rows rows;
    errint error = db_select(meta->db, &rows,
                             "SELECT inodes, objects, dirty, torn, shadows, mebibytes, bytes FROM total"
                             " WHERE id = 1");
    int found = error ? error : db_next(&rows);
    if (found <= 0)
        return found;
    known->inodes = (uint64_t)db_integer(&rows, 0);
    known->objects = (uint64_t)db_integer(&rows, 1);
    known->dirty = (uint64_t)db_integer(&rows, 2);
    known->torn = (uint64_t)db_integer(&rows, 3);
    known->shadows = (uint64_t)db_integer(&rows, 4);
    known->logical_bytes = ((__int128)db_integer(&rows, 5) << 20) + db_integer(&rows, 6);
    return 1;
}

static errint change_keep_totals(struct meta *meta)
{
    const struct meta_known *known = &meta->known;
    if (meta->totals_kept)
        return 0;
    return db_run(meta->db,
                  "INSERT INTO total (id, inodes, objects, dirty, torn, shadows, mebibytes, bytes)"
                  " VALUES (1, $1, $2, $3, $4, $5, $6, $7)",
                  DB_INTEGER(known->inodes), DB_INTEGER(known->objects), DB_INTEGER(known->dirty),
                  DB_INTEGER(known->torn), DB_INTEGER(known->shadows), DB_INTEGER(known->logical_bytes >> 20),
                  DB_INTEGER(known->logical_bytes & 1048575));
}

/* Not kept: they are few, and a clean stop leaves none. */
static errint change_count_stand_ins(struct meta *meta)
{
    cleanup_rows struct db_rows rows;
    errint error = db_select(meta->db, &rows, "SELECT count(*) FROM stand_in");
    int found = error ? error : db_next(&rows);
    if (found <= 0)
        return found < 0 ? found : -EUCLEAN;
    meta->known.stand_ins = (uint64_t)db_integer(&rows, 0);
    return 0;
}

/* As inode_account has it: regular files, but not what is shown without a name. */
#define CHANGE_COUNTED "(mode & 61440) = 32768 AND ((state & 4) = 0 OR nlink > 0)"

errint change_count_totals(struct meta *meta)
{
    struct meta_known *known = &meta->known;
    /* The sizes are summed in two parts, since their sum may not fit the database's integers. */
    static const char text[] =
        "SELECT count(*),"
        " coalesce(sum(CASE WHEN " CHANGE_COUNTED " THEN size >> 20 ELSE 0 END), 0),"
        " coalesce(sum(CASE WHEN " CHANGE_COUNTED " THEN size & 1048575 ELSE 0 END), 0),"
        " coalesce(sum(state & 1), 0), coalesce(sum((state >> 1) & 1), 0),"
        " (SELECT count(*) FROM object), (SELECT count(*) FROM shadow) FROM inode";
    cleanup_rows struct db_rows rows;
    errint error = db_select(meta->db, &rows, text);
    int found = error ? error : db_next(&rows);
    if (found <= 0)
        return found < 0 ? found : -EUCLEAN;
    known->inodes = (uint64_t)db_integer(&rows, 0);
    known->logical_bytes = ((__int128)db_integer(&rows, 1) << 20) + db_integer(&rows, 2);
    known->dirty = (uint64_t)db_integer(&rows, 3);
    known->torn = (uint64_t)db_integer(&rows, 4);
    known->objects = (uint64_t)db_integer(&rows, 5);
    known->shadows = (uint64_t)db_integer(&rows, 6);
    return change_count_stand_ins(meta);
}

static errint change_mark(struct meta *meta, bool clean)
{
    uint64_t next[META_COUNTERS];
    for (int i = 0; i < META_COUNTERS; i++)
        next[i] = meta->known.numbers[i].next;
    errint error = db_begin(meta->db);
    if (!error)
        error = change_write_counters(meta, next, clean);
    if (!error && clean)
        error = change_keep_totals(meta);
    if (!error)
        error = db_commit(meta->db);
    if (error)
        db_rollback(meta->db);
    else
        meta->commit_last++;
    return error;
}

static errint change_start_totals(struct meta *meta)
{
    int kept = change_read_kept_totals(meta);
    meta->totals_kept = kept > 0;
    if (kept)
        return kept < 0 ? kept : change_count_stand_ins(meta);
    return change_count_totals(meta);
}

errint change_start(struct meta *meta)
{
    bool clean = false;
    errint error = change_read_counters(meta, &clean);
    if (!error)
        error = journal_compare(meta, clean);
    if (!error)
        error = change_read_answered(meta);
    if (!error)
        error = change_start_totals(meta);
    if (error)
        return error;
    if (clean) {
        error = change_mark(meta, false);
        if (error != -ENOSPC)
            return error;
        /* On a full disk it must be possible to delete something: skip numbers as if it was marked. */
    }
    for (int i = 0; i < META_COUNTERS; i++) {
        meta->known.numbers[i].next += CHANGE_SKIP;
        meta->known.numbers[i].limit = meta->known.numbers[i].next;
    }
    return 0;
}

errint change_stop(struct meta *meta)
{
    return change_mark(meta, true);
}

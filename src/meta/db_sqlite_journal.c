/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The redo journal of an SQLite database: pages out of the log of commits.
 *
 * A journal knows its place in the log (db_sqlite_frames.h). The log is only ever emptied after all of it was
 * copied here; so when another salt is met, the new log is the continuation if the old one was *settled*:
 * everything in the journal, and the database file as it was then remembered in it. That file changes again
 * only when something is moved into it out of the next log, which comes after this.
 *
 * Nothing gets into it before it is on stable storage in the log, and all that is in it is, before anything
 * is moved out of the log into the database file. So where a process died, or a power cut came, there are
 * these:
 * - The log has the journal's last place: what comes behind it is added.
 * - The last record is a settling, and the database file is still that one: all that the log has is new.
 * - The log is the one of the last record, and shorter: it is damaged, and the database has lost commits.
 * - Anything else: somebody may have changed the database without the journal, which cannot go on. Or the log
 *   is gone with what was only in it: then the database file has other pages than the last record. Whoever
 *   closes a database in order leaves a mark in it, which tells the two apart.
 */
#include "meta/db_journal.h"

#include <endian.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <string.h>

#include "base/clock.h"
#include "base/fault.h"
#include "base/log.h"
#include "base/transfer.h"
#include "meta/db_sqlite.h"
#include "meta/db_sqlite_redo.h"

enum { JOURNAL_DATABASE_HEADER = 18 };

struct db_journal {
    char *database;
    struct redo redo;
    bool follows;
    bool settled;              /* another log continues this one */
    bool lacks;                /* the database has not the last of what is here */
    struct frames_place place; /* up to here everything is in it */
};

_Static_assert(sizeof(struct frames_place) <= sizeof((struct db_journal_state){0}.words), "a place fits");

/* -- copying ----------------------------------------------------------------------------------------------
 */

/* A page in a frame that was read. */
struct journal_page {
    uint32_t page;
    uint32_t index;
};

static int journal_compare_pages(const void *a, const void *b)
{
    const struct journal_page *left = a, *right = b;
    if (left->page != right->page)
        return (left->page > right->page) - (left->page < right->page);
    return (left->index > right->index) - (left->index < right->index);
}

/* Of a page that is there several times, only the last counts: that saves most of it. The number of pages. */
static uint32_t journal_take_last(const struct frames *frames, const uint8_t *bytes, size_t count,
                                  struct journal_page *pages)
{
    uint32_t taken = 0;
    for (size_t i = 0; i < count; i++)
        pages[i] = (struct journal_page){frames_look(frames, bytes, i).page, (uint32_t)i};
    qsort(pages, count, sizeof *pages, journal_compare_pages);
    for (size_t i = 0; i < count; i++) {
        if (i + 1 == count || pages[i + 1].page != pages[i].page)
            pages[taken++] = pages[i];
    }
    return taken;
}

/* Frames that were read out of the log, and room to sort them. */
struct journal_batch {
    struct frames frames;
    uint8_t *bytes;
    struct journal_page *pages;
    size_t room, count;
};

static void journal_batch_release(struct journal_batch *batch)
{
    free(batch->bytes);
    free(batch->pages);
}

#define cleanup_batch __attribute__((cleanup(journal_batch_release)))

static errint journal_append(struct db_journal *journal, const struct journal_batch *batch, size_t used,
                             struct redo_record *record)
{
    uint8_t *at = redo_pages(&journal->redo);
    if (!at)
        return -ENOMEM;
    record->page_count = journal_take_last(&batch->frames, batch->bytes, used, batch->pages);
    for (uint32_t i = 0; i < record->page_count; i++) {
        uint32_t page = htole32(batch->pages[i].page);
        memcpy(at, &page, sizeof page);
        at += sizeof page;
    }
    for (uint32_t i = 0; i < record->page_count; i++) {
        memcpy(at, frames_look(&batch->frames, batch->bytes, batch->pages[i].index).bytes,
               batch->frames.page_size);
        at += batch->frames.page_size;
    }
    errint error = fault_hit("journal.append");
    if (!error)
        error = redo_append(&journal->redo, record);
    if (!error)
        error = fault_hit("journal.appended");
    return error;
}

/* What was read becomes a record, up to the last commit in it; a commit that does not fit goes on. */
static errint journal_take(struct db_journal *journal, struct journal_batch *batch)
{
    size_t used = batch->count;
    while (used > 0 && frames_look(&batch->frames, batch->bytes, used - 1).database_size == 0)
        used--;
    if (used == 0)
        used = batch->count;
    struct redo_record record = {
        .kind = REDO_PAGES,
        .time = clock_read_ns(CLOCK_REALTIME),
        .place = frames_place_behind(&batch->frames, batch->bytes, batch->count, used - 1),
        .database_size = frames_look(&batch->frames, batch->bytes, used - 1).database_size,
    };
    errint error = journal_append(journal, batch, used, &record);
    if (error)
        return error;
    batch->frames.place = journal->place = record.place;
    journal->settled = false;
    return 0;
}

/* Goes to where the journal is in the log. -ESTALE: it is not there. */
static errint journal_find_place(const struct db_journal *journal, int log_fd, struct frames *frames)
{
    int begun = frames_begin(frames, log_fd);
    if (begun <= 0 || frames->page_size != journal->redo.head.page_size)
        return begun < 0 ? begun : -ESTALE;
    int found = frames_go_to(frames, &journal->place);
    bool other = memcmp(frames->place.salt, journal->place.salt, sizeof frames->place.salt) != 0;
    if (found)
        return found < 0 ? found : 0;
    return other && journal->settled ? 0 : -ESTALE;
}

/* Up to `limit` frames of the log, the last of which ends a commit. */
static errint journal_copy_to(struct db_journal *journal, int log_fd, uint32_t limit)
{
    cleanup_batch struct journal_batch batch = {0};
    if (limit == 0)
        return 0; /* the log is empty: what was in it is here */
    errint error = journal_find_place(journal, log_fd, &batch.frames);
    if (error || batch.frames.place.frame >= limit)
        return error ? error : batch.frames.place.frame > limit ? -ESTALE : 0;
    batch.room = redo_pages_max(batch.frames.page_size);
    if (batch.room > limit - batch.frames.place.frame)
        batch.room = limit - batch.frames.place.frame;
    batch.bytes = malloc(batch.room * frames_size(&batch.frames));
    batch.pages = calloc(batch.room, sizeof *batch.pages);
    if (!batch.bytes || !batch.pages)
        return -ENOMEM;
    while (!error && batch.frames.place.frame < limit) {
        size_t left = limit - batch.frames.place.frame;
        ssize_t count = frames_read(&batch.frames, batch.bytes, left < batch.room ? left : batch.room);
        if (count <= 0)
            return count < 0 ? (errint)count : -ESTALE;
        batch.count = (size_t)count;
        error = journal_take(journal, &batch);
    }
    return error;
}

errint db_journal_copy(struct db_journal *journal, struct db *db, uint64_t commits)
{
    return journal_copy_to(journal, db_sqlite_log_fd(db), (uint32_t)commits);
}

errint db_journal_sync(struct db_journal *journal)
{
    errint error = fault_hit("journal.sync");
    return error ? error : redo_sync(&journal->redo);
}

static errint journal_settle_as(struct db_journal *journal, const struct redo_file *database)
{
    const struct redo_record record = {.kind = REDO_SETTLED,
                                       .time = clock_read_ns(CLOCK_REALTIME),
                                       .place = journal->place,
                                       .database = *database};
    errint error = fault_hit("journal.settle");
    if (!error)
        error = redo_append(&journal->redo, &record);
    if (!error)
        error = fault_hit("journal.settled");
    journal->settled = !error;
    return error;
}

errint db_journal_settle(struct db_journal *journal)
{
    struct redo_file now;
    errint error = redo_look_at(journal->database, &now);
    return error ? error : journal_settle_as(journal, &now);
}

errint db_journal_settle_behind(struct db_journal *journal, const struct db_journal *before)
{
    /* The log was empty when it was begun, and still is: it is where the other one is. */
    if (before->follows && journal->place.frame == 0)
        journal->place = before->place;
    return db_journal_settle(journal);
}

errint db_journal_finish(struct db_journal *journal)
{
    /* So that a power cut does not give it another time. */
    cleanup_fd int fd = open(journal->database, O_RDONLY | O_CLOEXEC | O_NOFOLLOW);
    if (fd < 0 || fsync(fd) < 0)
        return -errno;
    errint error = db_journal_settle(journal);
    return error ? error : db_journal_sync(journal);
}

/* -- opening ----------------------------------------------------------------------------------------------
 */

/* What is there: the log, when there is one, and the database file. */
struct journal_world {
    int log_fd;
    struct frames log; /* at its beginning */
    bool has_log;
    uint32_t committed; /* frames */
    struct redo_file database;
};

static errint journal_look(const char *database, struct journal_world *world)
{
    char path[PATH_MAX];
    *world = (struct journal_world){.log_fd = -1};
    if ((size_t)snprintf(path, sizeof path, "%s-wal", database) >= sizeof path)
        return -ENAMETOOLONG;
    errint error = redo_look_at(database, &world->database);
    if (error && error != -ENOENT) /* who rebuilds it may have nothing but the log */
        return error;
    world->log_fd = open(path, O_RDONLY | O_CLOEXEC | O_NOFOLLOW);
    if (world->log_fd < 0)
        return errno == ENOENT ? 0 : -errno;
    int begun = frames_begin(&world->log, world->log_fd);
    ssize_t committed = begun > 0 ? frames_count_committed(world->log_fd) : 0;
    if (begun < 0 || committed < 0)
        return begun < 0 ? begun : (errint)committed;
    world->has_log = committed > 0;
    world->committed = (uint32_t)committed;
    return 0;
}

static void journal_world_release(struct journal_world *world)
{
    if (world->log_fd >= 0)
        close(world->log_fd);
}

#define cleanup_world __attribute__((cleanup(journal_world_release)))

static bool journal_is_in_log(const struct journal_world *world, const struct frames_place *place)
{
    struct frames frames = world->log;
    return world->has_log && place->frame > 0 && place->frame <= world->committed &&
           frames_go_to(&frames, place) > 0;
}

/* The last record that ends a commit, and the points around it. */
struct journal_last {
    struct redo_record record;
    struct redo_point start, end;
};

static errint journal_find_last(struct redo *redo, struct journal_last *last)
{
    struct redo_record record;
    struct redo_point start = redo->at;
    int more;
    *last = (struct journal_last){
        .record = {.kind = REDO_PAGES, .place = redo->head.place}, .start = start, .end = start};
    while ((more = redo_next(redo, &record)) > 0) {
        if (redo_ends_commit(&record))
            *last = (struct journal_last){.record = record, .start = start, .end = redo->at};
        start = redo->at;
    }
    return more;
}

/* Whether the database file has the pages of the record that was read: 1, 0 or an error. */
static int journal_is_in_file(const struct db_journal *journal, const struct redo_record *record,
                              struct redo *redo)
{
    const uint32_t page_size = redo->head.page_size;
    const uint8_t *numbers = redo_pages(redo), *page = numbers + record->page_count * sizeof(uint32_t);
    cleanup_free uint8_t *found = malloc(page_size);
    cleanup_fd int fd = open(journal->database, O_RDONLY | O_CLOEXEC | O_NOFOLLOW);
    if (!found || fd < 0)
        return found ? -errno : -ENOMEM;
    for (uint32_t i = 0; i < record->page_count; i++, page += page_size) {
        uint32_t number;
        memcpy(&number, numbers + i * sizeof number, sizeof number);
        errint error = transfer_read(fd, found, page_size, ((int64_t)le32toh(number) - 1) * page_size);
        if (error && error != -EIO)
            return error;
        if (error || memcmp(found, page, page_size) != 0)
            return 0;
    }
    return 1;
}

/* Where the log has nothing of the last record: whether it never came into the database file either. */
static errint journal_find_lack(struct db_journal *journal, const struct journal_last *last)
{
    struct redo *redo = &journal->redo;
    struct redo_record record;
    if (last->record.kind != REDO_PAGES || last->start.offset == last->end.offset)
        return 0;
    redo->at = last->start;
    int read = redo_next(redo, &record);
    int found = read > 0 ? journal_is_in_file(journal, &record, redo) : read;
    journal->lacks = found == 0;
    return found < 0 && found != -ENOENT ? found : 0;
}

/* Whether what is there continues the last record: 1, 0; -ESTALE: it is less than that. */
static int journal_match(struct db_journal *journal, const struct journal_world *world,
                         const struct journal_last *last)
{
    const struct redo_record *record = &last->record;
    journal->place = record->place;
    if (journal_is_in_log(world, &record->place))
        return 1;
    journal->settled = record->kind == REDO_SETTLED && redo_is_same_file(&record->database, &world->database);
    if (journal->settled)
        return 1;
    bool same_log =
        world->has_log && memcmp(record->place.salt, world->log.place.salt, sizeof record->place.salt) == 0;
    if (same_log && record->kind == REDO_PAGES)
        return -ESTALE;
    return journal_find_lack(journal, last);
}

static errint journal_catch_up(struct db_journal *journal)
{
    cleanup_world struct journal_world world;
    struct journal_last last;
    errint error = journal_look(journal->database, &world);
    if (!error)
        error = journal_find_last(&journal->redo, &last);
    int match = error ? error : journal_match(journal, &world, &last);
    if (match <= 0)
        return match;
    journal->follows = true;
    error = redo_cut(&journal->redo, &last.end);
    /* Nothing is in the journal that a power cut can take from the log. */
    if (!error && world.has_log && fdatasync(world.log_fd) < 0)
        error = -errno;
    if (!error && world.has_log)
        error = journal_copy_to(journal, world.log_fd, world.committed);
    return error ? error : db_journal_sync(journal);
}

errint db_journal_open(const char *database, const char *path, struct db_journal **out)
{
    *out = NULL;
    struct db_journal *journal = calloc(1, sizeof *journal);
    if (!journal)
        return -ENOMEM;
    journal->redo.fd = -1;
    journal->database = strdup(database);
    errint error = journal->database ? redo_open(path, true, &journal->redo) : -ENOMEM;
    if (!error && !journal->redo.head.stopped)
        error = journal_catch_up(journal);
    if (error == -ENOMEM || error == -ESTALE) {
        db_journal_close(journal);
        return error;
    }
    if (error && error != -ENOENT) {
        log_warning("%s: it cannot be continued: %s", path, strerror(-error));
        db_journal_stop(journal);
    }
    *out = journal;
    return 0;
}

void db_journal_close(struct db_journal *journal)
{
    if (!journal)
        return;
    redo_close(&journal->redo);
    free(journal->database);
    free(journal);
}

bool db_journal_follows(const struct db_journal *journal)
{
    return journal->follows;
}

bool db_journal_lacks(const struct db_journal *journal)
{
    return journal->lacks;
}

int64_t db_journal_size(const struct db_journal *journal)
{
    return journal->follows ? journal->redo.at.offset : 0;
}

void db_journal_stop(struct db_journal *journal)
{
    if (journal->redo.fd >= 0 && !journal->redo.head.stopped)
        (void)redo_stop(&journal->redo); /* the caller tells what happened to it */
    redo_close(&journal->redo);
    journal->follows = false;
}

/* -- beginning --------------------------------------------------------------------------------------------
 */

static errint journal_read_backup(const char *backup, struct redo_head *head)
{
    uint8_t header[JOURNAL_DATABASE_HEADER];
    errint error = redo_look_at(backup, &head->copy);
    cleanup_fd int fd = error ? -1 : open(backup, O_RDONLY | O_CLOEXEC | O_NOFOLLOW);
    if (fd < 0)
        return error ? error : -errno;
    error = transfer_read(fd, header, sizeof header, 0);
    if (error)
        return error;
    /* The size of a page, as SQLite's format has it. */
    head->page_size = (uint32_t)header[16] << 8 | header[17];
    if (head->page_size == 1)
        head->page_size = FRAMES_PAGE_MAX;
    return redo_hash_file(fd, head->copy_hash);
}

errint db_journal_begin(struct db_journal *before, struct db_copy *copy, const char *backup, const char *path,
                        struct db_journal **out)
{
    struct redo_head head = {0};
    struct redo_file database;
    bool settled = db_sqlite_copy_place(copy, &head.place, &database);
    if (before->follows)
        memcpy(head.previous, before->redo.head.id, sizeof head.previous);
    *out = NULL;
    struct db_journal *journal = calloc(1, sizeof *journal);
    if (!journal)
        return -ENOMEM;
    journal->redo.fd = -1;
    journal->database = strdup(before->database);
    errint error = journal->database ? journal_read_backup(backup, &head) : -ENOMEM;
    if (!error && unlink(path) < 0 && errno != ENOENT)
        error = -errno;
    if (!error)
        error = redo_create(path, &head, &journal->redo);
    journal->place = head.place;
    if (!error && settled)
        error = journal_settle_as(journal, &database);
    if (error) {
        db_journal_close(journal);
        return error;
    }
    journal->follows = true;
    *out = journal;
    return 0;
}

/* -- restoring --------------------------------------------------------------------------------------------
 */

int db_journal_belongs(const char *path, const char *backup)
{
    uint8_t hash[REDO_HASH_BYTES];
    struct redo_file copy;
    cleanup_redo struct redo redo;
    errint error = redo_open(path, false, &redo);
    if (error)
        return error == -ENOENT || error == -EUCLEAN ? 0 : error;
    error = redo_look_at(backup, &copy);
    if (error || copy.size != redo.head.copy.size)
        return error == -ENOENT ? 0 : error;
    cleanup_fd int fd = open(backup, O_RDONLY | O_CLOEXEC | O_NOFOLLOW);
    if (fd < 0)
        return -errno;
    error = redo_hash_file(fd, hash);
    return error ? error : memcmp(hash, redo.head.copy_hash, sizeof hash) == 0;
}

/* Which journal it was, and where it ended, for the next one. */
struct journal_words {
    struct frames_place place;
    uint8_t id[REDO_ID_BYTES - 4];
};

errint db_journal_restore(const char *path, const char *database, bool again, struct db_journal_state *state)
{
    struct journal_words before;
    struct redo_outcome outcome;
    cleanup_redo struct redo redo;
    _Static_assert(sizeof before == sizeof state->words, "what the next journal needs fits");
    memcpy(&before, state->words, sizeof before);
    errint error = redo_open(path, false, &redo);
    if (error)
        return error;
    if (again && memcmp(redo.head.previous, before.id, sizeof before.id) != 0)
        return -ESTALE;
    cleanup_fd int fd = open(database, O_RDWR | O_CLOEXEC | O_NOFOLLOW);
    if (fd < 0)
        return -errno;
    error = redo_apply(&redo, fd, again ? &before.place : NULL, &outcome);
    if (!error && fsync(fd) < 0)
        error = -errno;
    if (error)
        return error;
    before.place = outcome.place;
    memcpy(before.id, redo.head.id, sizeof before.id);
    *state = (struct db_journal_state){
        .time = outcome.time ? outcome.time
                : again      ? state->time
                             : 0,
        .ending = outcome.ending == REDO_DAMAGED ? DB_JOURNAL_DAMAGED
                  : redo.head.stopped            ? DB_JOURNAL_STOPPED
                                                 : DB_JOURNAL_WHOLE,
        .offset = outcome.offset,
        .unused = outcome.unused,
    };
    memcpy(state->words, &before, sizeof before);
    return 0;
}

/* SPDX-License-Identifier: Apache-2.0 */
/* Who writes where. */
#include "fs/writers.h"

#include <errno.h>
#include <fnmatch.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "base/log.h"
#include "fs/filesystem.h"
#include "meta/writer.h"

/* The same thread in the same directory is not asked about again for so long. */
#define WRITERS_FRESH_NS (60 * CLOCK_NS_PER_SECOND)
/* And for so long it is held for a thread of the same process in another. */
#define WRITERS_SAME_NS CLOCK_NS_PER_SECOND

enum {
    WRITERS_NOTES = 4096, /* the oldest are written over: those of directories that are in no run */
    WRITERS_RECENT = 32,  /* so many of the newest are looked at before /proc is */
    WRITERS_LEVELS = 3,   /* a file of a run lies at most so many directories below it */
    WRITERS_OF_RUN = 4096,
};

/* Programs that copy files; what they write was not saved where it lies. As /proc/PID/comm has them. */
static const char *const writers_copiers[] = {
    "cp",     "mv",   "rsync",   "tar",   "bsdtar",  "scp",      "sftp-server", "rclone", "unzip",
    "7z*",    "cpio", "install", "dd",    "s3cmd",   "s5cmd",    "aws",         "gsutil", "azcopy",
    "gcloud", "mc",   "wget",    "curl",  "aria2c",  "git",      "git-*",       "lftp",   "restic",
    "borg",   "pax",  "bbcp",    "fpart", "msrsync", "parsync*", "globus*",
};

struct writers_note {
    uint64_t directory; /* 0: none */
    pid_t thread;
    struct process process; /* pid 0 and `copy`: times were set there */
    bool copy;
    int64_t at;
};

struct writers {
    pthread_mutex_t lock;
    struct writers_note notes[WRITERS_NOTES];
    size_t next;
    char world[PROCESS_WORLD_MAX];
};

errint writers_start(struct filesystem *fs)
{
    struct writers *writers = calloc(1, sizeof *writers);
    if (!writers)
        return -ENOMEM;
    pthread_mutex_init(&writers->lock, NULL);
    errint error = process_world(writers->world);
    if (error)
        log_warning("processes cannot be told apart here, so no checkpoint is ever found torn: %s",
                    strerror(-error));
    if (error)
        writers->world[0] = '\0';
    fs->writers = writers;
    return 0;
}

void writers_release(struct filesystem *fs)
{
    if (!fs->writers)
        return;
    pthread_mutex_destroy(&fs->writers->lock);
    free(fs->writers);
    fs->writers = NULL;
}

/* -- noting -----------------------------------------------------------------------------------------------
 */

static bool writers_is_copier(const char *name)
{
    for (size_t i = 0; i < sizeof writers_copiers / sizeof *writers_copiers; i++) {
        if (fnmatch(writers_copiers[i], name, 0) == 0)
            return true;
    }
    return false;
}

/* The lock is held. */
static bool writers_is_noted(const struct writers *writers, uint64_t directory, pid_t thread, bool times)
{
    int64_t now = clock_monotonic();
    for (size_t i = 1; i <= WRITERS_RECENT; i++) {
        const struct writers_note *note =
            &writers->notes[(writers->next + WRITERS_NOTES - i) % WRITERS_NOTES];
        bool same = times ? note->copy && note->process.pid == 0 : note->thread == thread && note->thread;
        if (note->directory == directory && same && now - note->at < WRITERS_FRESH_NS)
            return true;
    }
    return false;
}

/* The same thread works in many directories in a row: /proc is not read for each. The lock is held. */
static bool writers_recall(const struct writers *writers, pid_t thread, struct process *out)
{
    int64_t now = clock_monotonic();
    for (size_t i = 1; i <= WRITERS_RECENT; i++) {
        const struct writers_note *note =
            &writers->notes[(writers->next + WRITERS_NOTES - i) % WRITERS_NOTES];
        if (note->thread != thread || note->process.pid == 0 || now - note->at >= WRITERS_SAME_NS)
            continue;
        *out = note->process;
        return true;
    }
    return false;
}

static void writers_add(struct writers *writers, struct writers_note note)
{
    note.at = clock_monotonic();
    pthread_mutex_lock(&writers->lock);
    writers->notes[writers->next] = note;
    writers->next = (writers->next + 1) % WRITERS_NOTES;
    pthread_mutex_unlock(&writers->lock);
}

void writers_note(struct filesystem *fs, uint64_t directory, pid_t thread)
{
    struct writers *writers = fs->writers;
    struct writers_note note = {.directory = directory, .thread = thread};
    pthread_mutex_lock(&writers->lock);
    bool noted = writers_is_noted(writers, directory, thread, false);
    bool known = !noted && thread > 0 && writers_recall(writers, thread, &note.process);
    pthread_mutex_unlock(&writers->lock);
    if (noted)
        return;
    /* One that is not there was killed while it asked. */
    if (thread > 0 && !known && process_of_thread(thread, &note.process) < 0)
        return;
    note.copy = writers_is_copier(note.process.name);
    writers_add(writers, note);
}

/* Where the file has its first name; 0: nowhere. */
static uint64_t writers_directory_of(struct filesystem *fs, uint64_t ino)
{
    struct meta_name name;
    size_t count = 0;
    errint error = meta_find_names(fs->meta, ino, NULL, &name, 1, &count);
    return error || count == 0 ? 0 : name.parent;
}

_Static_assert((int)PROCESS_WORLD_MAX <= (int)META_WRITER_BOOT_MAX, "the world is a text of the row's size");

/* A process of this world, as the database has it. */
static struct meta_writer writers_row(const struct writers *writers, const struct process *process)
{
    struct meta_writer row = {.pid = process->pid, .started = process->started};
    strcpy(row.boot, writers->world);
    return row;
}

void writers_note_file(struct filesystem *fs, uint64_t ino, pid_t thread)
{
    uint64_t directory = writers_directory_of(fs, ino);
    if (directory)
        writers_note(fs, directory, thread);
}

void writers_note_now(struct filesystem *fs, uint64_t run, pid_t thread)
{
    struct process process = {0};
    if ((thread > 0 && process_of_thread(thread, &process) < 0) || writers_is_copier(process.name))
        return;
    const struct meta_writer row = writers_row(fs->writers, &process);
    errint error = meta_writers_put(fs->meta, run, &row, 1, WRITERS_OF_RUN);
    if (error)
        log_warning("inode %llu: who writes there is not known to a later daemon: %s",
                    (unsigned long long)run, strerror(-error));
}

void writers_note_times(struct filesystem *fs, uint64_t ino)
{
    struct writers *writers = fs->writers;
    uint64_t directory = writers_directory_of(fs, ino);
    pthread_mutex_lock(&writers->lock);
    bool noted = !directory || writers_is_noted(writers, directory, 0, true);
    pthread_mutex_unlock(&writers->lock);
    if (!noted)
        writers_add(writers, (struct writers_note){.directory = directory, .copy = true});
}

/* -- the run's --------------------------------------------------------------------------------------------
 */

static bool writers_is_below(struct filesystem *fs, uint64_t directory, uint64_t run)
{
    for (unsigned level = 0; level <= WRITERS_LEVELS && directory; level++) {
        if (directory == run)
            return true;
        if (directory == META_ROOT_INO || meta_parent(fs->meta, directory, &directory) < 0)
            return false;
    }
    return false;
}

/* The notes of all directories, copied, so that the namespace can be asked without the lock. */
static errint writers_copy_notes(struct writers *writers, struct writers_note **out)
{
    struct writers_note *notes = malloc(sizeof writers->notes);
    if (!notes)
        return -ENOMEM;
    pthread_mutex_lock(&writers->lock);
    memcpy(notes, writers->notes, sizeof writers->notes);
    pthread_mutex_unlock(&writers->lock);
    *out = notes;
    return 0;
}

bool writers_wrote_below(struct filesystem *fs, uint64_t run)
{
    cleanup_free struct writers_note *notes = NULL;
    if (writers_copy_notes(fs->writers, &notes) < 0)
        return true;
    for (size_t i = 0; i < WRITERS_NOTES; i++) {
        uint64_t directory = notes[i].directory;
        if (directory && directory != run && (i == 0 || directory != notes[i - 1].directory) &&
            writers_is_below(fs, directory, run))
            return true;
    }
    return false;
}

/* Takes a note that the database has. */
static void writers_clear(struct writers *writers, size_t index, const struct writers_note *known)
{
    pthread_mutex_lock(&writers->lock);
    if (memcmp(&writers->notes[index], known, sizeof *known) == 0)
        writers->notes[index] = (struct writers_note){0};
    pthread_mutex_unlock(&writers->lock);
}

static bool writers_has(const struct meta_writer *rows, size_t count, const struct meta_writer *row)
{
    for (size_t i = 0; i < count; i++) {
        if (rows[i].pid == row->pid && rows[i].started == row->started &&
            strcmp(rows[i].boot, row->boot) == 0)
            return true;
    }
    return false;
}

static errint writers_keep(struct filesystem *fs, uint64_t run, struct ids *copies)
{
    struct writers *writers = fs->writers;
    cleanup_free struct writers_note *notes = NULL;
    cleanup_free struct meta_writer *known = NULL;
    cleanup_free struct meta_writer *rows = calloc(WRITERS_NOTES, sizeof *rows);
    size_t count = 0, known_count = 0;
    errint error = rows ? writers_copy_notes(writers, &notes) : -ENOMEM;
    if (!error)
        error = meta_writers(fs->meta, run, &known, &known_count);
    for (size_t i = 0; i < WRITERS_NOTES && !error; i++) {
        const struct writers_note *note = &notes[i];
        /* What others do in the run's own directory has no part in its checkpoints. */
        if (!note->directory || note->directory == run || !writers_is_below(fs, note->directory, run)) {
            notes[i].directory = 0;
            continue;
        }
        if (note->copy && !ids_contain(copies, note->directory))
            error = ids_append(copies, note->directory);
        const struct meta_writer row = writers_row(writers, &note->process);
        if (!note->copy && !writers_has(known, known_count, &row) && !writers_has(rows, count, &row))
            rows[count++] = row;
    }
    if (!error && count > 0)
        error = meta_writers_put(fs->meta, run, rows, count, WRITERS_OF_RUN);
    for (size_t i = 0; i < WRITERS_NOTES && !error; i++) {
        if (notes[i].directory)
            writers_clear(writers, i, &notes[i]);
    }
    return error;
}

static enum writers_state writers_state_of(const struct writers *writers, const struct meta_writer *row)
{
    const struct process process = {.pid = (pid_t)row->pid, .started = row->started};
    /* The machine has started anew since. */
    if (writers->world[0] && strncmp(row->boot, writers->world, PROCESS_BOOT_LENGTH) != 0)
        return WRITERS_GONE;
    if (strcmp(row->boot, writers->world) != 0 || !writers->world[0] || row->pid == 0)
        return WRITERS_UNKNOWN;
    return process_is_alive(&process) ? WRITERS_ALIVE : WRITERS_GONE;
}

/* One of the run's processes more. */
static void writers_count(const struct writers *writers, const struct meta_writer *row,
                          struct writers_seen *out)
{
    const struct process process = {.pid = (pid_t)row->pid, .started = row->started};
    enum writers_state state = writers_state_of(writers, row);
    int64_t started = state == WRITERS_ALIVE ? process_start_time(&process) : 0;
    if (state == WRITERS_ALIVE && (out->state != WRITERS_ALIVE || started > out->since))
        out->since = started;
    if (state == WRITERS_ALIVE || (state == WRITERS_UNKNOWN && out->state == WRITERS_GONE))
        out->state = state;
}

static errint writers_count_known(struct filesystem *fs, uint64_t run, struct writers_seen *out)
{
    cleanup_free struct meta_writer *rows = NULL;
    size_t count = 0;
    *out = (struct writers_seen){WRITERS_UNKNOWN, INT64_MAX};
    errint error = meta_writers(fs->meta, run, &rows, &count);
    if (!error && count > 0)
        out->state = WRITERS_GONE;
    for (size_t i = 0; i < count && !error; i++)
        writers_count(fs->writers, &rows[i], out);
    return error;
}

errint writers_gather(struct filesystem *fs, uint64_t run, struct ids *copies, struct writers_seen *out)
{
    *out = (struct writers_seen){WRITERS_UNKNOWN, INT64_MAX};
    errint error = writers_keep(fs, run, copies);
    return error ? error : writers_count_known(fs, run, out);
}

errint writers_ask(struct filesystem *fs, uint64_t run, struct writers_seen *out)
{
    cleanup_free struct writers_note *notes = NULL;
    errint error = writers_count_known(fs, run, out);
    if (!error)
        error = writers_copy_notes(fs->writers, &notes);
    for (size_t i = 0; i < WRITERS_NOTES && !error; i++) {
        const struct writers_note *note = &notes[i];
        if (!note->directory || note->copy || note->directory == run ||
            !writers_is_below(fs, note->directory, run))
            continue;
        const struct meta_writer row = writers_row(fs->writers, &note->process);
        if (out->state == WRITERS_UNKNOWN)
            out->state = WRITERS_GONE;
        writers_count(fs->writers, &row, out);
    }
    return error;
}

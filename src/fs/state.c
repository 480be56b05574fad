/* SPDX-License-Identifier: Apache-2.0 */
/* The memory that outlives a daemon. */
#include "fs/state.h"

#include <errno.h>
#include <pthread.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>

#include "base/clock.h"
#include "base/log.h"

/* A request that kills its daemon does it soon; one that takes longer was merely there. */
#define STATE_KILL_WITHIN_NS CLOCK_NS_PER_SECOND

/* Slots that are free again, for this process; a successor starts with an empty list and finds them by
 * search. */
static pthread_mutex_t handle_lock = PTHREAD_MUTEX_INITIALIZER;
static uint32_t handle_hint;

int state_create(void)
{
    /* No MFD_CLOEXEC: the daemon that the keeper starts maps it. */
    cleanup_fd int fd = memfd_create("ckptfs-state", 0);
    if (fd < 0)
        return -errno;
    if (ftruncate(fd, sizeof(struct state)) < 0)
        return -errno;
    struct state *state = mmap(NULL, sizeof *state, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    if (state == MAP_FAILED)
        return -errno;
    state->magic = STATE_MAGIC;
    state->version = STATE_VERSION;
    state->mounted_at = clock_read_ns(CLOCK_REALTIME);
    atomic_store(&state->next_sequence, 1);
    munmap(state, sizeof *state);
    return steal_fd(fd);
}

struct state *state_attach(int fd)
{
    struct stat status;
    if (fstat(fd, &status) < 0 || status.st_size < (off_t)sizeof(struct state)) {
        log_error("state memory: expected %zu bytes, found %lld; unmount and mount again",
                  sizeof(struct state), (long long)status.st_size);
        return NULL;
    }
    struct state *state = mmap(NULL, sizeof *state, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    if (state == MAP_FAILED) {
        log_error("state memory: %m");
        return NULL;
    }
    if (state->magic != STATE_MAGIC || state->version != STATE_VERSION) {
        log_error("state memory: expected layout %d, found %u; unmount and mount again", STATE_VERSION,
                  state->version);
        munmap(state, sizeof *state);
        return NULL;
    }
    return state;
}

void state_detach(struct state *state)
{
    if (state)
        munmap(state, sizeof *state);
}

/* -- requests ---------------------------------------------------------------------------------------------
 */

static struct state_request *state_find_carried(struct state *state, uint64_t unique)
{
    for (unsigned i = 0; i < STATE_CARRIED; i++) {
        if (atomic_load(&state->carried[i].unique) == (unique & ~STATE_RESENT))
            return &state->carried[i];
    }
    return NULL;
}

void state_request_begin(struct state *state, unsigned slot, uint64_t unique, uint32_t opcode,
                         uint64_t nodeid)
{
    struct state_request *request = &state->requests[slot];
    request->opcode = opcode;
    request->nodeid = nodeid;
    request->blame = 0;
    request->ino = 0;
    atomic_store(&request->done, 0);
    if (unique & STATE_RESENT) {
        struct state_request *before = state_find_carried(state, unique);
        if (before)
            request->blame = before->blame;
    }
    int64_t now = clock_monotonic();
    atomic_store(&request->begun, now);
    atomic_store(&request->unique, unique & ~STATE_RESENT);
    atomic_store(&state->last_progress, now);
}

void state_request_end(struct state *state, unsigned slot)
{
    struct state_request *request = &state->requests[slot];
    /* The begin and not the end: of a request that another thread goes on with, that thread's begin is later.
     */
    int64_t begun = atomic_load(&request->begun);
    if (begun > atomic_load(&state->last_answered))
        atomic_store(&state->last_answered, begun);
    atomic_store(&request->unique, 0);
    atomic_store(&state->last_progress, clock_monotonic());
}

void state_request_done(struct state *state, uint64_t unique, uint64_t ino)
{
    for (unsigned i = 0; i < STATE_REQUESTS; i++) {
        struct state_request *request = &state->requests[i];
        if (atomic_load(&request->unique) == (unique & ~STATE_RESENT)) {
            request->ino = ino;
            atomic_store(&request->done, 1);
            return;
        }
    }
}

int state_request_was_done(struct state *state, uint64_t unique, uint64_t *ino)
{
    if (!(unique & STATE_RESENT))
        return 0;
    struct state_request *before = state_find_carried(state, unique);
    if (!before || !atomic_load(&before->done))
        return 0;
    *ino = before->ino;
    return 1;
}

void state_blame(struct state *state, enum state_end end)
{
    int64_t since = INT64_MAX;
    if (end == STATE_END_CRASHED)
        since = 0;
    else if (end == STATE_END_KILLED)
        since = clock_monotonic() - STATE_KILL_WITHIN_NS;
    atomic_store(&state->was_killed, end == STATE_END_KILLED);
    atomic_store(&state->blamed_since, since);
}

static struct state_request *state_carried_slot(struct state *state)
{
    struct state_request *oldest = &state->carried[0];
    for (unsigned i = 0; i < STATE_CARRIED; i++) {
        struct state_request *slot = &state->carried[i];
        if (atomic_load(&slot->unique) == 0)
            return slot;
        if (atomic_load(&slot->begun) < atomic_load(&oldest->begun))
            oldest = slot;
    }
    return oldest;
}

/*
 * Who is killed from outside is killed by chance, or because a request took all memory: that one is the last
 * that began, or others are still answered meanwhile, but not time after time.
 */
static uint32_t state_find_blame(const struct state *state, const struct state_request *request)
{
    int64_t begun = atomic_load(&request->begun);
    if (begun < atomic_load(&state->blamed_since))
        return 0;
    bool unlikely = atomic_load(&state->was_killed) && atomic_load(&state->last_answered) > begun;
    return unlikely ? STATE_BLAME_UNLIKELY : STATE_BLAME;
}

void state_carry_requests(struct state *state, uint64_t last_unique, uint64_t last_ino)
{
    for (unsigned i = 0; i < STATE_REQUESTS; i++) {
        struct state_request *request = &state->requests[i];
        uint64_t unique = atomic_load(&request->unique);
        if (!unique)
            continue;
        struct state_request *slot = state_find_carried(state, unique);
        if (!slot)
            slot = state_carried_slot(state);
        slot->opcode = request->opcode;
        slot->nodeid = request->nodeid;
        slot->blame = request->blame + state_find_blame(state, request);
        slot->ino = request->ino;
        atomic_store(&slot->done, atomic_load(&request->done));
        if (unique == (last_unique & ~STATE_RESENT)) {
            slot->ino = last_ino;
            atomic_store(&slot->done, 1);
        }
        atomic_store(&slot->begun, atomic_load(&request->begun));
        atomic_store(&slot->unique, unique);
        atomic_store(&request->unique, 0);
    }
}

/* -- handles ----------------------------------------------------------------------------------------------
 */

static uint32_t state_handle_index(uint64_t fh)
{
    return (uint32_t)(fh & 0xffffffff);
}

static uint32_t state_handle_free_index(struct state *state)
{
    uint32_t used = atomic_load(&state->handles_used);
    for (uint32_t i = handle_hint; i < used; i++) {
        if (atomic_load(&state->handles[i].fh) == 0)
            return i;
    }
    if (used < STATE_HANDLES)
        return used;
    for (uint32_t i = 0; i < handle_hint; i++) {
        if (atomic_load(&state->handles[i].fh) == 0)
            return i;
    }
    return STATE_HANDLES;
}

uint64_t state_handle_open(struct state *state, const struct state_handle *handle)
{
    pthread_mutex_lock(&handle_lock);
    uint32_t index = state_handle_free_index(state);
    uint64_t fh = 0;
    if (index < STATE_HANDLES) {
        handle_hint = index + 1;
        uint32_t sequence = atomic_fetch_add(&state->next_sequence, 1);
        if (sequence == 0)
            sequence = atomic_fetch_add(&state->next_sequence, 1);
        fh = (uint64_t)sequence << 32 | index;
        struct state_handle *slot = &state->handles[index];
        slot->ino = handle->ino;
        slot->unique = handle->unique & ~STATE_RESENT;
        slot->object = handle->object;
        slot->backing_id = handle->backing_id;
        slot->flags = handle->flags;
        slot->mode = handle->mode;
        slot->opener = handle->opener;
        if (index >= atomic_load(&state->handles_used))
            atomic_store(&state->handles_used, index + 1);
        /* Last: a successor believes what has an fh. */
        atomic_store(&slot->fh, fh);
    }
    pthread_mutex_unlock(&handle_lock);
    return fh;
}

struct state_handle *state_handle_find(struct state *state, uint64_t fh)
{
    uint32_t index = state_handle_index(fh);
    if (fh == 0 || index >= STATE_HANDLES || atomic_load(&state->handles[index].fh) != fh)
        return NULL;
    return &state->handles[index];
}

struct state_handle *state_handle_of_request(struct state *state, uint64_t unique)
{
    uint32_t used = atomic_load(&state->handles_used);
    for (uint32_t i = 0; i < used; i++) {
        struct state_handle *slot = &state->handles[i];
        if (atomic_load(&slot->fh) != 0 && slot->unique == (unique & ~STATE_RESENT))
            return slot;
    }
    return NULL;
}

void state_handle_close(struct state *state, uint64_t fh)
{
    struct state_handle *slot = state_handle_find(state, fh);
    if (!slot)
        return;
    pthread_mutex_lock(&handle_lock);
    atomic_store(&slot->fh, 0);
    if (state_handle_index(fh) < handle_hint)
        handle_hint = state_handle_index(fh);
    pthread_mutex_unlock(&handle_lock);
}

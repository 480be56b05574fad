/* SPDX-License-Identifier: Apache-2.0 */
/* The threads that answer the kernel. */
#include "fs/loop.h"

#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>

#include "base/clock.h"
#include "base/log.h"

_Thread_local const struct protocol_header *fs_current_request;
_Thread_local char *fs_read_buffer;

/* A write's bytes start this far into the message; there the page begins. */
enum {
    LOOP_PAGE = 4096,
    LOOP_PREFIX = PROTOCOL_HEADER_SIZE + PROTOCOL_WRITE_SIZE,
    LOOP_MESSAGE_MAX = FS_MAX_WRITE + LOOP_PAGE,
};

struct loop_thread {
    struct loop *loop;
    pthread_t thread;
    unsigned slot;
    atomic_bool ended;
    char *memory;
};

struct loop {
    struct filesystem *fs;
    int ended_fd;
    unsigned count;
    struct loop_thread threads[];
};

/*
 * Every page is touched: when a process is killed while the kernel copies a request into a page that is not
 * there yet, that request fails with EIO instead of being sent again.
 */
static char *loop_allocate(void)
{
    size_t size = LOOP_PAGE + LOOP_MESSAGE_MAX + LOOP_PAGE;
    char *memory = aligned_alloc(LOOP_PAGE, size);
    return memory ? memset(memory, 0, size) : NULL;
}

static char *loop_message(char *memory)
{
    return memory + LOOP_PAGE - LOOP_PREFIX;
}

/* The length of one message; 0 at the end of the connection or when asked to stop; negative errno. */
static ssize_t loop_read(struct filesystem *fs, char *message)
{
    for (;;) {
        if (atomic_load(&fs->stopping))
            return 0;
        ssize_t length = read(fs->options->fuse_fd, message, LOOP_MESSAGE_MAX);
        if (length >= 0)
            return length;
        if (errno == ENODEV)
            return 0;
        /* ENOENT: the request was interrupted before it was read. */
        if (errno != EINTR && errno != EAGAIN && errno != ENOENT)
            return -errno;
    }
}

static void loop_process(struct filesystem *fs, char *message, size_t length)
{
    struct fuse_buf buffer = {.mem = message, .size = length};
    fs_current_request = (const struct protocol_header *)message;
    fuse_session_process_buf(fs->session, &buffer);
    fs_current_request = NULL;
}

static void loop_answer(struct filesystem *fs, unsigned slot, char *message, size_t length)
{
    const struct protocol_header *header = protocol_parse(message, length);
    if (!header) {
        log_error("the kernel sent %zu bytes, expected a request", length);
        return;
    }
    bool counts = header->opcode != PROTOCOL_FORGET && header->opcode != PROTOCOL_BATCH_FORGET &&
                  header->opcode != PROTOCOL_INTERRUPT;
    if (!counts) {
        loop_process(fs, message, length);
        return;
    }
    state_request_begin(fs->state, slot, header->unique, header->opcode, header->nodeid);
    if (fs->state->requests[slot].blame >= STATE_BLAME_FATAL) {
        log_error("request %llu (opcode %u, inode %llu) was in work at too many deaths: answered EIO",
                  (unsigned long long)(header->unique & ~STATE_RESENT), header->opcode,
                  (unsigned long long)header->nodeid);
        protocol_reply_error(fs->options->fuse_fd, header->unique, -EIO);
    } else {
        loop_process(fs, message, length);
    }
    state_request_end(fs->state, slot);
}

static void *loop_run(void *context)
{
    struct loop_thread *thread = context;
    struct filesystem *fs = thread->loop->fs;
    char *message = loop_message(thread->memory);
    ssize_t length;
    while ((length = loop_read(fs, message)) > 0)
        loop_answer(fs, thread->slot, message, (size_t)length);
    if (length < 0)
        log_error("/dev/fuse: %s", strerror((int)-length));
    free(fs_read_buffer);
    fs_read_buffer = NULL;
    atomic_store(&thread->ended, true);
    eventfd_write(thread->loop->ended_fd, 1);
    return NULL;
}

errint loop_initialise(struct filesystem *fs)
{
    struct state *state = fs->state;
    cleanup_free char *memory = loop_allocate();
    if (!memory)
        return -ENOMEM;
    char *message = loop_message(memory);
    bool again = state->init_length > 0;
    if (again) {
        memcpy(message, state->init, state->init_length);
    } else {
        ssize_t length = loop_read(fs, message);
        if (length <= 0)
            return length < 0 ? (errint)length : -ENODEV;
        const struct protocol_header *header = protocol_parse(message, (size_t)length);
        if (!header || header->opcode != PROTOCOL_INIT || length > STATE_INIT_MAX)
            return -EPROTO;
        memcpy(state->init, message, (size_t)length);
        state->init_length = (uint32_t)length;
    }
    fs->features.resend = protocol_offers_resend((const struct protocol_header *)message);
    atomic_store(&state->can_resend, fs->features.resend);
    loop_process(fs, message, state->init_length);
    return 0;
}

/* Breaks a thread out of read(2); the handler has nothing to do. */
static void loop_interrupt(int signal)
{
    (void)signal;
}

static void loop_end(struct loop *loop)
{
    const struct timespec pause = {.tv_nsec = 2 * 1000 * 1000};
    atomic_store(&loop->fs->stopping, true);
    for (unsigned i = 0; i < loop->count; i++) {
        struct loop_thread *thread = &loop->threads[i];
        /* The signal may come between the check and the read: repeat until the thread has seen it. */
        while (!atomic_load(&thread->ended)) {
            pthread_kill(thread->thread, SIGUSR2);
            nanosleep(&pause, NULL);
        }
        pthread_join(thread->thread, NULL);
        free(thread->memory);
    }
}

errint loop_start(struct filesystem *fs, unsigned threads, int ended_fd, struct loop **out)
{
    struct loop *loop = calloc(1, sizeof *loop + threads * sizeof loop->threads[0]);
    if (!loop)
        return -ENOMEM;
    loop->fs = fs;
    loop->ended_fd = ended_fd;
    const struct sigaction action = {.sa_handler = loop_interrupt};
    sigaction(SIGUSR2, &action, NULL);
    for (unsigned i = 0; i < threads; i++) {
        struct loop_thread *thread = &loop->threads[i];
        thread->loop = loop;
        thread->slot = i;
        thread->memory = loop_allocate();
        int error = thread->memory ? pthread_create(&thread->thread, NULL, loop_run, thread) : ENOMEM;
        if (error) {
            free(thread->memory);
            loop_stop(loop);
            return -error;
        }
        loop->count++;
        char label[16];
        snprintf(label, sizeof label, "fuse-%u", i);
        pthread_setname_np(thread->thread, label);
    }
    *out = loop;
    return 0;
}

void loop_stop(struct loop *loop)
{
    if (!loop)
        return;
    loop_end(loop);
    free(loop);
}

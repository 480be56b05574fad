/* SPDX-License-Identifier: Apache-2.0 */
/* Comparing the bytes of one object with the table of another. */
#include <errno.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <unistd.h>

#include "base/transfer.h"
#include "store/sums.h"

enum {
    COMPARE_SAMPLE = 16, /* chunks that come first */
    COMPARE_THREADS = 4, /* at most; somebody waits, and the bytes are in memory */
    COMPARE_SHARE = 64,  /* chunks that are worth a thread */
};

/* One comparison, by one or more threads. */
struct compare {
    const struct sums_request *request;
    const struct sums *sums;
    atomic_size_t next;  /* chunk that nobody has taken */
    _Atomic int outcome; /* 1 as long as all were equal */
};

/* 1, 0 or a negative errno. `buffer` has room for the chunk. */
static int compare_chunk(const struct compare *compare, size_t number, void *buffer)
{
    const struct sums_request *request = compare->request;
    const struct sums_chunk *chunk = &compare->sums->chunks[number];
    if (request->stop && request->stop(request->context))
        return -ECANCELED;
    errint error = transfer_read(request->fd, buffer, chunk->length, chunk->offset);
    return error ? error : hash_equal(hash_of(request->store, buffer, chunk->length), chunk->hash);
}

static int compare_sample(const struct compare *compare, void *buffer)
{
    const size_t count = compare->sums->chunk_count;
    int same = 1;
    for (size_t i = 0; same == 1 && count > COMPARE_SAMPLE && i < COMPARE_SAMPLE; i++)
        same = compare_chunk(compare, i * (count - 1) / (COMPARE_SAMPLE - 1), buffer);
    return same;
}

/* Chunks that nobody has taken, until there are none or one is not equal. */
static void compare_rest(struct compare *compare, void *buffer)
{
    while (atomic_load(&compare->outcome) == 1) {
        size_t number = atomic_fetch_add(&compare->next, 1);
        if (number >= compare->sums->chunk_count)
            return;
        int same = compare_chunk(compare, number, buffer);
        if (same != 1)
            atomic_store(&compare->outcome, same);
    }
}

static void *compare_run(void *context)
{
    struct compare *compare = context;
    cleanup_free void *buffer = malloc(SUMS_CHUNK_MAX);
    /* Without memory the others do it. */
    if (buffer)
        compare_rest(compare, buffer);
    return NULL;
}

static size_t compare_helpers(const struct compare *compare)
{
    size_t worth = compare->sums->chunk_count / COMPARE_SHARE;
    long online = sysconf(_SC_NPROCESSORS_ONLN);
    size_t most = online > COMPARE_THREADS ? COMPARE_THREADS : online > 1 ? (size_t)online : 1;
    return (worth < most ? worth : most) - (worth > 0);
}

int sums_compare(const struct sums_request *request, const struct sums *sums)
{
    struct compare compare = {.request = request, .sums = sums, .outcome = 1};
    pthread_t helpers[COMPARE_THREADS];
    size_t started = 0;
    if (request->size != sums->size)
        return 0;
    cleanup_free void *buffer = malloc(SUMS_CHUNK_MAX);
    if (!buffer)
        return -ENOMEM;
    int same = compare_sample(&compare, buffer);
    if (same != 1)
        return same;
    const size_t wanted = compare_helpers(&compare);
    while (started < wanted && pthread_create(&helpers[started], NULL, compare_run, &compare) == 0)
        started++;
    compare_rest(&compare, buffer);
    for (size_t i = 0; i < started; i++)
        pthread_join(helpers[i], NULL);
    return atomic_load(&compare.outcome);
}

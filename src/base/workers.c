/* SPDX-License-Identifier: Apache-2.0 */
/* A pool of threads with one queue. */
#include "base/workers.h"
#include "base/thread.h"
#include "base/wait.h"

#include <errno.h>
#include <pthread.h>
#include <stdbool.h>
#include <stdlib.h>

struct job {
    workers_job *run;
    void *context;
    struct job *next;
};

struct worker {
    struct workers *pool;
    pthread_t thread;
    unsigned index;
};

struct workers {
    pthread_mutex_t lock;
    pthread_cond_t wake;
    struct job *first;
    struct job **last;
    bool stopping;
    unsigned count;
    struct worker workers[];
};

static struct job *workers_take(struct workers *pool)
{
    pthread_mutex_lock(&pool->lock);
    while (!pool->first && !pool->stopping)
        wait_signal(&pool->wake, &pool->lock);
    struct job *job = pool->first;
    if (job) {
        pool->first = job->next;
        if (!pool->first)
            pool->last = &pool->first;
    }
    pthread_mutex_unlock(&pool->lock);
    return job;
}

static void *worker_run(void *context)
{
    struct worker *worker = context;
    struct job *job;
    while ((job = workers_take(worker->pool))) {
        job->run(job->context, worker->index);
        free(job);
    }
    return NULL;
}

errint workers_start(unsigned count, const char *name, struct workers **out)
{
    struct workers *pool = calloc(1, sizeof *pool + count * sizeof pool->workers[0]);
    if (!pool)
        return -ENOMEM;
    pthread_mutex_init(&pool->lock, NULL);
    pthread_cond_init(&pool->wake, NULL);
    pool->last = &pool->first;
    for (unsigned i = 0; i < count; i++) {
        struct worker *worker = &pool->workers[i];
        *worker = (struct worker){.pool = pool, .index = i};
        errint error = thread_create(&worker->thread, name, worker_run, worker);
        if (error) {
            workers_stop(pool);
            return error;
        }
        pool->count++;
    }
    *out = pool;
    return 0;
}

errint workers_submit(struct workers *pool, workers_job *run, void *context)
{
    struct job *job = malloc(sizeof *job);
    if (!job)
        return -ENOMEM;
    *job = (struct job){.run = run, .context = context};
    pthread_mutex_lock(&pool->lock);
    *pool->last = job;
    pool->last = &job->next;
    pthread_cond_signal(&pool->wake);
    pthread_mutex_unlock(&pool->lock);
    return 0;
}

void workers_stop(struct workers *pool)
{
    if (!pool)
        return;
    pthread_mutex_lock(&pool->lock);
    pool->stopping = true;
    pthread_cond_broadcast(&pool->wake);
    pthread_mutex_unlock(&pool->lock);
    for (unsigned i = 0; i < pool->count; i++)
        pthread_join(pool->workers[i].thread, NULL);
    pthread_cond_destroy(&pool->wake);
    pthread_mutex_destroy(&pool->lock);
    free(pool);
}

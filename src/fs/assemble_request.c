/* SPDX-License-Identifier: Apache-2.0 */
/* A short list of directories. */
#include "fs/assemble_request.h"

#include <errno.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>

/* Those that have ended are kept until there are so many of all. */
enum { REQUESTS_MAX = 256 };

struct assemble_request {
    struct assemble_request *next; /* an older one */
    uint64_t directory;
    struct control_assemble answer;
};

struct assemble_requests {
    pthread_mutex_t lock;
    struct assemble_request *newest;
    size_t count;
};

struct assemble_requests *assemble_requests_make(void)
{
    struct assemble_requests *requests = calloc(1, sizeof *requests);
    if (requests)
        pthread_mutex_init(&requests->lock, NULL);
    return requests;
}

void assemble_requests_free(struct assemble_requests *requests)
{
    if (!requests)
        return;
    while (requests->newest) {
        struct assemble_request *request = requests->newest;
        requests->newest = request->next;
        free(request);
    }
    pthread_mutex_destroy(&requests->lock);
    free(requests);
}

/* -- with the lock held ------------------------------------------------------------------------------------
 */

static bool request_has_ended(const struct assemble_request *request)
{
    return request->answer.state == CONTROL_ASSEMBLE_DONE ||
           request->answer.state == CONTROL_ASSEMBLE_REFUSED;
}

static struct assemble_request *request_find(const struct assemble_requests *requests, uint64_t directory)
{
    struct assemble_request *request = requests->newest;
    while (request && request->directory != directory)
        request = request->next;
    return request;
}

/* The oldest one that has ended makes room. */
static bool request_make_room(struct assemble_requests *requests)
{
    struct assemble_request **oldest = NULL;
    if (requests->count < REQUESTS_MAX)
        return true;
    for (struct assemble_request **link = &requests->newest; *link; link = &(*link)->next) {
        if (request_has_ended(*link))
            oldest = link;
    }
    if (!oldest)
        return false;
    struct assemble_request *request = *oldest;
    *oldest = request->next;
    free(request);
    requests->count--;
    return true;
}

static void request_say(struct assemble_request *request, enum control_assemble_state state,
                        const char *reason)
{
    request->answer.state = state;
    snprintf(request->answer.reason, sizeof request->answer.reason, "%s", reason ? reason : "");
}

/* -- the contract -----------------------------------------------------------------------------------------
 */

errint assemble_requests_add(struct assemble_requests *requests, uint64_t directory)
{
    errint error = 0;
    pthread_mutex_lock(&requests->lock);
    struct assemble_request *request = request_find(requests, directory);
    if (request && request_has_ended(request)) {
        request->answer = (struct control_assemble){.state = CONTROL_ASSEMBLE_WAITING};
    } else if (!request && !request_make_room(requests)) {
        error = -EBUSY;
    } else if (!request && !(request = calloc(1, sizeof *request))) {
        error = -ENOMEM;
    } else if (request->directory == 0) {
        request->directory = directory;
        request->answer.state = CONTROL_ASSEMBLE_WAITING;
        request->next = requests->newest;
        requests->newest = request;
        requests->count++;
    }
    pthread_mutex_unlock(&requests->lock);
    return error;
}

bool assemble_requests_wants(struct assemble_requests *requests, uint64_t directory)
{
    pthread_mutex_lock(&requests->lock);
    const struct assemble_request *request = request_find(requests, directory);
    bool wants = request && !request_has_ended(request);
    pthread_mutex_unlock(&requests->lock);
    return wants;
}

void assemble_requests_progress(struct assemble_requests *requests, uint64_t directory, int64_t done,
                                int64_t total)
{
    pthread_mutex_lock(&requests->lock);
    struct assemble_request *request = request_find(requests, directory);
    if (request && !request_has_ended(request)) {
        request_say(request, CONTROL_ASSEMBLE_RUNNING, NULL);
        request->answer.done = done;
        request->answer.total = total;
    }
    pthread_mutex_unlock(&requests->lock);
}

void assemble_requests_wait(struct assemble_requests *requests, uint64_t directory, const char *reason)
{
    pthread_mutex_lock(&requests->lock);
    struct assemble_request *request = request_find(requests, directory);
    if (request && !request_has_ended(request))
        request_say(request, CONTROL_ASSEMBLE_WAITING, reason);
    pthread_mutex_unlock(&requests->lock);
}

void assemble_requests_finish(struct assemble_requests *requests, uint64_t directory, const char *reason)
{
    pthread_mutex_lock(&requests->lock);
    struct assemble_request *request = request_find(requests, directory);
    if (request && !request_has_ended(request))
        request_say(request, reason && *reason ? CONTROL_ASSEMBLE_REFUSED : CONTROL_ASSEMBLE_DONE, reason);
    pthread_mutex_unlock(&requests->lock);
}

void assemble_requests_tell(struct assemble_requests *requests, uint64_t directory,
                            struct control_assemble *answer)
{
    pthread_mutex_lock(&requests->lock);
    const struct assemble_request *request = request_find(requests, directory);
    *answer = request ? request->answer : (struct control_assemble){.state = CONTROL_ASSEMBLE_NONE};
    pthread_mutex_unlock(&requests->lock);
}

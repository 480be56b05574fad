/* SPDX-License-Identifier: Apache-2.0 */
/* The memory that outlives a daemon: handles, requests in work, who is blamed for a death. */
#include <fcntl.h>

#include "base/clock.h"
#include "check.h"
#include "fs/state.h"

/* What a daemon sees: a mapping of its own. */
static int memory = -1;

static struct state *new_mount(void)
{
    memory = state_create();
    CHECK(memory >= 0);
    return state_attach(memory);
}

static struct state *next_daemon(struct state *state)
{
    state_detach(state);
    return state_attach(memory);
}

static void end_mount(struct state *state)
{
    state_detach(state);
    CHECK(close(memory) == 0);
    memory = -1;
}

static uint64_t open_handle(struct state *state, uint64_t ino, uint64_t unique)
{
    const struct state_handle handle = {
        .ino = ino, .unique = unique, .object = ino + 100, .backing_id = 7, .mode = STATE_PASSTHROUGH};
    return state_handle_open(state, &handle);
}

static void test_layout(void)
{
    struct state *state = new_mount();
    CHECK(state != NULL);
    state->version = STATE_VERSION + 1;
    CHECK(state_attach(memory) == NULL);
    state->version = STATE_VERSION;
    CHECK(ftruncate(memory, 4096) == 0);
    CHECK(state_attach(memory) == NULL);
    CHECK(ftruncate(memory, sizeof(struct state)) == 0);
    end_mount(state);
}

static void test_handles_survive(void)
{
    struct state *state = new_mount();
    uint64_t first = open_handle(state, 11, 2), second = open_handle(state, 12, 4);
    CHECK(first != 0 && second != 0 && first != second);
    state = next_daemon(state);
    struct state_handle *found = state_handle_find(state, second);
    CHECK(found != NULL);
    CHECK_EQUAL(12, found->ino);
    CHECK_EQUAL(112, found->object);
    CHECK_EQUAL(7, found->backing_id);
    CHECK(state_handle_of_request(state, 2 | STATE_RESENT) == state_handle_find(state, first));
    CHECK(state_handle_of_request(state, 6) == NULL);
    end_mount(state);
}

static void test_handles_are_not_reused(void)
{
    struct state *state = new_mount();
    uint64_t first = open_handle(state, 11, 2);
    state_handle_close(state, first);
    CHECK(state_handle_find(state, first) == NULL);
    uint64_t second = open_handle(state, 12, 4);
    /* The same place, another number. */
    CHECK((first & 0xffffffff) == (second & 0xffffffff));
    CHECK(first != second);
    CHECK(state_handle_find(state, first) == NULL);
    state_handle_close(state, first);
    CHECK(state_handle_find(state, second) != NULL);
    CHECK(state_handle_find(state, 0) == NULL);
    CHECK(state_handle_find(state, UINT64_MAX) == NULL);
    end_mount(state);
}

static void test_handles_run_out(void)
{
    struct state *state = new_mount();
    uint64_t last = 0;
    for (unsigned i = 0; i < STATE_HANDLES; i++)
        last = open_handle(state, i + 2, 2 * i + 2);
    CHECK(last != 0);
    CHECK(open_handle(state, 1, 1) == 0);
    state_handle_close(state, last);
    CHECK(open_handle(state, 1, 1) != 0);
    end_mount(state);
}

static void test_committed_request_is_known(void)
{
    struct state *state = new_mount();
    uint64_t ino = 0;
    state_request_begin(state, 0, 10, 9, 1);
    state_request_begin(state, 1, 12, 9, 1);
    state_request_begin(state, 2, 14, 9, 1);
    state_request_done(state, 10, 77);
    state = next_daemon(state);
    /* The predecessor committed request 14, and died before it could note that. */
    state_carry_requests(state, 14, 99);
    CHECK_EQUAL(1, state_request_was_done(state, 10 | STATE_RESENT, &ino));
    CHECK_EQUAL(77, ino);
    CHECK_EQUAL(0, state_request_was_done(state, 12 | STATE_RESENT, &ino));
    CHECK_EQUAL(1, state_request_was_done(state, 14 | STATE_RESENT, &ino));
    CHECK_EQUAL(99, ino);
    /* A new request that happens to have the number. */
    CHECK_EQUAL(0, state_request_was_done(state, 10, &ino));
    end_mount(state);
}

static void test_answered_request_is_forgotten(void)
{
    struct state *state = new_mount();
    uint64_t ino = 0;
    state_request_begin(state, 0, 10, 9, 1);
    state_request_done(state, 10, 77);
    state_request_end(state, 0);
    state = next_daemon(state);
    state_carry_requests(state, 10, 77);
    CHECK_EQUAL(0, state_request_was_done(state, 10 | STATE_RESENT, &ino));
    end_mount(state);
}

/* The blame that a request has in its next life, when the daemon ended so. */
static uint32_t blame_after(struct state *state, enum state_end end, uint64_t unique)
{
    state_blame(state, end);
    state_carry_requests(state, 0, 0);
    state_request_begin(state, 0, unique | STATE_RESENT, 9, 1);
    return state->requests[0].blame;
}

static void test_blame(void)
{
    struct state *state = new_mount();
    state_request_begin(state, 0, 10, 9, 1);
    CHECK_EQUAL(0, blame_after(state, STATE_END_HANDOVER, 10));
    CHECK_EQUAL(STATE_BLAME, blame_after(state, STATE_END_CRASHED, 10));
    CHECK_EQUAL(STATE_BLAME_FATAL, blame_after(state, STATE_END_KILLED, 10));
    /* One that was in work for long when somebody killed the daemon had no part in it. */
    atomic_store(&state->requests[0].begun, clock_monotonic() - 10 * CLOCK_NS_PER_SECOND);
    CHECK_EQUAL(STATE_BLAME_FATAL, blame_after(state, STATE_END_KILLED, 10));
    atomic_store(&state->requests[0].begun, clock_monotonic() - 10 * CLOCK_NS_PER_SECOND);
    CHECK_EQUAL(STATE_BLAME_FATAL + STATE_BLAME, blame_after(state, STATE_END_CRASHED, 10));
    /* A fresh request starts without. */
    state_request_end(state, 0);
    state_request_begin(state, 0, 12, 9, 1);
    CHECK_EQUAL(0, state->requests[0].blame);
    end_mount(state);
}

/* Another request is begun after the first, and answered. */
static void answer_another(struct state *state)
{
    state_request_begin(state, 1, 100, 9, 1);
    atomic_store(&state->requests[1].begun, atomic_load(&state->requests[0].begun) + 1);
    state_request_end(state, 1);
}

static void test_blame_while_others_are_answered(void)
{
    struct state *state = new_mount();
    state_request_begin(state, 0, 10, 9, 1);
    answer_another(state);
    CHECK_EQUAL(STATE_BLAME_UNLIKELY, blame_after(state, STATE_END_KILLED, 10));
    answer_another(state);
    CHECK_EQUAL(2 * STATE_BLAME_UNLIKELY, blame_after(state, STATE_END_KILLED, 10));
    /* A crash is nobody's doing but that of a request. */
    answer_another(state);
    CHECK_EQUAL(2 * STATE_BLAME_UNLIKELY + STATE_BLAME, blame_after(state, STATE_END_CRASHED, 10));
    end_mount(state);
    /* That the request itself goes from the thread that read it to another is no answer. */
    state = new_mount();
    state_request_begin(state, 1, 10, 9, 1);
    state_request_begin(state, 0, 10, 9, 1);
    state_request_end(state, 1);
    CHECK_EQUAL(STATE_BLAME, blame_after(state, STATE_END_KILLED, 10));
    end_mount(state);
}

int main(void)
{
    check_run("another layout is refused", test_layout);
    check_run("handles survive a daemon, with the requests that made them", test_handles_survive);
    check_run("a handle's number is never given twice", test_handles_are_not_reused);
    check_run("handles run out, and come back", test_handles_run_out);
    check_run("a committed request is known to the next daemon", test_committed_request_is_known);
    check_run("an answered request is not", test_answered_request_is_forgotten);
    check_run("who is blamed for a death", test_blame);
    check_run("a request is hardly to blame when others were answered since",
              test_blame_while_others_are_answered);
    return check_done();
}

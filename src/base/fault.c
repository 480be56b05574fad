/* SPDX-License-Identifier: Apache-2.0 */
/* Faults that a test arms through the environment. */
#include "base/fault.h"

#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/log.h"

enum { FAULT_MAX = 16, FAULT_KILL = 1, FAULT_HANG = 2 };

struct fault {
    char point[48];
    int action; /* a negative errno, FAULT_KILL or FAULT_HANG */
    unsigned long count;
    bool onwards;
    unsigned long hits;
};

bool fault_armed;
static struct fault faults[FAULT_MAX];
static size_t fault_count;
static pthread_mutex_t fault_lock = PTHREAD_MUTEX_INITIALIZER;

static const struct {
    const char *name;
    int action;
} fault_actions[] = {
    {"ENOSPC", -ENOSPC}, {"EIO", -EIO},        {"ENOMEM", -ENOMEM},  {"EOPNOTSUPP", -EOPNOTSUPP},
    {"EPERM", -EPERM},   {"kill", FAULT_KILL}, {"hang", FAULT_HANG},
};

static bool fault_parse(char *text, struct fault *fault)
{
    char *action = strchr(text, ':');
    if (!action || action == text || (size_t)(action - text) >= sizeof fault->point)
        return false;
    *action++ = '\0';
    char *count = strchr(action, ':');
    if (count)
        *count++ = '\0';
    snprintf(fault->point, sizeof fault->point, "%s", text);
    fault->count = 1;
    if (count) {
        char *end;
        fault->count = strtoul(count, &end, 10);
        fault->onwards = *end == '+';
        if (end == count || fault->count == 0 || end[fault->onwards] != '\0')
            return false;
    }
    for (size_t i = 0; i < sizeof fault_actions / sizeof *fault_actions; i++) {
        if (strcmp(action, fault_actions[i].name) == 0) {
            fault->action = fault_actions[i].action;
            return true;
        }
    }
    return false;
}

errint fault_configure(void)
{
    const char *setting = getenv("CKPTFS_FAULT");
    if (!setting || !*setting)
        return 0;
    cleanup_free char *copy = strdup(setting);
    if (!copy)
        return -ENOMEM;
    char *rest = NULL;
    for (char *item = strtok_r(copy, ",", &rest); item; item = strtok_r(NULL, ",", &rest)) {
        if (fault_count == FAULT_MAX || !fault_parse(item, &faults[fault_count])) {
            log_error("CKPTFS_FAULT: expected POINT:ACTION[:COUNT], found '%s' in '%s'", item, setting);
            return -EINVAL;
        }
        fault_count++;
    }
    fault_armed = fault_count > 0;
    return 0;
}

void fault_count_start(unsigned start)
{
    const char *limit = getenv("CKPTFS_FAULT_STARTS");
    if (!limit || start <= strtoul(limit, NULL, 10))
        return;
    const char *later = getenv("CKPTFS_FAULT_LATER");
    /* Without memory for it they would be armed with what killed the others. */
    if (!later || setenv("CKPTFS_FAULT", later, 1) != 0)
        unsetenv("CKPTFS_FAULT");
}

errint fault_act(const char *point)
{
    int action = 0;
    pthread_mutex_lock(&fault_lock);
    for (size_t i = 0; i < fault_count && !action; i++) {
        struct fault *fault = &faults[i];
        if (strcmp(fault->point, point) != 0)
            continue;
        fault->hits++;
        if (fault->hits == fault->count || (fault->onwards && fault->hits > fault->count))
            action = fault->action;
    }
    pthread_mutex_unlock(&fault_lock);
    if (action == FAULT_KILL)
        raise(SIGKILL);
    while (action == FAULT_HANG)
        pause();
    return action;
}

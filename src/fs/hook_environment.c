/* SPDX-License-Identifier: Apache-2.0 */
/* What a hook is told. */
#include "fs/hook_environment.h"

#include <cjson/cJSON.h>
#include <errno.h>
#include <pwd.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "fs/filesystem.h"

/* -- facts ------------------------------------------------------------------------------------------------
 */

static const struct {
    const char *member;
    size_t offset;
} hook_members[] = {
    {"event", offsetof(struct hook_facts, event)},
    {"sequence", offsetof(struct hook_facts, sequence)},
    {"time", offsetof(struct hook_facts, time)},
    {"path", offsetof(struct hook_facts, path)},
    {"run", offsetof(struct hook_facts, run)},
    {"step", offsetof(struct hook_facts, step)},
    {"framework", offsetof(struct hook_facts, framework)},
    {"reason", offsetof(struct hook_facts, reason)},
    {"bytes", offsetof(struct hook_facts, bytes)},
};

enum { HOOK_MEMBERS = sizeof hook_members / sizeof *hook_members };

static char **hook_fact(struct hook_facts *facts, size_t i)
{
    return (char **)((char *)facts + hook_members[i].offset);
}

/* NULL: no memory. */
static char *hook_text_of(const cJSON *member)
{
    char *text = NULL;
    if (cJSON_IsNumber(member))
        return asprintf(&text, "%.0f", member->valuedouble) < 0 ? NULL : text;
    return strdup(cJSON_IsString(member) ? member->valuestring : "");
}

errint hook_facts_read(const char *line, struct hook_facts *out)
{
    *out = (struct hook_facts){0};
    cJSON *object = cJSON_Parse(line);
    errint error = cJSON_IsObject(object) ? 0 : -EINVAL;
    for (size_t i = 0; i < HOOK_MEMBERS && !error; i++) {
        char *text = hook_text_of(cJSON_GetObjectItemCaseSensitive(object, hook_members[i].member));
        *hook_fact(out, i) = text;
        error = text ? 0 : -ENOMEM;
    }
    cJSON_Delete(object);
    return error;
}

void hook_facts_release(struct hook_facts *facts)
{
    for (size_t i = 0; i < HOOK_MEMBERS; i++) {
        free(*hook_fact(facts, i));
        *hook_fact(facts, i) = NULL;
    }
}

/* -- variables --------------------------------------------------------------------------------------------
 */

struct hook_list {
    struct hook_environment *environment;
    size_t count;
    bool failed;
};

static void __attribute__((format(printf, 2, 3))) hook_add(struct hook_list *list, const char *format, ...)
{
    va_list arguments;
    char *text = NULL;
    va_start(arguments, format);
    if (list->count == HOOK_VARIABLES_MAX || vasprintf(&text, format, arguments) < 0)
        list->failed = true;
    else
        list->environment->at[list->count++] = text;
    va_end(arguments);
}

/* A path of the mount, as every process can use it. */
static void hook_add_path(struct hook_list *list, const char *name, const char *mountpoint, const char *path)
{
    bool root = strcmp(mountpoint, "/") == 0;
    hook_add(list, "%s=%s%s%s", name, root ? "" : mountpoint, *path ? "/" : "", path);
}

static void hook_add_user(struct hook_list *list, uint32_t uid)
{
    struct passwd record, *found = NULL;
    char buffer[4096];
    if (getpwuid_r(uid, &record, buffer, sizeof buffer, &found) != 0)
        found = NULL;
    hook_add(list, "HOME=%s", found ? found->pw_dir : "/");
    if (found) {
        hook_add(list, "USER=%s", found->pw_name);
        hook_add(list, "LOGNAME=%s", found->pw_name);
    }
    hook_add(list, "SHELL=/bin/sh");
    hook_add(list, "LANG=C.UTF-8");
    hook_add(list, "PATH=/usr/local/bin:/usr/bin:/bin");
}

errint hook_environment_make(const char *mountpoint, const struct hook_facts *facts, uint32_t uid,
                             struct hook_environment *out)
{
    *out = (struct hook_environment){0};
    struct hook_list list = {.environment = out};
    hook_add_user(&list, uid);
    hook_add(&list, "CKPTFS_MOUNTPOINT=%s", mountpoint);
    hook_add(&list, "CKPTFS_EVENT=%s", facts->event);
    hook_add(&list, "CKPTFS_SEQUENCE=%s", facts->sequence);
    hook_add(&list, "CKPTFS_TIME=%s", facts->time);
    hook_add_path(&list, "CKPTFS_CHECKPOINT", mountpoint, facts->path);
    hook_add_path(&list, "CKPTFS_RUN", mountpoint, facts->run);
    hook_add(&list, "CKPTFS_MODEL=%s/" FS_CONTROL_NAME "/models/%s",
             strcmp(mountpoint, "/") == 0 ? "" : mountpoint, facts->path);
    hook_add(&list, "CKPTFS_STEP=%s", facts->step);
    hook_add(&list, "CKPTFS_FRAMEWORK=%s", facts->framework);
    hook_add(&list, "CKPTFS_REASON=%s", facts->reason);
    hook_add(&list, "CKPTFS_BYTES=%s", facts->bytes);
    return list.failed ? -ENOMEM : 0;
}

void hook_environment_release(struct hook_environment *environment)
{
    for (size_t i = 0; i < HOOK_VARIABLES_MAX; i++)
        free(environment->at[i]);
}

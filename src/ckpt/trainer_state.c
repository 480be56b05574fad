/* SPDX-License-Identifier: Apache-2.0 */
/* trainer_state.json (transformers, trainer_callback.py: TrainerState) and rng_state_N.pth. */
#include "ckpt/trainer_state.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

/* The log of a long run grows; what is larger is no log. */
enum { TRAINER_STATE_MAX = 256 << 20 };

/* Behind the string that starts at `at`, which is its opening quote; the text's end when it has no end. */
static const char *trainer_state_skip_string(const char *at)
{
    for (at++; *at && *at != '"'; at++) {
        if (*at == '\\' && at[1])
            at++;
    }
    return *at ? at + 1 : at;
}

/* The value of a member of the outermost object; NULL: there is none. */
static const char *trainer_state_find(const char *text, const char *name)
{
    size_t length = strlen(name);
    int64_t depth = 0;
    for (const char *at = text; *at;) {
        if (*at == '"') {
            const char *key = at + 1;
            at = trainer_state_skip_string(at);
            at += strspn(at, " \t\r\n");
            if (depth == 1 && *at == ':' && strncmp(key, name, length) == 0 && key[length] == '"')
                return at + 1 + strspn(at + 1, " \t\r\n");
            continue;
        }
        depth += *at == '{' || *at == '[';
        depth -= *at == '}' || *at == ']';
        at++;
    }
    return NULL;
}

errint trainer_state_step(const struct folder *folder, const struct folder_listing *listing, int64_t *step)
{
    static const char file[] = "trainer_state.json";
    cleanup_free char *text = NULL;
    size_t length;
    *step = -1;
    if (!folder_find(listing, file))
        return 0;
    errint error = folder_read_text(folder, file, TRAINER_STATE_MAX, &text, &length);
    if (error == -EFBIG || error == -EISDIR || error == -ENOENT)
        return 0;
    if (error)
        return error;
    const char *value = trainer_state_find(text, "global_step");
    if (!value || *value < '0' || *value > '9')
        return 0;
    errno = 0;
    long long number = strtoll(value, NULL, 10);
    if (errno == 0)
        *step = number;
    return 0;
}

int64_t trainer_state_world_size(const struct folder_listing *listing)
{
    if (folder_find(listing, "rng_state.pth"))
        return 1;
    for (int64_t rank = 0;; rank++) {
        char name[64];
        snprintf(name, sizeof name, "rng_state_%lld.pth", (long long)rank);
        if (folder_find(listing, name))
            continue;
        /* A gap: one that is missing says that the number is not known. */
        for (size_t i = 0; i < listing->count && rank > 0; i++) {
            long long other;
            if (sscanf(listing->at[i].name, "rng_state_%lld.pth", &other) == 1 && other > rank)
                return 0;
        }
        return rank;
    }
}

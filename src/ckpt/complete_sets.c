/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Files in numbered sets, by their names alone: shards ("-00001-of-00003"), ranks' files that say how many
 * there are ("rank0-of-4-", "world_size_4_rank_0"), and ranks' files that do not ("_rank0.bin"), of which the
 * highest number tells.
 */
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "ckpt/complete_internal.h"
#include "ckpt/weights.h"

/* How a name tells its number. */
enum set_kind { SET_SHARDS, SET_RANKS };

struct set_file {
    const struct tree_entry *entry;
    size_t before;         /* bytes of the path up to the number */
    const char *after;     /* what follows the number */
    int64_t number, first; /* numbers run from `first` on */
    int64_t count;         /* files of the set; 0: the name does not say */
    enum set_kind kind;
};

/* -- names ------------------------------------------------------------------------------------------------
 */

static bool set_take_number(const char **at, int64_t *number)
{
    size_t digits = strspn(*at, "0123456789");
    if (digits == 0 || digits > 9)
        return false;
    *number = strtol(*at, NULL, 10);
    *at += digits;
    return true;
}

static bool set_take(const char **at, const char *word)
{
    size_t length = strlen(word);
    if (strncmp(*at, word, length) != 0)
        return false;
    *at += length;
    return true;
}

static void set_place(struct set_file *file, const char *number, const char *after)
{
    file->before = (size_t)(number - file->entry->path);
    file->after = after;
}

/* STEM-I-of-N.SUFFIX */
static bool set_parse_shard(const char *name, struct set_file *file)
{
    if (!weights_is_shard(name, NULL, &file->number, &file->count))
        return false;
    const char *number = strstr(name, "-of-");
    while (number > name && number[-1] >= '0' && number[-1] <= '9')
        number--;
    set_place(file, number, strstr(name, "-of-"));
    file->first = 1;
    file->kind = SET_SHARDS;
    return true;
}

/* rankR-of-W-REST */
static bool set_parse_xla(const char *name, struct set_file *file)
{
    const char *at = name, *number, *after;
    if (!set_take(&at, "rank"))
        return false;
    number = at;
    if (!set_take_number(&at, &file->number))
        return false;
    after = at;
    if (!set_take(&at, "-of-") || !set_take_number(&at, &file->count) || *at != '-' || file->count == 0)
        return false;
    set_place(file, number, after);
    return true;
}

/* KIND_world_size_W_rank_R.EXTENSION: verl's */
static bool set_parse_verl(const char *name, struct set_file *file)
{
    const char *at = strstr(name, "_world_size_");
    if (!at || !set_take(&at, "_world_size_") || !set_take_number(&at, &file->count) ||
        !set_take(&at, "_rank_") || file->count == 0)
        return false;
    const char *number = at;
    if (!set_take_number(&at, &file->number))
        return false;
    set_place(file, number, at);
    return true;
}

/* REST_rankR.bin: accelerate's, of LOCAL_STATE_DICT */
static bool set_parse_rank(const char *name, struct set_file *file)
{
    const char *at = strstr(name, "_rank");
    if (!at || !set_take(&at, "_rank"))
        return false;
    const char *number = at;
    if (!set_take_number(&at, &file->number) || strcmp(at, ".bin") != 0)
        return false;
    set_place(file, number, at);
    return true;
}

static bool set_parse(const struct tree_entry *entry, struct set_file *file)
{
    static bool (*const parsers[])(const char *name, struct set_file *file) = {
        set_parse_shard, set_parse_xla, set_parse_verl, set_parse_rank};
    for (size_t i = 0; i < sizeof parsers / sizeof *parsers; i++) {
        *file = (struct set_file){.entry = entry, .kind = SET_RANKS};
        if (parsers[i](entry->name, file))
            return true;
    }
    return false;
}

/* -- sets -------------------------------------------------------------------------------------------------
 */

/* Files of one set are equal but for their numbers. */
static int set_compare_sets(const struct set_file *a, const struct set_file *b)
{
    if (a->before != b->before)
        return a->before < b->before ? -1 : 1;
    int order = memcmp(a->entry->path, b->entry->path, a->before);
    return order ? order : strcmp(a->after, b->after);
}

static int set_compare(const void *one, const void *other)
{
    const struct set_file *a = one, *b = other;
    int order = set_compare_sets(a, b);
    if (order)
        return order;
    return (a->number > b->number) - (a->number < b->number);
}

static errint set_miss(struct complete_work *work, const struct set_file *like, int64_t number, int64_t count)
{
    const char *digits = like->entry->path + like->before;
    int width = (int)(strspn(digits, "0123456789"));
    /* "00001", not "1". */
    if (like->kind != SET_SHARDS)
        width = 1;
    return complete_miss(work, "%.*s%0*" PRId64 "%s is missing: the save had %" PRId64 " of them",
                         (int)like->before, like->entry->path, width, number, like->after, count);
}

static errint set_judge(struct complete_work *work, const struct set_file *files, size_t count)
{
    int64_t expected = files->count ? files->count : files[count - 1].number + 1;
    errint error = 0;
    if (files->kind == SET_RANKS)
        complete_saw_ranks(work, expected);
    int64_t next = files->first;
    for (size_t i = 0; i < count && !error; i++) {
        for (; next < files[i].number && !error && work->out->note_count < COMPLETE_NOTES_MAX; next++)
            error = set_miss(work, &files[i], next, expected);
        next = files[i].number + 1;
    }
    for (; next < files->first + expected && !error && work->out->note_count < COMPLETE_NOTES_MAX; next++)
        error = set_miss(work, files, next, expected);
    /* Notes may have run out before this one. */
    work->missing |= (int64_t)count < expected;
    return error;
}

/* Weights, or an optimizer's state, by the name of one of the set. */
static void set_note_kind(struct complete_work *work, const struct set_file *file)
{
    const char *name = file->entry->name;
    if (file->kind == SET_SHARDS)
        work->model = true;
    else if (strstr(name, "optim"))
        work->optimizer = true;
    else if (strstr(name, "model"))
        work->model = work->out->sharded = true;
    if (strncmp(name, "rank", 4) == 0)
        work->out->framework = "xla-fsdp";
    else if (strstr(name, "_world_size_"))
        work->out->framework = "verl";
    else if (file->kind == SET_RANKS)
        work->out->framework = "fsdp-ranks";
}

errint complete_judge_sets(struct complete_work *work)
{
    cleanup_free struct set_file *files = calloc(work->tree.count + 1, sizeof *files);
    size_t count = 0;
    errint error = 0;
    if (!files)
        return -ENOMEM;
    for (size_t i = 0; i < work->tree.count; i++) {
        if (!work->tree.at[i].directory && set_parse(&work->tree.at[i], &files[count]))
            count++;
    }
    qsort(files, count, sizeof *files, set_compare);
    for (size_t first = 0, last; first < count && !error; first = last) {
        for (last = first; last < count && set_compare_sets(&files[first], &files[last]) == 0;)
            last++;
        set_note_kind(work, &files[first]);
        error = set_judge(work, &files[first], last - first);
    }
    return error;
}

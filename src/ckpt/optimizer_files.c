/* SPDX-License-Identifier: Apache-2.0 */
/* Names of optimizers' files. */
#include "ckpt/optimizer_files.h"

#include <string.h>

#include "ckpt/deepspeed.h"

/* Whether it is the start, a number, and the end. */
static bool optimizer_is_numbered(const char *name, size_t length, const char *start, const char *end)
{
    size_t first = strlen(start), last = strlen(end);
    if (length <= first + last || strncmp(name, start, first) != 0 ||
        strncmp(name + length - last, end, last) != 0)
        return false;
    return strspn(name + first, "0123456789") == length - first - last;
}

/* __RANK_N.distcp */
static bool optimizer_is_shard(const char *name)
{
    if (strncmp(name, "__", 2) != 0)
        return false;
    name += 2;
    size_t rank = strspn(name, "0123456789");
    return rank > 0 && name[rank] == '_' &&
           optimizer_is_numbered(name + rank, strlen(name + rank), "_", ".distcp");
}

bool optimizer_directory_is(const char *name)
{
    return optimizer_is_numbered(name, strlen(name), "optimizer_", "");
}

bool optimizer_file_is(const char *path)
{
    const char *slash = strchr(path, '/');
    if (slash)
        return optimizer_is_numbered(path, (size_t)(slash - path), "optimizer_", "") &&
               optimizer_is_shard(slash + 1);
    return strcmp(path, "optimizer.pt") == 0 || strcmp(path, "optimizer.bin") == 0 ||
           optimizer_is_numbered(path, strlen(path), "optimizer_", ".bin");
}

bool optimizer_file_may_be_mixed(const char *path)
{
    static const char shard[] = ".distcp";
    struct deepspeed_name parsed;
    const char *slash = strrchr(path, '/'), *name = slash ? slash + 1 : path;
    size_t length = strlen(name);
    if (deepspeed_parse_name(name, &parsed))
        return parsed.kind == DEEPSPEED_OPTIMIZER || parsed.kind == DEEPSPEED_EXPERT_OPTIMIZER ||
               parsed.kind == DEEPSPEED_MODEL;
    return length >= sizeof shard && strcmp(name + length - (sizeof shard - 1), shard) == 0 &&
           !optimizer_file_is(path);
}

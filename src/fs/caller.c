/* SPDX-License-Identifier: Apache-2.0 */
/* Looking at another thread's system call. */
#include "fs/caller.h"

#include <fcntl.h>
#include <inttypes.h>
#include <limits.h>
#include <linux/fs.h>
#include <linux/openat2.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <unistd.h>

#include "base/cleanup.h"

enum { CALLER_ARGUMENTS = 6, CALLER_LINE_MAX = 256, CALLER_PAGE = 4096 };

struct caller_call {
    pid_t thread;
    long number;
    uint64_t arguments[CALLER_ARGUMENTS];
};

/* What a call makes, and how its arguments say so: numbers of arguments, -1 where there is none. */
struct caller_row {
    long number;
    int path, flags, other;
    enum { CALLER_MAKES, CALLER_OPENS, CALLER_OPENS_HOW, CALLER_RENAMES } kind;
};

static const struct caller_row caller_rows[] = {
#ifdef SYS_open
    {SYS_open, 0, 1, -1, CALLER_OPENS},       {SYS_mkdir, 0, -1, -1, CALLER_MAKES},
    {SYS_mknod, 0, -1, -1, CALLER_MAKES},     {SYS_symlink, 1, -1, -1, CALLER_MAKES},
    {SYS_link, 1, -1, 0, CALLER_MAKES},       {SYS_creat, 0, -1, -1, CALLER_MAKES},
#endif
    {SYS_openat, 1, 2, -1, CALLER_OPENS},     {SYS_openat2, 1, 2, -1, CALLER_OPENS_HOW},
    {SYS_mkdirat, 1, -1, -1, CALLER_MAKES},   {SYS_mknodat, 1, -1, -1, CALLER_MAKES},
    {SYS_symlinkat, 2, -1, -1, CALLER_MAKES}, {SYS_linkat, 3, -1, 1, CALLER_MAKES},
    {SYS_renameat2, 3, 4, 1, CALLER_RENAMES},
};

/* -- reading ----------------------------------------------------------------------------------------------
 */

static bool caller_read_call(pid_t thread, struct caller_call *out)
{
    char path[64], line[CALLER_LINE_MAX];
    snprintf(path, sizeof path, "/proc/%d/syscall", (int)thread);
    cleanup_fd int fd = open(path, O_RDONLY | O_CLOEXEC);
    ssize_t length = fd < 0 ? -1 : read(fd, line, sizeof line - 1);
    if (length <= 0)
        return false;
    line[length] = '\0';
    uint64_t *at = out->arguments;
    out->thread = thread;
    return sscanf(line, "%ld %" SCNx64 " %" SCNx64 " %" SCNx64 " %" SCNx64 " %" SCNx64 " %" SCNx64,
                  &out->number, &at[0], &at[1], &at[2], &at[3], &at[4], &at[5]) == 1 + CALLER_ARGUMENTS;
}

static ssize_t caller_read_memory(const struct caller_call *call, uint64_t address, void *out, size_t length)
{
    const struct iovec here = {out, length};
    /* It is a number of that process: nothing of ours is behind it. */
    const struct iovec there = {(void *)(uintptr_t)address, length}; // NOLINT(performance-no-int-to-ptr)
    return process_vm_readv(call->thread, &here, 1, &there, 1, 0);
}

/* A path of the thread's, at most to the end of a page at a time, since the next one may not be there. */
static bool caller_read_path(const struct caller_call *call, int argument, char out[PATH_MAX])
{
    uint64_t address = call->arguments[argument];
    for (size_t length = 0; length < PATH_MAX;) {
        size_t part = CALLER_PAGE - (size_t)((address + length) % CALLER_PAGE);
        part = part < PATH_MAX - length ? part : PATH_MAX - length;
        ssize_t got = caller_read_memory(call, address + length, out + length, part);
        if (got <= 0)
            return false;
        if (memchr(out + length, '\0', (size_t)got))
            return true;
        length += (size_t)got;
    }
    return false;
}

/* -- judging ----------------------------------------------------------------------------------------------
 */

/* Whether the path of that argument ends with the name. */
static bool caller_names(const struct caller_call *call, int argument, const char *name)
{
    char path[PATH_MAX];
    if (!caller_read_path(call, argument, path))
        return false;
    size_t length = strlen(path);
    while (length > 0 && path[length - 1] == '/')
        path[--length] = '\0';
    const char *slash = strrchr(path, '/');
    return strcmp(slash ? slash + 1 : path, name) == 0;
}

static bool caller_row_makes(const struct caller_row *row, const struct caller_call *call)
{
    struct open_how how;
    uint64_t flags = row->flags < 0 ? 0 : call->arguments[row->flags];
    switch (row->kind) {
    case CALLER_MAKES: return true;
    case CALLER_RENAMES: return flags & RENAME_NOREPLACE;
    case CALLER_OPENS_HOW:
        if (caller_read_memory(call, flags, &how, sizeof how) != sizeof how)
            return false;
        flags = how.flags;
        break;
    case CALLER_OPENS: break;
    }
    return (flags & O_CREAT) && (flags & (O_EXCL | O_TRUNC));
}

bool caller_makes(pid_t thread, const char *name)
{
    struct caller_call call;
    if (thread <= 0 || !caller_read_call(thread, &call))
        return false;
    for (size_t i = 0; i < sizeof caller_rows / sizeof *caller_rows; i++) {
        const struct caller_row *row = &caller_rows[i];
        if (row->number != call.number || !caller_row_makes(row, &call))
            continue;
        /* Where both names are the same one, the look-up may be for the file that is linked or moved. */
        return caller_names(&call, row->path, name) &&
               (row->other < 0 || !caller_names(&call, row->other, name));
    }
    return false;
}

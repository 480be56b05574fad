/* SPDX-License-Identifier: Apache-2.0 */
/* From threads to processes. */
#include "fs/writer.h"

#include <fcntl.h>
#include <stdio.h>
#include <string.h>

#include "base/cleanup.h"

enum { WRITER_STATUS_MAX = 2048, WRITER_PATH_MAX = 64 };

/* The start of a file of /proc; 0 bytes: it is not there. With a NUL behind it. */
static size_t writer_read(int32_t id, const char *file, char *out, size_t room)
{
    char path[WRITER_PATH_MAX];
    snprintf(path, sizeof path, "/proc/%d/%s", (int)id, file);
    cleanup_fd int fd = open(path, O_RDONLY | O_CLOEXEC);
    ssize_t got = fd < 0 ? 0 : read(fd, out, room - 1);
    out[got > 0 ? got : 0] = '\0';
    return got > 0 ? (size_t)got : 0;
}

void writer_find(int32_t thread, int32_t *pid, char *name, size_t room)
{
    char status[WRITER_STATUS_MAX];
    int process = 0;
    *pid = 0;
    name[0] = '\0';
    if (thread <= 0 || writer_read(thread, "status", status, sizeof status) == 0)
        return;
    const char *line = strstr(status, "\nTgid:");
    if (!line || sscanf(line, "\nTgid: %d", &process) != 1 || process <= 0)
        return;
    *pid = process;
    writer_read(process, "comm", name, room);
    name[strcspn(name, "\n")] = '\0';
}

/* SPDX-License-Identifier: Apache-2.0 */
/* Readiness, limits and the out-of-memory killer. */
#include "fs/service.h"

#include <fcntl.h>
#include <stddef.h>
#include <stdio.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/un.h>

#include "base/log.h"

#define SERVICE_OOM_FILE  "/proc/self/oom_score_adj"
#define SERVICE_OOM_SPARE "-1000"

static char service_oom_before[16];

void service_notify(const char *text)
{
    const char *path = getenv("NOTIFY_SOCKET");
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    if (!path || !*path || strlen(path) >= sizeof address.sun_path)
        return;
    memcpy(address.sun_path, path, strlen(path));
    /* A leading @ stands for the abstract namespace. */
    if (address.sun_path[0] == '@')
        address.sun_path[0] = '\0';
    cleanup_fd int fd = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0);
    socklen_t length = (socklen_t)(offsetof(struct sockaddr_un, sun_path) + strlen(path));
    if (fd < 0 || sendto(fd, text, strlen(text), MSG_NOSIGNAL, (const struct sockaddr *)&address, length) < 0)
        log_warning("systemd could not be told %s: %m", text);
}

void service_raise_file_limit(void)
{
    struct rlimit limit;
    if (getrlimit(RLIMIT_NOFILE, &limit) != 0)
        return;
    limit.rlim_cur = limit.rlim_max;
    if (setrlimit(RLIMIT_NOFILE, &limit) != 0)
        log_warning("the limit of open files could not be raised: %m");
}

static void service_write_oom(const char *text)
{
    cleanup_fd int fd = open(SERVICE_OOM_FILE, O_WRONLY | O_CLOEXEC);
    if (fd >= 0 && write(fd, text, strlen(text)) < 0)
        log_debug("%s: %m", SERVICE_OOM_FILE);
}

void service_protect_memory(void)
{
    if (geteuid() != 0)
        return;
    cleanup_fd int fd = open(SERVICE_OOM_FILE, O_RDONLY | O_CLOEXEC);
    if (fd < 0)
        return;
    ssize_t got = read(fd, service_oom_before, sizeof service_oom_before - 1);
    service_oom_before[got > 0 ? got : 0] = '\0';
    if (*service_oom_before)
        service_write_oom(SERVICE_OOM_SPARE);
}

void service_unprotect_memory(void)
{
    if (*service_oom_before)
        service_write_oom(service_oom_before);
}

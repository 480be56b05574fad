/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The options of -o: parsed alike by the command that mounts and by each daemon that serves.
 */
#ifndef CKPTFS_CMD_MOUNT_OPTIONS_H
#define CKPTFS_CMD_MOUNT_OPTIONS_H

#include <stdbool.h>
#include <stddef.h>

#include "base/cleanup.h"
#include "fs/serve.h"

struct mount_options {
    char *text;     /* everything given, joined by commas; "" for nothing */
    char *log_path; /* NULL: stderr in the foreground, syslog in the background */
    bool allow_other;
    unsigned long flags; /* MS_* of mount(2) */
    enum fs_passthrough passthrough;
    enum fs_sharing sharing;
    bool hooks;
    bool verify_on_share;
    bool share_owners;
    enum policy_assembling assemble;
    char trash[8], trash_age[POLICY_AGE_MAX]; /* "": not given */
    struct room_least min_free;
    unsigned full_timeout; /* seconds; 0: nothing waits */
    size_t inline_limit;   /* bytes */
    unsigned threads;      /* 0: by the number of processors */
    unsigned read_ahead_kib;
    unsigned hang_timeout;    /* seconds */
    unsigned backup_interval; /* seconds; 0: no backup for this alone */
};

/* The defaults, which depend on who asks: root mounts for all. -ENOMEM. */
errint mount_options_init(struct mount_options *options);
/*
 * Adds one -o argument. -EINVAL (and `problem` says which option, what was expected) or -ENOMEM. What
 * mount(8) and systemd add to fstab options for themselves is ignored.
 */
errint mount_options_add(struct mount_options *options, const char *text, char problem[256]);
void mount_options_release(struct mount_options *options);
#define cleanup_mount_options __attribute__((cleanup(mount_options_release)))

#endif

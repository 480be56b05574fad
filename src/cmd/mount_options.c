/* SPDX-License-Identifier: Apache-2.0 */
/* Parsing -o. */
#include "cmd/mount_options.h"

#include <errno.h>
#include <limits.h>
#include <stdio.h>
#include <string.h>
#include <sys/mount.h>

enum {
    OPTION_INLINE_DEFAULT = 16384,
    OPTION_INLINE_MAX = 65536,
    OPTION_THREADS_MAX = 64, /* STATE_REQUESTS: each thread has its place in the state memory */
    OPTION_READ_AHEAD_DEFAULT = 8192,
    OPTION_READ_AHEAD_MAX = 1 << 20,
    OPTION_HANG_TIMEOUT_DEFAULT = 30,
    OPTION_HANG_TIMEOUT_MAX = 24 * 3600,
    OPTION_FULL_TIMEOUT_DEFAULT = 60,
    OPTION_FULL_TIMEOUT_MAX = 24 * 3600,
    OPTION_BACKUP_INTERVAL_DEFAULT = 3600,
    OPTION_BACKUP_INTERVAL_MAX = 31 * 24 * 3600,
};

/* Words that set or clear a flag of mount(2). */
static const struct {
    const char *word;
    unsigned long set, clear;
} option_flags[] = {
    {"ro", MS_RDONLY, 0},       {"rw", 0, MS_RDONLY},     {"nosuid", MS_NOSUID, 0}, {"suid", 0, MS_NOSUID},
    {"nodev", MS_NODEV, 0},     {"dev", 0, MS_NODEV},     {"noexec", MS_NOEXEC, 0}, {"exec", 0, MS_NOEXEC},
    {"noatime", MS_NOATIME, 0}, {"atime", 0, MS_NOATIME},
};

/* Words that fstab, mount(8) and systemd use among themselves, and what is so in any case. */
static const char *const option_ignored[] = {
    "defaults",    "default_permissions",
    "user",        "nouser",
    "users",       "owner",
    "group",       "auto",
    "noauto",      "nofail",
    "_netdev",     "no_netdev",
    "relatime",    "norelatime",
    "strictatime", "nostrictatime",
    "diratime",    "nodiratime",
    "lazytime",    "nolazytime",
    "async",
};
static const char *const option_ignored_prefixes[] = {
    "x-", "X-", "comment=", "fsname=", "subtype=", "user=", "uhelper="};

static bool option_is_ignored(const char *word)
{
    for (size_t i = 0; i < sizeof option_ignored / sizeof *option_ignored; i++) {
        if (strcmp(word, option_ignored[i]) == 0)
            return true;
    }
    for (size_t i = 0; i < sizeof option_ignored_prefixes / sizeof *option_ignored_prefixes; i++) {
        if (strncmp(word, option_ignored_prefixes[i], strlen(option_ignored_prefixes[i])) == 0)
            return true;
    }
    return false;
}

static bool option_set_flag(struct mount_options *options, const char *word)
{
    for (size_t i = 0; i < sizeof option_flags / sizeof *option_flags; i++) {
        if (strcmp(word, option_flags[i].word) == 0) {
            options->flags = (options->flags | option_flags[i].set) & ~option_flags[i].clear;
            return true;
        }
    }
    return false;
}

static errint option_parse_number(const char *word, const char *value, unsigned long least,
                                  unsigned long most, unsigned long *out, char problem[256])
{
    char *end = NULL;
    errno = 0;
    *out = *value >= '0' && *value <= '9' ? strtoul(value, &end, 10) : 0;
    if (end && *end == '\0' && errno == 0 && *out >= least && *out <= most)
        return 0;
    snprintf(problem, 256, "option %s: expected a whole number from %lu to %lu, found '%.64s'", word, least,
             most, value);
    return -EINVAL;
}

static errint option_set_unsigned(const char *word, const char *value, unsigned long least,
                                  unsigned long most, unsigned *out, char problem[256])
{
    unsigned long number;
    errint error = option_parse_number(word, value, least, most, &number, problem);
    if (!error)
        *out = (unsigned)number;
    return error;
}

static errint option_set_passthrough(struct mount_options *options, const char *value, char problem[256])
{
    if (strcmp(value, "auto") == 0) {
        options->passthrough = FS_PASSTHROUGH_AUTO;
    } else if (strcmp(value, "off") == 0) {
        options->passthrough = FS_PASSTHROUGH_OFF;
    } else {
        snprintf(problem, 256, "option passthrough: expected auto or off, found '%.64s'", value);
        return -EINVAL;
    }
    return 0;
}

static errint option_set_sharing(struct mount_options *options, const char *value, char problem[256])
{
    static const struct {
        const char *name;
        enum fs_sharing sharing;
    } ways[] = {{"forward", FS_SHARING_FORWARD}, {"backward", FS_SHARING_BACKWARD}, {"off", FS_SHARING_OFF}};
    for (size_t i = 0; i < sizeof ways / sizeof *ways; i++) {
        if (strcmp(value, ways[i].name) == 0) {
            options->sharing = ways[i].sharing;
            return 0;
        }
    }
    snprintf(problem, 256, "option sharing: expected forward, backward or off, found '%.64s'", value);
    return -EINVAL;
}

static errint option_set_assemble(struct mount_options *options, const char *value, char problem[256])
{
    if (policy_parse_assembling(value, &options->assemble))
        return 0;
    snprintf(problem, 256, "option assemble: expected auto, view, off or ask, found '%.64s'", value);
    return -EINVAL;
}

static errint option_set_min_free(struct mount_options *options, const char *value, char problem[256])
{
    if (room_parse_least(value, &options->min_free))
        return 0;
    snprintf(problem, 256,
             "option min-free: expected auto, 0, a size as 20GB or a part as 5%%, found '%.64s'", value);
    return -EINVAL;
}

/* The value of a policy, for directories that have none of their own. */
static errint option_set_policy(const char *key, const char *value, char *out, size_t room, char problem[256])
{
    char wrong[POLICY_PROBLEM_MAX];
    if (policy_check(key, value, wrong) != 0 || strlen(value) >= room) {
        snprintf(problem, 256, "option %.200s", wrong);
        return -EINVAL;
    }
    memcpy(out, value, strlen(value) + 1);
    return 0;
}

static errint option_set_yes_or_no(const char *word, const char *value, bool *out, char problem[256])
{
    if (strcmp(value, "yes") == 0 || strcmp(value, "no") == 0) {
        *out = value[0] == 'y';
        return 0;
    }
    snprintf(problem, 256, "option %s: expected yes or no, found '%.64s'", word, value);
    return -EINVAL;
}

static errint option_set_log(struct mount_options *options, const char *value, char problem[256])
{
    if (*value != '/') {
        snprintf(problem, 256, "option log: expected an absolute path, found '%.128s'", value);
        return -EINVAL;
    }
    free(options->log_path);
    options->log_path = strdup(value);
    return options->log_path ? 0 : -ENOMEM;
}

/* "word=value". */
static errint option_set_value(struct mount_options *options, const char *word, const char *value,
                               char problem[256])
{
    if (strcmp(word, "passthrough") == 0)
        return option_set_passthrough(options, value, problem);
    if (strcmp(word, "sharing") == 0)
        return option_set_sharing(options, value, problem);
    if (strcmp(word, "assemble") == 0)
        return option_set_assemble(options, value, problem);
    if (strcmp(word, POLICY_TRASH) == 0)
        return option_set_policy(word, value, options->trash, sizeof options->trash, problem);
    if (strcmp(word, POLICY_TRASH_AGE) == 0)
        return option_set_policy(word, value, options->trash_age, sizeof options->trash_age, problem);
    if (strcmp(word, "verify-on-share") == 0)
        return option_set_yes_or_no(word, value, &options->verify_on_share, problem);
    if (strcmp(word, "hooks") == 0)
        return option_set_yes_or_no(word, value, &options->hooks, problem);
    if (strcmp(word, "share-owners") == 0)
        return option_set_yes_or_no(word, value, &options->share_owners, problem);
    if (strcmp(word, "log") == 0)
        return option_set_log(options, value, problem);
    if (strcmp(word, "threads") == 0)
        return option_set_unsigned(word, value, 0, OPTION_THREADS_MAX, &options->threads, problem);
    if (strcmp(word, "read-ahead") == 0)
        return option_set_unsigned(word, value, 0, OPTION_READ_AHEAD_MAX, &options->read_ahead_kib, problem);
    if (strcmp(word, "hang-timeout") == 0)
        return option_set_unsigned(word, value, 1, OPTION_HANG_TIMEOUT_MAX, &options->hang_timeout, problem);
    if (strcmp(word, "min-free") == 0)
        return option_set_min_free(options, value, problem);
    if (strcmp(word, "full-timeout") == 0)
        return option_set_unsigned(word, value, 0, OPTION_FULL_TIMEOUT_MAX, &options->full_timeout, problem);
    if (strcmp(word, "backup-interval") == 0)
        return option_set_unsigned(word, value, 0, OPTION_BACKUP_INTERVAL_MAX, &options->backup_interval,
                                   problem);
    if (strcmp(word, "inline") == 0) {
        unsigned long bytes;
        errint error = option_parse_number(word, value, 0, OPTION_INLINE_MAX, &bytes, problem);
        if (!error)
            options->inline_limit = bytes;
        return error;
    }
    snprintf(problem, 256, "unknown mount option '%.128s'", word);
    return -EINVAL;
}

static errint option_apply(struct mount_options *options, char *word, char problem[256])
{
    if (*word == '\0' || option_is_ignored(word) || option_set_flag(options, word))
        return 0;
    if (strcmp(word, "allow_other") == 0 || strcmp(word, "noallow_other") == 0) {
        options->allow_other = word[0] == 'a';
        return 0;
    }
    char *value = strchr(word, '=');
    if (!value) {
        snprintf(problem, 256, "unknown mount option '%.128s'", word);
        return -EINVAL;
    }
    *value++ = '\0';
    return option_set_value(options, word, value, problem);
}

errint mount_options_init(struct mount_options *options)
{
    bool root = geteuid() == 0;
    *options = (struct mount_options){
        .text = strdup(""),
        .allow_other = root,
        /* What fusermount3 insists on for everybody else. */
        .flags = root ? 0 : MS_NOSUID | MS_NODEV,
        .passthrough = FS_PASSTHROUGH_AUTO,
        .sharing = FS_SHARING_BACKWARD,
        .hooks = true,
        .inline_limit = OPTION_INLINE_DEFAULT,
        .read_ahead_kib = OPTION_READ_AHEAD_DEFAULT,
        .full_timeout = OPTION_FULL_TIMEOUT_DEFAULT,
        .hang_timeout = OPTION_HANG_TIMEOUT_DEFAULT,
        .backup_interval = OPTION_BACKUP_INTERVAL_DEFAULT,
    };
    return options->text ? 0 : -ENOMEM;
}

errint mount_options_add(struct mount_options *options, const char *text, char problem[256])
{
    cleanup_free char *copy = strdup(text);
    if (!copy)
        return -ENOMEM;
    char *rest = copy;
    for (char *word = strsep(&rest, ","); word; word = strsep(&rest, ",")) {
        errint error = option_apply(options, word, problem);
        if (error)
            return error;
    }
    char *joined = NULL;
    if (asprintf(&joined, "%s%s%s", options->text, *options->text && *text ? "," : "", text) < 0)
        return -ENOMEM;
    free(options->text);
    options->text = joined;
    return 0;
}

void mount_options_release(struct mount_options *options)
{
    free(options->text);
    free(options->log_path);
    options->text = options->log_path = NULL;
}

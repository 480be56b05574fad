/* SPDX-License-Identifier: Apache-2.0 */
/* What files and trees cost: for `ckptfs du` by ioctl, and as extended attributes of one file. */
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "fs/checksum.h"
#include "fs/control.h"
#include "fs/control_report.h"
#include "fs/report.h"
#include "meta/usage.h"

static int64_t control_written_size(void *context, const struct meta_inode *row)
{
    const struct report *report = context;
    struct stat status;
    node_stat_row(report->fs, row, &status);
    return status.st_size;
}

/* Where a file of another owner has taken over bytes, this one is of more pieces: only root may see that. */
static bool control_shows_layout(const struct report *report)
{
    return report_sees_everybody(report) || !report->fs->owners_share;
}

static errint control_compute_usage(struct report *report, struct meta_usage *usage)
{
    const struct meta_usage_request request = {
        .ino = report->ino,
        .uid = report->uid,
        .everybody = report_sees_everybody(report),
        .stop = report_stops,
        .size = control_written_size,
        .context = report,
    };
    errint error = meta_usage_compute(report->fs->meta, &request, usage);
    if (!error && !control_shows_layout(report))
        usage->extents = 0;
    return error;
}

static void control_answer_usage(struct report *report)
{
    struct meta_usage usage;
    errint error = control_compute_usage(report, &usage);
    if (error) {
        report_fail(report, error);
        return;
    }
    const struct control_usage answer = {
        .files = usage.files,
        .extents = usage.extents,
        .logical_bytes = (uint64_t)usage.logical_bytes,
        .stored_bytes = (uint64_t)usage.stored_bytes,
        .unique_bytes = (uint64_t)usage.unique_bytes,
    };
    fuse_reply_ioctl(report->request, 0, &answer, sizeof answer);
}

void control_usage(fuse_req_t request, uint64_t ino, size_t room)
{
    report_within(request, room, sizeof(struct control_usage),
                  &(struct report){.ino = ino, .answer = control_answer_usage});
}

/* -- extended attributes ----------------------------------------------------------------------------------
 */

enum control_figure {
    CONTROL_HASH,
    CONTROL_STORED,
    CONTROL_UNIQUE,
    CONTROL_EXTENTS,
    CONTROL_SHA256,
    CONTROL_FIGURES
};

static const char *const control_figure_names[CONTROL_FIGURES] = {
    [CONTROL_HASH] = "user.ckptfs.hash",     [CONTROL_STORED] = "user.ckptfs.stored",
    [CONTROL_UNIQUE] = "user.ckptfs.unique", [CONTROL_EXTENTS] = "user.ckptfs.extents",
    [CONTROL_SHA256] = "user.ckptfs.sha256",
};

enum { CONTROL_FIGURE_MAX = 2 * SHA256_BYTES + 1 };

static void control_print_bytes(const uint8_t *bytes, size_t count, char text[CONTROL_FIGURE_MAX])
{
    for (size_t i = 0; i < count; i++)
        snprintf(text + i * 2, 3, "%02x", bytes[i]);
}

static errint control_print_hash(struct report *report, char text[CONTROL_FIGURE_MAX])
{
    uint8_t root[META_ROOT_BYTES];
    errint error = meta_usage_root(report->fs->meta, report->ino, root);
    if (!error)
        control_print_bytes(root, sizeof root, text);
    return error;
}

/* Whoever only asks how long it is does not wait for it. */
static errint control_print_sha256(struct report *report, char text[CONTROL_FIGURE_MAX])
{
    uint8_t sum[SHA256_BYTES] = {0};
    errint error = 0;
    if (report->room > 0 && report->room < 2 * sizeof sum)
        error = -ERANGE;
    else if (report->room > 0)
        error = checksum_file(report->fs, report->ino, report_stops, report, sum);
    if (!error)
        control_print_bytes(sum, sizeof sum, text);
    return error;
}

static errint control_print_figure(struct report *report, char text[CONTROL_FIGURE_MAX])
{
    if (report->argument == CONTROL_HASH)
        return control_print_hash(report, text);
    if (report->argument == CONTROL_SHA256)
        return control_print_sha256(report, text);
    struct meta_usage usage;
    errint error = control_compute_usage(report, &usage);
    if (error)
        return error;
    int64_t figure = (int64_t)usage.extents;
    if (report->argument != CONTROL_EXTENTS)
        figure = report->argument == CONTROL_STORED ? usage.stored_bytes : usage.unique_bytes;
    snprintf(text, CONTROL_FIGURE_MAX, "%" PRId64, figure);
    return 0;
}

/* Who may only read the file does not learn what else of its owner's is like it; its sum, he could compute.
 */
static errint control_check_figure(const struct report *report)
{
    struct meta_inode row;
    errint error = meta_get(report->fs->meta, report->ino, &row);
    if (error)
        return error;
    bool theirs = row.uid != report->uid && !report_sees_everybody(report);
    bool layout = report->argument == CONTROL_HASH || report->argument == CONTROL_EXTENTS;
    bool hidden = report->argument != CONTROL_SHA256 && (theirs || (layout && !control_shows_layout(report)));
    return hidden || !S_ISREG(row.mode) ? -ENODATA : 0;
}

static void control_answer_figure(struct report *report)
{
    char text[CONTROL_FIGURE_MAX];
    errint error = control_check_figure(report);
    if (!error)
        error = control_print_figure(report, text);
    if (!error && report->room > 0 && report->room < strlen(text))
        error = -ERANGE;
    if (error)
        report_fail(report, error);
    else if (report->room == 0)
        fuse_reply_xattr(report->request, strlen(text));
    else
        fuse_reply_buf(report->request, text, strlen(text));
}

bool control_answers_xattr(fuse_req_t request, uint64_t ino, const char *name, size_t room)
{
    for (unsigned i = 0; i < CONTROL_FIGURES; i++) {
        if (strcmp(name, control_figure_names[i]) != 0)
            continue;
        report_later(request, &(struct report){.ino = ino,
                                               .argument = i,
                                               .room = room,
                                               .reads = i == CONTROL_SHA256,
                                               .answer = control_answer_figure});
        return true;
    }
    return false;
}

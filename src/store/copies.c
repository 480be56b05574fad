/* SPDX-License-Identifier: Apache-2.0 */
/* How new the copies of the database are. */
#include "store/copies.h"

#include <limits.h>
#include <stdio.h>
#include <sys/stat.h>
#include <time.h>

void copies_describe(const char *path, char text[COPIES_TEXT_MAX])
{
    static const char *const names[] = {COPIES_JOURNAL, COPIES_BACKUP, COPIES_JOURNAL_OLDER,
                                        COPIES_BACKUP_OLDER};
    time_t newest = 0;
    for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
        char file[PATH_MAX];
        struct stat status;
        if ((size_t)snprintf(file, sizeof file, "%s/%s", path, names[i]) < sizeof file &&
            stat(file, &status) == 0 && status.st_mtime > newest)
            newest = status.st_mtime;
    }
    struct tm parts;
    snprintf(text, COPIES_TEXT_MAX, "recovers its objects, without names: there is no backup of it");
    if (newest > 0 && gmtime_r(&newest, &parts))
        strftime(text, COPIES_TEXT_MAX, "restores it as of %Y-%m-%dT%H:%M:%SZ", &parts);
}

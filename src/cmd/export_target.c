/* SPDX-License-Identifier: Apache-2.0 */
/* The target directory of an export. */
#include "cmd/export_target.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/stat.h>

#include "base/log.h"
#include "cmd/assemble_mounted.h"
#include "cmd/exit.h"

#define TARGET_LATEST "latest"

static int target_explain(const struct export_target *target, const char *name, errint error)
{
    log_error("%s/%s: %s", target->place.path, name, strerror(-error));
    return error == -ENOSPC || error == -EDQUOT ? EXIT_NO_SPACE : EXIT_FAILED;
}

/* -- the directory ----------------------------------------------------------------------------------------
 */

static errint target_make(const char *path)
{
    cleanup_free char *part = strdup(path);
    if (!part)
        return -ENOMEM;
    for (char *slash = strchr(part + 1, '/'); slash; slash = strchr(slash + 1, '/')) {
        *slash = '\0';
        if (mkdir(part, 0777) < 0 && errno != EEXIST)
            return -errno;
        *slash = '/';
    }
    return mkdir(part, 0777) < 0 && errno != EEXIST ? -errno : 0;
}

int export_target_open(struct export_target *target)
{
    const char *path = target->place.path;
    struct stat status;
    errint error = stat(path, &status) < 0 && errno == ENOENT ? target_make(path) : 0;
    if (!error) {
        target->place.directory = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
        error = target->place.directory < 0 ? -errno : 0;
    }
    if (error) {
        log_error("%s: %s", path, strerror(-error));
        return error == -ENOSPC || error == -EDQUOT ? EXIT_NO_SPACE : EXIT_FAILED;
    }
    if (!assemble_is_mounted(target->place.directory))
        return EXIT_FINE;
    log_error("%s is on a mount of ckptfs, and exports go to the plain disk; `ckptfs assemble -o` makes "
              "files on a mount",
              path);
    return EXIT_FAILED;
}

int export_target_lock(struct export_target *target)
{
    errint error = export_place_lock(&target->place, false);
    if (error == -EWOULDBLOCK && !target->wait) {
        log_error("%s/%s: another export of it is under way", target->place.path, target->place.name);
        return EXIT_EXPORT_BUSY;
    }
    if (error == -EWOULDBLOCK) {
        if (!target->quiet)
            log_info("%s/%s: another export of it is under way: waiting for its end", target->place.path,
                     target->place.name);
        error = export_place_lock(&target->place, true);
    }
    if (error == -EINTR)
        return EXIT_FAILED; /* by a signal, which tells why */
    return error ? target_explain(target, target->place.name, error) : EXIT_FINE;
}

void export_target_close(struct export_target *target)
{
    export_place_end(&target->place);
    if (target->place.directory >= 0)
        close(target->place.directory);
    target->place.directory = -1;
}

/* -- what is there ----------------------------------------------------------------------------------------
 */

static int target_refuse(const struct export_target *target, errint found, const struct export_found *other)
{
    const struct export_place *place = &target->place;
    if (found == -EEXIST)
        log_error("%s/%s is there already and is no export; give another --name, or --force to replace it",
                  place->path, place->name);
    else
        log_error("%s/%s is an export of %s; give another --name, or --force to replace it", place->path,
                  place->name, other->checkpoint);
    return EXIT_FAILED;
}

static int target_check_links(const struct export_target *target)
{
    for (size_t i = 0; i < target->link_count; i++) {
        char now[EXPORT_NAME_MAX + 1];
        if (export_place_read_link(&target->place, target->links[i], now) == -EEXIST) {
            log_error("%s/%s is there and is no symbolic link: it is not replaced", target->place.path,
                      target->links[i]);
            return EXIT_FAILED;
        }
    }
    return EXIT_FINE;
}

int export_target_check(const struct export_target *target, const struct export_job *job,
                        const struct export_facts *facts, bool *there)
{
    const struct export_place *place = &target->place;
    cleanup_export_found struct export_found found = {0};
    errint error = export_facts_read(place->directory, place->name, &found);
    *there = false;
    if (error && error != -ENOENT && error != -EEXIST)
        return target_explain(target, place->name, error);
    bool other = error == -EEXIST || (error == 0 && strcmp(found.origin, facts->origin) != 0);
    if (other && !target->force)
        return target_refuse(target, error, &found);
    *there = error == 0 && !other && strcmp(found.fingerprint, job->fingerprint) == 0 &&
             export_facts_hold(place->directory, place->name, job);
    return target_check_links(target);
}

/* -- links ------------------------------------------------------------------------------------------------
 */

/* The length of the path of the directory that a checkpoint lies in. */
static size_t target_run_length(const char *origin)
{
    const char *slash = strrchr(origin, '/');
    return slash ? (size_t)(slash - origin) : 0;
}

/* Whether the link leads to a later step of the same run, which has not begun anew since. */
static bool target_is_later(const struct export_target *target, const char *link,
                            const struct export_facts *facts)
{
    const struct export_place *place = &target->place;
    cleanup_export_found struct export_found found = {0};
    char name[EXPORT_NAME_MAX + 1];
    if (export_place_read_link(place, link, name) != 0 || strcmp(name, place->name) == 0 ||
        export_facts_read(place->directory, name, &found) != 0)
        return false;
    size_t length = target_run_length(facts->origin);
    return facts->step >= 0 && found.step > facts->step && target_run_length(found.origin) == length &&
           strncmp(found.origin, facts->origin, length) == 0 && access(found.checkpoint, F_OK) == 0;
}

int export_target_link(struct export_target *target, const struct export_facts *facts)
{
    size_t count = 0;
    for (size_t i = 0; i < target->link_count; i++) {
        const char *link = target->links[i];
        if (!target->force && strcmp(link, TARGET_LATEST) == 0 && target_is_later(target, link, facts)) {
            if (!target->quiet)
                log_info("%s/%s leads to a later step and is left as it is", target->place.path, link);
            continue;
        }
        errint error = export_place_link(&target->place, link);
        if (error)
            return target_explain(target, link, error);
        target->links[count++] = link;
    }
    target->link_count = count;
    return EXIT_FINE;
}

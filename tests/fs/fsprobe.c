/* SPDX-License-Identifier: Apache-2.0 */
/* fsprobe NAME: runs the probe of that name in the current directory; without a name it lists all. */
#include "probe.h"

#include <stdio.h>
#include <string.h>

static const struct probe *const tables[] = {
    probes_attribute, probes_concurrent, probes_copy, probes_directory, probes_fallocate, probes_inline,
    probes_link,      probes_lock,       probes_mmap, probes_open,      probes_race,      probes_rename,
    probes_special,   probes_time,       probes_user, probes_write,     probes_xattr,
};

#define TABLE_COUNT (sizeof(tables) / sizeof(tables[0]))

static const struct probe *probe_find(const char *name)
{
    for (size_t i = 0; i < TABLE_COUNT; i++)
        for (const struct probe *probe = tables[i]; probe->name != NULL; probe++)
            if (strcmp(probe->name, name) == 0)
                return probe;
    return NULL;
}

static void probe_list(void)
{
    for (size_t i = 0; i < TABLE_COUNT; i++)
        for (const struct probe *probe = tables[i]; probe->name != NULL; probe++)
            puts(probe->name);
}

int main(int argc, char **argv)
{
    if (argc == 1) {
        probe_list();
        return 0;
    }
    const struct probe *probe = probe_find(argv[1]);
    if (argc != 2 || probe == NULL) {
        fprintf(stderr, "usage: fsprobe [NAME]\n");
        return 2;
    }
    probe->run();
    return 0;
}

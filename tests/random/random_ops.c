/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The random-operation test: does what a seed says to the files of a directory and compares everything with a
 * model in memory. The same seed does the same.
 *
 * RANDOM_OPS_REMOUNT names a command that is run every --remount-every operations: it may mount the
 * filesystem again, restart or kill its daemon. Files are closed before, unless --keep-open says that they
 * survive it.
 */
#include "world.h"

#include <errno.h>
#include <getopt.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <sys/stat.h>

static const char usage_text[] =
    "usage: random_ops --dir DIRECTORY [--seed N] [--ops N] [--remount-every N] "
    "[--keep-open] [--single]\n"
    "                  [--forks] [--verbose]\n"
    "  --dir DIRECTORY      an empty directory\n"
    "  --seed N             which run (default: a new one, printed)\n"
    "  --ops N              how many operations (default: 5000)\n"
    "  --remount-every N    run the command of RANDOM_OPS_REMOUNT every N "
    "operations and compare all (default: never)\n"
    "  --keep-open          files stay open while the command runs\n"
    "  --single             one file, data only\n"
    "  --forks              a file that others read may get a new inode when it is opened to be written\n"
    "  --verbose            print every operation\n";

static _Noreturn void usage_fail(void)
{
    fputs(usage_text, stderr);
    exit(2);
}

static uint64_t number_parse(const char *text)
{
    char *end;
    errno = 0;
    uint64_t value = strtoull(text, &end, 0);
    if (errno != 0 || end == text || *end != '\0')
        usage_fail();
    return value;
}

static uint64_t seed_make(void)
{
    uint32_t seed;
    if (getrandom(&seed, sizeof(seed), 0) != sizeof(seed)) {
        perror("random_ops: getrandom");
        exit(EXIT_FAILURE);
    }
    return seed;
}

static struct options options_parse(int argc, char **argv)
{
    static const struct option long_options[] = {
        {"dir", required_argument, NULL, 'd'},
        {"seed", required_argument, NULL, 's'},
        {"ops", required_argument, NULL, 'o'},
        {"remount-every", required_argument, NULL, 'r'},
        {"keep-open", no_argument, NULL, 'k'},
        {"single", no_argument, NULL, '1'},
        {"forks", no_argument, NULL, 'f'},
        {"verbose", no_argument, NULL, 'v'},
        {NULL, 0, NULL, 0},
    };
    struct options options = {.operations = 5000, .seed = seed_make()};
    int option;
    while ((option = getopt_long(argc, argv, "", long_options, NULL)) != -1) {
        switch (option) {
        case 'd': options.directory = optarg; break;
        case 's': options.seed = number_parse(optarg); break;
        case 'o': options.operations = number_parse(optarg); break;
        case 'r': options.remount_every = number_parse(optarg); break;
        case 'k': options.keep_open = true; break;
        case '1': options.single = true; break;
        case 'f': options.forks = true; break;
        case 'v': options.verbose = true; break;
        default: usage_fail();
        }
    }
    if (options.directory == NULL || optind != argc)
        usage_fail();
    return options;
}

/* Draws an operation from the tables by weight. */
static const struct operation *operation_draw(struct world *world, const struct operation *const tables[])
{
    unsigned total = 0;
    for (size_t i = 0; tables[i] != NULL; i++)
        for (const struct operation *operation = tables[i]; operation->name != NULL; operation++)
            total += operation->weight;
    uint64_t chosen = world_random(world, total);
    for (size_t i = 0; tables[i] != NULL; i++)
        for (const struct operation *operation = tables[i]; operation->name != NULL; operation++) {
            if (chosen < operation->weight)
                return operation;
            chosen -= operation->weight;
        }
    return NULL;
}

/* After a mount the times of files that were mapped stand still again. */
static void tree_settle_times(struct node *directory)
{
    for (size_t i = 0; i < directory->entry_count; i++) {
        struct node *node = directory->entries[i].node;
        if (node->times_float)
            node_forget_times(node);
        node->times_float = false;
        if (node->type == NODE_DIRECTORY)
            tree_settle_times(node);
    }
}

static void world_run_hook(struct world *world)
{
    const char *command = getenv("RANDOM_OPS_REMOUNT");
    if (!world->options.keep_open)
        world_close_all(world);
    if (world->options.verbose)
        printf("#%lu %s\n", world->operation, command != NULL ? command : "no command");
    fflush(stdout);
    if (command != NULL) {
        int status = system(command);
        if (status != 0)
            world_fail(world, NULL, "the command of RANDOM_OPS_REMOUNT ended with status %d", status);
        if (!world->options.keep_open)
            tree_settle_times(world->model.root);
    }
    world_compare_tree(world);
    world_compare_handles(world);
}

/* The only file of a run with --single. */
static void world_make_single(struct world *world)
{
    char path[PATH_SIZE];
    world_path(world, world->model.root, "single", path);
    FILE *file = fopen(path, "wx");
    world_expect(world, NULL, file == NULL ? -1 : 0, 0, "create");
    fclose(file);
    struct node *node = node_make(&world->model, NODE_FILE, 0666);
    directory_add(&world->model, world->model.root, "single", node);
}

static void world_run(struct world *world)
{
    static const struct operation *const all[] = {operations_data, operations_range, operations_name,
                                                  operations_attribute, NULL};
    static const struct operation *const data_only[] = {operations_data, operations_range, NULL};
    if (world->options.single)
        world_make_single(world);
    for (unsigned long i = 1; i <= world->options.operations; i++) {
        world->operation = i;
        operation_draw(world, world->options.single ? data_only : all)->run(world);
        if (world->options.remount_every != 0 && i % world->options.remount_every == 0)
            world_run_hook(world);
    }
    world_compare_handles(world);
    world_close_all(world);
    world_compare_tree(world);
}

int main(int argc, char **argv)
{
    struct world world = {.options = options_parse(argc, argv)};
    world.random_state = world.options.seed;
    printf("random_ops: seed %llu, %lu operations in %s\n", (unsigned long long)world.options.seed,
           world.options.operations, world.options.directory);
    fflush(stdout);
    umask(0);
    world.buffer = aligned_alloc(DIRECT_BLOCK, SIZE_LIMIT + DIRECT_BLOCK);
    if (world.buffer == NULL) {
        fprintf(stderr, "random_ops: no memory\n");
        return EXIT_FAILURE;
    }
    model_init(&world.model);
    world_run(&world);
    model_free(&world.model);
    free(world.buffer);
    return EXIT_SUCCESS;
}

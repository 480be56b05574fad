/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The state of a run of the random-operation test: the directory under test, the model of it, the files that
 * are open and mapped, the generator of random numbers, and the operation at work. One thread; a mismatch
 * ends the program with the history of what was wrong.
 */
#ifndef CKPTFS_TESTS_RANDOM_WORLD_H
#define CKPTFS_TESTS_RANDOM_WORLD_H

#include "model.h"

enum {
    HANDLE_COUNT = 24,
    MAPPING_COUNT = 6,
    PATH_SIZE = 4096,
    DEPTH_LIMIT = 8,
    NAMES_LIMIT = 250,
    SIZE_LIMIT = 1024 * 1024,
    DIRECT_BLOCK = 4096,
};

/* A file that is open. */
struct handle {
    struct node *node; /* NULL: the slot is free */
    int fd;
    int flags;
};

/* A shared mapping of a file, from its beginning. */
struct mapping {
    struct node *node; /* NULL: the slot is free */
    unsigned char *address;
    size_t length;
    bool writable;
};

struct options {
    const char *directory;
    uint64_t seed;
    unsigned long operations;
    unsigned long remount_every; /* 0: never */
    bool keep_open;              /* files stay open when the hook runs */
    bool single;                 /* one file, data only */
    bool forks;                  /* a file may move to a new inode when it is opened to be written */
    bool verbose;
};

struct world {
    struct options options;
    struct model model;
    struct handle handles[HANDLE_COUNT];
    struct mapping mappings[MAPPING_COUNT];
    uint64_t random_state;
    unsigned long operation; /* number of the operation at work, from 1 */
    unsigned char *buffer;   /* SIZE_LIMIT + DIRECT_BLOCK bytes, aligned for direct transfers */
};

/* Below limit, which is not 0; one in count; between two values, both included. */
uint64_t world_random(struct world *world, uint64_t limit);
bool world_chance(struct world *world, uint64_t count);
size_t world_random_between(struct world *world, size_t low, size_t high);

/* An offset or a size up to limit: often close to where something happens (page, inline limit, chunk, MiB,
 * end). */
size_t world_random_size(struct world *world, size_t limit, size_t end);

/* Fills the buffer of the world with random bytes and returns it. */
unsigned char *world_random_bytes(struct world *world, size_t length);

/* Writes down what is done to a node, for the report of a mismatch. */
void world_note(struct world *world, struct node *node, const char *format, ...)
    __attribute__((format(printf, 3, 4)));

/* Prints seed, operation, message and the node's history (node may be NULL), and ends the program. */
_Noreturn void world_fail(struct world *world, const struct node *node, const char *format, ...)
    __attribute__((format(printf, 3, 4)));

/* The result of a call must be 0 or more (expected 0), or -1 with this errno. Returns the result. */
long world_expect(struct world *world, const struct node *node, long result, int expected, const char *call);

/* A random directory of the tree. */
struct node *world_pick_directory(struct world *world);

/* A random name and its directory; of one type, or of any (type < 0). False when the tree has none. */
bool world_pick_entry(struct world *world, int type, struct node **directory, struct entry **entry);

/* A name that may or may not be in the directory. */
void world_pick_name(struct world *world, const struct node *directory, char name[256]);

/* A random open handle that can be read or written as wanted; NULL when there is none. */
struct handle *world_pick_handle(struct world *world, bool readable, bool writable);

/* Absolute path of a name in a directory; of the directory itself when name is NULL. */
const char *world_path(struct world *world, const struct node *directory, const char *name,
                       char path[PATH_SIZE]);

/* Levels between the root and a directory. */
unsigned directory_depth(const struct node *directory);

/* Levels of directories below a directory. */
unsigned directory_height(const struct node *directory);

bool handle_can_read(const struct handle *handle);
bool handle_can_write(const struct handle *handle);

/* Closes one handle, or removes one mapping, or all of both. */
void world_close_handle(struct world *world, struct handle *handle);
void world_remove_mapping(struct world *world, struct mapping *mapping);
void world_close_all(struct world *world);

/*
 * After a call that may have moved the file to a new inode, and before the model changes. Where a filesystem
 * shares the bytes of copies, it may do so to a file that others have open for reading: it is then as if a
 * copy had been renamed over it, and who had it open keeps the old bytes. Without --forks, or with a writer
 * among them, the next comparison of inode numbers fails.
 */
void world_notice_fork(struct world *world, struct node *node, const char *path);

/*
 * Before a call that changes the file by its name. Where its bytes may be shared, and it is mapped by
 * somebody who has closed it, the filesystem does not know of that one, who would go on seeing the bytes from
 * before
 * (--forks): the mappings are removed.
 */
void world_unmap_closed(struct world *world, struct node *node);

/* Looks at one node, by path or by descriptor, or at everything; a difference ends the program. */
void world_compare_attributes(struct world *world, struct node *node, const char *path, int fd);
void world_compare_range(struct world *world, struct node *node, int fd, size_t offset, size_t length,
                         bool direct);
void world_compare_file(struct world *world, struct node *node, const char *path);
void world_compare_directory(struct world *world, struct node *directory);
void world_compare_xattrs(struct world *world, struct node *node, const char *path);
void world_compare_tree(struct world *world);
void world_compare_handles(struct world *world);

/* Names of the extended attributes that the test uses. */
extern const char *const attribute_names[ATTRIBUTE_COUNT];

/* One kind of operation; weight is how often it comes up among the others. */
struct operation {
    const char *name;
    unsigned weight;
    void (*run)(struct world *world);
};

/* The tables end with a NULL name. */
extern const struct operation operations_data[];
extern const struct operation operations_range[];
extern const struct operation operations_name[];
extern const struct operation operations_attribute[];

#endif

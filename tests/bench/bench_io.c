/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The timed input and output of the bench: does one piece of work on one directory and prints what it took as
 * one line of JSON. It knows no filesystem: the driver (run) points it at the mount or at the plain disk.
 *
 * Memory is filled with numbers that do not compress or repeat before the clock starts. "cpu" is the CPU time
 * of this process and its children while the clock ran, in seconds.
 */
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

enum {
    MIB = 1 << 20,
    PAGE = 4096,
    PIECE = 16 * MIB, /* of the permuted map */
    UNALIGNED = 24,   /* as the payload of a Python bytes object */
    APPEND_MIN = 64,  /* torch.save: a tensor's padding */
    APPEND_MAX = 8 * MIB,
};

struct stopwatch {
    double wall, cpu;
};

static uint64_t random_state;

static void die(const char *what)
{
    fprintf(stderr, "bench_io: %s: %s\n", what, strerror(errno));
    exit(1);
}

static uint64_t random_next(void)
{
    random_state ^= random_state >> 12;
    random_state ^= random_state << 25;
    random_state ^= random_state >> 27;
    return random_state * UINT64_C(0x2545F4914F6CDD1D);
}

static double cpu_seconds(int who)
{
    struct rusage usage;
    if (getrusage(who, &usage) != 0)
        die("getrusage");
    return (double)(usage.ru_utime.tv_sec + usage.ru_stime.tv_sec) +
           1e-6 * (double)(usage.ru_utime.tv_usec + usage.ru_stime.tv_usec);
}

static struct stopwatch stopwatch_read(void)
{
    struct timespec now;
    if (clock_gettime(CLOCK_MONOTONIC, &now) != 0)
        die("clock_gettime");
    return (struct stopwatch){.wall = (double)now.tv_sec + 1e-9 * (double)now.tv_nsec,
                              .cpu = cpu_seconds(RUSAGE_SELF) + cpu_seconds(RUSAGE_CHILDREN)};
}

/* Prints the result: the whole, and the wall time at which a first part of it (`part`) was done. */
static void report(const char *part, struct stopwatch start, struct stopwatch middle, struct stopwatch end,
                   int64_t bytes)
{
    printf("{\"seconds\": %.6f, \"%s\": %.6f, \"cpu\": %.6f, \"bytes\": %" PRId64 "}\n",
           end.wall - start.wall, part, middle.wall - start.wall, end.cpu - start.cpu, bytes);
}

static int64_t parse_bytes(const char *text)
{
    char *end;
    errno = 0;
    long long value = strtoll(text, &end, 10);
    if (errno || *end || value <= 0) {
        fprintf(stderr, "bench_io: '%s' is not a positive number\n", text);
        exit(2);
    }
    return value;
}

/* `bytes` of filled memory that starts off any alignment, as Python's objects do. Never freed. */
static char *memory_fill(int64_t bytes)
{
    size_t length = (size_t)bytes + 2 * PAGE;
    char *memory = mmap(NULL, length, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (memory == MAP_FAILED)
        die("mmap of the source");
    for (size_t i = 0; i + sizeof(uint64_t) <= length; i += sizeof(uint64_t)) {
        uint64_t word = random_next();
        memcpy(memory + i, &word, sizeof word);
    }
    return memory + UNALIGNED;
}

static void write_all(int fd, const char *bytes, size_t length)
{
    while (length > 0) {
        ssize_t written = write(fd, bytes, length);
        if (written < 0)
            die("write");
        bytes += written;
        length -= (size_t)written;
    }
}

static int open_or_die(const char *path, int flags, mode_t mode)
{
    int fd = open(path, flags | O_CLOEXEC, mode);
    if (fd < 0)
        die(path);
    return fd;
}

static void close_or_die(int fd)
{
    if (close(fd) != 0)
        die("close");
}

static void path_join(char *out, size_t capacity, const char *directory, const char *name)
{
    if ((size_t)snprintf(out, capacity, "%s/%s", directory, name) >= capacity) {
        errno = ENAMETOOLONG;
        die(directory);
    }
}

/* As safetensors 0.8: a temporary file of the final size, 1 MiB writes, renamed while it is open. */
static int safetensors_write(const char *path, const char *source, int64_t bytes)
{
    char temporary[4096];
    char *slash = strrchr(path, '/');
    int folder = slash ? (int)(slash - path) : 1;
    if ((size_t)snprintf(temporary, sizeof temporary, "%.*s/.tmp%06x", folder, slash ? path : ".",
                         (unsigned)getpid() & 0xffffff) >= sizeof temporary) {
        errno = ENAMETOOLONG;
        die(path);
    }
    int fd = open_or_die(temporary, O_RDWR | O_CREAT | O_EXCL, 0600);
    if (ftruncate(fd, bytes) != 0)
        die("ftruncate");
    for (int64_t done = 0; done < bytes; done += MIB)
        write_all(fd, source + done, (size_t)(bytes - done < MIB ? bytes - done : MIB));
    if (rename(temporary, path) != 0)
        die("rename");
    return fd;
}

/* As torch.save: one pass of appends, from a tensor's padding to eight mebibytes. */
static void torch_write(const char *path, const char *source, int64_t bytes)
{
    int fd = open_or_die(path, O_WRONLY | O_CREAT | O_TRUNC, 0666);
    for (int64_t done = 0; done < bytes;) {
        uint64_t draw = random_next();
        int64_t length = APPEND_MIN << (draw % 18); /* 64 bytes to 8 MiB, each power as often */
        length = length > APPEND_MAX ? APPEND_MAX : length;
        length = bytes - done < length ? bytes - done : length;
        write_all(fd, source + done, (size_t)length);
        done += length;
    }
    close_or_die(fd);
}

static void small_write(const char *path, const char *source, size_t bytes)
{
    int fd = open_or_die(path, O_WRONLY | O_CREAT | O_TRUNC, 0666);
    write_all(fd, source, bytes);
    close_or_die(fd);
}

static void sync_path(const char *path, int flags)
{
    int fd = open_or_die(path, O_RDONLY | flags, 0);
    if (fsync(fd) != 0)
        die("fsync");
    close_or_die(fd);
}

/* write FILE BYTES: a new safetensors file, to the end of fsync. */
static void bench_write(char **arguments)
{
    int64_t bytes = parse_bytes(arguments[1]);
    const char *source = memory_fill(bytes);
    struct stopwatch start = stopwatch_read();
    int fd = safetensors_write(arguments[0], source, bytes);
    struct stopwatch written = stopwatch_read();
    if (fsync(fd) != 0)
        die("fsync");
    close_or_die(fd);
    report("written", start, written, stopwatch_read(), bytes);
}

/* read FILE: read(2) in calls of 1 MiB. */
static void bench_read(char **arguments)
{
    char *buffer = memory_fill(MIB);
    int64_t bytes = 0;
    struct stopwatch start = stopwatch_read();
    int fd = open_or_die(arguments[0], O_RDONLY, 0);
    struct stopwatch opened = stopwatch_read();
    for (;;) {
        ssize_t got = read(fd, buffer, MIB);
        if (got < 0)
            die("read");
        if (got == 0)
            break;
        bytes += got;
    }
    close_or_die(fd);
    report("opened", start, opened, stopwatch_read(), bytes);
}

static void shuffle(size_t *order, size_t count)
{
    for (size_t i = 0; i < count; i++)
        order[i] = i;
    for (size_t i = count; i > 1; i--) {
        size_t j = random_next() % i;
        size_t kept = order[i - 1];
        order[i - 1] = order[j];
        order[j] = kept;
    }
}

/* Touches each page of the map, piece by piece in the order given; the sum keeps the loads from being
 * dropped. */
static uint64_t map_touch(const unsigned char *map, int64_t bytes, const size_t *order, size_t pieces)
{
    uint64_t sum = 0;
    for (size_t i = 0; i < pieces; i++) {
        int64_t begin = (int64_t)order[i] * PIECE;
        int64_t end = begin + PIECE < bytes ? begin + PIECE : bytes;
        for (int64_t at = begin; at < end; at += PAGE)
            sum += map[at];
    }
    return sum;
}

/* map FILE sequential|permuted: a private read-only map, each page touched once. */
static void bench_map(char **arguments)
{
    struct stat attributes;
    if (stat(arguments[0], &attributes) != 0)
        die(arguments[0]);
    size_t pieces = (size_t)((attributes.st_size + PIECE - 1) / PIECE);
    size_t *order = calloc(pieces, sizeof *order);
    if (!order || pieces == 0)
        die("order of the pieces");
    if (strcmp(arguments[1], "permuted") == 0)
        shuffle(order, pieces);
    else
        for (size_t i = 0; i < pieces; i++)
            order[i] = i;
    struct stopwatch start = stopwatch_read();
    int fd = open_or_die(arguments[0], O_RDONLY, 0);
    void *map = mmap(NULL, (size_t)attributes.st_size, PROT_READ, MAP_PRIVATE, fd, 0);
    if (map == MAP_FAILED)
        die("mmap");
    close_or_die(fd);
    struct stopwatch mapped = stopwatch_read();
    volatile uint64_t sum = map_touch(map, attributes.st_size, order, pieces);
    (void)sum;
    if (munmap(map, (size_t)attributes.st_size) != 0)
        die("munmap");
    report("mapped", start, mapped, stopwatch_read(), attributes.st_size);
    free(order);
}

static const struct {
    const char *name;
    size_t bytes;
} trainer_small_files[] = {
    {"config.json", 1100},           {"generation_config.json", 180},  {"tokenizer.json", 2200000},
    {"tokenizer_config.json", 1300}, {"special_tokens_map.json", 450}, {"training_args.bin", 5900},
    {"scheduler.pt", 1500},          {"rng_state.pth", 14700},         {"trainer_state.json", 48000},
};
enum { TRAINER_SMALL_FILES = sizeof trainer_small_files / sizeof *trainer_small_files };

/* save DIRECTORY MODEL_BYTES OPTIMIZER_BYTES: the files of one Trainer checkpoint; then each is fsynced. */
static void bench_save(char **arguments)
{
    char path[4096];
    const char *folder = arguments[0];
    int64_t model = parse_bytes(arguments[1]), optimizer = parse_bytes(arguments[2]);
    int64_t bytes = model + optimizer;
    const char *source = memory_fill(bytes > 4 * MIB ? bytes : 4 * MIB);
    struct stopwatch start = stopwatch_read();
    if (mkdir(folder, 0777) != 0)
        die(folder);
    path_join(path, sizeof path, folder, "model.safetensors");
    close_or_die(safetensors_write(path, source, model));
    path_join(path, sizeof path, folder, "optimizer.pt");
    torch_write(path, source + model, optimizer);
    for (size_t i = 0; i < TRAINER_SMALL_FILES; i++) {
        path_join(path, sizeof path, folder, trainer_small_files[i].name);
        small_write(path, source + i, trainer_small_files[i].bytes);
        bytes += (int64_t)trainer_small_files[i].bytes;
    }
    struct stopwatch closed = stopwatch_read();
    path_join(path, sizeof path, folder, "model.safetensors");
    sync_path(path, 0);
    path_join(path, sizeof path, folder, "optimizer.pt");
    sync_path(path, 0);
    for (size_t i = 0; i < TRAINER_SMALL_FILES; i++) {
        path_join(path, sizeof path, folder, trainer_small_files[i].name);
        sync_path(path, 0);
    }
    sync_path(folder, O_DIRECTORY);
    report("closed", start, closed, stopwatch_read(), bytes);
}

/* small DIRECTORY COUNT BYTES: files created, written, closed; then all unlinked. */
static void bench_small(char **arguments)
{
    char path[4096], name[64];
    int64_t count = parse_bytes(arguments[1]), bytes = parse_bytes(arguments[2]);
    const char *source = memory_fill(bytes + count);
    if (mkdir(arguments[0], 0777) != 0)
        die(arguments[0]);
    struct stopwatch start = stopwatch_read();
    for (int64_t i = 0; i < count; i++) {
        snprintf(name, sizeof name, "file-%" PRId64, i);
        path_join(path, sizeof path, arguments[0], name);
        small_write(path, source + i, (size_t)bytes);
    }
    struct stopwatch created = stopwatch_read();
    for (int64_t i = 0; i < count; i++) {
        snprintf(name, sizeof name, "file-%" PRId64, i);
        path_join(path, sizeof path, arguments[0], name);
        if (unlink(path) != 0)
            die(path);
    }
    report("created", start, created, stopwatch_read(), count * bytes);
    if (rmdir(arguments[0]) != 0)
        die(arguments[0]);
}

/* writers DIRECTORY COUNT BYTES: as many processes, each one new safetensors file of BYTES and its fsync. */
static void bench_writers(char **arguments)
{
    char path[4096], name[64];
    int64_t count = parse_bytes(arguments[1]), bytes = parse_bytes(arguments[2]);
    const char *source = memory_fill(count * bytes);
    if (mkdir(arguments[0], 0777) != 0)
        die(arguments[0]);
    struct stopwatch start = stopwatch_read();
    for (int64_t i = 0; i < count; i++) {
        pid_t child = fork();
        if (child < 0)
            die("fork");
        if (child > 0)
            continue;
        snprintf(name, sizeof name, "model-%05" PRId64 ".safetensors", i);
        path_join(path, sizeof path, arguments[0], name);
        int fd = safetensors_write(path, source + i * bytes, bytes);
        if (fsync(fd) != 0)
            die("fsync");
        close_or_die(fd);
        _exit(0);
    }
    struct stopwatch begun = stopwatch_read();
    for (int64_t i = 0; i < count; i++) {
        int status;
        if (wait(&status) < 0 || status != 0) {
            fprintf(stderr, "bench_io: a writer failed\n");
            exit(1);
        }
    }
    report("begun", start, begun, stopwatch_read(), count * bytes);
}

static const struct {
    const char *name;
    void (*run)(char **arguments);
    int arguments;
    const char *usage;
} commands[] = {
    {"write", bench_write, 2, "FILE BYTES"},
    {"read", bench_read, 1, "FILE"},
    {"map", bench_map, 2, "FILE sequential|permuted"},
    {"save", bench_save, 3, "DIRECTORY MODEL_BYTES OPTIMIZER_BYTES"},
    {"small", bench_small, 3, "DIRECTORY COUNT BYTES"},
    {"writers", bench_writers, 3, "DIRECTORY COUNT BYTES"},
};

int main(int argc, char **argv)
{
    for (size_t i = 0; argc >= 3 && i < sizeof commands / sizeof *commands; i++) {
        if (strcmp(argv[2], commands[i].name) != 0 || argc != 3 + commands[i].arguments)
            continue;
        random_state = (uint64_t)parse_bytes(argv[1]) * UINT64_C(0x9E3779B97F4A7C15);
        commands[i].run(argv + 3);
        return 0;
    }
    fprintf(stderr, "usage: bench_io SEED COMMAND ...\n");
    for (size_t i = 0; i < sizeof commands / sizeof *commands; i++)
        fprintf(stderr, "  %s %s\n", commands[i].name, commands[i].usage);
    return 2;
}

/* SPDX-License-Identifier: Apache-2.0 */
/* A fresh database a test, and short ways to use it. */
#include "test_meta_frame.h"

#include <errno.h>
#include <ftw.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/fault.h"

struct meta *meta;
char frame_directory[4096];
char frame_path[4200];
enum { FRAME_CODES_MAX = 1024 };

static void (*frame_test)(void);
uint64_t *frame_shared;

/* -- the database of a test -------------------------------------------------------------------------------
 */

void frame_open(void)
{
    CHECK_EQUAL(0, meta_open(frame_path, true, &meta));
    if (!meta) {
        printf("Bail out! cannot open %s\n", frame_path);
        exit(EXIT_FAILURE);
    }
}

void frame_close(void)
{
    CHECK_EQUAL(0, meta_close(meta));
    meta = NULL;
}

void frame_reopen(void)
{
    frame_close();
    frame_open();
}

static int frame_remove_one(const char *path, const struct stat *status, int type, struct FTW *where)
{
    (void)status, (void)type, (void)where;
    return remove(path);
}

static void frame_run_test(void)
{
    const char *top = getenv("TMPDIR");
    snprintf(frame_directory, sizeof frame_directory, "%s/test_meta.XXXXXX", top && *top ? top : "/tmp");
    frame_shared = mmap(NULL, FRAME_SHARED_COUNT * sizeof *frame_shared, PROT_READ | PROT_WRITE,
                        MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    if (!mkdtemp(frame_directory) || frame_shared == MAP_FAILED) {
        printf("Bail out! cannot make %s\n", frame_directory);
        exit(EXIT_FAILURE);
    }
    snprintf(frame_path, sizeof frame_path, "%s/meta.db", frame_directory);
    frame_open();
    frame_test();
    CHECK(frame_is_consistent(meta));
    frame_close();
    munmap(frame_shared, FRAME_SHARED_COUNT * sizeof *frame_shared);
    CHECK_EQUAL(0, nftw(frame_directory, frame_remove_one, 16, FTW_DEPTH | FTW_PHYS));
}

void frame_run(const char *what, void (*test)(void))
{
    frame_test = test;
    check_run(what, frame_run_test);
}

int frame_in_child(const char *fault, void (*body)(void))
{
    frame_close();
    fflush(stdout);
    pid_t child = fork();
    if (child == 0) {
        check_failures = 0;
        setenv("CKPTFS_FAULT", fault, 1);
        CHECK_EQUAL(0, fault_configure());
        body();
        fflush(stdout);
        _exit(check_failures ? EXIT_FAILURE : EXIT_SUCCESS);
    }
    int status = -1;
    CHECK(child > 0 && waitpid(child, &status, 0) == child);
    frame_open();
    return status;
}

/* -- do the tables agree? ---------------------------------------------------------------------------------
 */

/* Each gives a row for each thing that must not be: one number that tells which. */
static const struct {
    const char *rule;
    const char *text;
} frame_rules[] = {
    {"nlink of a file is its names",
     "SELECT i.ino FROM inode i WHERE (i.mode & 61440) <> 16384 AND i.nlink <>"
     " (SELECT count(*) FROM name n WHERE n.ino = i.ino)"},
    {"nlink of a directory is 2 and its subdirectories, or 0",
     "SELECT i.ino FROM inode i WHERE (i.mode & 61440) = 16384 AND i.nlink <> 0 AND i.nlink <> 2 +"
     " (SELECT count(*) FROM name n JOIN inode c ON c.ino = n.ino"
     " WHERE n.parent = i.ino AND (c.mode & 61440) = 16384)"},
    {"a directory has one name, a removed one and the root none",
     "SELECT i.ino FROM inode i WHERE (i.mode & 61440) = 16384 AND (SELECT count(*) FROM name n"
     " WHERE n.ino = i.ino) <> CASE WHEN i.nlink = 0 OR i.ino = 1 THEN 0 ELSE 1 END"},
    {"a name has an inode and a living directory",
     "SELECT n.ino FROM name n LEFT JOIN inode i ON i.ino = n.ino LEFT JOIN inode p ON p.ino = n.parent"
     " WHERE i.ino IS NULL OR (n.parent <> 0 AND (p.ino IS NULL OR p.nlink = 0 OR (p.mode & 61440) <> "
     "16384))"},
    {"a hidden name is a directory's", "SELECT n.ino FROM name n JOIN inode i ON i.ino = n.ino"
                                       " WHERE n.parent = 0 AND (i.mode & 61440) <> 16384"},
    {"a template joins a living directory and a hidden one",
     "SELECT t.directory FROM template t LEFT JOIN inode i ON i.ino = t.directory"
     " LEFT JOIN name n ON n.ino = t.hidden LEFT JOIN name k ON k.ino = n.parent"
     " WHERE i.ino IS NULL OR i.nlink = 0 OR k.parent IS NULL OR k.parent <> 0"},
    {"what is in the trash is a hidden directory, and a directory of the trash is a row of it",
     "SELECT t.ino FROM trash t WHERE NOT EXISTS (SELECT 1 FROM name n JOIN name k ON k.ino = n.parent"
     " WHERE n.ino = t.ino AND k.parent = 0 AND k.name = x'7472617368') UNION SELECT n.ino FROM name n"
     " JOIN name k ON k.ino = n.parent WHERE k.parent = 0 AND k.name = x'7472617368'"
     " AND NOT EXISTS (SELECT 1 FROM trash t WHERE t.ino = n.ino)"},
    {"what is in the trash was in a directory that is there, or is remembered",
     "SELECT t.ino FROM trash t LEFT JOIN inode i ON i.ino = t.parent WHERE i.ino IS NULL OR i.nlink = 0"
     " OR (i.mode & 61440) <> 16384"},
    {"what is left of a checkpoint is a living directory, with one open entry at most",
     "SELECT t.ino FROM trash t LEFT JOIN inode i ON i.ino = t.directory WHERE t.directory <> 0"
     " AND (i.ino IS NULL OR i.nlink = 0 OR (t.kind = 1 AND (SELECT count(*) FROM trash o"
     " WHERE o.directory = t.directory AND o.kind = 1) > 1))"},
    {"what is remembered leads to what is in the trash",
     "SELECT t.ino FROM trash t WHERE t.kind = 2 AND NOT EXISTS"
     " (SELECT 1 FROM trash o WHERE o.parent = t.ino)"},
    {"a cookie is not one of . and ..", "SELECT ino FROM name WHERE cookie < 3"},
    {"a written object knows its file", "SELECT i.ino FROM inode i LEFT JOIN object o ON o.id = i.object"
                                        " WHERE i.kind = 2 AND (o.id IS NULL OR o.owner <> i.ino)"},
    {"only a file on an object names one", "SELECT ino FROM inode WHERE (kind = 2) <> (object <> 0)"},
    {"an object's owner is written on it",
     "SELECT o.id FROM object o LEFT JOIN inode i ON i.ino = o.owner"
     " WHERE o.owner <> 0 AND (i.ino IS NULL OR i.kind <> 2 OR i.object <> o.id)"},
    {"an extent has a file of extents, an object, a length and room in the file",
     "SELECT e.ino FROM extent e LEFT JOIN inode i ON i.ino = e.ino LEFT JOIN object o ON o.id = e.object"
     " WHERE i.ino IS NULL OR i.kind <> 3 OR o.id IS NULL OR e.length <= 0 OR e.file_offset < 0"
     " OR e.object_offset < 0 OR e.file_offset + e.length > i.size"},
    {"extents do not overlap",
     "SELECT a.ino FROM extent a JOIN extent b ON b.ino = a.ino AND b.file_offset > a.file_offset"
     " AND b.file_offset < a.file_offset + a.length"},
    {"neighbours that continue each other are one",
     "SELECT a.ino FROM extent a JOIN extent b ON b.ino = a.ino AND b.file_offset = a.file_offset + a.length"
     " AND b.object = a.object AND b.object_offset = a.object_offset + a.length"},
    {"a content belongs to a file that has one inside, or whose object is not synced yet",
     "SELECT c.ino FROM content c LEFT JOIN inode i ON i.ino = c.ino"
     " WHERE i.ino IS NULL OR i.kind = 0 OR (i.kind = 1 AND length(c.bytes) > i.size)"
     " OR (i.kind > 1 AND (i.state & 1) = 0)"},
    {"a file with its content inside has it", "SELECT i.ino FROM inode i WHERE i.kind = 1 AND NOT EXISTS "
                                              "(SELECT 1 FROM content c WHERE c.ino = i.ino)"},
    {"an empty kind is an empty file", "SELECT ino FROM inode WHERE kind = 0 AND size <> 0"},
    {"an attribute has an inode",
     "SELECT x.ino FROM xattr x LEFT JOIN inode i ON i.ino = x.ino WHERE i.ino IS NULL"},
    {"a shadow's name is its successor's, and both are there",
     "SELECT s.replaced FROM shadow s LEFT JOIN name n ON n.parent = s.parent AND n.name = s.name"
     " LEFT JOIN inode i ON i.ino = s.replaced WHERE n.ino IS NULL OR n.ino <> s.successor OR i.ino IS NULL"
     " OR s.replaced = s.successor"},
    {"a stand-in is a nameless file of extents, of a file that is not on stable storage",
     "SELECT t.ino FROM stand_in t LEFT JOIN inode i ON i.ino = t.ino LEFT JOIN inode h ON h.ino = t.hidden"
     " WHERE i.ino IS NULL OR h.ino IS NULL OR (i.state & 1) = 0 OR i.kind NOT IN (2, 3) OR h.kind <> 3"
     " OR h.nlink <> 0 OR (h.state & 1) <> 0"},
};

static bool frame_holds(struct meta *of, const char *rule, const char *text)
{
    cleanup_rows struct db_rows rows;
    if (db_select(of->db, &rows, text) < 0)
        return false;
    int found = db_next(&rows);
    if (found > 0)
        printf("# %s: broken by %lld\n", rule, (long long)db_integer(&rows, 0));
    return found == 0;
}

static bool frame_totals_agree(struct meta *of)
{
    static const char text[] =
        "SELECT count(*), coalesce(sum(CASE WHEN (mode & 61440) = 32768 AND ((state & 4) = 0 OR nlink > 0) "
        "THEN size"
        " ELSE 0 END), 0),"
        " coalesce(sum(state & 1), 0), coalesce(sum((state & 2) / 2), 0), (SELECT count(*) FROM object),"
        " (SELECT count(*) FROM shadow), (SELECT count(*) FROM stand_in) FROM inode";
    struct meta_totals totals;
    meta_count(of, &totals);
    META_LOCKED(of);
    cleanup_rows struct db_rows rows;
    if (db_select(of->db, &rows, text) < 0 || db_next(&rows) <= 0)
        return false;
    int64_t found[] = {(int64_t)totals.inodes,      totals.logical_bytes,    (int64_t)totals.dirty,
                       (int64_t)totals.torn,        (int64_t)totals.objects, (int64_t)of->known.shadows,
                       (int64_t)of->known.stand_ins};
    bool agree = true;
    for (int i = 0; i < 7; i++) {
        if (db_integer(&rows, i) == found[i])
            continue;
        printf("# total %d: counted %lld, in the tables %lld\n", i, (long long)found[i],
               (long long)db_integer(&rows, i));
        agree = false;
    }
    return agree;
}

bool frame_is_consistent(struct meta *of)
{
    bool consistent = frame_totals_agree(of);
    META_LOCKED(of);
    for (size_t i = 0; i < sizeof frame_rules / sizeof *frame_rules; i++) {
        if (!frame_holds(of, frame_rules[i].rule, frame_rules[i].text))
            consistent = false;
    }
    return consistent;
}

/* -- short ways -------------------------------------------------------------------------------------------
 */

uint64_t frame_make(uint64_t parent, const char *name, uint32_t mode)
{
    struct meta_new new = {.parent = parent,
                           .name = name,
                           .length = strlen(name),
                           .mode = mode,
                           .uid = 1000,
                           .gid = 100,
                           .now = FRAME_NOW};
    struct meta_inode inode;
    errint error = meta_create(meta, &new, 0, &inode);
    CHECK_EQUAL(0, error);
    return error ? 0 : inode.ino;
}

uint64_t frame_make_object(uint64_t parent, const char *name)
{
    struct meta_new new = {.parent = parent,
                           .name = name,
                           .length = strlen(name),
                           .mode = S_IFREG | 0644,
                           .object = meta_object_next(meta),
                           .now = FRAME_NOW};
    struct meta_inode inode;
    errint error = meta_create(meta, &new, 0, &inode);
    CHECK_EQUAL(0, error);
    return error ? 0 : inode.ino;
}

uint64_t frame_make_sealed(uint64_t parent, const char *name, int64_t size)
{
    struct ids none = {0};
    uint64_t ino = frame_make_object(parent, name);
    CHECK_EQUAL(0, meta_seal(meta, ino, size, FRAME_NOW, FRAME_NOW, &none));
    CHECK_EQUAL(0, meta_synced(meta, ino, size, true, &none));
    CHECK_EQUAL(0, none.count);
    ids_release(&none);
    return ino;
}

uint64_t frame_object_of(uint64_t ino)
{
    struct meta_extent *extents;
    size_t count;
    CHECK_EQUAL(0, meta_extents(meta, ino, &extents, &count));
    uint64_t object = count ? extents[0].object : 0;
    free(extents);
    return object;
}

struct meta_inode frame_get(uint64_t ino)
{
    struct meta_inode inode = {0};
    CHECK_EQUAL(0, meta_get(meta, ino, &inode));
    return inode;
}

uint64_t frame_find(uint64_t parent, const char *name)
{
    struct meta_inode inode;
    return meta_lookup(meta, parent, name, strlen(name), &inode) == 0 ? inode.ino : 0;
}

errint frame_unlink(uint64_t parent, const char *name, bool reap, struct ids *freed)
{
    return meta_unlink(meta, parent, name, strlen(name), frame_find(parent, name), reap, FRAME_NOW + 1, 0,
                       freed);
}

errint frame_rmdir(uint64_t parent, const char *name)
{
    return meta_rmdir(meta, parent, name, strlen(name), frame_find(parent, name), true, FRAME_NOW + 1, 0);
}

errint frame_rename(uint64_t parent, const char *name, uint64_t new_parent, const char *new_name,
                    unsigned flags, struct ids *freed)
{
    struct meta_rename rename = {
        .parent = parent,
        .name = name,
        .length = strlen(name),
        .new_parent = new_parent,
        .new_name = new_name,
        .new_length = strlen(new_name),
        .flags = flags,
        .expected = frame_find(parent, name),
        .replaced = frame_find(new_parent, new_name),
        .reap = true,
        .now = FRAME_NOW + 2,
    };
    return meta_rename(meta, &rename, 0, freed);
}

errint frame_map(uint64_t ino, int64_t offset, int64_t length, uint64_t object, int64_t object_offset,
                 struct ids *freed)
{
    struct meta_extent extent = {offset, length, object, object_offset};
    return meta_extents_map(meta, ino, &extent, true, FRAME_NOW + 3, freed);
}

const char *frame_extents(uint64_t ino)
{
    static char text[4096];
    struct meta_extent *extents;
    size_t count, length = 0;
    text[0] = '\0';
    if (meta_extents(meta, ino, &extents, &count) < 0)
        return "error";
    for (size_t i = 0; i < count && length < sizeof text; i++)
        length +=
            (size_t)snprintf(text + length, sizeof text - length, "%s%lld+%lld:%llu@%lld", i ? " " : "",
                             (long long)extents[i].offset, (long long)extents[i].length,
                             (unsigned long long)extents[i].object, (long long)extents[i].object_offset);
    free(extents);
    return text;
}

bool frame_has(const struct ids *ids, uint64_t id)
{
    for (size_t i = 0; i < ids->count; i++) {
        if (ids->at[i] == id)
            return true;
    }
    return false;
}

bool frame_is_released(uint64_t ino)
{
    cleanup_ids struct ids released = {0};
    CHECK_EQUAL(0, meta_shadows_released(meta, &released));
    return frame_has(&released, ino);
}

bool frame_is_orphan(uint64_t ino)
{
    cleanup_ids struct ids orphans = {0};
    CHECK_EQUAL(0, meta_find_orphans(meta, &orphans));
    return frame_has(&orphans, ino);
}

/* -- the check ---------------------------------------------------------------------------------------------
 */

void frame_break_by(const char *statement, uint64_t number)
{
    char text[256];
    snprintf(text, sizeof text, statement, (unsigned long long)number);
    META_LOCKED(meta);
    CHECK_EQUAL(0, db_execute(meta->db, text));
}

static void frame_note_code(void *context, const struct meta_finding *finding)
{
    char *codes = context;
    size_t length = strlen(codes);
    snprintf(codes + length, FRAME_CODES_MAX - length, "%s ", finding->code);
}

static struct meta_check_result frame_check_to(char codes[FRAME_CODES_MAX],
                                               const struct meta_object_file *files, size_t count, bool mend)
{
    const struct meta_check_request request = {.files = files,
                                               .file_count = count,
                                               .mend = mend,
                                               .now = FRAME_NOW,
                                               .finding = frame_note_code,
                                               .context = codes};
    struct meta_check_result result = {0};
    codes[0] = '\0';
    CHECK_EQUAL(0, meta_check(meta, &request, &result));
    return result;
}

const char *frame_check(const struct meta_object_file *files, size_t count, bool mend)
{
    static char codes[FRAME_CODES_MAX];
    frame_check_to(codes, files, count, mend);
    return codes;
}

const char *frame_check_and_mend(const struct meta_object_file *files, size_t count)
{
    char again[FRAME_CODES_MAX];
    const char *codes = frame_check(files, count, true);
    struct meta_check_result result = frame_check_to(again, files, count, true);
    CHECK_EQUAL(0, result.mended + result.left);
    return codes;
}

const char *frame_mend(void)
{
    return frame_check(NULL, 0, true);
}

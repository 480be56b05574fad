/* SPDX-License-Identifier: Apache-2.0 */
/* What must agree in the tables, as statements: each finds what does not, and how that is mended. */
#include "meta/check_internal.h"

#define IS_DIRECTORY(row) "(" row ".mode & 61440) = 16384"
#define IS_FILE(row)      "(" row ".mode & 61440) = 32768"
#define NO_INODE(number)  "NOT EXISTS (SELECT 1 FROM inode a WHERE a.ino = " number ")"
#define NO_OBJECT(number) "NOT EXISTS (SELECT 1 FROM object a WHERE a.id = " number ")"
#define NO_NAME(number)   "NOT EXISTS (SELECT 1 FROM name a WHERE a.ino = " number ")"
#define NO_FILE(number)   "NOT EXISTS (SELECT 1 FROM check_file a WHERE a.id = " number ")"
#define NO_EXTENT(number) "NOT EXISTS (SELECT 1 FROM extent a WHERE a.object = " number ")"
#define NAMES_OF(number)  "(SELECT count(*) FROM name a WHERE a.ino = " number ")"
#define SUBDIRECTORIES_OF(number)                                                                            \
    "(SELECT count(*) FROM name a JOIN inode b ON b.ino = a.ino WHERE a.parent = " number                    \
    " AND " IS_DIRECTORY("b") ")"

/* An inode whose row is lost, of what is left of it: the owner of what is found, and torn, since nobody knows
 * its size. */
#define LOST_COLUMNS                                                                                         \
    "INSERT INTO inode (ino, mode, nlink, uid, gid, rdev, size, atime, mtime, ctime, btime, kind, state,"    \
    " object, synced_size) SELECT l.ino, 33152, max(1, " NAMES_OF(                                           \
        "l.ino") "), w.uid, w.gid, 0, l.size,"                                                               \
                 " r.mtime, r.mtime, r.mtime, r.mtime, "
#define LOST_END ", 2, 0, l.size FROM inode r CROSS JOIN check_owner w JOIN "

/* The row joins a file that is not on stable storage with a file of extents that has no name. */
#define STANDS_IN(row)                                                                                       \
    "EXISTS (SELECT 1 FROM inode i JOIN inode h ON h.ino = " row ".hidden WHERE i.ino = " row ".ino"         \
    " AND i.ino <> h.ino AND (i.state & 1) <> 0 AND i.kind IN (2, 3) AND h.kind = 3 AND " NO_NAME(           \
        "h.ino") ")"

/* The row joins a directory with a hidden one. */
#define HAS_TEMPLATE(row)                                                                                    \
    "EXISTS (SELECT 1 FROM inode i JOIN inode h ON h.ino = " row ".hidden WHERE i.ino = " row ".directory"   \
    " AND i.nlink > 0 AND " IS_DIRECTORY("i") " AND " IS_DIRECTORY("h") ")"

/* A name among the templates that is none's. */
#define IS_LOST_TEMPLATE(row)                                                                                \
    row ".parent IN (SELECT r.ino FROM name r WHERE r.parent = 0 AND r.name = x'74656d706c61746573')"        \
        " AND NOT EXISTS (SELECT 1 FROM template t WHERE t.hidden = " row ".ino)"

/* What is in the trash: names in its hidden directory, and rows, which belong together. */
#define TRASH_DIRECTORY "(SELECT r.ino FROM name r WHERE r.parent = 0 AND r.name = x'7472617368')"
#define HAS_TRASH(row)                                                                                       \
    "EXISTS (SELECT 1 FROM name n JOIN inode i ON i.ino = n.ino WHERE n.ino = " row                          \
    ".ino AND n.parent IN " TRASH_DIRECTORY " AND " IS_DIRECTORY("i") ")"
#define IS_LOST_TRASH(row)                                                                                   \
    row ".parent IN " TRASH_DIRECTORY " AND NOT EXISTS (SELECT 1 FROM trash t WHERE t.ino = " row ".ino)"
#define IS_LIVING(row)                                                                                       \
    "EXISTS (SELECT 1 FROM inode i WHERE i.ino = " row " AND i.nlink > 0 AND " IS_DIRECTORY("i") ")"

/* Extents of a file on an object, and the end of what they need of it. */
#define NEEDED                                                                                               \
    "(SELECT e.ino AS ino, e.object AS object, count(*) AS count, sum(e.length) AS bytes,"                   \
    " max(e.object_offset + e.length) AS needed FROM extent e WHERE e.length > 0"                            \
    " GROUP BY e.ino, e.object) e"

const struct check_rule check_rules_rows[] = {
    {"inode-lost",
     META_FINDING_MENDED,
     CHECK_INODE,
     "its row is missing, and $1 extents of it are there: it becomes a file again",
     "SELECT e.ino, count(*) FROM extent e WHERE e.ino > 1 AND " NO_INODE("e.ino") " GROUP BY e.ino",
     {LOST_COLUMNS "3" LOST_END
                   "(SELECT ino, max(file_offset + length) AS size FROM extent WHERE ino > 1 GROUP BY ino) l"
                   " ON r.ino = 1 WHERE " NO_INODE("l.ino")}},
    {"inode-lost",
     META_FINDING_MENDED,
     CHECK_INODE,
     "its row is missing, and $1 bytes of content are there: it becomes a file again",
     "SELECT c.ino, length(c.bytes) FROM content c WHERE c.ino > 1 AND " NO_INODE("c.ino"),
     {LOST_COLUMNS "1" LOST_END "(SELECT ino, length(bytes) AS size FROM content WHERE ino > 1) l"
                   " ON r.ino = 1 WHERE " NO_INODE("l.ino")}},
    {"content-inode",
     META_FINDING_MENDED,
     CHECK_INODE,
     "content of an inode that cannot be; it is removed",
     "SELECT c.ino FROM content c WHERE " NO_INODE("c.ino"),
     {"DELETE FROM content WHERE NOT EXISTS (SELECT 1 FROM inode i WHERE i.ino = content.ino)"}},
    {"extent-inode",
     META_FINDING_MENDED,
     CHECK_INODE,
     "extents of an inode that cannot be; they are removed",
     "SELECT DISTINCT e.ino FROM extent e WHERE " NO_INODE("e.ino"),
     {"DELETE FROM extent WHERE NOT EXISTS (SELECT 1 FROM inode i WHERE i.ino = extent.ino)"}},
    {"xattr-inode",
     META_FINDING_MENDED,
     CHECK_INODE,
     "$1 extended attributes of a missing inode; they are removed",
     "SELECT x.ino, count(*) FROM xattr x WHERE " NO_INODE("x.ino") " GROUP BY x.ino",
     {"DELETE FROM xattr WHERE NOT EXISTS (SELECT 1 FROM inode i WHERE i.ino = xattr.ino)"}},
    {"checksum-inode",
     META_FINDING_MENDED,
     CHECK_INODE,
     "the kept sum of a missing inode; it is removed",
     "SELECT s.ino FROM checksum s WHERE " NO_INODE("s.ino"),
     {"DELETE FROM checksum WHERE NOT EXISTS (SELECT 1 FROM inode i WHERE i.ino = checksum.ino)"}},
    {"inode-type",
     META_FINDING_LEFT,
     CHECK_INODE,
     "mode $1 is no type of inode",
     "SELECT ino, mode FROM inode"
     " WHERE (mode & 61440) NOT IN (4096, 8192, 16384, 24576, 32768, 40960, 49152)",
     {0}},
    {"inode-kind",
     META_FINDING_LEFT,
     CHECK_INODE,
     "kind $1 is none that an inode of mode $2 can have",
     "SELECT i.ino, i.kind, i.mode FROM inode i WHERE i.kind NOT IN (0, 1, 2, 3) OR (i.kind > 1 AND NOT "
     "(" IS_FILE("i") ")) OR (i.kind = 1 AND (i.mode & 61440) NOT IN (32768, 40960))",
     {0}},
    {"inode-size",
     META_FINDING_LEFT,
     CHECK_INODE,
     "size $1; expected 0 or more",
     "SELECT ino, size FROM inode WHERE size < 0",
     {0}},
    {"inode-size",
     META_FINDING_LEFT,
     CHECK_INODE,
     "size $1 but no bytes; expected size 0",
     "SELECT ino, size FROM inode WHERE kind = 0 AND size > 0",
     {0}},
    {"content-missing",
     META_FINDING_LEFT,
     CHECK_INODE,
     "its $1 bytes should be in the database and are not",
     "SELECT i.ino, i.size FROM inode i WHERE i.kind = 1"
     " AND NOT EXISTS (SELECT 1 FROM content c WHERE c.ino = i.ino)",
     {0}},
    {"content-size",
     META_FINDING_LEFT,
     CHECK_INODE,
     "$1 bytes of content; expected at most its size, $2",
     "SELECT i.ino, length(c.bytes), i.size FROM inode i JOIN content c ON c.ino = i.ino"
     " WHERE i.kind = 1 AND length(c.bytes) > i.size",
     {0}},
    {"content-kind",
     META_FINDING_LEFT,
     CHECK_INODE,
     "$1 bytes of content of an inode that has none",
     "SELECT i.ino, length(c.bytes) FROM inode i JOIN content c ON c.ino = i.ino WHERE i.kind = 0",
     {0}},
    {"content-old",
     META_FINDING_MENDED,
     CHECK_INODE,
     "$1 bytes of an older content of a file that is on stable storage; they are removed",
     "SELECT i.ino, length(c.bytes) FROM inode i JOIN content c ON c.ino = i.ino"
     " WHERE i.kind > 1 AND (i.state & 1) = 0",
     {"DELETE FROM content WHERE ino IN (SELECT ino FROM inode WHERE kind > 1 AND (state & 1) = 0)"}},

    /* Files that are one object. */
    {"inode-object",
     META_FINDING_LEFT,
     CHECK_INODE,
     "kind $1 and object #2 do not go together",
     "SELECT ino, kind, object FROM inode WHERE (kind = 2) <> (object <> 0)",
     {0}},
    /* Its bytes are safe as they were at an fsync: the ones that came later are lost with the object. */
    {"object-stand-in",
     META_FINDING_MENDED,
     CHECK_INODE_AND_OBJECT,
     "object #1, which it is, is missing: it gets the bytes of its stand-in, and is marked as torn",
     "SELECT i.ino, i.object FROM inode i JOIN stand_in t ON t.ino = i.ino JOIN inode h ON h.ino = t.hidden"
     " WHERE i.kind = 2 AND h.kind = 3 AND " NO_FILE("i.object"),
     {"INSERT INTO extent (ino, file_offset, length, object, object_offset) SELECT t.ino, e.file_offset,"
      " e.length, e.object, e.object_offset FROM stand_in t JOIN inode i ON i.ino = t.ino"
      " JOIN extent e ON e.ino = t.hidden WHERE i.kind = 2 AND " NO_FILE("i.object"),
      "UPDATE inode AS i SET kind = 3, object = 0, state = state | 2, size = (SELECT h.size FROM stand_in t"
      " JOIN inode h ON h.ino = t.hidden WHERE t.ino = i.ino) WHERE i.kind = 2 AND " NO_FILE(
          "i.object") " AND EXISTS (SELECT 1 FROM stand_in t JOIN inode h ON h.ino = t.hidden"
                      " WHERE t.ino = i.ino AND h.kind = 3)"}},
    {"object-missing",
     META_FINDING_LEFT,
     CHECK_INODE_AND_OBJECT,
     "object #1, which it is, is missing: reading it gives EIO",
     "SELECT i.ino, i.object FROM inode i WHERE i.kind = 2 AND i.object <> 0 AND " NO_FILE("i.object"),
     {0}},
    {"object-twice",
     META_FINDING_LEFT,
     CHECK_INODE_AND_OBJECT,
     "is object #1, which another file is too",
     "SELECT i.ino, i.object FROM inode i WHERE i.kind = 2 AND EXISTS"
     " (SELECT 1 FROM object o JOIN inode j ON j.ino = o.owner WHERE o.id = i.object AND o.owner <> i.ino"
     " AND j.kind = 2 AND j.object = o.id)",
     {0}},
    {"object-row",
     META_FINDING_MENDED,
     CHECK_INODE_AND_OBJECT,
     "object #1, which it is, had no row",
     "SELECT i.ino, i.object FROM inode i JOIN check_file f ON f.id = i.object"
     " WHERE i.kind = 2 AND " NO_OBJECT("i.object"),
     {"INSERT INTO object (id, size, owner) SELECT f.id, f.size, min(i.ino) FROM inode i JOIN check_file f"
      " ON f.id = i.object WHERE i.kind = 2 AND " NO_OBJECT("i.object") " GROUP BY f.id, f.size"}},
    {"object-owner",
     META_FINDING_MENDED,
     CHECK_INODE_AND_OBJECT,
     "is object #1, whose row named inode $2 instead",
     "SELECT i.ino, o.id, o.owner FROM inode i JOIN object o ON o.id = i.object"
     " WHERE i.kind = 2 AND o.owner <> i.ino AND NOT EXISTS"
     " (SELECT 1 FROM inode j WHERE j.ino = o.owner AND j.kind = 2 AND j.object = o.id)",
     {"UPDATE object SET owner = (SELECT min(i.ino) FROM inode i WHERE i.kind = 2 AND i.object = object.id)"
      " WHERE id IN (SELECT i.object FROM inode i WHERE i.kind = 2) AND NOT EXISTS"
      " (SELECT 1 FROM inode j WHERE j.ino = object.owner AND j.kind = 2 AND j.object = object.id)"}},

    /* Extents. */
    {"extent-length",
     META_FINDING_MENDED,
     CHECK_INODE,
     "an extent of $1 bytes at $2, which covers nothing; it is removed",
     "SELECT ino, length, file_offset FROM extent WHERE length <= 0",
     {"DELETE FROM extent WHERE length <= 0"}},
    {"extent-offset",
     META_FINDING_LEFT,
     CHECK_INODE,
     "an extent at $1, on object #2 at $3; expected offsets of 0 or more",
     "SELECT ino, file_offset, object, object_offset FROM extent WHERE file_offset < 0 OR object_offset < 0",
     {0}},
    {"extent-kind",
     META_FINDING_LEFT,
     CHECK_INODE,
     "$1 extents, but its kind is $2; expected 3",
     "SELECT i.ino, count(*), i.kind FROM extent e JOIN inode i ON i.ino = e.ino WHERE i.kind <> 3"
     " GROUP BY i.ino, i.kind",
     {0}},
    {"extent-overlap",
     META_FINDING_LEFT,
     CHECK_INODE,
     "the extent at $1 of $2 bytes overlaps with the one at $3",
     "SELECT a.ino, a.file_offset, a.length, b.file_offset FROM extent a JOIN extent b ON b.ino = a.ino"
     " AND b.file_offset > a.file_offset AND b.file_offset < a.file_offset + a.length",
     {0}},
    {"extent-size",
     META_FINDING_LEFT,
     CHECK_INODE,
     "the extent at $1 of $2 bytes goes beyond the file's size, $3",
     "SELECT i.ino, e.file_offset, e.length, i.size FROM extent e JOIN inode i ON i.ino = e.ino"
     " WHERE i.kind = 3 AND e.length > i.size - e.file_offset",
     {0}},
    {"extent-missing",
     META_FINDING_LEFT,
     CHECK_INODE_AND_OBJECT,
     "$2 extents of $3 bytes are on object #1, which is missing: reading them gives EIO",
     "SELECT e.ino, e.object, e.count, e.bytes FROM " NEEDED " WHERE " NO_FILE("e.object"),
     {0}},
    {"extent-short",
     META_FINDING_LEFT,
     CHECK_INODE_AND_OBJECT,
     "object #1 has $2 bytes; its extents there need $3: reading what is missing gives EIO",
     "SELECT e.ino, e.object, f.size, e.needed FROM " NEEDED " JOIN check_file f ON f.id = e.object"
     " WHERE e.needed > f.size",
     {0}},
    {"object-row",
     META_FINDING_MENDED,
     CHECK_INODE_AND_OBJECT,
     "object #1, which its extents are on, had no row",
     "SELECT DISTINCT e.ino, e.object FROM extent e JOIN check_file f ON f.id = e.object"
     " WHERE " NO_OBJECT("e.object"),
     {"INSERT INTO object (id, size, owner) SELECT f.id, f.size, 0 FROM check_file f"
      " WHERE EXISTS (SELECT 1 FROM extent e WHERE e.object = f.id) AND " NO_OBJECT("f.id")}},
    {"object-size",
     META_FINDING_MENDED,
     CHECK_INODE_AND_OBJECT,
     "object #1 was recorded with $2 bytes; its extents there need $3, and they are there",
     "SELECT e.ino, e.object, o.size, e.needed FROM " NEEDED " JOIN object o ON o.id = e.object"
     " JOIN check_file f ON f.id = e.object WHERE e.needed > o.size AND e.needed <= f.size",
     {"UPDATE object SET size = (SELECT f.size FROM check_file f WHERE f.id = object.id) WHERE EXISTS"
      " (SELECT 1 FROM extent e JOIN check_file f ON f.id = e.object WHERE e.object = object.id"
      " AND e.object_offset + e.length > object.size AND e.object_offset + e.length <= f.size)"}},

    /* What belongs to objects. */
    {"summed-object",
     META_FINDING_MENDED,
     CHECK_OBJECT,
     "hashes of an object without a row; they are removed",
     "SELECT s.object FROM summed s WHERE " NO_OBJECT("s.object"),
     {"DELETE FROM summed WHERE NOT EXISTS (SELECT 1 FROM object o WHERE o.id = summed.object)"}},
    {"segment-object",
     META_FINDING_MENDED,
     CHECK_OBJECT,
     "$1 segments of an object without a row; they are removed",
     "SELECT s.object, count(*) FROM segment s WHERE " NO_OBJECT("s.object") " GROUP BY s.object",
     {"DELETE FROM segment WHERE NOT EXISTS (SELECT 1 FROM object o WHERE o.id = segment.object)"}},
    {"shrunk-object",
     META_FINDING_MENDED,
     CHECK_OBJECT,
     "an object without a row is marked as one that lost extents; the mark is removed",
     "SELECT s.object FROM shrunk s WHERE " NO_OBJECT("s.object"),
     {"DELETE FROM shrunk WHERE NOT EXISTS (SELECT 1 FROM object o WHERE o.id = shrunk.object)"}},
    /* What directories show. */
    {"assembled-inode",
     META_FINDING_MENDED,
     CHECK_INODE,
     "is shown as an assembled file of directory $1, and is none; it is not shown any more",
     "SELECT s.ino, s.directory FROM assembled s WHERE NOT EXISTS (SELECT 1 FROM inode i WHERE i.ino = s.ino"
     " AND (i.state & 4) <> 0 AND (i.kind = 3 OR (i.state & 16) <> 0))",
     {"DELETE FROM assembled WHERE NOT EXISTS (SELECT 1 FROM inode i WHERE i.ino = assembled.ino"
      " AND (i.state & 4) <> 0 AND (i.kind = 3 OR (i.state & 16) <> 0))"}},
    {"assembled-directory",
     META_FINDING_MENDED,
     CHECK_INODE,
     "is shown as an assembled file of directory $1, which is missing; the next mount removes it",
     "SELECT s.ino, s.directory FROM assembled s WHERE NOT EXISTS (SELECT 1 FROM inode i"
     " WHERE i.ino = s.directory AND i.nlink > 0 AND " IS_DIRECTORY("i") ")",
     {"DELETE FROM assembled WHERE NOT EXISTS (SELECT 1 FROM inode i"
      " WHERE i.ino = assembled.directory AND i.nlink > 0 AND " IS_DIRECTORY("i") ")"}},
    {"assembled-input",
     META_FINDING_MENDED,
     CHECK_INODE,
     "$1 files that a missing directory's assembled file was made from; they are forgotten",
     "SELECT s.directory, count(*) FROM assembled_input s WHERE " NO_INODE(
         "s.directory") " GROUP BY s.directory",
     {"DELETE FROM assembled_input WHERE NOT EXISTS"
      " (SELECT 1 FROM inode i WHERE i.ino = assembled_input.directory)"}},
    {"policy-directory",
     META_FINDING_MENDED,
     CHECK_INODE,
     "$1 settings of a directory that is missing; they are removed",
     "SELECT s.directory, count(*) FROM policy s WHERE NOT EXISTS (SELECT 1 FROM inode i"
     " WHERE i.ino = s.directory AND i.nlink > 0 AND " IS_DIRECTORY("i") ") GROUP BY s.directory",
     {"DELETE FROM policy WHERE NOT EXISTS (SELECT 1 FROM inode i"
      " WHERE i.ino = policy.directory AND i.nlink > 0 AND " IS_DIRECTORY("i") ")"}},
    {"checkpoint-directory",
     META_FINDING_MENDED,
     CHECK_INODE,
     "is known as a checkpoint, and is no directory; that is forgotten",
     "SELECT s.directory FROM checkpoint s WHERE NOT EXISTS (SELECT 1 FROM inode i"
     " WHERE i.ino = s.directory AND i.nlink > 0 AND " IS_DIRECTORY("i") ")",
     {"DELETE FROM checkpoint WHERE NOT EXISTS (SELECT 1 FROM inode i"
      " WHERE i.ino = checkpoint.directory AND i.nlink > 0 AND " IS_DIRECTORY("i") ")"}},
    {"writer-run",
     META_FINDING_MENDED,
     CHECK_INODE,
     "$1 processes wrote below it, and it is no directory; that is forgotten",
     "SELECT s.run, count(*) FROM writer s WHERE NOT EXISTS (SELECT 1 FROM inode i"
     " WHERE i.ino = s.run AND i.nlink > 0 AND " IS_DIRECTORY("i") ") GROUP BY s.run",
     {"DELETE FROM writer WHERE NOT EXISTS (SELECT 1 FROM inode i"
      " WHERE i.ino = writer.run AND i.nlink > 0 AND " IS_DIRECTORY("i") ")"}},
    {"pin-inode",
     META_FINDING_MENDED,
     CHECK_INODE,
     "is pinned, and is missing; that is forgotten",
     "SELECT s.ino FROM pin s WHERE " NO_INODE("s.ino"),
     {"DELETE FROM pin WHERE NOT EXISTS (SELECT 1 FROM inode i WHERE i.ino = pin.ino)"}},
    {"assembled-removed",
     META_FINDING_MENDED,
     CHECK_INODE,
     "a missing directory's assembled file was removed; that is forgotten",
     "SELECT s.directory FROM assembled_removed s WHERE " NO_INODE("s.directory"),
     {"DELETE FROM assembled_removed WHERE NOT EXISTS"
      " (SELECT 1 FROM inode i WHERE i.ino = assembled_removed.directory)"}},
    {"damage-object",
     META_FINDING_MENDED,
     CHECK_OBJECT,
     "damage of an object without a row; it is removed",
     "SELECT DISTINCT s.object FROM damage s WHERE " NO_OBJECT("s.object"),
     {"DELETE FROM damage WHERE NOT EXISTS (SELECT 1 FROM object o WHERE o.id = damage.object)"}},
    {0},
};

const struct check_rule check_rules_names[] = {
    {"name-inode",
     META_FINDING_MENDED,
     CHECK_NAME,
     "names inode $1, which is missing; the name is removed",
     "SELECT n.parent, n.name, n.ino FROM name n WHERE " NO_INODE("n.ino"),
     {"DELETE FROM name WHERE NOT EXISTS (SELECT 1 FROM inode i WHERE i.ino = name.ino)"}},
    {"name-directory",
     META_FINDING_MENDED,
     CHECK_NAME,
     "a name of inode $1 in inode $2, which is no directory; the name is removed",
     "SELECT n.parent, n.name, n.ino, n.parent FROM name n WHERE n.parent <> 0 AND NOT EXISTS"
     " (SELECT 1 FROM inode p WHERE p.ino = n.parent AND " IS_DIRECTORY("p") ")",
     {"DELETE FROM name WHERE parent <> 0 AND NOT EXISTS"
      " (SELECT 1 FROM inode p WHERE p.ino = name.parent AND " IS_DIRECTORY("p") ")"}},
    /* Names that no path leads to (meta/hidden.h). */
    {"name-hidden",
     META_FINDING_MENDED,
     CHECK_NAME,
     "is hidden, and inode $1 is no directory; the name is removed",
     "SELECT n.parent, n.name, n.ino FROM name n WHERE n.parent = 0 AND NOT EXISTS"
     " (SELECT 1 FROM inode i WHERE i.ino = n.ino AND " IS_DIRECTORY("i") ")",
     {"DELETE FROM name WHERE parent = 0 AND NOT EXISTS"
      " (SELECT 1 FROM inode i WHERE i.ino = name.ino AND " IS_DIRECTORY("i") ")"}},
    {"template-directory",
     META_FINDING_MENDED,
     CHECK_INODE,
     "its template is directory $1, and one of the two is missing; the template is forgotten",
     "SELECT t.directory, t.hidden FROM template t WHERE NOT " HAS_TEMPLATE("t"),
     {"DELETE FROM template WHERE NOT " HAS_TEMPLATE("template")}},
    {"template-lost",
     META_FINDING_MENDED,
     CHECK_NAME,
     "holds files that are lent to checkpoints of a directory that is missing; they move to /lost+found",
     "SELECT n.parent, n.name FROM name n WHERE " IS_LOST_TEMPLATE("n"),
     {"DELETE FROM name WHERE " IS_LOST_TEMPLATE("name")}},
    {"trash-directory",
     META_FINDING_MENDED,
     CHECK_INODE,
     "is in the trash, and its directory is missing; it is forgotten",
     "SELECT t.ino FROM trash t WHERE NOT " HAS_TRASH("t"),
     {"DELETE FROM trash WHERE NOT " HAS_TRASH("trash")}},
    {"trash-lost",
     META_FINDING_MENDED,
     CHECK_NAME,
     "is in the trash, and where it was is not known; it moves to /lost+found",
     "SELECT n.parent, n.name FROM name n WHERE " IS_LOST_TRASH("n"),
     {"DELETE FROM name WHERE " IS_LOST_TRASH("name")}},
    {"trash-rest",
     META_FINDING_MENDED,
     CHECK_INODE,
     "is in the trash, and inode $1, the rest of the checkpoint, is no directory; that is forgotten",
     "SELECT t.ino, t.directory FROM trash t WHERE t.directory <> 0 AND NOT " IS_LIVING("t.directory"),
     {"UPDATE trash SET directory = 0, kind = CASE kind WHEN 1 THEN 0 ELSE kind END"
      " WHERE directory <> 0 AND NOT " IS_LIVING("trash.directory")}},
    {"trash-parent",
     META_FINDING_MENDED,
     CHECK_INODE,
     "is in the trash, and inode $1, which it was removed from, is missing; it counts as removed from the "
     "root",
     "SELECT t.ino, t.parent FROM trash t WHERE NOT " IS_LIVING("t.parent"),
     {"UPDATE trash SET parent = 1 WHERE NOT " IS_LIVING("trash.parent")}},
    {"name-root",
     META_FINDING_MENDED,
     CHECK_NAME,
     "names the root, which has no name; the name is removed",
     "SELECT parent, name FROM name WHERE ino = 1",
     {"DELETE FROM name WHERE ino = 1"}},
    {"name-bytes",
     META_FINDING_LEFT,
     CHECK_NAME,
     "is no name that a file can have (inode $1)",
     "SELECT parent, name, ino FROM name WHERE length(name) = 0 OR length(name) > 255 OR name IN (x'2e',"
     " x'2e2e') OR instr(name, x'2f') > 0 OR instr(name, x'00') > 0",
     {0}},
    {"name-cookie",
     META_FINDING_LEFT,
     CHECK_NAME,
     "has cookie $1; expected 3 or more",
     "SELECT parent, name, cookie FROM name WHERE cookie < 3",
     {0}},
    {"shadow-inode",
     META_FINDING_MENDED,
     CHECK_NAME,
     "was to go back to inode $1, which is missing, when inode $2 is torn; that is not kept any more",
     "SELECT s.parent, s.name, s.replaced, s.successor FROM shadow s WHERE " NO_INODE("s.replaced"),
     {"DELETE FROM shadow WHERE NOT EXISTS (SELECT 1 FROM inode i WHERE i.ino = shadow.replaced)"}},
    /* The replaced file may be wanted still: as a file without a name it goes to /lost+found. */
    {"shadow-name",
     META_FINDING_MENDED,
     CHECK_NAME,
     "was to go back to inode $1 when inode $2 is torn, but is not $2's name; that is not kept any more",
     "SELECT s.parent, s.name, s.replaced, s.successor FROM shadow s WHERE s.replaced = s.successor"
     " OR NOT EXISTS (SELECT 1 FROM name n WHERE n.parent = s.parent AND n.name = s.name"
     " AND n.ino = s.successor)",
     {"UPDATE inode SET nlink = 1 WHERE nlink = 0 AND ino IN (SELECT s.replaced FROM shadow s"
      " WHERE s.replaced = s.successor OR NOT EXISTS (SELECT 1 FROM name n WHERE n.parent = s.parent"
      " AND n.name = s.name AND n.ino = s.successor))",
      "DELETE FROM shadow WHERE replaced = successor OR NOT EXISTS (SELECT 1 FROM name n"
      " WHERE n.parent = shadow.parent AND n.name = shadow.name AND n.ino = shadow.successor)"}},
    /* Its bytes are those that the missing file was known to have: they go to /lost+found. */
    {"stand-in-file",
     META_FINDING_MENDED,
     CHECK_INODE,
     "stands in for inode $1, which is missing; that is not kept any more",
     "SELECT t.hidden, t.ino FROM stand_in t WHERE " NO_INODE("t.ino"),
     {"UPDATE inode SET nlink = 1 WHERE nlink = 0 AND ino IN (SELECT t.hidden FROM stand_in t"
      " WHERE " NO_INODE("t.ino") ")",
      "DELETE FROM stand_in WHERE NOT EXISTS (SELECT 1 FROM inode i WHERE i.ino = stand_in.ino)"}},
    {"stand-in",
     META_FINDING_MENDED,
     CHECK_INODE,
     "has inode $1 as a stand-in, which cannot be one or is not needed; that is not kept any more",
     "SELECT t.ino, t.hidden FROM stand_in t WHERE NOT " STANDS_IN("t"),
     {"DELETE FROM stand_in WHERE NOT " STANDS_IN("stand_in")}},
    {0},
};

#define DIRECTORY_LINKS                                                                                      \
    "CASE WHEN i.ino = 1 OR " NAMES_OF("i.ino") " > 0 THEN 2 + " SUBDIRECTORIES_OF("i.ino") " ELSE 0 END"

const struct check_rule check_rules_links[] = {
    {"nlink",
     META_FINDING_MENDED,
     CHECK_INODE,
     "has $1 links; expected $2, as many as it has names",
     "SELECT i.ino, i.nlink, " NAMES_OF("i.ino") " FROM inode i WHERE NOT (" IS_DIRECTORY(
         "i") ")"
              " AND i.nlink <> " NAMES_OF("i.ino"),
     {"UPDATE inode AS i SET nlink = " NAMES_OF("i.ino") " WHERE NOT (" IS_DIRECTORY(
         "i") ")"
              " AND i.nlink <> " NAMES_OF("i.ino")}},
    {"nlink",
     META_FINDING_MENDED,
     CHECK_INODE,
     "has $1 links; expected $2: two, and its subdirectories",
     "SELECT i.ino, i.nlink, " DIRECTORY_LINKS
     " FROM inode i WHERE " IS_DIRECTORY("i") " AND i.nlink <> " DIRECTORY_LINKS,
     {"UPDATE inode AS i SET nlink = " DIRECTORY_LINKS
      " WHERE " IS_DIRECTORY("i") " AND i.nlink <> " DIRECTORY_LINKS}},
    {"orphan",
     META_FINDING_NOTE,
     CHECK_INODE,
     "was deleted while it was open: the next mount removes it",
     "SELECT i.ino FROM inode i WHERE i.nlink = 0 AND NOT EXISTS"
     " (SELECT 1 FROM shadow s WHERE s.replaced = i.ino)"
     " AND NOT EXISTS (SELECT 1 FROM stand_in t WHERE t.hidden = i.ino)"
     " AND NOT EXISTS (SELECT 1 FROM assembled s WHERE s.ino = i.ino)",
     {0}},
    {"object-unneeded",
     META_FINDING_NOTE,
     CHECK_OBJECT,
     "no file uses it: the next mount removes it",
     "SELECT o.id FROM object o WHERE o.owner = 0 AND " NO_EXTENT("o.id"),
     {0}},
    {"object-long",
     META_FINDING_NOTE,
     CHECK_OBJECT,
     "has $2 bytes and was recorded with $1: what follows belongs to no file",
     "SELECT o.id, o.size, f.size FROM object o JOIN check_file f ON f.id = o.id"
     " WHERE o.owner = 0 AND f.size > o.size AND NOT (" NO_EXTENT("o.id") ")",
     {0}},
    {"stray",
     META_FINDING_NOTE,
     CHECK_OBJECT,
     "an object file of $1 bytes that no row knows: the next mount removes it",
     "SELECT f.id, f.size FROM check_file f WHERE " NO_OBJECT("f.id"),
     {0}},
    {0},
};

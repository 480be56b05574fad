/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What commands ask a mounted filesystem: ioctls on the mount's root directory. The kernel says who asks.
 */
#ifndef CKPTFS_FS_CONTROL_H
#define CKPTFS_FS_CONTROL_H

#include <stdint.h>
#include <sys/ioctl.h>

#include "ckpt/verify.h"

/* In the root of each mount: what ckptfs-views(7) tells of. */
#define FS_CONTROL_DIRECTORY ".ckptfs"

/* A restricted ioctl of FUSE moves less than 16 KiB. */
struct control_text {
    char text[16000]; /* NUL-terminated */
};

/* The mount's state as one JSON document. Anyone who can open the root may ask. */
#define CKPTFS_IOCTL_STATUS _IOR('k', 1, struct control_text)

/* What a file or the tree below a directory costs, as in meta/usage.h. Counts the asker's files; root's all.
 */
struct control_usage {
    uint64_t files, extents;
    uint64_t logical_bytes, stored_bytes, unique_bytes;
    uint64_t reserved[3]; /* 0 */
};

/* On any file or directory that the asker can open. */
#define CKPTFS_IOCTL_USAGE _IOR('k', 10, struct control_usage)

/*
 * Policies of a directory, on any directory that the asker can open (fs/policy.h). Shown as a JSON array: an
 * object a key, with "key", "value" (null: none), "source" ("directory", "above", "mount", "default" or null)
 * and "levels", how far above. Set by texts with a NUL behind each, and an empty one at the end: KEY=VALUE
 * sets, KEY alone unsets; all of them, or none. For the directory's owner and root, else EPERM; EINVAL for
 * what ckpt/policy.h refuses.
 */
#define CKPTFS_IOCTL_POLICY_SHOW _IOR('k', 20, struct control_text)
#define CKPTFS_IOCTL_POLICY_SET  _IOW('k', 21, struct control_text)

/*
 * The template of a directory (meta/template.h): files without a name that the asker has open, and which are
 * the directory owner's, get these names in it, all of them or none; instead of the one that it has. For the
 * directory's owner and root, else EPERM; EINVAL for what is none of ckpt/side_files.h.
 */
enum { CONTROL_TEMPLATE_FILES = 96, CONTROL_TEMPLATE_NAME = 112 };
struct control_template {
    uint32_t count;
    uint32_t reserved; /* 0 */
    char path[4096];   /* absolute: where they come from */
    struct {
        uint64_t ino;
        char name[CONTROL_TEMPLATE_NAME];
    } files[CONTROL_TEMPLATE_FILES];
};
#define CKPTFS_IOCTL_TEMPLATE_PUT _IOW('k', 22, struct control_template)
/* ENOENT: it has none of its own. */
#define CKPTFS_IOCTL_TEMPLATE_REMOVE _IO('k', 23)
/* Of the nearest directory that has one, as a JSON object: "path", "levels" (how far above) and "files", an
 * array of objects with "name" and "bytes". ENOENT: there is none. */
#define CKPTFS_IOCTL_TEMPLATE_SHOW _IOR('k', 24, struct control_text)

/* Who has a file that a loader wants beside the model of a directory: an enum models_source (fs/models.h). */
struct control_source {
    char name[64]; /* in: as "config.json" */
    uint32_t source;
    uint32_t reserved;
};
#define CKPTFS_IOCTL_SOURCE _IOWR('k', 25, struct control_source)

/*
 * An entry of the trash (meta/trash.h): the next one behind the number `id` that the asker may see, which are
 * those of his directories, and root's all. ENOENT: there is none. On any directory.
 */
struct control_trash {
    uint64_t id;           /* in and out: the entry's number */
    int64_t removed;       /* ns since the epoch */
    int64_t age;           /* ns: for how long it is kept after that, where the space is not needed before */
    uint64_t files;        /* all three 0 where `counted` is */
    uint64_t bytes;        /* the sum of the files' sizes */
    uint64_t unique_bytes; /* of the disk, that no other file has */
    uint32_t uid;          /* the owner of the checkpoint's directory */
    uint32_t remover;      /* the user who removed it */
    uint32_t counted;      /* 1: how much it has is known */
    uint32_t partly;       /* 1: a part of the checkpoint is still where it was */
    char reason[128];      /* "": somebody removed it */
    char path[4096];       /* where it was, from the root of the mount */
};
#define CKPTFS_IOCTL_TRASH_NEXT _IOWR('k', 42, struct control_trash)

/*
 * The entry becomes a directory of that name in the directory that is asked, or goes back into what is left
 * of the checkpoint there. For the owner of what was removed who may write that directory, and root: else
 * EPERM, EACCES. EEXIST: the name, or a file's in it, is taken; ENOENT: there is no such entry.
 */
struct control_undelete {
    uint64_t id;
    char name[256];
};
#define CKPTFS_IOCTL_UNDELETE _IOW('k', 43, struct control_undelete)
/* The entry of that number is given up for good. For the owner of what was removed, and root. ENOENT: there
 * is no such entry that the asker may see; EROFS. On any directory. */
#define CKPTFS_IOCTL_TRASH_DROP _IOW('k', 44, uint64_t)

/* How safe the files of a tree are: a file, or all below a directory. Counts the asker's files; root's all.
 */
struct control_life {
    uint64_t files;
    uint64_t writing;     /* open for writing, or not sealed since they were */
    uint64_t unsynced;    /* may have bytes or attributes that are not on stable storage */
    uint64_t torn;        /* lost bytes in a crash, or may have */
    uint64_t state;       /* of a directory: what it is as a checkpoint (fs/checkpoints.h), plus 1; 0: none */
    uint64_t waiting;     /* files and directories that the mount has not looked at yet */
    uint64_t reserved[2]; /* 0 */
};

/* On any file or directory that the asker can open. */
#define CKPTFS_IOCTL_LIFE _IOR('k', 27, struct control_life)

/* Whether any of the processes that wrote checkpoints of a run lives. */
struct control_writers {
    uint32_t alive; /* 1: one does */
    uint32_t reserved;
    int64_t since;    /* with that: when the last one of those that live began, ns since the epoch */
    uint64_t more[4]; /* 0 */
};
/* On the directory of a run, or of a checkpoint of it, that the asker can open. */
#define CKPTFS_IOCTL_WRITERS _IOR('k', 30, struct control_writers)

/* 1: no policy removes the directory or file; 0: it may again. For its owner and root, else EPERM. */
#define CKPTFS_IOCTL_PIN _IOW('k', 32, uint32_t)

/* What the mount knows of a checkpoint that keeps a policy from removing it; each is 0 or 1. */
struct control_marks {
    uint32_t pinned;
    uint32_t open;        /* somebody has a file of it open */
    uint32_t loaded;      /* a running job began with it */
    uint32_t exported;    /* is to be exported, and was not yet */
    uint32_t unsettled;   /* files of it are being written, or not on stable storage yet */
    uint32_t torn;        /* files of it lost bytes in a crash */
    uint32_t latest;      /* .ckptfs/latest names it */
    uint32_t reserved[5]; /* 0 */
};
/* On any directory or file that the asker can open. */
#define CKPTFS_IOCTL_MARKS _IOR('k', 33, struct control_marks)

/*
 * Applies the policy of a run now. A JSON array: an object for each checkpoint that it removes, with "path"
 * (in the run), "bytes", "reason" and "error" (null, or why it is still there); as many as there is room for.
 * For the directory's owner and root, else EPERM; EROFS.
 */
#define CKPTFS_IOCTL_KEEP _IOR('k', 34, struct control_text)

/*
 * What the daemon has told (fs/events.h), on any directory that the asker can open: the lines that are kept,
 * as .ckptfs/events has them, from the number `from` on, as many as there is room for. Who asks sees what he
 * sees there.
 */
struct control_events {
    uint64_t from;   /* in; out: the number to go on with */
    uint32_t length; /* of `text`, without its NUL; 0: there are no more */
    uint32_t reserved;
    char path[4096];  /* of the directory from the mount's root; "": it is the root */
    char text[11000]; /* whole lines */
};
#define CKPTFS_IOCTL_EVENTS _IOWR('k', 28, struct control_events)

/* Hooks, which use the mount, make way for its end: those that run are ended, and none is started for a
 * while. Answered when they are gone, after 2 s at the latest. On the root; for root and whoever mounted. */
struct control_pause {
    uint32_t seconds; /* in: at least 1 */
    uint32_t running; /* out: those that are there still */
};
#define CKPTFS_IOCTL_PAUSE _IOWR('k', 29, struct control_pause)

/* What waits to be given back to the disk. */
struct control_reclaim {
    uint64_t now;                          /* in: 1: try now */
    uint64_t asked, done;                  /* tries asked for so far; those that have been made */
    uint64_t punch_objects, punch_bytes;   /* dead chunks of objects that are still used */
    uint64_t held_objects, held_bytes;     /* of those, what an open file or a mapping still sees */
    uint64_t remove_objects, remove_bytes; /* objects that no file uses */
    uint64_t unhashed_objects;       /* lost bytes and have no hashes yet: the dead chunks are not known */
    uint64_t open_files, open_bytes; /* deleted files that are still open, and what only they have */
    uint64_t can_punch; /* 0: the disk gives back whole objects only, so that they are repacked */
    uint64_t repack_objects, repack_bytes; /* of the dead chunks, those that a repacking is to give back */
    uint64_t repack_failed; /* objects that the last try could not repack, for want of space or by an error */
};

/* On the root; for root and whoever mounted. */
#define CKPTFS_IOCTL_RECLAIM _IOWR('k', 11, struct control_reclaim)

/* The largest checkpoint of the mount, complete or not, by names and sizes. */
struct control_largest {
    uint64_t known;           /* 0: it was not found out in time */
    uint64_t bytes;           /* 0: there is none */
    uint64_t available_bytes; /* on the disk under the store */
    char path[1000];          /* as on the mount; "" for who may not know of it */
};
/* On the root. Waits a second at most. */
#define CKPTFS_IOCTL_LARGEST _IOR('k', 39, struct control_largest)

enum { CONTROL_OBJECTS_MAX = 900 };

struct control_object {
    uint64_t id;
    int64_t size; /* bytes, as recorded */
};

/* The objects behind `after` that can be verified: of the file `ino`, or all (0). */
struct control_objects {
    uint64_t ino, after;
    uint64_t count; /* the answer: 0 at the end */
    struct control_object at[CONTROL_OBJECTS_MAX];
};
/* Answers it, in the daemon or by a command that has the store to itself. */
errint control_list_objects(struct meta *meta, struct control_objects *objects);

/* A step of verification: what is asked, and the answer. */
struct control_verify {
    uint64_t object;
    int64_t offset;
    int64_t budget; /* at most CONTROL_VERIFY_MAX */
    uint32_t repair;
    uint32_t reserved;
    struct verify_answer answer;
};

#define CONTROL_VERIFY_MAX (INT64_C(256) << 20)

/* How the assembly of a directory's model is. */
enum control_assemble_state {
    CONTROL_ASSEMBLE_NONE,    /* nobody has asked this daemon for it */
    CONTROL_ASSEMBLE_WAITING, /* not begun, or files are written still: the reason says so */
    CONTROL_ASSEMBLE_RUNNING,
    CONTROL_ASSEMBLE_DONE,    /* the view of the directory shows the model */
    CONTROL_ASSEMBLE_REFUSED, /* the reason says why */
};

struct control_assemble {
    uint32_t ask;        /* in: 1: assemble; 0: only tell */
    uint32_t state;      /* enum control_assemble_state */
    int64_t done, total; /* bytes of the file that have their place, and all of them */
    char reason[1000];   /* NUL-terminated; UTF-8, or what a file's name has */
};

/* On a directory; for root, its owner, and who may write it (else EPERM). EROFS: nothing can be assembled
 * here.
 */
#define CKPTFS_IOCTL_ASSEMBLE _IOWR('k', 26, struct control_assemble)

/* How the export of a checkpoint to where its policy says is (fs/export.h). */
enum control_export_state {
    CONTROL_EXPORT_NONE,    /* nobody wants it */
    CONTROL_EXPORT_WAITING, /* for its turn, or for another try */
    CONTROL_EXPORT_RUNNING,
    CONTROL_EXPORT_DONE,   /* `text` is the directory */
    CONTROL_EXPORT_FAILED, /* the last try did; `text` says why */
};

struct control_export {
    uint32_t ask;   /* in: 1: export it now; 0: only tell */
    uint32_t state; /* enum control_export_state */
    char text[4096];
};

/* On a directory; for root and its owner (else EPERM). EROFS: nothing can be exported from here. */
#define CKPTFS_IOCTL_EXPORT _IOWR('k', 36, struct control_export)
/* On the root; for root and whoever mounted: an export that runs is ended, and none begins for some seconds,
 * so that the mount can end. They are taken up again afterwards. The answer: 1 if one ran. */
#define CKPTFS_IOCTL_EXPORT_HALT _IOR('k', 37, uint32_t)

/* Both tell paths and read much: only for root and for the user who mounted (else EPERM). */
#define CKPTFS_IOCTL_OBJECTS _IOWR('k', 2, struct control_objects)
#define CKPTFS_IOCTL_VERIFY  _IOWR('k', 3, struct control_verify)

#endif

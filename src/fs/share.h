/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Every byte once: after a file is sealed, a thread of low priority hashes its object, without a lock, from
 * the page cache; and once the file is on stable storage, older files of the same owner that have bytes of it
 * are re-pointed into the new object ("backward" sharing). So the newest copy stays one whole object, which
 * reads at native speed, and the older one gives way. Files of other owners are only where share-owners=yes,
 * and not before all bytes were compared.
 *
 * With sharing=forward, a new file that equals an older one gives way to that instead, before its bytes are
 * written to the disk. So that there is time for it, the write-back leaves a file alone for a moment whose
 * owner and size are those of one that was found equal before; and an fsync of it need not write it either
 * (stand_in.h).
 *
 * A file that a passthrough handle or a mapping sees is left alone and tried again later. What the older
 * objects have that no file covers any more is given back by reclaim.h. What was not done before a stop or a
 * crash is found again at the next start.
 */
#ifndef CKPTFS_FS_SHARE_H
#define CKPTFS_FS_SHARE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/cleanup.h"

struct filesystem;
struct ids;

/* Also learns, or notes for good, that files of different owners may share (fs->owners_share). */
errint share_start(struct filesystem *fs);
/* What is under way is dropped: the next start takes it up. */
void share_stop(struct filesystem *fs);

/* The file was sealed. */
void share_add(struct filesystem *fs, uint64_t ino);

/* Files that wait to be hashed, or to be looked after. */
size_t share_waiting(struct filesystem *fs);

/* A file of this owner and size was found to equal an older one: the object that is both from now on. */
void share_expect(struct filesystem *fs, uint32_t uid, int64_t size, uint64_t object);
/* Whether a new one may well do so too, and should not be written to the disk before it was looked at.
 * `grows`: it may yet become larger than `size`. */
bool share_expects(struct filesystem *fs, uint32_t uid, int64_t size, bool grows);
/* The objects that it may come to equal, those of the last saves first: appended. Some may be gone. */
errint share_find_expected(struct filesystem *fs, uint32_t uid, int64_t size, bool grows, struct ids *out);

#endif

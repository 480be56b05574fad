/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What the daemon does by itself, told to whoever wants to know: inotify does not see it. Each event gets a
 * number and becomes a line of JSON (fs/event.h). The last EVENT_RING_LINES are kept, in memory and in the
 * database, so that they outlive the daemon; they are read in the file .ckptfs/events (fs/view_events.h) and
 * by CKPTFS_IOCTL_EVENTS, and start the hooks that are set (fs/hooks.h).
 *
 * Whoever tells of something waits for nobody: a thread does the rest. A line is read by nobody before it is
 * in the database (where that can be written): no number is ever given twice.
 */
#ifndef CKPTFS_FS_EVENTS_H
#define CKPTFS_FS_EVENTS_H

#include "fs/event.h"
#include "fs/event_ring.h"

struct filesystem;

errint events_start(struct filesystem *fs);
/* What was told is kept; nobody may tell more. */
void events_stop(struct filesystem *fs);

/* Thread-safe; never blocks. The event and its texts are copied. Before the start and after the end it is
 * ignored; so are events while too many wait, and readers are told how many. */
void events_emit(struct filesystem *fs, const struct event *event);

/* Who may see what: root and whoever mounted see all, others what is about their own directories. */
struct event_viewer events_viewer(uint32_t uid);

/* The number of the next line that will come. Thread-safe, as what follows. */
uint64_t events_next(struct filesystem *fs);
/* As event_ring_has and event_ring_read. */
bool events_has(struct filesystem *fs, struct event_place *place, const struct event_viewer *viewer);
size_t events_read(struct filesystem *fs, struct event_place *place, const struct event_viewer *viewer,
                   char *out, size_t room);

/* Has the thread look after the readers (view_events_wake) soon. Takes no other lock. */
void events_kick(struct filesystem *fs);

#endif

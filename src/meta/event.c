/* SPDX-License-Identifier: Apache-2.0 */
/* The last events. */
#include "meta/event.h"

#include <errno.h>

#include "meta/internal.h"

static errint event_insert(struct meta *meta, const struct meta_event *event)
{
    errint error = db_run(meta->db,
                          "INSERT INTO event (sequence, directory, uid, pending, text)"
                          " VALUES ($1, $2, $3, $4, $5) ON CONFLICT (sequence) DO NOTHING",
                          DB_INTEGER(event->sequence), DB_INTEGER(event->directory), DB_INTEGER(event->uid),
                          DB_INTEGER(event->pending), DB_BLOB(event->text, event->length));
    return error || db_changed(meta->db) == 1 ? error : -EEXIST;
}

errint meta_event_add(struct meta *meta, const struct meta_event *events, size_t count, uint64_t kept)
{
    uint64_t last = count > 0 ? events[count - 1].sequence : 0;
    struct change change = {.meta = meta};
    while (change_next(&change)) {
        errint error = 0;
        for (size_t i = 0; i < count && !error; i++)
            error = event_insert(meta, &events[i]);
        if (!error && last > kept)
            error = db_run(meta->db, "DELETE FROM event WHERE sequence <= $1", DB_INTEGER(last - kept));
        change.error = error;
    }
    return change.error;
}

errint meta_event_settle(struct meta *meta, uint64_t sequence)
{
    struct change change = {.meta = meta};
    while (change_next(&change))
        change.error =
            db_run(meta->db, "UPDATE event SET pending = 0 WHERE sequence = $1", DB_INTEGER(sequence));
    return change.error;
}

errint meta_event_list(struct meta *meta, void (*each)(void *context, const struct meta_event *event),
                       void *context)
{
    META_LOCKED(meta);
    cleanup_rows struct db_rows rows;
    errint error = db_select(meta->db, &rows,
                             "SELECT sequence, directory, uid, pending, text FROM event ORDER BY sequence");
    int found = 0;
    while (!error && (found = db_next(&rows)) > 0) {
        struct meta_event event = {.sequence = (uint64_t)db_integer(&rows, 0),
                                   .directory = (uint64_t)db_integer(&rows, 1),
                                   .uid = (uint32_t)db_integer(&rows, 2),
                                   .pending = db_integer(&rows, 3) != 0};
        event.text = db_bytes(&rows, 4, &event.length);
        if (event.text)
            each(context, &event);
    }
    return error ? error : found < 0 ? found : 0;
}

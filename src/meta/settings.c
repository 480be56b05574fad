/* SPDX-License-Identifier: Apache-2.0 */
/* Small settings of the store, kept beside the namespace. */
#include <errno.h>
#include <string.h>

#include "meta/internal.h"

errint meta_setting_put(struct meta *meta, const char *key, const char *value)
{
    struct change change = {.meta = meta, .spends = true};
    while (change_next(&change))
        change.error = db_run(meta->db,
                              "INSERT INTO setting (key, value) VALUES ($1, $2)"
                              " ON CONFLICT (key) DO UPDATE SET value = excluded.value",
                              DB_TEXT(key), DB_TEXT(value));
    return change.error;
}

errint meta_setting_get(struct meta *meta, const char *key, char **value)
{
    *value = NULL;
    META_LOCKED(meta);
    cleanup_rows struct db_rows rows;
    errint error = db_select(meta->db, &rows, "SELECT value FROM setting WHERE key = $1", DB_TEXT(key));
    int found = error ? error : db_next(&rows);
    if (found <= 0)
        return found < 0 ? found : -ENOENT;
    size_t length;
    const char *text = db_bytes(&rows, 0, &length);
    *value = strndup(text ? text : "", length);
    return *value ? 0 : -ENOMEM;
}

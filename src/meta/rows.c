/* SPDX-License-Identifier: Apache-2.0 */
/* Reading rows. */
#include "meta/internal.h"

errint rows_collect_ids(struct db_rows *rows, struct ids *out)
{
    const size_t before = out->count;
    errint error = 0;
    int found = 0;
    while (!error && (found = db_next(rows)) > 0)
        error = ids_append(out, (uint64_t)db_integer(rows, 0));
    if (!error)
        error = found;
    db_finish(rows);
    if (error)
        out->count = before;
    return error;
}

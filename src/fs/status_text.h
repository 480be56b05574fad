/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A mount's status for people: from the JSON document that the daemon makes, in the daemon itself for
 * `.ckptfs/status`, and in the commands.
 */
#ifndef CKPTFS_FS_STATUS_TEXT_H
#define CKPTFS_FS_STATUS_TEXT_H

#include <cjson/cJSON.h>

#include "base/text.h"

/* A line for each member, by its shape: a newer daemon may say more than its reader knows. What
 * status_text_watch prints is left out. */
void status_text_print(struct text *out, const cJSON *document);

/* Saves under way, runs, space. Members that are missing say nothing. */
void status_text_watch(struct text *out, const cJSON *document);

#endif

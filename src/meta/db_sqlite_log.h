/* SPDX-License-Identifier: Apache-2.0 */
/*
 * How SQLite writes its log: one write a commit.
 *
 * SQLite writes each page of a commit with two system calls, one of them for 24 bytes, which costs more than
 * all the rest of a small transaction. This is a layer under it that collects what is written to the log and
 * passes it on when the frame that ends the commit is complete, and before anything else is done to the log.
 * So whatever SQLite believes to be in the log when a commit returns is there, and an error is that commit's
 * error.
 */
#ifndef CKPTFS_META_DB_SQLITE_LOG_H
#define CKPTFS_META_DB_SQLITE_LOG_H

/* The name of the layer, for sqlite3_open_v2; NULL when it cannot be installed. Thread-safe. */
const char *db_sqlite_log_layer(void);

#endif

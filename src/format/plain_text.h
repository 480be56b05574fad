/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Texts out of files that nobody trusts, made fit for a terminal and for JSON.
 */
#ifndef CKPTFS_FORMAT_PLAIN_TEXT_H
#define CKPTFS_FORMAT_PLAIN_TEXT_H

/* A copy in which control characters, and bytes that are not UTF-8, are question marks. NULL: no memory. The
 * caller frees it. */
char *plain_text(const char *text);

#endif

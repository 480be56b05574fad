/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Sizes for people: "17 bytes", "1.5 GiB".
 */
#ifndef CKPTFS_BASE_SIZE_TEXT_H
#define CKPTFS_BASE_SIZE_TEXT_H

enum { SIZE_TEXT_MAX = 32, SIZE_TEXT_WIDTH = 10 /* of a size below 1024 PiB */ };

/* Puts `bytes` into text[SIZE_TEXT_MAX], which is returned. */
const char *size_text(double bytes, char *text);

#endif

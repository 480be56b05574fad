/* SPDX-License-Identifier: Apache-2.0 */
/* UTF-8 (RFC 3629): no overlong forms, no surrogates, nothing over U+10FFFF. */
#ifndef CKPTFS_FORMAT_UTF8_H
#define CKPTFS_FORMAT_UTF8_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum { UTF8_LONGEST = 4 };

bool utf8_is_valid(const char *text, size_t length);
/* Writes up to UTF8_LONGEST bytes and returns how many; 0: no character has this number. */
size_t utf8_encode(uint32_t character, char *out);

#endif

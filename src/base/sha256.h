/* SPDX-License-Identifier: Apache-2.0 */
/*
 * SHA-256 of bytes that come in pieces. By OpenSSL's libcrypto, which uses what the processor has for it.
 * A `struct sha256` is one thread's at a time.
 */
#ifndef CKPTFS_BASE_SHA256_H
#define CKPTFS_BASE_SHA256_H

#include <stddef.h>
#include <stdint.h>

#include "base/cleanup.h"

enum { SHA256_BYTES = 32 };

/* A sum as sha256sum writes it, with the NUL behind it. */
enum { SHA256_TEXT = 2 * SHA256_BYTES + 1 };

struct sha256;

/* Of no bytes yet; the caller gives it to sha256_release. -ENOMEM, also where the library forbids it. */
errint sha256_begin(struct sha256 **out);
/* An error is told by sha256_end. */
void sha256_add(struct sha256 *sum, const void *bytes, size_t length);
/* The sum of all that was added, once. -EIO: the library failed. */
errint sha256_end(struct sha256 *sum, uint8_t out[SHA256_BYTES]);
/* The sum of all that was added so far; more may be added afterwards. -ENOMEM, -EIO. */
errint sha256_so_far(const struct sha256 *sum, uint8_t out[SHA256_BYTES]);
/* NULL is allowed. */
void sha256_release(struct sha256 **sum);

/* Lower-case hexadecimal digits. */
void sha256_text(const uint8_t sum[SHA256_BYTES], char out[SHA256_TEXT]);

#define cleanup_sha256 __attribute__((cleanup(sha256_release)))

#endif

/* SPDX-License-Identifier: Apache-2.0 */
/* SHA-256 by libcrypto. */
#include "base/sha256.h"

#include <errno.h>
#include <openssl/evp.h>
#include <stdbool.h>
#include <stdlib.h>

struct sha256 {
    EVP_MD_CTX *context;
    bool failed;
};

errint sha256_begin(struct sha256 **out)
{
    struct sha256 *sum = calloc(1, sizeof *sum);
    *out = sum;
    if (!sum)
        return -ENOMEM;
    sum->context = EVP_MD_CTX_new();
    if (sum->context && EVP_DigestInit_ex(sum->context, EVP_sha256(), NULL) == 1)
        return 0;
    sha256_release(out);
    return -ENOMEM;
}

void sha256_add(struct sha256 *sum, const void *bytes, size_t length)
{
    if (EVP_DigestUpdate(sum->context, bytes, length) != 1)
        sum->failed = true;
}

errint sha256_end(struct sha256 *sum, uint8_t out[SHA256_BYTES])
{
    unsigned length = 0;
    bool ended = EVP_DigestFinal_ex(sum->context, out, &length) == 1;
    return ended && length == SHA256_BYTES && !sum->failed ? 0 : -EIO;
}

errint sha256_so_far(const struct sha256 *sum, uint8_t out[SHA256_BYTES])
{
    unsigned length = 0;
    EVP_MD_CTX *copy = EVP_MD_CTX_new();
    bool ended =
        copy && EVP_MD_CTX_copy_ex(copy, sum->context) == 1 && EVP_DigestFinal_ex(copy, out, &length) == 1;
    EVP_MD_CTX_free(copy);
    if (!copy)
        return -ENOMEM;
    return ended && length == SHA256_BYTES && !sum->failed ? 0 : -EIO;
}

void sha256_text(const uint8_t sum[SHA256_BYTES], char out[SHA256_TEXT])
{
    static const char digits[] = "0123456789abcdef";
    for (size_t i = 0; i < SHA256_BYTES; i++) {
        out[2 * i] = digits[sum[i] >> 4];
        out[2 * i + 1] = digits[sum[i] & 15];
    }
    out[SHA256_TEXT - 1] = '\0';
}

void sha256_release(struct sha256 **sum)
{
    if (!*sum)
        return;
    EVP_MD_CTX_free((*sum)->context);
    free(*sum);
    *sum = NULL;
}

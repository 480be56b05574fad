/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A JSON text read once from front to back, one block at a time: no tree is built, so that a header of any
 * size costs the same memory. A string is taken as it stands, with its escapes and in an encoding that is not
 * judged (json_take_string), or for what it means (json_take_text).
 *
 * The first failure stays in `status` (FORMAT_FOREIGN: no JSON, or not what was asked for; or a negative
 * errno of the source) and every later call fails too, so that it may be looked at once, at the end.
 */
#ifndef CKPTFS_FORMAT_JSON_H
#define CKPTFS_FORMAT_JSON_H

#include "base/arena.h"
#include "format/internal.h"

enum { JSON_BLOCK = 64 * 1024, JSON_DEPTH = 128, JSON_TEXT_START = 256, JSON_NUMBER_MAX = 400 };

struct json {
    const struct format_source *source;
    int64_t next, end; /* the next block's offset in the source; where the text ends */
    const uint8_t *at, *limit;
    int status;
    bool python;    /* set after json_begin: NaN, Infinity and -Infinity are numbers, as Python writes them */
    int64_t failed; /* where the first failure was */
    uint8_t block[JSON_BLOCK];
};

/* A string as it is in the text, without its quotes. */
struct json_text {
    uint64_t hash;
    size_t length;
    char start[JSON_TEXT_START]; /* its first bytes, as many as there are */
};

/* `text` is length bytes of the source at `offset`, which lie inside it. */
void json_begin(struct json *json, const struct format_source *source, int64_t offset, int64_t length);

/* The next byte that is no whitespace, which stays where it is; -1 at the end or after a failure. */
int json_peek(struct json *json);
/* Takes that byte, which has to be this one. */
bool json_take(struct json *json, char byte);
/* Nothing but whitespace may be left. */
bool json_end(struct json *json);

/*
 * Steps to the next item of an array or object, whose opening bracket was taken: true when there is one; at
 * the end takes the closing bracket. `started` is false before the first item.
 */
bool json_more(struct json *json, char close, bool *started);
bool json_take_string(struct json *json, struct json_text *text);
/*
 * A string as UTF-8 without escapes, in the arena, with a NUL behind it. Fails at a NUL inside, at bytes that
 * are no UTF-8 and at half a surrogate pair, which are no names.
 */
bool json_take_text(struct json *json, struct arena *arena, const char **text);
/* An object's key and the colon behind it. */
bool json_take_key(struct json *json, struct json_text *text);
/* A whole number from 0 to INT64_MAX, without sign, fraction and exponent. */
bool json_take_size(struct json *json, int64_t *value);
/* Any value; -1 when it is no such number. */
bool json_take_any_size(struct json *json, int64_t *value);
/* Any value; *number: it is one, of less than JSON_NUMBER_MAX bytes, *value then. */
bool json_take_any_number(struct json *json, double *value, bool *number);
/* The offset of the next byte in the source. After a failure: where it was. */
int64_t json_tell(const struct json *json);
/* Any value, nested up to JSON_DEPTH. */
bool json_skip(struct json *json);

bool json_fail(struct json *json, int status);
bool json_text_is(const struct json_text *text, const char *word);

#endif

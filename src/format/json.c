/* SPDX-License-Identifier: Apache-2.0 */
/* A JSON text read from front to back in blocks. */
#include "format/json.h"

#include <errno.h>
#include <string.h>

#include "format/utf8.h"

int64_t json_tell(const struct json *json)
{
    return json->status ? json->failed : json->next - (json->limit - json->at);
}

bool json_fail(struct json *json, int status)
{
    if (!json->status) {
        json->failed = json_tell(json);
        json->status = status;
    }
    json->at = json->limit = json->block;
    json->next = json->end;
    return false;
}

void json_begin(struct json *json, const struct format_source *source, int64_t offset, int64_t length)
{
    json->source = source;
    json->next = offset;
    json->end = offset + length;
    json->at = json->limit = json->block;
    json->status = 0;
    json->python = false;
}

/* Fetches the next block; false at the end of the text. */
static bool json_fill(struct json *json)
{
    int64_t left = json->end - json->next;
    if (left == 0)
        return false;
    size_t length = left < JSON_BLOCK ? (size_t)left : JSON_BLOCK;
    errint error = json->source->read(json->source->context, json->block, length, json->next);
    if (error)
        return json_fail(json, error);
    json->next += (int64_t)length;
    json->at = json->block;
    json->limit = json->block + length;
    return true;
}

/* The next byte, whitespace or not; -1 at the end. */
static int json_get(struct json *json)
{
    if (json->at == json->limit && !json_fill(json))
        return -1;
    return *json->at++;
}

int json_peek(struct json *json)
{
    for (;;) {
        if (json->at == json->limit && !json_fill(json))
            return -1;
        uint8_t byte = *json->at;
        if (byte != ' ' && byte != '\t' && byte != '\n' && byte != '\r')
            return byte;
        json->at++;
    }
}

bool json_take(struct json *json, char byte)
{
    if (json_peek(json) != byte)
        return json_fail(json, FORMAT_FOREIGN);
    json->at++;
    return true;
}

bool json_end(struct json *json)
{
    return json_peek(json) < 0 ? json->status == 0 : json_fail(json, FORMAT_FOREIGN);
}

bool json_more(struct json *json, char close, bool *started)
{
    int next = json_peek(json);
    if (next == close) {
        json->at++;
        return false;
    }
    if (*started) {
        if (!json_take(json, ','))
            return false;
        next = json_peek(json);
    }
    *started = true;
    if (next < 0 || next == close)
        return json_fail(json, FORMAT_FOREIGN);
    return true;
}

/* -- strings ----------------------------------------------------------------------------------------------
 */

static void json_text_append(struct json_text *text, int byte)
{
    if (text->length < sizeof text->start)
        text->start[text->length] = (char)byte;
    text->length++;
    text->hash = format_hash_byte(text->hash, (uint8_t)byte);
}

static bool json_is_hex_digit(int byte)
{
    return (byte >= '0' && byte <= '9') || (byte >= 'a' && byte <= 'f') || (byte >= 'A' && byte <= 'F');
}

/* What follows a backslash. */
static bool json_take_escape(struct json *json, struct json_text *text)
{
    int byte = json_get(json);
    if (byte <= 0 || !strchr("\"\\/bfnrtu", byte))
        return json_fail(json, FORMAT_FOREIGN);
    json_text_append(text, byte);
    for (unsigned digits = byte == 'u' ? 4 : 0; digits > 0; digits--) {
        byte = json_get(json);
        if (!json_is_hex_digit(byte))
            return json_fail(json, FORMAT_FOREIGN);
        json_text_append(text, byte);
    }
    return true;
}

bool json_take_string(struct json *json, struct json_text *text)
{
    text->length = 0;
    text->hash = FORMAT_HASH_START;
    if (!json_take(json, '"'))
        return false;
    for (;;) {
        int byte = json_get(json);
        if (byte == '"')
            return true;
        if (byte < 0x20)
            return json_fail(json, FORMAT_FOREIGN);
        json_text_append(text, byte);
        if (byte == '\\' && !json_take_escape(json, text))
            return false;
    }
}

/* -- strings for what they mean ---------------------------------------------------------------------------
 */

/* Bytes that grow; the escapes of a text only make it shorter. */
struct json_buffer {
    char *bytes;
    size_t length, capacity;
};

static void json_buffer_release(struct json_buffer *buffer)
{
    free(buffer->bytes);
}

static bool json_buffer_append(struct json *json, struct json_buffer *buffer, const char *bytes,
                               size_t length)
{
    if (length > buffer->capacity - buffer->length) {
        size_t capacity = buffer->capacity + buffer->capacity / 2 + JSON_TEXT_START;
        char *grown = realloc(buffer->bytes, capacity);
        if (!grown)
            return json_fail(json, -ENOMEM);
        buffer->bytes = grown;
        buffer->capacity = capacity;
    }
    memcpy(buffer->bytes + buffer->length, bytes, length);
    buffer->length += length;
    return true;
}

/* Four hexadecimal digits. */
static bool json_take_unit(struct json *json, uint32_t *unit)
{
    *unit = 0;
    for (unsigned digits = 0; digits < 4; digits++) {
        int byte = json_get(json);
        if (!json_is_hex_digit(byte))
            return json_fail(json, FORMAT_FOREIGN);
        *unit = *unit << 4 | (uint32_t)(byte <= '9' ? byte - '0' : (byte | 0x20) - 'a' + 10);
    }
    return true;
}

/* What follows "\u": one unit of UTF-16, or two that make a pair. */
static bool json_take_character(struct json *json, uint32_t *character)
{
    uint32_t low;
    if (!json_take_unit(json, character))
        return false;
    if (*character < 0xd800 || *character > 0xdbff)
        return true;
    if (json_get(json) != '\\' || json_get(json) != 'u' || !json_take_unit(json, &low) || low < 0xdc00 ||
        low > 0xdfff)
        return json_fail(json, FORMAT_FOREIGN);
    *character = 0x10000 + ((*character - 0xd800) << 10) + (low - 0xdc00);
    return true;
}

/* What follows a backslash. */
static bool json_append_escape(struct json *json, struct json_buffer *buffer)
{
    static const char escapes[] = "\"\\/bfnrt", meanings[] = "\"\\/\b\f\n\r\t";
    int byte = json_get(json);
    const char *escape = byte > 0 ? strchr(escapes, byte) : NULL;
    if (escape)
        return json_buffer_append(json, buffer, &meanings[escape - escapes], 1);
    uint32_t character;
    char bytes[UTF8_LONGEST];
    if (byte != 'u' || !json_take_character(json, &character))
        return json_fail(json, FORMAT_FOREIGN);
    size_t length = character > 0 ? utf8_encode(character, bytes) : 0;
    return length > 0 ? json_buffer_append(json, buffer, bytes, length) : json_fail(json, FORMAT_FOREIGN);
}

bool json_take_text(struct json *json, struct arena *arena, const char **text)
{
    __attribute__((cleanup(json_buffer_release))) struct json_buffer buffer = {0};
    if (!json_take(json, '"'))
        return false;
    for (int byte = json_get(json); byte != '"'; byte = json_get(json)) {
        if (byte < 0x20)
            return json_fail(json, FORMAT_FOREIGN);
        bool fine = byte == '\\' ? json_append_escape(json, &buffer)
                                 : json_buffer_append(json, &buffer, &(char){(char)byte}, 1);
        if (!fine)
            return false;
    }
    if (!utf8_is_valid(buffer.bytes, buffer.length))
        return json_fail(json, FORMAT_FOREIGN);
    *text = arena_copy_text(arena, buffer.bytes, buffer.length);
    return *text ? true : json_fail(json, -ENOMEM);
}

bool json_take_key(struct json *json, struct json_text *text)
{
    return json_take_string(json, text) && json_take(json, ':');
}

bool json_text_is(const struct json_text *text, const char *word)
{
    size_t length = strlen(word);
    return text->length == length && memcmp(text->start, word, length) == 0;
}

/* -- numbers and words ------------------------------------------------------------------------------------
 */

/* The next byte without taking it and without skipping whitespace; -1 at the end. */
static int json_look(struct json *json)
{
    if (json->at == json->limit && !json_fill(json))
        return -1;
    return *json->at;
}

static bool json_is_digit(int byte)
{
    return byte >= '0' && byte <= '9';
}

bool json_take_size(struct json *json, int64_t *value)
{
    int first = json_peek(json);
    if (!json_is_digit(first))
        return json_fail(json, FORMAT_FOREIGN);
    *value = 0;
    for (int byte = first; json_is_digit(byte); byte = json_look(json)) {
        if (__builtin_mul_overflow(*value, 10, value) || __builtin_add_overflow(*value, byte - '0', value))
            return json_fail(json, FORMAT_FOREIGN);
        json->at++;
        if (first == '0')
            break;
    }
    int after = json_look(json);
    if (json_is_digit(after) || after == '.' || after == 'e' || after == 'E')
        return json_fail(json, FORMAT_FOREIGN);
    return json->status == 0;
}

/* One digit or more. */
static bool json_skip_digits(struct json *json)
{
    if (!json_is_digit(json_look(json)))
        return json_fail(json, FORMAT_FOREIGN);
    while (json_is_digit(json_look(json)))
        json->at++;
    return true;
}

static bool json_skip_fraction(struct json *json)
{
    if (json_look(json) == '.') {
        json->at++;
        if (!json_skip_digits(json))
            return false;
    }
    if (json_look(json) == 'e' || json_look(json) == 'E') {
        json->at++;
        if (json_look(json) == '+' || json_look(json) == '-')
            json->at++;
        return json_skip_digits(json);
    }
    return json->status == 0;
}

static bool json_skip_word(struct json *json, const char *word)
{
    for (; *word; word++) {
        if (json_get(json) != *word)
            return json_fail(json, FORMAT_FOREIGN);
    }
    return true;
}

static bool json_skip_number(struct json *json)
{
    if (json_look(json) == '-')
        json->at++;
    if (json->python && json_look(json) == 'I')
        return json_skip_word(json, "Infinity");
    if (json_look(json) == '0')
        json->at++;
    else if (!json_skip_digits(json))
        return false;
    return json_skip_fraction(json);
}

/* -- any value --------------------------------------------------------------------------------------------
 */

static bool json_skip_scalar(struct json *json, struct json_text *text)
{
    switch (json_peek(json)) {
    case '"': return json_take_string(json, text);
    case 't': return json_skip_word(json, "true");
    case 'f': return json_skip_word(json, "false");
    case 'n': return json_skip_word(json, "null");
    case 'N': return json->python ? json_skip_word(json, "NaN") : json_fail(json, FORMAT_FOREIGN);
    default: return json_skip_number(json);
    }
}

bool json_skip(struct json *json)
{
    /* A stack of our own: how deep a text nests is its writer's choice, how deep we call is not. */
    struct {
        char close;
        bool started;
    } open[JSON_DEPTH];
    size_t depth = 0;
    struct json_text text;
    do {
        int next = json_peek(json);
        if (next == '{' || next == '[') {
            if (depth == JSON_DEPTH)
                return json_fail(json, FORMAT_FOREIGN);
            json->at++;
            open[depth].close = next == '{' ? '}' : ']';
            open[depth++].started = false;
        } else if (!json_skip_scalar(json, &text)) {
            return false;
        }
        while (depth > 0 && !json_more(json, open[depth - 1].close, &open[depth - 1].started)) {
            if (json->status)
                return false;
            depth--;
        }
        if (depth > 0 && open[depth - 1].close == '}' && !json_take_key(json, &text))
            return false;
    } while (depth > 0);
    return json->status == 0;
}

bool json_take_any_size(struct json *json, int64_t *value)
{
    *value = -1;
    int first = json_peek(json);
    if (!json_is_digit(first))
        return json_skip(json);
    bool fits = true;
    int64_t size = 0;
    for (int byte = first; json_is_digit(byte); byte = json_look(json)) {
        fits = fits && !__builtin_mul_overflow(size, 10, &size) &&
               !__builtin_add_overflow(size, byte - '0', &size);
        json->at++;
        if (first == '0')
            break;
    }
    int after = json_look(json);
    if (fits && after != '.' && after != 'e' && after != 'E')
        *value = size;
    return json_skip_fraction(json);
}

/* -- numbers for what they mean ---------------------------------------------------------------------------
 */

static const char *json_behind_digits(const char *at)
{
    return at + strspn(at, "0123456789");
}

/* Whether the text is a number as JSON has them. */
static bool json_is_number(const char *at)
{
    at += *at == '-';
    const char *end = *at == '0' ? at + 1 : json_behind_digits(at);
    if (end == at)
        return false;
    if (*end == '.') {
        at = end + 1;
        end = json_behind_digits(at);
        if (end == at)
            return false;
    }
    if (*end == 'e' || *end == 'E') {
        at = end + 1 + (end[1] == '+' || end[1] == '-');
        end = json_behind_digits(at);
        if (end == at)
            return false;
    }
    return *end == '\0';
}

static bool json_is_python_number(const char *text)
{
    return strcmp(text, "NaN") == 0 || strcmp(text, "Infinity") == 0 || strcmp(text, "-Infinity") == 0;
}

bool json_take_any_number(struct json *json, double *value, bool *number)
{
    char text[JSON_NUMBER_MAX];
    size_t length = 0;
    int byte = json_peek(json);
    *number = json_is_digit(byte) || byte == '-' || (json->python && (byte == 'N' || byte == 'I'));
    if (!*number)
        return json_skip(json);
    for (; byte > 0 && strchr("+-.0123456789eEINafinty", byte); byte = json_look(json)) {
        if (length == sizeof text - 1)
            return json_fail(json, FORMAT_FOREIGN);
        text[length++] = (char)byte;
        json->at++;
    }
    text[length] = '\0';
    if (!json_is_number(text) && !(json->python && json_is_python_number(text)))
        return json_fail(json, FORMAT_FOREIGN);
    *value = strtod(text, NULL);
    return json->status == 0;
}

/* SPDX-License-Identifier: Apache-2.0 */
/* Opcodes whose arguments are lines of text, as protocol 0 writes them. */
#include <errno.h>
#include <math.h>
#include <string.h>

#include "format/pickle_machine.h"
#include "format/utf8.h"

/* As many as Python reads (sys.int_info.default_max_str_digits). */
enum { PICKLE_DIGITS_MAX = 4300, PICKLE_DIGITS_A_WORD = 9 };

static bool pickle_is_digit(char byte)
{
    return byte >= '0' && byte <= '9';
}

/* -- numbers ----------------------------------------------------------------------------------------------
 */

/* The sign and the digits of the line, of which there has to be nothing else. */
static bool pickle_split_decimal(const char *line, size_t length, bool *negative, size_t *first)
{
    *negative = length > 0 && line[0] == '-';
    *first = length > 0 && (line[0] == '-' || line[0] == '+') ? 1 : 0;
    for (size_t i = *first; i < length; i++) {
        if (!pickle_is_digit(line[i]))
            return false;
    }
    return *first < length && length - *first <= PICKLE_DIGITS_MAX;
}

/* Words of 32 bits, the lowest first: the number times `factor` plus `addend`. */
static void pickle_multiply(uint32_t *words, size_t *count, uint32_t factor, uint32_t addend)
{
    uint64_t carry = addend;
    for (size_t i = 0; i < *count; i++) {
        carry += (uint64_t)words[i] * factor;
        words[i] = (uint32_t)carry;
        carry >>= 32;
    }
    if (carry > 0)
        words[(*count)++] = (uint32_t)carry;
}

static int pickle_push_large(struct pickle_machine *machine, uint32_t *words, size_t count, bool negative)
{
    char bytes[PICKLE_DIGITS_MAX];
    size_t length = 4 * count + 1;
    for (size_t i = 0; i < length; i++)
        bytes[i] = i < 4 * count ? (char)(words[i / 4] >> (8 * (i % 4))) : 0;
    unsigned carry = 1;
    for (size_t i = 0; i < length && negative; i++) {
        carry += (uint8_t)~bytes[i];
        bytes[i] = (char)carry;
        carry >>= 8;
    }
    /* No byte more than the sign needs, as LONG1 has it. */
    while (length > 1 && bytes[length - 1] == (negative ? -1 : 0) && (bytes[length - 2] < 0) == negative)
        length--;
    return pickle_push_text(machine, PICKLE_LARGE, bytes, length);
}

static int pickle_push_decimal(struct pickle_machine *machine, const char *line, size_t length)
{
    /* A word holds more than nine digits. */
    uint32_t words[PICKLE_DIGITS_MAX / PICKLE_DIGITS_A_WORD + 2];
    size_t count = 0, at;
    bool negative;
    if (!pickle_split_decimal(line, length, &negative, &at))
        return pickle_fail(machine, "expected a whole number of at most %d digits, found something else",
                           PICKLE_DIGITS_MAX);
    while (at < length) {
        uint32_t digits = 0, factor = 1;
        for (unsigned i = 0; i < PICKLE_DIGITS_A_WORD && at < length; i++) {
            digits = digits * 10 + (uint32_t)(line[at++] - '0');
            factor *= 10;
        }
        pickle_multiply(words, &count, factor, digits);
    }
    uint64_t value = (count > 0 ? words[0] : 0) | (uint64_t)(count > 1 ? words[1] : 0) << 32;
    if (count > 2 || value > (uint64_t)INT64_MAX + negative)
        return pickle_push_large(machine, words, count, negative);
    return pickle_push_integer(machine, PICKLE_INTEGER, (int64_t)(negative ? 0 - value : value));
}

int pickle_do_int(struct pickle_machine *machine, unsigned unused)
{
    (void)unused;
    int result = pickle_take_line(machine);
    if (result)
        return result;
    if (strcmp(machine->line, "00") == 0 || strcmp(machine->line, "01") == 0)
        return pickle_push_integer(machine, PICKLE_BOOL, machine->line[1] == '1');
    return pickle_push_decimal(machine, machine->line, machine->line_length);
}

int pickle_do_long(struct pickle_machine *machine, unsigned unused)
{
    (void)unused;
    int result = pickle_take_line(machine);
    if (result)
        return result;
    size_t length = machine->line_length;
    if (length > 0 && machine->line[length - 1] == 'L')
        length--;
    return pickle_push_decimal(machine, machine->line, length);
}

int pickle_do_float(struct pickle_machine *machine, unsigned unused)
{
    (void)unused;
    struct pickle_node *node;
    char *end;
    int result = pickle_take_line(machine);
    if (!result)
        result = pickle_make(machine, PICKLE_FLOAT, &node);
    if (result)
        return result;
    /* strtod would skip spaces. The program keeps the C locale, in which the point is a point. */
    const char *first = machine->line + (machine->line[0] == '-');
    node->number = strtod(machine->line, &end);
    if ((!pickle_is_digit(*first) && *first != '.' && *first != 'i' && *first != 'n') ||
        end != machine->line + machine->line_length || end == machine->line)
        return pickle_fail(machine, "expected a number, found something else");
    return pickle_push(machine, node);
}

int pickle_take_index(struct pickle_machine *machine, uint64_t *index)
{
    int result = pickle_take_line(machine);
    if (result)
        return result;
    *index = 0;
    for (size_t i = 0; i < machine->line_length; i++) {
        char digit = machine->line[i];
        if (!pickle_is_digit(digit) || __builtin_mul_overflow(*index, 10, index) ||
            __builtin_add_overflow(*index, (uint64_t)(digit - '0'), index))
            return pickle_fail(machine, "expected a memo index, found something else");
    }
    if (machine->line_length == 0)
        return pickle_fail(machine, "expected a memo index, found an empty line");
    return 0;
}

/* -- strings ----------------------------------------------------------------------------------------------
 */

static int pickle_digit_value(char byte, int base)
{
    int value = byte >= '0' && byte <= '9'   ? byte - '0'
                : byte >= 'a' && byte <= 'f' ? byte - 'a' + 10
                : byte >= 'A' && byte <= 'F' ? byte - 'A' + 10
                                             : base;
    return value < base ? value : -1;
}

/* At most `count` digits from line[*at] on; how many there were. */
static unsigned pickle_take_digits(const char *line, size_t *at, unsigned count, int base, uint32_t *value)
{
    unsigned taken = 0;
    *value = 0;
    /* The NUL behind the line is no digit. */
    while (taken < count && pickle_digit_value(line[*at], base) >= 0) {
        *value = *value * (uint32_t)base + (uint32_t)pickle_digit_value(line[(*at)++], base);
        taken++;
    }
    return taken;
}

/* What follows a backslash of a Python 2 string's repr; false: it is none. */
static bool pickle_unescape(char *line, size_t *at, size_t *out)
{
    static const char escapes[] = "\\'\"abfnrtv", meanings[] = "\\'\"\a\b\f\n\r\t\v";
    const char *escape = line[*at] ? strchr(escapes, line[*at]) : NULL;
    uint32_t value;
    if (escape) {
        line[(*out)++] = meanings[escape - escapes];
        (*at)++;
        return true;
    }
    if (line[*at] == 'x') {
        (*at)++;
        if (pickle_take_digits(line, at, 2, 16, &value) != 2)
            return false;
    } else if (pickle_take_digits(line, at, 3, 8, &value) == 0) {
        return false;
    }
    line[(*out)++] = (char)value;
    return true;
}

int pickle_do_string(struct pickle_machine *machine, unsigned unused)
{
    (void)unused;
    int result = pickle_take_line(machine);
    if (result)
        return result;
    char *line = machine->line;
    size_t end = machine->line_length, length = 0;
    if (end < 2 || (line[0] != '\'' && line[0] != '"') || line[end - 1] != line[0])
        return pickle_fail(machine, "expected a string in quotes, found none");
    line[end - 1] = '\0';
    for (size_t at = 1; at < end - 1;) {
        char byte = line[at++];
        if (byte != '\\')
            line[length++] = byte;
        else if (!pickle_unescape(line, &at, &length))
            return pickle_fail(machine, "expected an escape in a string, found something else");
    }
    enum pickle_kind kind = utf8_is_valid(line, length) ? PICKLE_TEXT : PICKLE_BYTES;
    return pickle_push_text(machine, kind, line, length);
}

/* raw-unicode-escape: a byte is a character of Latin-1, and only \u and \U are escapes. */
int pickle_do_unicode(struct pickle_machine *machine, unsigned unused)
{
    (void)unused;
    int result = pickle_take_line(machine);
    if (result)
        return result;
    /* No escape is shorter than what it stands for; a Latin-1 byte may become two. */
    cleanup_free char *text = malloc(2 * machine->line_length + 1);
    if (!text)
        return -ENOMEM;
    size_t length = 0;
    for (size_t at = 0; at < machine->line_length;) {
        uint32_t character = (uint8_t)machine->line[at++];
        char kind = character == '\\' ? machine->line[at] : '\0';
        if (kind == 'u' || kind == 'U') {
            unsigned digits = kind == 'u' ? 4 : 8;
            at++;
            if (pickle_take_digits(machine->line, &at, digits, 16, &character) != digits)
                return pickle_fail(machine, "expected %u digits of an escape, found fewer", digits);
        }
        size_t step = utf8_encode(character, text + length);
        if (step == 0)
            return pickle_fail(machine, "expected a character, found number %#x", character);
        length += step;
    }
    return pickle_push_text(machine, PICKLE_TEXT, text, length);
}

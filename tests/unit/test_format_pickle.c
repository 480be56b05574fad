/* SPDX-License-Identifier: Apache-2.0 */
/* Pickles: what each opcode builds, that nothing is called, and that any bytes at all are taken. */
#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "check.h"
#include "format/pickle.h"
#include "test_format_files.h"

#define COUNT(array) (sizeof(array) / sizeof *(array))

/* One reading. Starts as {0}; test_release. */
struct test_pickle {
    struct bytes bytes;
    struct arena arena;
    struct pickle_limits limits;
    const struct pickle_node *root, *last; /* the last persistent id */
    int64_t end;
    struct format_problem problem;
    unsigned outside, fail_at, reads;
};

static void test_release(struct test_pickle *pickle)
{
    arena_release(&pickle->arena);
    bytes_release(&pickle->bytes);
}

#define cleanup_pickle __attribute__((cleanup(test_release)))

/* Reads what is in pickle->bytes, again. */
static int test_read(struct test_pickle *pickle)
{
    struct counted_source counted;
    counted_source_open(&counted, &pickle->bytes);
    counted.fail_at = pickle->fail_at;
    arena_release(&pickle->arena);
    if (!pickle->arena.limit)
        pickle->arena.limit = 64 << 20;
    if (!pickle->limits.size)
        pickle->limits = pickle_default_limits;
    pickle->root = NULL;
    pickle->problem = (struct format_problem){0};
    int result =
        pickle_read_references(&counted.source, 0, counted.source.size, &pickle->limits, &pickle->arena,
                               &pickle->root, &pickle->last, &pickle->end, &pickle->problem);
    CHECK_EQUAL(0, counted.outside);
    CHECK((result == FORMAT_FOREIGN) == (pickle->problem.text[0] != '\0'));
    pickle->reads = counted.reads;
    return result;
}

/* Reads a literal, in which every byte counts, the opcode STOP included. */
static const struct pickle_node *test_read_bytes(struct test_pickle *pickle, const char *bytes, size_t length)
{
    pickle->bytes.count = 0;
    bytes_put(&pickle->bytes, bytes, length);
    CHECK_EQUAL(0, test_read(pickle));
    CHECK_EQUAL(length, pickle->end);
    return pickle->root;
}

#define READ(pickle, literal) test_read_bytes(pickle, literal, sizeof(literal) - 1)

static void test_is_integer(const struct pickle_node *node, int64_t expected)
{
    int64_t value = 0;
    CHECK(pickle_integer(node, &value));
    CHECK_EQUAL(expected, value);
}

static void test_is_large(const struct pickle_node *node, const char *expected, size_t length)
{
    CHECK(node && node->kind == PICKLE_LARGE && node->length == length &&
          memcmp(node->text, expected, length) == 0);
}

static void test_is_bytes(const struct pickle_node *node, const char *expected, size_t length)
{
    CHECK(node && node->kind == PICKLE_BYTES && node->length == length &&
          memcmp(node->text, expected, length) == 0 && node->text[length] == '\0');
}

/* -- values -----------------------------------------------------------------------------------------------
 */

static void test_binary_values(void)
{
    cleanup_pickle struct test_pickle pickle = {0};
    const struct pickle_node *list = READ(
        &pickle, "\x80\x05(N\x88\x89K\xffM\xff\xffJ\x00\x00\x00\x80\x8a\x00\x8a\x01\xff"
                 "\x8a\x08\x00\x00\x00\x00\x00\x00\x00\x80\x8a\x09\x00\x00\x00\x00\x00\x00\x00\x80\x00"
                 "\x8b\x02\x00\x00\x00\x00\x01G\x3f\xf8\x00\x00\x00\x00\x00\x00"
                 "\x8c\x03\xe2\x82\xacX\x01\x00\x00\x00"
                 "a\x8d\x01\x00\x00\x00\x00\x00\x00\x00"
                 "bU\x01"
                 "cT\x01\x00\x00\x00"
                 "d\x8c\x02\xff\x00"
                 "C\x02\x00xB\x01\x00\x00\x00y\x8e\x01\x00\x00\x00\x00\x00\x00\x00z"
                 "\x96\x01\x00\x00\x00\x00\x00\x00\x00w\x97\x98\x82\x07\x83\x01\x02\x84\x01\x00\x00\x00l.");
    size_t i = 0;
    CHECK_EQUAL(PICKLE_NONE, pickle_item(list, i++)->kind);
    CHECK_EQUAL(1, pickle_item(list, i)->kind == PICKLE_BOOL ? pickle_item(list, i)->integer : -1);
    i++;
    CHECK_EQUAL(0, pickle_item(list, i)->kind == PICKLE_BOOL ? pickle_item(list, i)->integer : -1);
    i++;
    static const int64_t numbers[] = {255, 65535, INT32_MIN, 0, -1, INT64_MIN};
    for (size_t n = 0; n < COUNT(numbers); n++)
        test_is_integer(pickle_item(list, i++), numbers[n]);
    test_is_large(pickle_item(list, i++), "\x00\x00\x00\x00\x00\x00\x00\x80\x00", 9);
    test_is_integer(pickle_item(list, i++), 256);
    CHECK(pickle_item(list, i)->kind == PICKLE_FLOAT && pickle_item(list, i)->number == 1.5);
    i++;
    static const char *const texts[] = {"\xe2\x82\xac", "a", "b", "c", "d"};
    for (size_t n = 0; n < COUNT(texts); n++)
        CHECK(pickle_is_text(pickle_item(list, i++), texts[n]));
    test_is_bytes(pickle_item(list, i++), "\xff\x00", 2);
    test_is_bytes(pickle_item(list, i++), "\x00x", 2);
    test_is_bytes(pickle_item(list, i++), "y", 1);
    test_is_bytes(pickle_item(list, i++), "z", 1);
    test_is_bytes(pickle_item(list, i++), "w", 1);
    static const int64_t codes[] = {0, 7, 0x201, 1};
    for (size_t n = 0; n < COUNT(codes); n++, i++)
        CHECK_EQUAL(codes[n],
                    pickle_item(list, i)->kind == PICKLE_EXTENSION ? pickle_item(list, i)->integer : -1);
    CHECK_EQUAL(i, pickle_count(list));
}

static void test_text_values(void)
{
    cleanup_pickle struct test_pickle pickle = {0};
    const struct pickle_node *list =
        READ(&pickle, "(I00\nI01\nI-12\nL9223372036854775807L\nL-9223372036854775808L\nL9223372036854775808\n"
                      "L-9223372036854775809L\nL-128L\nL119547037146038801333356L\nF-1.5e3\nFinf\n"
                      "S'a\\'\\x41\\102\\n'\nS\"\\xff\"\nVa\xe9\\u20ac\\U0001f600\\n\nP7\nl.");
    static const int64_t numbers[] = {-12, INT64_MAX, INT64_MIN};
    CHECK(pickle_item(list, 0)->kind == PICKLE_BOOL && pickle_item(list, 0)->integer == 0);
    CHECK(pickle_item(list, 1)->kind == PICKLE_BOOL && pickle_item(list, 1)->integer == 1);
    for (size_t i = 0; i < COUNT(numbers); i++)
        test_is_integer(pickle_item(list, i + 2), numbers[i]);
    test_is_large(pickle_item(list, 5), "\x00\x00\x00\x00\x00\x00\x00\x80\x00", 9);
    test_is_large(pickle_item(list, 6), "\xff\xff\xff\xff\xff\xff\xff\x7f\xff", 9);
    test_is_integer(pickle_item(list, 7), -128);
    test_is_large(pickle_item(list, 8), "\x6c\xfc\x9c\x46\xf9\x20\x6a\xa8\x50\x19", 10);
    CHECK(pickle_item(list, 9)->number == -1500 && pickle_item(list, 10)->number > 1e308);
    CHECK(pickle_is_text(pickle_item(list, 11), "a'AB\n"));
    test_is_bytes(pickle_item(list, 12), "\xff", 1);
    CHECK(pickle_is_text(pickle_item(list, 13), "a\xc3\xa9\xe2\x82\xac\xf0\x9f\x98\x80\\n"));
    CHECK(pickle_item(list, 14) == pickle.last && pickle_is_text(pickle.last->items[0], "7"));
    CHECK(!pickle.last->function);
}

/* -- containers -------------------------------------------------------------------------------------------
 */

static void test_containers(void)
{
    cleanup_pickle struct test_pickle pickle = {0};
    const struct pickle_node *root =
        READ(&pickle, "\x80\x04\x95\x36\x00\x00\x00\x00\x00\x00\x00(](K\x01K\x02K\x03K\x04K\x05"
                      "eK\x06"
                      "a)K\x01\x85K\x01K\x02\x86K\x01K\x02K\x03\x87(t(K\x09l\x8f(K\x01\x90(K\x02K\x03\x91"
                      "(N0K\x01K\x02\x31t.");
    static const size_t counts[] = {6, 0, 1, 2, 3, 0, 1, 1, 2};
    CHECK_EQUAL(COUNT(counts), pickle_count(root));
    for (size_t i = 0; i < COUNT(counts); i++)
        CHECK_EQUAL(counts[i], pickle_count(pickle_item(root, i)));
    for (size_t i = 0; i < 6; i++)
        test_is_integer(pickle_item(pickle_item(root, 0), i), (int64_t)i + 1);
    test_is_integer(pickle_item(pickle_item(root, 4), 2), 3);
    CHECK_EQUAL(PICKLE_SET, pickle_item(root, 7)->kind);
    CHECK_EQUAL(PICKLE_SET, pickle_item(root, 8)->kind);
    CHECK(!pickle_item(root, COUNT(counts)) && !pickle_item(NULL, 0) && pickle_count(NULL) == 0);
}

static void test_dicts(void)
{
    cleanup_pickle struct test_pickle pickle = {0};
    const struct pickle_node *dict = READ(&pickle, "}(U\x01"
                                                   "aK\x01U\x01"
                                                   "bK\x02uU\x01"
                                                   "aK\x03sN(K\x07Nds.");
    /* "a" is there twice: the last one counts. */
    test_is_integer(pickle_get(dict, "a"), 3);
    test_is_integer(pickle_get(dict, "b"), 2);
    CHECK(!pickle_get(dict, "c") && !pickle_get(pickle_get(dict, "a"), "a") && !pickle_get(NULL, "a"));
    CHECK_EQUAL(4, pickle_dict_count(dict));
}

static void test_dict_classes(void)
{
    cleanup_pickle struct test_pickle pickle = {0};
    const struct pickle_node *list = READ(&pickle, "(ccollections\nOrderedDict\n)R(U\x01"
                                                   "aK\x01U\x01"
                                                   "bK\x02uccollections\nOrderedDict\n]](U\x01"
                                                   "aK\x03"
                                                   "ea\x85R"
                                                   "U\x01"
                                                   "bK\x04s"
                                                   "ccollections\ndefaultdict\nc__builtin__\nlist\n\x85RU\x01"
                                                   "aK\x05sccollections\nCounter\n}U\x01"
                                                   "aK\x06s\x85RcX\nY\n)R}U\x01"
                                                   "aK\x07sbl.");
    for (size_t i = 0; i < 4; i++)
        CHECK(pickle_is_dict(pickle_item(list, i)));
    test_is_integer(pickle_get(pickle_item(list, 0), "b"), 2);
    test_is_integer(pickle_get(pickle_item(list, 1), "a"), 3);
    test_is_integer(pickle_get(pickle_item(list, 1), "b"), 4);
    CHECK_EQUAL(2, pickle_dict_count(pickle_item(list, 1)));
    test_is_integer(pickle_get(pickle_item(list, 2), "a"), 5);
    test_is_integer(pickle_get(pickle_item(list, 3), "a"), 6);
    CHECK(!pickle_is_dict(pickle_item(list, 4)) && !pickle_get(pickle_item(list, 4), "a"));
    test_is_integer(pickle_attribute(pickle_item(list, 4), "a"), 7);
    CHECK(pickle_is_global(pickle_item(list, 2)->items[0], "builtins list"));
}

/* -- calls ------------------------------------------------------------------------------------------------
 */

static void test_calls(void)
{
    cleanup_pickle struct test_pickle pickle = {0};
    const struct pickle_node *list =
        READ(&pickle, "\x80\x04(cos\nsystem\nU\x02id\x85R" /* REDUCE */
                      "U\x03mod\x8c\x01"
                      "C\x93K\x01K\x02\x86\x81}U\x01xK\x05sb" /* NEWOBJ, BUILD */
                      "\x8c\x01m\x8c\x01K\x93)}\x92"          /* NEWOBJ_EX */
                      "(cm\nO\nK\x07o(K\x08im\nI\n"           /* OBJ, INST */
                      "cm\nS\n)\x81N}U\x01yK\x06s\x86"
                      "b" /* a state of dict and slots */
                      "ccopy_reg\n_reconstructor\n(cm\nR\nc__builtin__\nobject\nNtR"
                      "K\x2aQl.");
    const struct pickle_node *call = pickle_item(list, 0);
    CHECK(pickle_is_call(call, "os system") && pickle_is_text(call->items[0], "id") && !call->keywords);
    call = pickle_item(list, 1);
    CHECK(pickle_is_call(call, "mod C") && call->count == 2);
    test_is_integer(pickle_attribute(call, "x"), 5);
    CHECK(!pickle_attribute(call, "y") && !pickle_attribute(NULL, "x") && !pickle_attribute(list, "x"));
    CHECK(pickle_is_call(pickle_item(list, 2), "m K") && pickle_item(list, 2)->keywords->kind == PICKLE_DICT);
    CHECK(pickle_is_call(pickle_item(list, 3), "m O") && pickle_item(list, 3)->count == 1);
    CHECK(pickle_is_call(pickle_item(list, 4), "m I"));
    test_is_integer(pickle_item(list, 4)->items[0], 8);
    test_is_integer(pickle_attribute(pickle_item(list, 5), "y"), 6);
    CHECK(pickle_is_call(pickle_item(list, 6), "m R") && !pickle_is_call(pickle_item(list, 6), "m O"));
    CHECK(!pickle_is_call(NULL, "m R") && !pickle_is_global(NULL, "m R") && !pickle_is_text(NULL, ""));
    CHECK(pickle.last == pickle_item(list, 7));
    test_is_integer(pickle.last->items[0], 42);
}

/* A name with a space or a NUL in it must not look like another one. */
static void test_disguised_names(void)
{
    cleanup_pickle struct test_pickle pickle = {0};
    const struct pickle_node *list = READ(&pickle, "\x80\x04(\x8c\x01"
                                                   "a\x8c\x03"
                                                   "b c\x93\x8c\x03"
                                                   "a b\x8c\x01"
                                                   "c\x93\x8c\x01"
                                                   "a\x8c\x03"
                                                   "b\x00x\x93l.");
    CHECK(!pickle_is_global(pickle_item(list, 0), "a b") && !pickle_is_global(pickle_item(list, 1), "a b"));
    CHECK(!pickle_is_global(pickle_item(list, 2), "a b"));
}

static void test_called_sequences(void)
{
    cleanup_pickle struct test_pickle pickle = {0};
    const struct pickle_node *list =
        READ(&pickle, "(ctorch\nSize\nK\x02K\x03\x86\x85Rc__builtin__\nset\n](K\x01K\x04"
                      "e\x85R"
                      "ccollections\ndeque\n)R(K\x05K\x06K\x07"
                      "ecm\nF\nK\x01K\x02\x86\x85Rl.");
    static const size_t counts[] = {2, 2, 3, 0};
    for (size_t i = 0; i < COUNT(counts); i++)
        CHECK_EQUAL(counts[i], pickle_count(pickle_item(list, i)));
    test_is_integer(pickle_item(pickle_item(list, 0), 1), 3);
    test_is_integer(pickle_item(pickle_item(list, 1), 1), 4);
    test_is_integer(pickle_item(pickle_item(list, 2), 2), 7);
}

/* -- the memo ---------------------------------------------------------------------------------------------
 */

static void test_memo(void)
{
    cleanup_pickle struct test_pickle pickle = {0};
    const struct pickle_node *list =
        READ(&pickle, "\x80\x04(K\x01q\x00K\x02p3\nK\x03r\x05\x00\x00\x00K\x04\x94"
                      "h\x00g3\nj\x05\x00\x00\x00h\x03l.");
    /* MEMOIZE takes the number of entries for its index, as Python does. */
    static const int64_t numbers[] = {1, 2, 3, 4, 1, 4, 3, 4};
    for (size_t i = 0; i < COUNT(numbers); i++)
        test_is_integer(pickle_item(list, i), numbers[i]);
}

static void test_cycles(void)
{
    cleanup_pickle struct test_pickle pickle = {0};
    const struct pickle_node *node = READ(&pickle, "]q\x00h\x00"
                                                   "a.");
    CHECK(pickle_count(node) == 1 && pickle_item(node, 0) == node);
    node = READ(&pickle, "}q\x00U\x01"
                         "ah\x00s.");
    CHECK(pickle_get(node, "a") == node && pickle_get(pickle_get(node, "a"), "a") == node);
    node = READ(&pickle, "ccollections\nOrderedDict\n)Rq\x00h\x00U\x01"
                         "ah\x00sb.");
    CHECK(pickle_get(node, "a") == node && node->state == node && pickle_attribute(node, "a") == node);
}

/* -- what is refused --------------------------------------------------------------------------------------
 */

#define REFUSED(literal, at, words)                                                                          \
    {                                                                                                        \
        literal, sizeof(literal) - 1, at, words                                                              \
    }

static const struct {
    const char *bytes;
    size_t length;
    int64_t offset;
    const char *words; /* of the problem */
} test_refused_pickles[] = {
    REFUSED("", 0, "next opcode"),
    REFUSED(".", 0, "one object"),
    REFUSED("NN.", 2, "found 2"),
    REFUSED("(N.", 2, "one object"),
    REFUSED("\xff", 0, "opcode, found byte 0xff"),
    REFUSED("\x80\x06N.", 0, "protocol 5"),
    REFUSED("\x95\xff\xff\xff\xff\xff\xff\xff\xffN.", 0, "length of 18446744073709551615"),
    REFUSED("\x8d\x00\x00\x00\x00\x00\x00\x00\x80N.", 0, "length of 9223372036854775808"),
    REFUSED("\x8e\xff\xff\xff\xff\xff\xff\xff\x7fN.", 0, "length of 9223372036854775807"),
    REFUSED("\x96\x03\x00\x00\x00\x00\x00\x00\x00N.", 0, "at most 2 bytes"),
    REFUSED("X\xff\xff\xff\xffN.", 0, "length of 4294967295"),
    REFUSED("\x8b\xff\xff\xff\xffN.", 0, "length of 4294967295"),
    REFUSED("h\x00.", 0, "memo index that was put"),
    REFUSED("Nq\x00h\x01.", 3, "memo index that was put"),
    REFUSED("Nr\xff\xff\xff\x7f.", 1, "memo index that was counted up to"),
    REFUSED("Nr\xff\xff\xff\xff.", 1, "memo index that was counted up to"),
    REFUSED("Np99999999999999999999\n.", 1, "memo index"),
    REFUSED("Np-1\n.", 1, "memo index"),
    REFUSED("Np\n.", 1, "empty line"),
    REFUSED("q\x00.", 0, "an object on a pickle's stack"),
    REFUSED("N(q\x00.", 2, "an object on a pickle's stack"),
    REFUSED("N(0t.", 3, "a mark"),
    REFUSED("0.", 0, "an object"),
    REFUSED("2.", 0, "an object"),
    REFUSED("e.", 0, "a mark"),
    REFUSED("NNR.", 2, "tuple of arguments, found None"),
    REFUSED("N]\x81.", 2, "tuple of arguments, found a list"),
    REFUSED("](N", 3, "next opcode"),
    REFUSED("K\x01Na.", 3, "a list to add to, found a whole number"),
    REFUSED("]NNs.", 3, "a dict to add to, found a list"),
    REFUSED("}(Nu.", 3, "a value for each key"),
    REFUSED("(Nd.", 2, "a value for each key"),
    REFUSED("N)R(Ne(NNu.", 9, "a dict to add to, found a list"),
    REFUSED("](e\x8f(Ne.", 6, "a list to add to, found a set"),
    REFUSED("]Nb.", 2, "a state to, found a list"),
    REFUSED("(o.", 1, "a class"),
    REFUSED("NN\x93.", 2, "a module and a name, found None and None"),
    REFUSED("ca\nb", 0, "end of a line"),
    REFUSED("\x82\x00.", 0, "a code of copyreg"),
    REFUSED("\x84\xff\xff\xff\xff.", 0, "a code of copyreg"),
    REFUSED("\x98.", 0, "an object"),
    REFUSED("Ix\n.", 0, "a whole number"),
    REFUSED("I\n.", 0, "a whole number"),
    REFUSED("L-L\n.", 0, "a whole number"),
    REFUSED("F1.5x\n.", 0, "a number"),
    REFUSED("F 1\n.", 0, "a number"),
    REFUSED("F\n.", 0, "a number"),
    REFUSED("Sabc\n.", 0, "a string in quotes"),
    REFUSED("S'\n.", 0, "a string in quotes"),
    REFUSED("S'\\'\n.", 0, "an escape"),
    REFUSED("S'\\x4'\n.", 0, "an escape"),
    REFUSED("S'\\q'\n.", 0, "an escape"),
    REFUSED("V\\u12\n.", 0, "4 digits"),
    REFUSED("V\\Uffffffff\n.", 0, "a character"),
    REFUSED("V\\ud800\n.", 0, "a character"),
};

static void test_refused(void)
{
    for (size_t i = 0; i < COUNT(test_refused_pickles); i++) {
        cleanup_pickle struct test_pickle pickle = {0};
        bytes_put(&pickle.bytes, test_refused_pickles[i].bytes, test_refused_pickles[i].length);
        CHECK_EQUAL(FORMAT_FOREIGN, test_read(&pickle));
        bool fine = strstr(pickle.problem.text, test_refused_pickles[i].words) != NULL;
        if (!fine)
            printf("# pickle %zu: %s\n", i, pickle.problem.text);
        CHECK(fine);
        CHECK_EQUAL(test_refused_pickles[i].offset, pickle.problem.offset);
    }
}

static void test_limits(void)
{
    cleanup_pickle struct test_pickle pickle = {0};
    bytes_print(&pickle.bytes, "(K1K2K3l.");
    pickle.limits = (struct pickle_limits){.size = 100, .nodes = 4, .memo = 4, .depth = 3};
    CHECK_EQUAL(0, test_read(&pickle));
    pickle.limits.nodes = 3;
    CHECK_EQUAL(FORMAT_FOREIGN, test_read(&pickle));
    pickle.limits.nodes = 4;
    pickle.limits.depth = 2;
    CHECK_EQUAL(FORMAT_FOREIGN, test_read(&pickle));
    pickle.limits.depth = 3;
    pickle.limits.size = 8;
    CHECK_EQUAL(FORMAT_FOREIGN, test_read(&pickle));
    pickle.limits.size = 9;
    CHECK_EQUAL(0, test_read(&pickle));
    size_t whole = pickle.arena.taken;
    for (size_t limit = 1; limit < whole; limit++) {
        pickle.arena.limit = limit;
        if (test_read(&pickle) != 0)
            CHECK(strstr(pickle.problem.text, "bytes of memory at most"));
        else
            CHECK(limit > whole - 16);
    }
    pickle.arena.limit = whole;
    CHECK_EQUAL(0, test_read(&pickle));
}

static void test_outside(void)
{
    cleanup_pickle struct test_pickle pickle = {.arena.limit = 4096};
    struct counted_source counted;
    bytes_print(&pickle.bytes, "N.N.");
    counted_source_open(&counted, &pickle.bytes);
    static const int64_t ranges[][2] = {{0, 5}, {5, 1}, {-1, 2}, {1, INT64_MAX}, {INT64_MAX, 1}, {0, -1}};
    for (size_t i = 0; i < COUNT(ranges); i++)
        CHECK_EQUAL(FORMAT_FOREIGN,
                    pickle_read(&counted.source, ranges[i][0], ranges[i][1], &pickle_default_limits,
                                &pickle.arena, &pickle.root, &pickle.end, NULL));
    CHECK_EQUAL(0, counted.reads);
    CHECK_EQUAL(0, pickle_read(&counted.source, 2, 2, &pickle_default_limits, &pickle.arena, &pickle.root,
                               &pickle.end, NULL));
    CHECK_EQUAL(4, pickle.end);
}

/* -- any bytes --------------------------------------------------------------------------------------------
 */

static const char test_sample_binary[] =
    "\x80\x05\x95\x20\x00\x00\x00\x00\x00\x00\x00}\x94("
    "\x8c\x01k\x94"
    "ctorch\nSize\nK\x02M\x01\x01\x86\x85R\x94h\x01"
    "G?\xf8\x00\x00\x00\x00\x00\x00X\x02\x00\x00\x00xy](C\x02zzB\x01\x00\x00\x00yJ\x01\x00\x00\x00"
    "\x8a\x02\x01\x01\x8e\x01\x00\x00\x00\x00\x00\x00\x00z\x8f(K\x01\x90\x97\x98\x82\x01(N1K\x01Q"
    "eK\x09\x8c\x01m\x8c\x01n\x93)}\x92}\x8c\x01xNsbu.";
static const char test_sample_text[] =
    "(I01\nL-5L\nF1.5\nS'a\\x41\\n'\nVa\\u00e9\np0\ng0\n(lp1\nI2\na(dS'k'\nNs(ic\nd\n"
    "(NoP5\nt.";

static void test_truncation(void)
{
    static const struct {
        const char *bytes;
        size_t length;
    } samples[] = {{test_sample_binary, sizeof test_sample_binary - 1},
                   {test_sample_text, sizeof test_sample_text - 1}};
    for (size_t i = 0; i < COUNT(samples); i++) {
        cleanup_pickle struct test_pickle pickle = {0};
        bytes_put(&pickle.bytes, samples[i].bytes, samples[i].length);
        CHECK_EQUAL(0, test_read(&pickle));
        CHECK_TEXT("", pickle.problem.text);
        for (size_t length = 0; length < samples[i].length; length++) {
            cleanup_bytes struct bytes cut = {0};
            bytes_put(&cut, samples[i].bytes, length);
            struct test_pickle part = {.bytes = cut};
            CHECK_EQUAL(FORMAT_FOREIGN, test_read(&part));
            arena_release(&part.arena);
        }
        for (size_t at = 0; at < samples[i].length; at++) {
            for (unsigned value = 0; value <= UINT8_MAX; value++) {
                pickle.bytes.at[at] = (uint8_t)value;
                int result = test_read(&pickle);
                CHECK(result == 0 || result == FORMAT_FOREIGN);
            }
            pickle.bytes.at[at] = (uint8_t)samples[i].bytes[at];
        }
    }
}

/* What is large comes in several reads, of which any may fail. */
static void test_read_failures(void)
{
    cleanup_pickle struct test_pickle pickle = {0};
    bytes_print(&pickle.bytes, "(B");
    bytes_put_number(&pickle.bytes, 100000, 4);
    bytes_fill(&pickle.bytes, 'x', 100000);
    bytes_print(&pickle.bytes, "V");
    bytes_fill(&pickle.bytes, 'y', 100000);
    bytes_print(&pickle.bytes, "\nl.");
    CHECK_EQUAL(0, test_read(&pickle));
    CHECK_EQUAL(100000, pickle_item(pickle.root, 0)->length);
    CHECK_EQUAL(100000, pickle_item(pickle.root, 1)->length);
    CHECK(pickle_item(pickle.root, 0)->text[99999] == 'x' && pickle_item(pickle.root, 1)->text[99999] == 'y');
    unsigned reads = pickle.reads;
    for (pickle.fail_at = 1; pickle.fail_at <= reads; pickle.fail_at++)
        CHECK_EQUAL(-EIO, test_read(&pickle));
    CHECK(reads > 4);
}

/* The memory is at most so many times the pickle, whatever it does. */
static void test_memory(void)
{
    static const char *const repeated[] = {"Na", "K1K2s", "\x85", "Q", "(N", "2a"};
    static const char *const starts[] = {"]", "}", "N", "N", "(", "]"};
    static const char *const ends[] = {".", ".", ".", ".", "t.", "."};
    for (size_t i = 0; i < COUNT(repeated); i++) {
        cleanup_pickle struct test_pickle pickle = {0};
        bytes_print(&pickle.bytes, "%s", starts[i]);
        for (unsigned n = 0; n < 200000; n++)
            bytes_print(&pickle.bytes, "%s", repeated[i]);
        bytes_print(&pickle.bytes, "%s", ends[i]);
        int result = test_read(&pickle);
        /* One mark of many does not close the others. */
        CHECK_EQUAL(i == 4 ? FORMAT_FOREIGN : 0, result);
        CHECK(pickle.arena.taken <= 80 * (pickle.bytes.count + 1));
        if (i < 2)
            CHECK_EQUAL(200000, i == 0 ? pickle_count(pickle.root) : pickle_dict_count(pickle.root));
    }
}

int main(void)
{
    check_run("values in binary", test_binary_values);
    check_run("values in text", test_text_values);
    check_run("lists, tuples and sets", test_containers);
    check_run("dicts", test_dicts);
    check_run("classes of dicts", test_dict_classes);
    check_run("calls and states are kept as they are written", test_calls);
    check_run("a name that has another one in it is another one", test_disguised_names);
    check_run("sequences that are calls", test_called_sequences);
    check_run("the memo", test_memo);
    check_run("nodes that hold themselves", test_cycles);
    check_run("a pickle that is wrong is refused with a line that says where", test_refused);
    check_run("limits of nodes, stack, bytes and memory", test_limits);
    check_run("a pickle lies inside its file", test_outside);
    check_run("pickles cut after any byte, and with any byte changed", test_truncation);
    check_run("a read that fails is the caller's to know", test_read_failures);
    check_run("memory is in proportion to the pickle", test_memory);
    return check_done();
}

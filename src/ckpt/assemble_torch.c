/* SPDX-License-Identifier: Apache-2.0 */
/*
 * pytorch_model.bin: what torch.save writes of an OrderedDict of tensors (PyTorch, torch/serialization.py and
 * caffe2/serialize/inline_container.cc, 2.13). Entries are stored, the tensors' bytes start at multiples
 * of 64. Tied tensors share one storage.
 *
 * Where torch leaves sizes to a descriptor behind the data, the local headers have them, as they are known
 * here. The CRC-32 of tensors is 0, as torch.serialization.set_crc32_options(False) leaves it: to know it
 * would mean to read all bytes before the first is written. torch.load does not look at it.
 */
#include <errno.h>
#include <inttypes.h>
#include <libdeflate.h>
#include <stdio.h>
#include <string.h>

#include "ckpt/assemble_internal.h"

enum {
    TORCH_ALIGNMENT = 64,
    TORCH_LOCAL_SIZE = 30,
    TORCH_ZIP64_SIZE = 20, /* of the extra field with both sizes */
    TORCH_NAME_MAX = 64,
    TORCH_DATE = 0x21, /* the first day of 1980, which is the first one there is */
    TORCH_VERSION = 20,
    TORCH_VERSION_ZIP64 = 45,
};

#define TORCH_MAX32 UINT32_C(0xffffffff)

/* The first folder of the names in the archive; torch takes the file's name, and reads any. */
#define TORCH_ARCHIVE "archive/"

/* -- the zip archive --------------------------------------------------------------------------------------
 */

struct torch_zip {
    struct assemble_builder *builder;
    struct text directory;
    uint64_t entries;
};

static void torch_zip_release(struct torch_zip *zip)
{
    text_release(&zip->directory);
}

/* The entry in the central directory: what does not fit 32 bits is in an extra field. */
static void torch_zip_list(struct torch_zip *zip, const char *name, uint32_t crc32, uint64_t size,
                           uint64_t header)
{
    struct text *text = &zip->directory;
    size_t length = strlen(name);
    bool large = size >= TORCH_MAX32, far = header >= TORCH_MAX32;
    size_t extra = (large ? 16 : 0) + (far ? 8 : 0);
    text_append(text, "PK\1\2", 4);
    text_append_number(text, TORCH_VERSION_ZIP64, 2);
    text_append_number(text, large || far ? TORCH_VERSION_ZIP64 : TORCH_VERSION, 2);
    text_append_number(text, 0, 2); /* flags */
    text_append_number(text, 0, 2); /* stored */
    text_append_number(text, 0, 2);
    text_append_number(text, TORCH_DATE, 2);
    text_append_number(text, crc32, 4);
    text_append_number(text, large ? TORCH_MAX32 : size, 4);
    text_append_number(text, large ? TORCH_MAX32 : size, 4);
    text_append_number(text, length, 2);
    text_append_number(text, extra > 0 ? extra + 4 : 0, 2);
    text_append_number(text, 0, 10); /* comment, disk, attributes: 2 + 2 + 2 + 4 bytes */
    text_append_number(text, far ? TORCH_MAX32 : header, 4);
    text_append(text, name, length);
    if (extra > 0) {
        text_append_number(text, 1, 2);
        text_append_number(text, extra, 2);
        if (large) {
            text_append_number(text, size, 8);
            text_append_number(text, size, 8);
        }
        if (far)
            text_append_number(text, header, 8);
    }
    zip->entries++;
}

/* The local header of an entry whose bytes come next, at a multiple of the alignment. */
static errint torch_zip_begin(struct torch_zip *zip, const char *name, uint32_t crc32, int64_t bytes)
{
    cleanup_text struct text text = {0};
    uint64_t size = (uint64_t)bytes, header = (uint64_t)zip->builder->size;
    size_t length = strlen(name);
    bool large = size >= TORCH_MAX32;
    size_t extra = (large ? TORCH_ZIP64_SIZE : 0) + 4;
    size_t padding = (size_t)(-(header + TORCH_LOCAL_SIZE + length + extra) % TORCH_ALIGNMENT);
    text_append(&text, "PK\3\4", 4);
    text_append_number(&text, large ? TORCH_VERSION_ZIP64 : TORCH_VERSION, 2);
    text_append_number(&text, 0, 2); /* flags */
    text_append_number(&text, 0, 2); /* stored */
    text_append_number(&text, 0, 2);
    text_append_number(&text, TORCH_DATE, 2);
    text_append_number(&text, crc32, 4);
    text_append_number(&text, large ? TORCH_MAX32 : size, 4);
    text_append_number(&text, large ? TORCH_MAX32 : size, 4);
    text_append_number(&text, length, 2);
    text_append_number(&text, extra + padding, 2);
    text_append(&text, name, length);
    if (large) {
        text_append_number(&text, 1, 2);
        text_append_number(&text, TORCH_ZIP64_SIZE - 4, 2);
        text_append_number(&text, size, 8);
        text_append_number(&text, size, 8);
    }
    text_append(&text, "FB", 2);
    text_append_number(&text, padding, 2);
    for (size_t i = 0; i < padding; i++)
        text_append_byte(&text, 'Z');
    torch_zip_list(zip, name, crc32, size, header);
    return assemble_add_text(zip->builder, &text);
}

static errint torch_zip_add_text(struct torch_zip *zip, const char *name, const struct text *text)
{
    if (text->failed)
        return -ENOMEM;
    errint error =
        torch_zip_begin(zip, name, libdeflate_crc32(0, text->at, text->length), (int64_t)text->length);
    return error ? error : assemble_add_text(zip->builder, text);
}

static errint torch_zip_add_word(struct torch_zip *zip, const char *name, const char *word)
{
    cleanup_text struct text text = {0};
    text_append_word(&text, word);
    return torch_zip_add_text(zip, name, &text);
}

/* The directory and its three ends, the older of which says only that the newer has the numbers. */
static errint torch_zip_end(struct torch_zip *zip)
{
    struct text *text = &zip->directory;
    uint64_t start = (uint64_t)zip->builder->size, size = text->length;
    bool large = start >= TORCH_MAX32 || size >= TORCH_MAX32 || zip->entries >= UINT16_MAX;
    text_append(text, "PK\6\6", 4);
    text_append_number(text, 44, 8); /* of this record, from here */
    text_append_number(text, TORCH_VERSION_ZIP64, 2);
    text_append_number(text, TORCH_VERSION_ZIP64, 2);
    text_append_number(text, 0, 8); /* disks */
    text_append_number(text, zip->entries, 8);
    text_append_number(text, zip->entries, 8);
    text_append_number(text, size, 8);
    text_append_number(text, start, 8);
    text_append(text, "PK\6\7", 4);
    text_append_number(text, 0, 4);
    text_append_number(text, start + size, 8);
    text_append_number(text, 1, 4);
    text_append(text, "PK\5\6", 4);
    text_append_number(text, 0, 4);
    text_append_number(text, large ? UINT16_MAX : zip->entries, 2);
    text_append_number(text, large ? UINT16_MAX : zip->entries, 2);
    text_append_number(text, large ? TORCH_MAX32 : size, 4);
    text_append_number(text, large ? TORCH_MAX32 : start, 4);
    text_append_number(text, 0, 2);
    return assemble_add_text(zip->builder, text);
}

/* -- the pickle -------------------------------------------------------------------------------------------
 */

/* What is written once and then fetched from the memo. */
enum torch_memo {
    MEMO_REBUILD,
    MEMO_REBUILD_TYPED, /* the one that takes the type as an argument */
    MEMO_ORDERED_DICT,
    MEMO_STORAGE,
    MEMO_CPU,
    MEMO_CLASS,                                 /* the storages' classes, by type */
    MEMO_TYPE = MEMO_CLASS + TENSOR_TYPE_COUNT, /* torch's types */
    MEMO_COUNT = MEMO_TYPE + TENSOR_TYPE_COUNT,
};

struct torch_pickle {
    struct text *text;
    bool known[MEMO_COUNT];
};

static void torch_put_text(struct text *text, const char *word)
{
    size_t length = strlen(word);
    text_append_byte(text, 'X'); /* BINUNICODE */
    text_append_number(text, length, 4);
    text_append(text, word, length);
}

/* True when it is on the stack now; else the caller writes it and then torch_memoize. */
static bool torch_recall(struct torch_pickle *pickle, unsigned memo)
{
    if (!pickle->known[memo])
        return false;
    text_append_byte(pickle->text, 'h'); /* BINGET */
    text_append_byte(pickle->text, (uint8_t)memo);
    return true;
}

static void torch_memoize(struct torch_pickle *pickle, unsigned memo)
{
    text_append_byte(pickle->text, 'q'); /* BINPUT */
    text_append_byte(pickle->text, (uint8_t)memo);
    pickle->known[memo] = true;
}

static void torch_put_global(struct torch_pickle *pickle, unsigned memo, const char *module, const char *name)
{
    if (torch_recall(pickle, memo))
        return;
    text_print(pickle->text, "c%s\n%s\n", module, name);
    torch_memoize(pickle, memo);
}

static void torch_put_word(struct torch_pickle *pickle, unsigned memo, const char *word)
{
    if (torch_recall(pickle, memo))
        return;
    torch_put_text(pickle->text, word);
    torch_memoize(pickle, memo);
}

/* Not negative. */
static void torch_put_integer(struct text *text, int64_t number)
{
    if (number <= INT32_MAX) {
        text_append_byte(text, 'J'); /* BININT */
        text_append_number(text, (uint64_t)number, 4);
    } else {
        text_append_byte(text, 0x8a); /* LONG1 */
        text_append_byte(text, 8);
        text_append_number(text, (uint64_t)number, 8);
    }
}

static void torch_put_tuple(struct text *text, const int64_t *numbers, uint32_t count)
{
    text_append_byte(text, '(');
    for (uint32_t i = 0; i < count; i++)
        torch_put_integer(text, numbers[i]);
    text_append_byte(text, 't');
}

static void torch_put_ordered_dict(struct torch_pickle *pickle)
{
    torch_put_global(pickle, MEMO_ORDERED_DICT, "collections", "OrderedDict");
    text_append_word(pickle->text, ")R"); /* EMPTY_TUPLE REDUCE */
}

const char *assemble_torch_storage(enum tensor_type type)
{
    switch (type) {
    case TENSOR_BOOL: return "BoolStorage";
    case TENSOR_U8: return "ByteStorage";
    case TENSOR_I8: return "CharStorage";
    case TENSOR_I16: return "ShortStorage";
    case TENSOR_I32: return "IntStorage";
    case TENSOR_I64: return "LongStorage";
    case TENSOR_F16: return "HalfStorage";
    case TENSOR_BF16: return "BFloat16Storage";
    case TENSOR_F32: return "FloatStorage";
    case TENSOR_F64: return "DoubleStorage";
    case TENSOR_C64: return "ComplexFloatStorage";
    case TENSOR_C128: return "ComplexDoubleStorage";
    case TENSOR_F4:
    case TENSOR_F8_E5M2:
    case TENSOR_F8_E4M3:
    case TENSOR_F8_E8M0:
    case TENSOR_F8_E4M3FNUZ:
    case TENSOR_F8_E5M2FNUZ:
    case TENSOR_U16:
    case TENSOR_U32:
    case TENSOR_U64: return "UntypedStorage";
    case TENSOR_F6_E2M3:
    case TENSOR_F6_E3M2:
    case TENSOR_TYPE_COUNT: break;
    }
    return NULL;
}

static bool torch_is_untyped(enum tensor_type type)
{
    return strcmp(assemble_torch_storage(type), "UntypedStorage") == 0;
}

static void torch_put_storage(struct torch_pickle *pickle, const struct assemble_entry *entry, uint64_t key)
{
    char digits[32];
    bool untyped = torch_is_untyped(entry->type);
    text_append_byte(pickle->text, '(');
    torch_put_word(pickle, MEMO_STORAGE, "storage");
    torch_put_global(pickle, MEMO_CLASS + entry->type, untyped ? "torch.storage" : "torch",
                     assemble_torch_storage(entry->type));
    snprintf(digits, sizeof digits, "%" PRIu64, key);
    torch_put_text(pickle->text, digits);
    torch_put_word(pickle, MEMO_CPU, "cpu");
    torch_put_integer(pickle->text, untyped ? entry->bytes : entry->count);
    text_append_word(pickle->text, "tQ"); /* TUPLE BINPERSID */
}

/* The sizes as torch has them, which counts two four-bit numbers as one element. */
static void torch_put_shape(struct text *text, const struct assemble_entry *entry)
{
    const struct tensor_shape *shape = &entry->tensor->shape;
    int64_t sizes[TENSOR_RANK_MAX], strides[TENSOR_RANK_MAX], step = 1;
    for (uint32_t d = shape->rank; d-- > 0;) {
        sizes[d] = shape->sizes[d] / (entry->type == TENSOR_F4 && d == shape->rank - 1 ? 2 : 1);
        strides[d] = step;
        step *= sizes[d] > 0 ? sizes[d] : 1;
    }
    torch_put_tuple(text, sizes, shape->rank);
    torch_put_tuple(text, strides, shape->rank);
}

static void torch_put_tensor(struct torch_pickle *pickle, const struct assemble_entry *entry, uint64_t key)
{
    bool typed = torch_is_untyped(entry->type);
    torch_put_global(pickle, typed ? MEMO_REBUILD_TYPED : MEMO_REBUILD, "torch._utils",
                     typed ? "_rebuild_tensor_v3" : "_rebuild_tensor_v2");
    text_append_byte(pickle->text, '(');
    torch_put_storage(pickle, entry, key);
    torch_put_integer(pickle->text, 0);
    torch_put_shape(pickle->text, entry);
    text_append_byte(pickle->text, 0x89); /* NEWFALSE: requires no gradient */
    torch_put_ordered_dict(pickle);
    if (typed)
        torch_put_global(pickle, MEMO_TYPE + entry->type, "torch", tensor_type_torch_name(entry->type));
    text_append_word(pickle->text, "tR"); /* TUPLE REDUCE */
}

/* -- the file ---------------------------------------------------------------------------------------------
 */

static int torch_check_entries(const struct assemble_shard *shard, struct format_problem *problem)
{
    for (size_t i = 0; i < shard->count; i++) {
        const struct assemble_entry *entry = shard->entries[i];
        const struct tensor_shape *shape = &entry->tensor->shape;
        if (!assemble_torch_storage(entry->type) ||
            (entry->type == TENSOR_F4 && (shape->rank == 0 || shape->sizes[shape->rank - 1] % 2 != 0)))
            return format_problem_set(problem, -1, "torch cannot hold %s, which is %s", entry->tensor->name,
                                      tensor_type_name(entry->type));
    }
    return 0;
}

/* `keys` names the storages, by the distance of their entry from the `first` one. */
static void torch_put_dict(const struct assemble_shard *shard, const struct assemble_entry *first,
                           const uint64_t *keys, struct text *text)
{
    struct torch_pickle pickle = {.text = text};
    text_append(text, "\x80\2", 2); /* PROTO */
    torch_put_ordered_dict(&pickle);
    for (size_t i = 0; i < shard->tensor_count; i++) {
        const struct assemble_entry *entry = shard->by_tensor[shard->tensors[i]];
        torch_put_text(text, shard->model->tensors[shard->tensors[i]].name);
        torch_put_tensor(&pickle, entry, keys[entry - first]);
        text_append_byte(text, 's'); /* SETITEM */
    }
    text_append_byte(text, '.');
}

/* The shard's entries are of one array, in its order. A storage is named by its entry's place in the shard.
 */
static errint torch_pickle_write(const struct assemble_shard *shard, struct text *text)
{
    const struct assemble_entry *first = shard->entries[0], *last = shard->entries[shard->count - 1];
    cleanup_free uint64_t *keys = calloc((size_t)(last - first) + 1, sizeof *keys);
    if (!keys)
        return -ENOMEM;
    for (size_t i = 0; i < shard->count; i++)
        keys[shard->entries[i] - first] = i;
    torch_put_dict(shard, first, keys, text);
    return text->failed ? -ENOMEM : 0;
}

int assemble_torch(const struct assemble_shard *shard, struct assemble_builder *builder,
                   struct format_problem *problem)
{
    __attribute__((cleanup(torch_zip_release))) struct torch_zip zip = {.builder = builder};
    cleanup_text struct text pickle = {0};
    int result = torch_check_entries(shard, problem);
    if (!result)
        result = torch_pickle_write(shard, &pickle);
    if (!result)
        result = torch_zip_add_text(&zip, TORCH_ARCHIVE "data.pkl", &pickle);
    if (!result)
        result = torch_zip_add_word(&zip, TORCH_ARCHIVE "byteorder", "little");
    for (size_t i = 0; i < shard->count && !result; i++) {
        char name[TORCH_NAME_MAX];
        snprintf(name, sizeof name, TORCH_ARCHIVE "data/%zu", i);
        result = torch_zip_begin(&zip, name, 0, shard->entries[i]->bytes);
        if (!result)
            result = assemble_add_tensor(builder, shard->entries[i]);
    }
    if (!result)
        result = torch_zip_add_word(&zip, TORCH_ARCHIVE "version", "3\n");
    return result ? result : torch_zip_end(&zip);
}

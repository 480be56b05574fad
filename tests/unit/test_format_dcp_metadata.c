/* SPDX-License-Identifier: Apache-2.0 */
/* The .metadata of torch.distributed.checkpoint, written opcode by opcode, so that each field can lie. */
#include <errno.h>
#include <string.h>

#include "check.h"
#include "format/dcp_metadata.h"
#include "test_format_files.h"

#define COUNT(array)  (sizeof(array) / sizeof *(array))
#define CHECKPOINT(x) "torch.distributed.checkpoint." x

/* -- a pickle, opcode by opcode ---------------------------------------------------------------------------
 */

static void put_text(struct bytes *pickle, const char *text)
{
    bytes_print(pickle, "X");
    bytes_put_number(pickle, strlen(text), 4);
    bytes_print(pickle, "%s", text);
}

static void put_number(struct bytes *pickle, int64_t number)
{
    bytes_put(pickle, "\x8a\x08", 2);
    bytes_put_number(pickle, (uint64_t)number, 8);
}

/* torch.Size((...)) */
static void put_size(struct bytes *pickle, uint32_t rank, const int64_t *sizes)
{
    bytes_print(pickle, "ctorch\nSize\n((");
    for (uint32_t i = 0; i < rank; i++)
        put_number(pickle, sizes[i]);
    bytes_print(pickle, "ttR");
}

/* An object of a class without arguments, and the start of its attributes; put_end ends them. */
static void put_object(struct bytes *pickle, const char *module, const char *class)
{
    bytes_print(pickle, "c%s\n%s\n)\x81}(", module, class);
}

static void put_end(struct bytes *pickle)
{
    bytes_print(pickle, "ub");
}

/* -- a checkpoint of two tensors and an object ------------------------------------------------------------
 */

/* What a test may change. */
struct sample {
    const char *type;
    int64_t sizes[2], starts[2][2], parts[2][2]; /* of "model.a", in two parts */
    uint32_t part_rank;
    const char *file;
    int64_t offset, length;
    const char *transform;
    bool same_place;   /* both parts are said to be at one */
    bool no_place;     /* the second part's place is left out */
    bool no_paths;     /* planner_data is None */
    bool no_storage;   /* storage_data is None */
    bool no_start;     /* "step"'s place does not say where it starts */
    const char *class; /* of the object at the top */
};

static const struct sample sample_good = {
    .type = "float32",
    .sizes = {5, 2},
    .starts = {{0, 0}, {3, 0}},
    .parts = {{3, 2}, {2, 2}},
    .part_rank = 2,
    .file = "__1_0.distcp",
    .offset = 700,
    .length = 600,
    .class = "Metadata",
};

static void put_part(struct bytes *pickle, uint32_t rank, const int64_t *starts, const int64_t *sizes)
{
    put_object(pickle, CHECKPOINT("metadata"), "ChunkStorageMetadata");
    put_text(pickle, "offsets");
    put_size(pickle, rank, starts);
    put_text(pickle, "sizes");
    put_size(pickle, rank, sizes);
    put_end(pickle);
}

/* The start of a tensor's description, up to its list of parts. */
static void put_tensor(struct bytes *pickle, const char *type, uint32_t rank, const int64_t *sizes)
{
    put_object(pickle, CHECKPOINT("metadata"), "TensorStorageMetadata");
    put_text(pickle, "properties");
    bytes_print(pickle, "c" CHECKPOINT("metadata") "\nTensorProperties\n)\x81(ctorch\n%s\nN\x89N\x89tb",
                type);
    put_text(pickle, "size");
    put_size(pickle, rank, sizes);
    put_text(pickle, "chunks");
    bytes_print(pickle, "](");
}

static void put_place(struct bytes *pickle, const char *name, uint32_t rank, const int64_t *starts,
                      const struct sample *sample, const char *file)
{
    put_object(pickle, CHECKPOINT("metadata"), "MetadataIndex");
    put_text(pickle, "fqn");
    put_text(pickle, name);
    if (starts) {
        put_text(pickle, "offset");
        put_size(pickle, rank, starts);
    }
    put_end(pickle);
    put_object(pickle, CHECKPOINT("filesystem"), "_StorageInfo");
    put_text(pickle, "relative_path");
    put_text(pickle, file);
    put_text(pickle, "offset");
    put_number(pickle, sample->offset);
    put_text(pickle, "length");
    put_number(pickle, sample->length);
    if (sample->transform) {
        put_text(pickle, "transform_descriptors");
        bytes_print(pickle, "](");
        put_text(pickle, sample->transform);
        bytes_print(pickle, "e");
    }
    put_end(pickle);
}

static void put_items(struct bytes *pickle, const struct sample *sample)
{
    put_text(pickle, "state_dict_metadata");
    bytes_print(pickle, "}(");
    put_text(pickle, "model.a");
    put_tensor(pickle, sample->type, 2, sample->sizes);
    for (size_t i = 0; i < 2; i++)
        put_part(pickle, sample->part_rank, sample->starts[i], sample->parts[i]);
    bytes_print(pickle, "eub");
    put_text(pickle, "step");
    put_tensor(pickle, "int64", 0, NULL);
    put_part(pickle, 0, NULL, NULL);
    bytes_print(pickle, "eub");
    put_text(pickle, "epoch");
    put_object(pickle, CHECKPOINT("metadata"), "BytesStorageMetadata");
    put_end(pickle);
    bytes_print(pickle, "u");
}

static void put_places(struct bytes *pickle, const struct sample *sample)
{
    put_text(pickle, "storage_data");
    if (sample->no_storage) {
        bytes_print(pickle, "N");
        return;
    }
    bytes_print(pickle, "}(");
    put_place(pickle, "step", 0, sample->no_start ? NULL : sample->starts[0], &sample_good, "__0_0.distcp");
    put_place(pickle, "model.a", 2, sample->starts[0], sample, sample->file);
    if (!sample->no_place)
        put_place(pickle, "model.a", 2, sample->starts[sample->same_place ? 0 : 1], &sample_good,
                  "__0_0.distcp");
    bytes_print(pickle, "u");
}

static void put_paths(struct bytes *pickle, const struct sample *sample)
{
    put_text(pickle, "planner_data");
    if (sample->no_paths) {
        bytes_print(pickle, "N");
        return;
    }
    bytes_print(pickle, "}(");
    put_text(pickle, "model.a");
    bytes_print(pickle, "(");
    put_text(pickle, "model");
    put_text(pickle, "a");
    bytes_print(pickle, "t");
    put_text(pickle, "step");
    bytes_print(pickle, "(");
    put_text(pickle, "step");
    put_number(pickle, 7);
    bytes_print(pickle, "tu");
}

static void sample_build(struct bytes *pickle, const struct sample *sample)
{
    pickle->count = 0;
    bytes_print(pickle, "\x80\x02");
    put_object(pickle, CHECKPOINT("metadata"), sample->class);
    put_items(pickle, sample);
    put_places(pickle, sample);
    put_paths(pickle, sample);
    put_end(pickle);
    bytes_print(pickle, ".");
}

/* -- reading ----------------------------------------------------------------------------------------------
 */

static int metadata_read(const struct bytes *pickle, struct dcp_metadata *metadata,
                         struct format_problem *problem)
{
    struct counted_source counted;
    *problem = (struct format_problem){0};
    counted_source_open(&counted, pickle);
    int result = dcp_metadata_read(&counted.source, metadata, problem);
    CHECK_EQUAL(0, counted.outside);
    CHECK_EQUAL(result == FORMAT_FOREIGN, problem->text[0] != '\0');
    return result;
}

static void check_place(const struct dcp_metadata *metadata, const struct dcp_chunk *chunk, const char *file,
                        int64_t start, int64_t size)
{
    CHECK_TEXT(file, chunk->file < metadata->file_count ? metadata->files[chunk->file] : NULL);
    CHECK_EQUAL(700, chunk->offset);
    CHECK_EQUAL(600, chunk->length);
    CHECK(!chunk->transform);
    CHECK_EQUAL(start, chunk->starts[0]);
    CHECK_EQUAL(size, chunk->sizes[0]);
}

static void test_checkpoint_is_read(void)
{
    cleanup_bytes struct bytes pickle = {0};
    cleanup_dcp_metadata struct dcp_metadata metadata;
    struct format_problem problem;
    sample_build(&pickle, &sample_good);
    CHECK_EQUAL(0, metadata_read(&pickle, &metadata, &problem));
    CHECK_EQUAL(3, metadata.item_count);
    CHECK_EQUAL(2, metadata.file_count);
    if (metadata.item_count != 3)
        return;
    const struct dcp_item *item = &metadata.items[0];
    CHECK_TEXT("model.a", item->name);
    CHECK_EQUAL(2, item->path_count);
    CHECK_TEXT("a", item->path_count == 2 ? item->path[1] : NULL);
    CHECK(item->is_tensor && item->type == TENSOR_F32 && !item->foreign_type);
    CHECK_EQUAL(2, item->shape.rank);
    CHECK_EQUAL(5, item->shape.sizes[0]);
    CHECK_EQUAL(2, item->chunk_count);
    check_place(&metadata, &item->chunks[0], "__1_0.distcp", 0, 3);
    check_place(&metadata, &item->chunks[1], "__0_0.distcp", 3, 2);
    CHECK_EQUAL(0, metadata.items[1].shape.rank);
    CHECK_EQUAL(700, metadata.items[1].chunks[0].offset);
    CHECK_TEXT("7", metadata.items[1].path_count == 2 ? metadata.items[1].path[1] : NULL);
    CHECK(!metadata.items[2].is_tensor);
    CHECK_TEXT("epoch", metadata.items[2].name);
    CHECK_EQUAL(0, metadata.items[2].path_count);
}

static void read_sample(const struct sample *sample, struct dcp_metadata *metadata)
{
    cleanup_bytes struct bytes pickle = {0};
    struct format_problem problem;
    sample_build(&pickle, sample);
    CHECK_EQUAL(0, metadata_read(&pickle, metadata, &problem));
    CHECK_EQUAL(3, metadata->item_count);
}

static void test_what_versions_leave_out(void)
{
    cleanup_dcp_metadata struct dcp_metadata metadata;
    struct sample sample = sample_good;
    sample.no_paths = sample.no_start = true;
    read_sample(&sample, &metadata);
    CHECK_EQUAL(0, metadata.items[0].path_count);
    CHECK_EQUAL(700, metadata.items[1].chunks[0].offset);
}

static void test_what_cannot_be_used_is_told(void)
{
    cleanup_dcp_metadata struct dcp_metadata encoded, unplaced;
    struct sample sample = sample_good;
    sample.type = "quint8";
    sample.transform = "zstd";
    read_sample(&sample, &encoded);
    CHECK_TEXT("quint8", encoded.items[0].foreign_type);
    CHECK_TEXT("zstd", encoded.items[0].chunks[0].transform);
    CHECK(!encoded.items[0].chunks[1].transform);
    sample = sample_good;
    sample.no_place = true;
    read_sample(&sample, &unplaced);
    CHECK_EQUAL(DCP_NO_FILE, unplaced.items[0].chunks[1].file);
}

static void test_halves_of_bytes_are_counted(void)
{
    cleanup_dcp_metadata struct dcp_metadata metadata;
    struct sample sample = sample_good;
    sample.type = "float4_e2m1fn_x2";
    read_sample(&sample, &metadata);
    CHECK_EQUAL(4, metadata.items[0].shape.sizes[1]);
    CHECK_EQUAL(4, metadata.items[0].chunks[1].sizes[1]);
    CHECK_EQUAL(5, metadata.items[0].shape.sizes[0]);
}

/* -- lies -------------------------------------------------------------------------------------------------
 */

static void check_lie(const struct sample *lie, const char *word)
{
    cleanup_bytes struct bytes pickle = {0};
    cleanup_dcp_metadata struct dcp_metadata metadata;
    struct format_problem problem;
    sample_build(&pickle, lie);
    CHECK_EQUAL(FORMAT_FOREIGN, metadata_read(&pickle, &metadata, &problem));
    if (!strstr(problem.text, word))
        CHECK_TEXT(word, problem.text);
}

#define CHECK_LIE(word, ...)                                                                                 \
    do {                                                                                                     \
        struct sample lie = sample_good;                                                                     \
        __VA_ARGS__;                                                                                         \
        check_lie(&lie, word);                                                                               \
    } while (0)

static void test_lies_are_refused(void)
{
    static const char *const names[] = {"", ".", "..", "../a", "a/b", "/etc/passwd", "a\nb", "a\x7f"};
    for (size_t i = 0; i < COUNT(names); i++)
        CHECK_LIE("file beside .metadata", lie.file = names[i]);
    CHECK_LIE("offset", lie.offset = -1);
    CHECK_LIE("offset", lie.length = -1);
    CHECK_LIE("offset", lie.offset = INT64_MAX);
    CHECK_LIE("offset", lie.length = INT64_MAX);
    CHECK_LIE("inside", lie.parts[1][0] = 3);
    CHECK_LIE("inside", lie.parts[0][1] = INT64_MAX);
    CHECK_LIE("inside", lie.starts[1][0] = INT64_MAX);
    CHECK_LIE(">= 0", lie.starts[1][0] = -1);
    CHECK_LIE(">= 0", lie.sizes[0] = -5);
    CHECK_LIE("dimensions", lie.part_rank = 1);
    CHECK_LIE("one place", lie.same_place = true);
    CHECK_LIE("storage_data", lie.no_storage = true);
    CHECK_LIE("Metadata", lie.class = "StorageMeta");
    CHECK_LIE("too large", lie.type = "float4_e2m1fn_x2", lie.sizes[1] = INT64_MAX);
}

static void test_any_bytes_are_taken(void)
{
    cleanup_bytes struct bytes pickle = {0};
    struct format_problem problem;
    sample_build(&pickle, &sample_good);
    size_t whole = pickle.count;
    for (pickle.count = 0; pickle.count < whole; pickle.count++) {
        cleanup_dcp_metadata struct dcp_metadata metadata;
        CHECK_EQUAL(FORMAT_FOREIGN, metadata_read(&pickle, &metadata, &problem));
    }
    static const uint8_t values[] = {0, '.', 0x7f, 0xff};
    for (size_t i = 0; i < whole * COUNT(values); i++) {
        cleanup_dcp_metadata struct dcp_metadata metadata;
        uint8_t *at = &pickle.at[i / COUNT(values)], before = *at;
        *at = values[i % COUNT(values)];
        int result = metadata_read(&pickle, &metadata, &problem);
        CHECK(result == 0 || result == FORMAT_FOREIGN);
        *at = before;
    }
}

static void test_errors_of_reading_are_handed_on(void)
{
    cleanup_bytes struct bytes pickle = {0};
    cleanup_dcp_metadata struct dcp_metadata metadata;
    struct counted_source counted;
    sample_build(&pickle, &sample_good);
    counted_source_open(&counted, &pickle);
    counted.fail_at = 1;
    CHECK_EQUAL(-EIO, dcp_metadata_read(&counted.source, &metadata, NULL));
}

int main(void)
{
    check_run("items, parts and places are read", test_checkpoint_is_read);
    check_run("what some versions leave out", test_what_versions_leave_out);
    check_run("what cannot be used is told", test_what_cannot_be_used_is_told);
    check_run("elements of half a byte are counted", test_halves_of_bytes_are_counted);
    check_run("lies are refused with a line", test_lies_are_refused);
    check_run("any bytes are taken", test_any_bytes_are_taken);
    check_run("errors of reading are handed on", test_errors_of_reading_are_handed_on);
    return check_done();
}

/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A model in pieces: its tensors, each with the ranges of the shards' files that it is made of. What every
 * framework's checkpoint is read into (ckpt/framework.h), and what files are assembled from
 * (ckpt/assemble.h).
 *
 * A piece fills a part of its tensor: a run of elements in row-major order, or a box. Only where a run or a
 * box of whole rows lies contiguous in the file is it copied (or mapped) as it is; everything else is
 * gathered.
 */
#ifndef CKPTFS_CKPT_MODEL_H
#define CKPTFS_CKPT_MODEL_H

#include "base/arena.h"
#include "base/name_table.h"
#include "format/problem.h"
#include "format/tensor.h"

struct model_piece {
    uint32_t file;  /* index of model.files */
    int64_t offset; /* of its first element, bytes from the file's start */
    /* A run: `count` elements from element `first` of the tensor on, which follow each other in the file.
     * Of a box model_check fills them in: the place of its first element, and how many it has. */
    int64_t first, count;
    /* A box: where it starts in the tensor and its sizes, a number a dimension. NULL: a run. */
    const int64_t *starts, *sizes;
    /* Of a box, in elements of the file; NULL: it is stored row-major without gaps. */
    const int64_t *strides;
};

struct model_tensor {
    const char *name;        /* as the assembled file has it */
    enum tensor_type type;   /* of the assembled file, unless another is asked for */
    enum tensor_type stored; /* of the pieces' bytes */
    struct tensor_shape shape;
    struct model_piece *pieces;
    size_t piece_count, piece_capacity;
    /* Another tensor of the model with the very same bytes, of which only one goes into a file: its name.
     * NULL: it is its own. */
    const char *tied;
    bool buffer;     /* no parameter: kept as it is when parameters are cast */
    bool keeps_type; /* a parameter that its library never casts: kept as well */
};

struct model_file {
    const char *path; /* in the folder */
    int64_t size;
};

/* What safetensors calls metadata: kept as it is. */
struct model_metadata {
    const char *key, *value; /* UTF-8 */
};

/* A line for people: what is missing, ignored or not what it seems. */
struct model_note {
    bool missing; /* the model cannot be assembled because of it */
    const char *text;
};

struct model {
    struct arena arena;           /* owns everything below */
    const char *framework;        /* the row's name, or a more telling one: "deepspeed-zero3" */
    const char *summary;          /* for people; the row's, or a more telling one */
    const char *stem;             /* "model" or "adapter_model": what the assembled file is called */
    int64_t world_size;           /* 0: not known */
    int64_t step;                 /* -1: not known */
    bool untied;                  /* no tensor is tied because its bytes are another's */
    struct model_tensor *tensors; /* in the order of the checkpoint; names are distinct */
    size_t tensor_count, tensor_capacity;
    struct model_file *files;
    size_t file_count, file_capacity;
    struct model_metadata *metadata; /* without "format", which is always "pt"; keys are distinct */
    size_t metadata_count, metadata_capacity;
    struct model_note *notes; /* at most MODEL_NOTES_MAX; the last one says how many there were more */
    size_t note_count, note_capacity, notes_left_out;
    bool missing;                      /* a note says so, also one that was left out */
    struct name_table tensors_by_name; /* the index of each */
    struct name_table files_by_path;
    struct name_table metadata_keys;
};

/* Memory that one model may take. */
#define MODEL_MEMORY ((size_t)1 << 30)

enum { MODEL_NOTES_MAX = 1000, MODEL_NOTE_LENGTH = 500 };

void model_begin(struct model *model);
void model_release(struct model *model);

/* Each returns 0 or -ENOMEM. Texts are copied. */

/* `*file`: an earlier one's index if the path is known already. */
errint model_add_file(struct model *model, const char *path, int64_t size, uint32_t *file);
/*
 * Adds an empty tensor; *out is valid until the next call. The shape's sizes are copied. A name that is there
 * already becomes a note with `missing`; *out is then NULL.
 */
errint model_add_tensor(struct model *model, const char *name, enum tensor_type type,
                        const struct tensor_shape *shape, struct model_tensor **out);
/* Takes all tensors out again: what a framework added before it found that the rest is missing. */
void model_drop_tensors(struct model *model);
/* The tensor of that name; NULL: there is none. Valid until a tensor is added. */
struct model_tensor *model_find_tensor(const struct model *model, const char *name);
/* The starts, sizes and strides of a box are copied: as many numbers as the tensor has dimensions. */
errint model_add_piece(struct model *model, struct model_tensor *tensor, const struct model_piece *piece);
/* The first value of a key stays; of "format" none is kept. */
errint model_add_metadata(struct model *model, const char *key, const char *value);
/* Control characters of the text become '?'; it is cut at MODEL_NOTE_LENGTH bytes. */
errint model_add_note(struct model *model, bool missing, const char *format, ...)
    __attribute__((format(printf, 3, 4)));
/* A whole tensor of one file as the only piece (strides become a box). A name that is there already is told,
 * as model_add_tensor does. */
errint model_add_whole(struct model *model, const struct tensor *tensor, const char *name, uint32_t file);
/* The line for a file that a parser did not understand: "PATH, offset N: TEXT". Always `missing`. */
errint model_add_problem(struct model *model, const char *path, const struct format_problem *problem);

/*
 * Checks what was built, before anything is made of it: names that are UTF-8, types that can be had from the
 * stored ones, shapes that fit, every piece inside its tensor and its file, and every element of every tensor
 * filled exactly once. What is wrong becomes a note with `missing`. 0 or -ENOMEM.
 *
 * Tensors that lie at the very same bytes of one file become tied to the first of them. Pieces are sorted by
 * their place in the tensor; a box that is a run in the tensor and in the file becomes one, empty ones go.
 */
errint model_check(struct model *model);
/* Whether elements of the one type can be made of the other: the same, or a floating-point number of 16, 32
 * or 64 bits to one of 16 or 32. */
bool model_can_cast(enum tensor_type from, enum tensor_type to);
/* Whether it can be assembled: no note says that something is missing, and it has tensors. */
bool model_is_whole(const struct model *model);

/* Elements and bytes (as `type`) of all tensors that are not tied; of shapes that fit. */
void model_count(const struct model *model, int64_t *elements, int64_t *bytes);

#define cleanup_model __attribute__((cleanup(model_release)))

#endif

/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The FP32 copy that ZeRO-1, ZeRO-2 and BF16_Optimizer keep. The parameters of each of the optimizer's groups
 * lie one behind the other in a flat buffer, which is padded and divided evenly between the ranks; each
 * rank's file has its partition without the padding at the end (deepspeed/utils/zero_to_fp32.py,
 * _zero2_merge_trainable_params).
 */
#include <errno.h>
#include <inttypes.h>
#include <string.h>

#include "ckpt/deepspeed.h"

/* One rank's part of one buffer. */
struct partition {
    uint32_t file;
    int64_t offset, count; /* bytes in the file; elements */
    enum tensor_type type;
};

struct partitions {
    struct deepspeed_tag *tag;
    struct saved_file *states;
    struct deepspeed_group *groups;
    size_t group_count;
    int64_t world_size;
    int64_t stage;
    struct partition *at; /* world_size of each group */
};

static struct partition *partitions_get(const struct partitions *all, size_t group, int64_t rank)
{
    return &all->at[group * (size_t)all->world_size + (size_t)rank];
}

static int partitions_told(errint error)
{
    return error ? error : FORMAT_FOREIGN;
}

/* -- one rank's file --------------------------------------------------------------------------------------
 */

/* Elements that follow a parameter in its buffer. False: the file does not say it of so many parameters. */
static bool partitions_padding(const struct deepspeed_optimizer *optimizer, size_t group, size_t i,
                               int64_t *padding)
{
    *padding = 0;
    if (!optimizer->alignments || optimizer->alignments->kind == PICKLE_NONE)
        return true;
    const struct pickle_node *of_group = pickle_item(optimizer->alignments, group);
    return pickle_integer(pickle_item(of_group, i), padding) && *padding >= 0;
}

/* Compares where the file says that its parameters are with where their shapes put them. */
static int partitions_check_slices(const struct partitions *all, struct saved_file *file,
                                   const struct deepspeed_optimizer *optimizer, size_t group, int64_t start,
                                   int64_t end)
{
    const struct deepspeed_group *parameters = &all->groups[group];
    struct deepspeed_slice slice;
    size_t next = 0;
    int64_t at = 0, padding;
    for (size_t i = 0; optimizer->slices && i < parameters->count; i++) {
        const struct deepspeed_parameter *parameter = &parameters->parameters[i];
        int64_t behind;
        if (!partitions_padding(optimizer, group, i, &padding) ||
            __builtin_add_overflow(at, parameter->count, &behind))
            return 0; /* partitions_add_group says so */
        int64_t from = at > start ? at : start, to = behind < end ? behind : end;
        bool here = from < to && deepspeed_read_slice(optimizer, group, next++, &slice) &&
                    strcmp(slice.name, parameter->name) == 0 && slice.start == from - start &&
                    slice.count == to - from;
        if (from < to && !here)
            return saved_file_told(all->tag->model, file,
                                   format_problem_set(&file->problem, -1,
                                                      "expected %" PRId64 " elements of %s at %" PRId64
                                                      " of partition %zu, param_slice_mappings say otherwise",
                                                      to - from, parameter->name, from - start, group));
        if (__builtin_add_overflow(behind, padding, &at))
            return 0;
    }
    return 0;
}

static int partitions_read_group(struct partitions *all, struct saved_file *file,
                                 const struct deepspeed_optimizer *optimizer, size_t group, int64_t rank)
{
    struct tensor tensor;
    struct partition *partition = partitions_get(all, group, rank);
    int error = deepspeed_read_flat(&file->torch, optimizer->partitions->items[group], &tensor,
                                    &partition->count, &file->problem);
    if (error)
        return saved_file_told(all->tag->model, file, error);
    partition->file = file->index;
    partition->offset = tensor.offset;
    partition->type = tensor.type;
    const struct partition *first = partitions_get(all, group, 0);
    const struct partition *before = rank > 0 ? partitions_get(all, group, rank - 1) : first;
    /* Only the padding at the buffer's end is cut off. */
    if (partition->type != first->type || partition->count > before->count ||
        (before->count < first->count && partition->count > 0))
        return saved_file_told(all->tag->model, file,
                               format_problem_set(&file->problem, tensor.offset,
                                                  "partition %zu has %" PRId64
                                                  " elements of %s, that of the rank before %" PRId64
                                                  " of %s, the first %" PRId64,
                                                  group, partition->count, tensor_type_name(partition->type),
                                                  before->count, tensor_type_name(first->type),
                                                  first->count));
    int64_t start, end;
    if (__builtin_mul_overflow(rank, first->count, &start) ||
        __builtin_add_overflow(start, partition->count, &end))
        return 0; /* partitions_add_group says so */
    return partitions_check_slices(all, file, optimizer, group, start, end);
}

static int partitions_check_optimizer(struct partitions *all, struct saved_file *file,
                                      const struct deepspeed_optimizer *optimizer)
{
    struct format_problem *problem = &file->problem;
    if (optimizer->world_size != all->world_size)
        return format_problem_set(problem, -1, "of a save with %" PRId64 " ranks, the others with %" PRId64,
                                  optimizer->world_size, all->world_size);
    if (optimizer->stage != all->stage)
        return format_problem_set(problem, -1, "of ZeRO stage %" PRId64 ", the others %" PRId64,
                                  optimizer->stage, all->stage);
    if (optimizer->uneven)
        return format_problem_set(problem, -1,
                                  "its groups are divided between different numbers of ranks "
                                  "(experts): not understood");
    if (optimizer->partitions->count != all->group_count)
        return format_problem_set(problem, -1, "expected partitions of %zu groups as in %s, found %zu",
                                  all->group_count, all->states->path, optimizer->partitions->count);
    return 0;
}

/* -- a group ----------------------------------------------------------------------------------------------
 */

/* Goes through a buffer: the ranks' partitions, one behind the other. */
struct partitions_cursor {
    int64_t rank;
    int64_t start; /* of its partition in the buffer */
};

static errint partitions_add_pieces(const struct partitions *all, size_t group,
                                    struct partitions_cursor *cursor, int64_t from, int64_t count,
                                    struct model_tensor *tensor)
{
    int64_t done = 0;
    while (done < count) {
        const struct partition *partition = partitions_get(all, group, cursor->rank);
        int64_t at = from + done - cursor->start; /* in the partition */
        if (at >= partition->count) {
            cursor->start += partition->count;
            cursor->rank++;
            continue;
        }
        int64_t left = partition->count - at, take = count - done < left ? count - done : left, before;
        if (!tensor_bytes(partition->type, at, &before))
            return -EOVERFLOW;
        errint error = model_add_piece(
            all->tag->model, tensor,
            &(struct model_piece){
                .file = partition->file, .offset = partition->offset + before, .first = done, .count = take});
        if (error)
            return error;
        done += take;
    }
    return 0;
}

/* Behind the parameters there is only padding, to a multiple of twice the ranks (zero2_align). */
static bool partitions_is_used_up(int64_t used, int64_t total, int64_t world_size)
{
    int64_t align = 2 * world_size;
    return used / align + (used % align != 0) == total / align + (total % align != 0);
}

static int partitions_add_group(const struct partitions *all, size_t group,
                                const struct deepspeed_optimizer *optimizer)
{
    const struct deepspeed_group *parameters = &all->groups[group];
    const struct partition *first = partitions_get(all, group, 0);
    struct partitions_cursor cursor = {0};
    struct model *model = all->tag->model;
    int64_t total = 0, at = 0, padding;
    for (int64_t rank = 0; rank < all->world_size; rank++) {
        if (__builtin_add_overflow(total, partitions_get(all, group, rank)->count, &total))
            return partitions_told(
                model_add_note(model, true, "group %zu: its partitions are too large", group));
    }
    for (size_t i = 0; i < parameters->count; i++) {
        const struct deepspeed_parameter *parameter = &parameters->parameters[i];
        struct model_tensor *tensor;
        if (!partitions_padding(optimizer, group, i, &padding))
            return partitions_told(model_add_note(
                model, true, "group %zu: param_alignment_paddings are not of its %zu parameters", group,
                parameters->count));
        if (parameter->count > total - at)
            return partitions_told(
                model_add_note(model, true,
                               "group %zu: the partitions of %" PRId64 " ranks hold %" PRId64
                               " elements, %s needs %" PRId64 " from %" PRId64 " on",
                               group, all->world_size, total, parameter->name, parameter->count, at));
        errint error = deepspeed_add_master(all->tag, parameter, first->type, &tensor);
        if (!error && tensor)
            error = partitions_add_pieces(all, group, &cursor, at, parameter->count, tensor);
        if (error)
            return error;
        if (__builtin_add_overflow(at + parameter->count, padding, &at))
            return partitions_told(model_add_note(model, true, "group %zu: its padding is too large", group));
    }
    if (!partitions_is_used_up(at, total, all->world_size))
        return partitions_told(model_add_note(model, true,
                                              "group %zu: the partitions of %" PRId64 " ranks hold %" PRId64
                                              " elements, the shapes in %s need %" PRId64,
                                              group, all->world_size, total, all->states->path, at));
    return 0;
}

/* -- frozen parameters ------------------------------------------------------------------------------------
 */

/* Frozen parameters of ZeRO-2: whole tensors beside the module. */
static int partitions_add_frozen(struct partitions *all)
{
    struct saved_file *states = all->states;
    const struct pickle_node *shapes = pickle_get(states->torch.root, "frozen_param_shapes");
    const struct pickle_node *fragments = pickle_get(states->torch.root, "frozen_param_fragments");
    struct model *model = all->tag->model;
    for (size_t i = 0; i < pickle_dict_count(shapes); i++) {
        const char *name = node_text(pickle_dict_key(shapes, i));
        struct tensor tensor;
        if (!name || !pickle_is_text(pickle_dict_key(fragments, i), name))
            return saved_file_told(all->tag->model, states,
                                   format_problem_set(&states->problem, -1,
                                                      "frozen parameter %zu has a shape and no tensor", i));
        int error =
            torch_file_tensor(&states->torch, pickle_dict_value(fragments, i), &tensor, &states->problem);
        if (error)
            return saved_file_told(all->tag->model, states, error);
        error = model_add_whole(model, &tensor, name, states->index);
        struct model_tensor *added = error ? NULL : model_find_tensor(model, name);
        if (added && deepspeed_is_float(added->stored))
            added->type = TENSOR_F32;
        if (error)
            return error;
    }
    return 0;
}

/* -- all of it --------------------------------------------------------------------------------------------
 */

/* Reads the partitions of all ranks; `first` is that of rank 0, which is open. */
static int partitions_read(struct partitions *all, const struct deepspeed_name *names, size_t count,
                           struct saved_file *first, const struct deepspeed_optimizer *optimizer)
{
    int error = 0;
    for (size_t rank = 0; !error && rank < count; rank++) {
        cleanup_saved_file struct saved_file other = {0};
        struct saved_file *file = rank == 0 ? first : &other;
        struct deepspeed_optimizer of_rank = *optimizer;
        if (rank > 0)
            error = deepspeed_file_open(all->tag, names[rank].file, file);
        if (!error && rank > 0)
            error = saved_file_told(all->tag->model, file,
                                    deepspeed_read_optimizer(file->torch.root, &of_rank, &file->problem));
        if (!error)
            error = saved_file_told(all->tag->model, file, partitions_check_optimizer(all, file, &of_rank));
        for (size_t group = 0; !error && group < all->group_count; group++)
            error = partitions_read_group(all, file, &of_rank, group, (int64_t)rank);
    }
    return error;
}

static int partitions_assemble(struct partitions *all, const struct deepspeed_optimizer *optimizer)
{
    int error = deepspeed_add_buffers(all->tag, all->states);
    if (!error)
        error = partitions_add_frozen(all);
    if (!error)
        error = deepspeed_add_left(all->tag, all->states, all->groups, all->group_count);
    for (size_t group = 0; !error && group < all->group_count; group++)
        error = partitions_add_group(all, group, optimizer);
    return error ? error : deepspeed_add_shared(all->tag, all->states);
}

int deepspeed_load_partitions(struct deepspeed_tag *tag, struct saved_file *states)
{
    struct partitions all = {.tag = tag, .states = states};
    struct deepspeed_optimizer optimizer;
    size_t count;
    const struct deepspeed_name *names = deepspeed_tag_find_rank(tag, DEEPSPEED_OPTIMIZER, 0, &count);
    if (!names)
        return partitions_told(
            model_add_note(tag->model, true, "no *_optim_states.pt is here: they hold the FP32 copy"));
    int error = saved_file_told(tag->model, states,
                                deepspeed_read_groups(pickle_get(states->torch.root, "param_shapes"),
                                                      &states->torch.arena, &all.groups, &all.group_count,
                                                      &states->problem));
    if (error)
        return error;
    cleanup_saved_file struct saved_file first = {0};
    error = deepspeed_file_open(tag, names[0].file, &first);
    if (!error)
        error = saved_file_told(tag->model, &first,
                                deepspeed_read_optimizer(first.torch.root, &optimizer, &first.problem));
    if (!error)
        error = deepspeed_tag_check_ranks(tag, names, count, optimizer.world_size, true);
    if (error)
        return error;
    all.world_size = tag->model->world_size = optimizer.world_size;
    all.stage = optimizer.stage;
    error = saved_file_told(tag->model, &first, partitions_check_optimizer(&all, &first, &optimizer));
    if (error)
        return error;
    cleanup_free struct partition *partitions = calloc(count * all.group_count + 1, sizeof *partitions);
    all.at = partitions;
    if (!partitions)
        return -ENOMEM;
    error = partitions_read(&all, names, count, &first, &optimizer);
    return error ? error : partitions_assemble(&all, &optimizer);
}

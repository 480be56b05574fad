/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The FP32 model of ZeRO-3. Every parameter is divided evenly between all ranks; each rank's optimizer has
 * its parts one behind the other in flat buffers, whose borders parameters may straddle (deepspeed/utils/
 * zero_to_fp32.py, _zero3_merge_trainable_params). Frozen parameters are in the model's states, a fragment a
 * rank.
 */
#include <errno.h>
#include <inttypes.h>

#include "ckpt/deepspeed.h"

/* A run of the elements that one rank holds. */
struct fragment {
    uint32_t file;
    int64_t offset, count; /* bytes in the file; elements */
    enum tensor_type type;
};

struct zero3 {
    struct deepspeed_tag *tag;
    struct saved_file states; /* of rank 0 */
    int64_t world_size;
    size_t buffer_count;      /* flat buffers of each rank */
    struct fragment *buffers; /* buffer_count of each rank */
    struct deepspeed_group frozen;
    struct fragment *fragments; /* frozen.count of each rank */
};

static void zero3_release(struct zero3 *zero)
{
    free(zero->buffers);
    free(zero->fragments);
    saved_file_close(&zero->states);
}

static int zero3_told(errint error)
{
    return error ? error : FORMAT_FOREIGN;
}

/* -- adding -----------------------------------------------------------------------------------------------
 */

/* Adds `count` elements from the element `at` of the fragment on. */
static errint zero3_add_piece(const struct zero3 *zero, struct model_tensor *tensor,
                              const struct fragment *fragment, int64_t at, int64_t first, int64_t count)
{
    int64_t before;
    if (count == 0)
        return 0;
    if (!tensor_bytes(fragment->type, at, &before))
        return -EOVERFLOW;
    return model_add_piece(
        zero->tag->model, tensor,
        &(struct model_piece){
            .file = fragment->file, .offset = fragment->offset + before, .first = first, .count = count});
}

/* How many elements of a parameter each rank holds; the last ones' may reach behind its end. */
static int64_t zero3_share(const struct zero3 *zero, const struct deepspeed_parameter *parameter)
{
    return parameter->count / zero->world_size + (parameter->count % zero->world_size != 0);
}

/* Elements of the parameter that the rank really has: `share` but at the parameter's end. */
static int64_t zero3_real(const struct deepspeed_parameter *parameter, int64_t share, int64_t rank)
{
    if (share == 0 || rank > parameter->count / share)
        return 0;
    int64_t left = parameter->count - rank * share;
    return left < share ? left : share;
}

/* -- trainable parameters ---------------------------------------------------------------------------------
 */

/* Where a parameter's shares begin: the same in every rank's buffers. */
struct zero3_place {
    size_t buffer;
    int64_t at;
};

/* Goes `count` elements on; false: the buffers end before. */
static bool zero3_advance(const struct zero3 *zero, struct zero3_place *place, int64_t count)
{
    while (place->buffer < zero->buffer_count) {
        int64_t left = zero->buffers[place->buffer].count - place->at;
        if (count < left) {
            place->at += count;
            return true;
        }
        count -= left;
        place->buffer++;
        place->at = 0;
    }
    return count == 0;
}

static errint zero3_add_share(const struct zero3 *zero, struct model_tensor *tensor, struct zero3_place place,
                              int64_t rank, int64_t first, int64_t count)
{
    const struct fragment *buffers = &zero->buffers[(size_t)rank * zero->buffer_count];
    while (count > 0) {
        const struct fragment *buffer = &buffers[place.buffer];
        int64_t left = buffer->count - place.at, take = count < left ? count : left;
        errint error = zero3_add_piece(zero, tensor, buffer, place.at, first, take);
        if (error)
            return error;
        first += take;
        count -= take;
        place.buffer++;
        place.at = 0;
    }
    return 0;
}

static int64_t zero3_total(const struct zero3 *zero)
{
    int64_t total = 0;
    for (size_t i = 0; i < zero->buffer_count; i++) {
        if (__builtin_add_overflow(total, zero->buffers[i].count, &total))
            return INT64_MAX;
    }
    return total;
}

static int zero3_add_parameter(const struct zero3 *zero, const struct deepspeed_parameter *parameter,
                               struct zero3_place *place)
{
    struct model_tensor *tensor;
    struct zero3_place start = *place;
    int64_t share = zero3_share(zero, parameter);
    if (!zero3_advance(zero, place, share))
        return zero3_told(model_add_note(zero->tag->model, true,
                                         "each of %" PRId64 " ranks holds %" PRId64
                                         " elements, %s needs %" PRId64 " more than there are left",
                                         zero->world_size, zero3_total(zero), parameter->name, share));
    errint error = deepspeed_add_master(zero->tag, parameter,
                                        zero->buffer_count > 0 ? zero->buffers[0].type : TENSOR_F32, &tensor);
    for (int64_t rank = 0; !error && tensor && rank < zero->world_size; rank++) {
        int64_t real = zero3_real(parameter, share, rank);
        if (real > 0)
            error = zero3_add_share(zero, tensor, start, rank, rank * share, real);
    }
    return error;
}

static int zero3_add_trainable(struct zero3 *zero)
{
    struct deepspeed_group *groups;
    size_t group_count;
    struct zero3_place place = {0};
    struct saved_file *states = &zero->states;
    int error =
        saved_file_told(zero->tag->model, states,
                        deepspeed_read_groups(pickle_get(states->torch.root, "param_shapes"),
                                              &states->torch.arena, &groups, &group_count, &states->problem));
    for (size_t i = 0; !error && i < group_count; i++) {
        for (size_t k = 0; !error && k < groups[i].count; k++)
            error = zero3_add_parameter(zero, &groups[i].parameters[k], &place);
    }
    if (error)
        return error;
    int64_t used = place.at;
    for (size_t i = 0; i < place.buffer; i++)
        used += zero->buffers[i].count;
    if (used == zero3_total(zero))
        return 0;
    return zero3_told(model_add_note(zero->tag->model, true,
                                     "each of %" PRId64 " ranks holds %" PRId64
                                     " elements, the shapes in %s need %" PRId64,
                                     zero->world_size, zero3_total(zero), states->path, used));
}

/* -- what each rank's optimizer holds ---------------------------------------------------------------------
 */

static int zero3_check_optimizer(const struct zero3 *zero, struct saved_file *file,
                                 const struct deepspeed_optimizer *optimizer)
{
    struct format_problem *problem = &file->problem;
    if (optimizer->stage != 3)
        return format_problem_set(problem, -1, "expected ZeRO stage 3 as in %s, found %" PRId64,
                                  zero->states.path, optimizer->stage);
    if (optimizer->world_size != zero->world_size)
        return format_problem_set(problem, -1, "of a save with %" PRId64 " ranks, the others with %" PRId64,
                                  optimizer->world_size, zero->world_size);
    if (optimizer->partitions->count != zero->buffer_count)
        return format_problem_set(problem, -1, "expected %zu flat groups as of rank 0, found %zu",
                                  zero->buffer_count, optimizer->partitions->count);
    const struct pickle_node *groups =
        pickle_get(pickle_get(file->torch.root, "optimizer_state_dict"), "ds_zero_partition_groups");
    if (groups && groups->kind != PICKLE_NONE)
        return format_problem_set(problem, -1,
                                  "experts are divided between other ranks than the rest "
                                  "(ds_zero_partition_groups): use ds_to_universal.py");
    return 0;
}

static int zero3_read_buffers(struct zero3 *zero, struct saved_file *file,
                              const struct deepspeed_optimizer *optimizer, size_t rank)
{
    struct fragment *buffers = &zero->buffers[rank * zero->buffer_count];
    int error = zero3_check_optimizer(zero, file, optimizer);
    for (size_t i = 0; !error && i < zero->buffer_count; i++) {
        struct tensor tensor;
        error = deepspeed_read_flat(&file->torch, optimizer->partitions->items[i], &tensor, &buffers[i].count,
                                    &file->problem);
        if (error)
            break;
        buffers[i].file = file->index;
        buffers[i].offset = tensor.offset;
        buffers[i].type = tensor.type;
        if (buffers[i].count != zero->buffers[i].count || tensor.type != zero->buffers[0].type)
            error = format_problem_set(&file->problem, tensor.offset,
                                       "flat group %zu has %" PRId64
                                       " elements of %s, that of rank 0 %" PRId64 " of %s",
                                       i, buffers[i].count, tensor_type_name(tensor.type),
                                       zero->buffers[i].count, tensor_type_name(zero->buffers[0].type));
    }
    return saved_file_told(zero->tag->model, file, error);
}

/* The first file says how many ranks and buffers there are. */
static int zero3_begin_buffers(struct zero3 *zero, const struct deepspeed_name *names, size_t count,
                               const struct deepspeed_optimizer *optimizer)
{
    int error = deepspeed_tag_check_ranks(zero->tag, names, count, optimizer->world_size, true);
    if (error)
        return error;
    zero->world_size = zero->tag->model->world_size = optimizer->world_size;
    zero->buffer_count = optimizer->partitions->count;
    zero->buffers = calloc(count * zero->buffer_count + 1, sizeof *zero->buffers);
    return zero->buffers ? 0 : -ENOMEM;
}

static int zero3_read_optimizers(struct zero3 *zero)
{
    size_t count;
    const struct deepspeed_name *names = deepspeed_tag_find_rank(zero->tag, DEEPSPEED_OPTIMIZER, 0, &count);
    if (!names)
        return zero3_told(
            model_add_note(zero->tag->model, true, "no *_optim_states.pt is here: they hold the parameters"));
    int error = 0;
    for (size_t rank = 0; !error && rank < count; rank++) {
        cleanup_saved_file struct saved_file file = {0};
        struct deepspeed_optimizer optimizer;
        error = deepspeed_file_open(zero->tag, names[rank].file, &file);
        if (!error)
            error = saved_file_told(zero->tag->model, &file,
                                    deepspeed_read_optimizer(file.torch.root, &optimizer, &file.problem));
        if (!error && rank == 0)
            error = zero3_begin_buffers(zero, names, count, &optimizer);
        if (!error)
            error = zero3_read_buffers(zero, &file, &optimizer, rank);
    }
    return error;
}

/* -- frozen parameters ------------------------------------------------------------------------------------
 */

static int zero3_read_fragment(struct zero3 *zero, struct saved_file *file,
                               const struct pickle_node *fragments, size_t i, size_t rank)
{
    const struct deepspeed_parameter *parameter = &zero->frozen.parameters[i];
    struct fragment *fragment = &zero->fragments[rank * zero->frozen.count + i];
    struct tensor tensor;
    if (!pickle_is_text(pickle_dict_key(fragments, i), parameter->name))
        return format_problem_set(&file->problem, -1, "expected a fragment of %s, found none",
                                  parameter->name);
    int error = deepspeed_read_flat(&file->torch, pickle_dict_value(fragments, i), &tensor, &fragment->count,
                                    &file->problem);
    if (error)
        return error;
    fragment->file = file->index;
    fragment->offset = tensor.offset;
    fragment->type = tensor.type;
    int64_t share = zero3_share(zero, parameter);
    if (fragment->count != share || tensor.type != zero->fragments[i].type)
        return format_problem_set(
            &file->problem, tensor.offset,
            "the fragment of %s has %" PRId64 " elements of %s, expected %" PRId64 " of %s", parameter->name,
            fragment->count, tensor_type_name(tensor.type), share, tensor_type_name(zero->fragments[i].type));
    return 0;
}

static int zero3_read_rank_fragments(struct zero3 *zero, struct saved_file *file, size_t rank)
{
    const struct pickle_node *fragments = pickle_get(file->torch.root, "frozen_param_fragments");
    int64_t step;
    if (pickle_integer(pickle_get(file->torch.root, "global_steps"), &step) && zero->tag->model->step >= 0 &&
        step != zero->tag->model->step)
        return format_problem_set(&file->problem, -1,
                                  "of step %" PRId64 ", that of rank 0 is of step %" PRId64, step,
                                  zero->tag->model->step);
    int error = 0;
    for (size_t i = 0; !error && i < zero->frozen.count; i++)
        error = zero3_read_fragment(zero, file, fragments, i, rank);
    return error;
}

/* Reads the fragments of all ranks. Where nothing is frozen, the other ranks' files hold nothing of the
 * model. */
static int zero3_read_fragments(struct zero3 *zero)
{
    size_t count;
    const struct deepspeed_name *names = deepspeed_tag_find_rank(zero->tag, DEEPSPEED_PARTITIONED, 0, &count);
    bool frozen = zero->frozen.count > 0;
    int error = deepspeed_tag_check_ranks(zero->tag, names, count, zero->world_size, frozen);
    if (!frozen)
        return error == FORMAT_FOREIGN ? 0 : error;
    if (error)
        return error;
    zero->fragments = calloc(count * zero->frozen.count, sizeof *zero->fragments);
    if (!zero->fragments)
        return -ENOMEM;
    for (size_t rank = 0; !error && rank < count; rank++) {
        cleanup_saved_file struct saved_file other = {0};
        struct saved_file *file = rank == 0 ? &zero->states : &other;
        if (rank > 0)
            error = deepspeed_file_open(zero->tag, names[rank].file, file);
        if (!error)
            error = saved_file_told(zero->tag->model, file, zero3_read_rank_fragments(zero, file, rank));
    }
    return error;
}

static int zero3_add_frozen(struct zero3 *zero)
{
    for (size_t i = 0; i < zero->frozen.count; i++) {
        const struct deepspeed_parameter *parameter = &zero->frozen.parameters[i];
        struct model_tensor *tensor;
        int64_t share = zero3_share(zero, parameter);
        errint error = deepspeed_add_master(zero->tag, parameter, zero->fragments[i].type, &tensor);
        for (int64_t rank = 0; !error && tensor && rank < zero->world_size; rank++) {
            const struct fragment *fragment = &zero->fragments[(size_t)rank * zero->frozen.count + i];
            int64_t real = zero3_real(parameter, share, rank);
            if (real > 0)
                error = zero3_add_piece(zero, tensor, fragment, 0, rank * share, real);
        }
        if (error)
            return error;
    }
    return 0;
}

/* -- all of it --------------------------------------------------------------------------------------------
 */

static int zero3_read_states(struct zero3 *zero)
{
    size_t count;
    const struct deepspeed_name *names = deepspeed_tag_find_rank(zero->tag, DEEPSPEED_PARTITIONED, 0, &count);
    if (!names || names[0].dp != 0)
        return zero3_told(
            model_add_note(zero->tag->model, true,
                           "zero_pp_rank_0_mp_rank_00_model_states.pt is not here: it holds the "
                           "parameters' names and shapes"));
    struct saved_file *states = &zero->states;
    int error = deepspeed_file_open(zero->tag, names[0].file, states);
    if (error)
        return error;
    deepspeed_note_progress(zero->tag, states);
    const struct pickle_node *shapes = pickle_get(states->torch.root, "frozen_param_shapes");
    if (!pickle_is_dict(shapes))
        return 0;
    return saved_file_told(
        zero->tag->model, states,
        deepspeed_read_shapes(shapes, &states->torch.arena, &zero->frozen, &states->problem));
}

int deepspeed_load_zero3(struct deepspeed_tag *tag)
{
    __attribute__((cleanup(zero3_release))) struct zero3 zero = {.tag = tag};
    int error = zero3_read_states(&zero);
    if (!error)
        error = zero3_read_optimizers(&zero);
    if (!error)
        error = zero3_read_fragments(&zero);
    if (!error)
        error = deepspeed_add_buffers(tag, &zero.states);
    if (!error)
        error = zero3_add_frozen(&zero);
    if (!error)
        error = zero3_add_trainable(&zero);
    return error ? error : deepspeed_add_shared(tag, &zero.states);
}

/* SPDX-License-Identifier: Apache-2.0 */
/* The shapes as the models' published configurations give them. */
#include "scale_models.h"

#include <stdlib.h>

enum { BF16 = 2, FP32 = 4 };

#define SHAPES(name) static const struct scale_shape name[]
#define END                                                                                                  \
    {                                                                                                        \
        0, 0, 0                                                                                              \
    }

SHAPES(nothing) = {END};

/* embeddings; q, k and v, o, gate and up, down, two norms; norm, head */
SHAPES(llama_8b_before) = {{128256, 4096, 1}, END};
SHAPES(llama_8b_layer) = {
    {4096, 4096, 1}, {1024, 4096, 2}, {4096, 4096, 1}, {14336, 4096, 2}, {4096, 14336, 1}, {4096, 1, 2}, END};
SHAPES(llama_8b_after) = {{4096, 1, 1}, {128256, 4096, 1}, END};

SHAPES(llama_70b_before) = {{128256, 8192, 1}, END};
SHAPES(llama_70b_layer) = {
    {8192, 8192, 1}, {1024, 8192, 2}, {8192, 8192, 1}, {28672, 8192, 2}, {8192, 28672, 1}, {8192, 1, 2}, END};
SHAPES(llama_70b_after) = {{8192, 1, 1}, {128256, 8192, 1}, END};

/* as Llama, with biases of q, k and v */
SHAPES(qwen_7b_before) = {{152064, 3584, 1}, END};
SHAPES(qwen_7b_layer) = {{3584, 3584, 1},  {3584, 1, 1},     {512, 3584, 2}, {512, 1, 2}, {3584, 3584, 1},
                         {18944, 3584, 2}, {3584, 18944, 1}, {3584, 1, 2},   END};
SHAPES(qwen_7b_after) = {{3584, 1, 1}, {152064, 3584, 1}, END};

/* q, k and v, o, the router, eight experts of three matrices, two norms */
SHAPES(mixtral_before) = {{32000, 4096, 1}, END};
SHAPES(mixtral_layer) = {
    {4096, 4096, 1}, {1024, 4096, 2}, {4096, 4096, 1}, {8, 4096, 1}, {14336, 4096, 24}, {4096, 1, 2}, END};
SHAPES(mixtral_after) = {{4096, 1, 1}, {32000, 4096, 1}, END};

SHAPES(gpt2_before) = {{50257, 768, 1}, {1024, 768, 1}, END};
SHAPES(gpt2_layer) = {{768, 1, 2},    {768, 2304, 1}, {2304, 1, 1},   {768, 768, 1}, {768, 1, 1}, {768, 1, 2},
                      {768, 3072, 1}, {3072, 1, 1},   {3072, 768, 1}, {768, 1, 1},   END};
SHAPES(gpt2_after) = {{768, 1, 2}, END};

/* class token, positions, patches; four matrices of attention and two more, with biases; two norms */
SHAPES(vit_before) = {{768, 1, 1}, {197, 768, 1}, {768, 768, 1}, {768, 1, 1}, END};
SHAPES(vit_layer) = {{768, 768, 4},  {768, 1, 4}, {3072, 768, 1}, {3072, 1, 1},
                     {768, 3072, 1}, {768, 1, 1}, {768, 1, 4},    END};
SHAPES(vit_after) = {{768, 1, 2}, {1000, 768, 1}, {1000, 1, 1}, END};

/* rank 16 on all linear layers of Llama-3 8B: A of q, k, v, o, gate, up; A of down; B of each */
SHAPES(lora_layer) = {{16, 4096, 6}, {16, 14336, 1}, {4096, 16, 3}, {1024, 16, 2}, {14336, 16, 2}, END};

static const struct scale_model llama_8b = {"Llama-3-8B",    BF16,           32,
                                            llama_8b_before, llama_8b_layer, llama_8b_after};
static const struct scale_model llama_70b = {"Llama-3-70B",   BF16,           80, llama_70b_before,
                                             llama_70b_layer, llama_70b_after};
static const struct scale_model qwen_7b = {"Qwen2.5-7B",   BF16,          28,
                                           qwen_7b_before, qwen_7b_layer, qwen_7b_after};
static const struct scale_model mixtral = {"Mixtral-8x7B", BF16,          32,
                                           mixtral_before, mixtral_layer, mixtral_after};
static const struct scale_model gpt2 = {"GPT-2", FP32, 12, gpt2_before, gpt2_layer, gpt2_after};
static const struct scale_model vit = {"ViT-B-16", FP32, 12, vit_before, vit_layer, vit_after};
static const struct scale_model lora = {"LoRA-8B", FP32, 32, nothing, lora_layer, nothing};

const struct scale_kind scale_kinds[] = {
    {&llama_70b, 90, false, true, 18}, {&llama_70b, 0, false, false, 14}, {&llama_70b, 100, false, false, 2},
    {&mixtral, 90, true, true, 8},     {&mixtral, 0, false, false, 10},   {&llama_8b, 0, false, true, 11},
    {&llama_8b, 90, false, true, 8},   {&llama_8b, 100, false, false, 2}, {&qwen_7b, 0, false, true, 11},
    {&qwen_7b, 90, true, true, 6},     {&qwen_7b, 100, false, false, 2},  {&gpt2, 0, false, true, 2},
    {&gpt2, 90, true, true, 1},        {&gpt2, 100, false, false, 1},     {&vit, 0, false, true, 1},
    {&vit, 90, false, true, 1},        {&lora, 0, false, true, 2},
};
const size_t scale_kind_count = sizeof scale_kinds / sizeof *scale_kinds;
const struct scale_kind scale_probe_kind = {&llama_70b, 90, false, true, 0};
const struct scale_kind scale_probe_scattered = {&llama_70b, 90, true, true, 0};

static size_t scale_expand(const struct scale_shape *shapes, struct scale_tensor *out)
{
    size_t count = 0;
    for (; shapes->rows; shapes++) {
        for (int i = 0; i < shapes->repeat; i++, count++) {
            if (out)
                out[count] = (struct scale_tensor){.elements = shapes->rows * shapes->columns};
        }
    }
    return count;
}

static void scale_freeze(const struct scale_kind *kind, struct scale_tensor *tensors, size_t count)
{
    int64_t total = 0, before = 0;
    for (size_t i = 0; i < count; i++)
        total += tensors[i].elements;
    for (size_t i = 0; i < count; i++) {
        if (kind->scattered)
            tensors[i].trained = i % 100 * 7 % 100 >= (size_t)kind->frozen;
        else
            tensors[i].trained = before * 100 >= total * kind->frozen;
        before += tensors[i].elements;
    }
}

struct scale_tensor *scale_tensors(const struct scale_kind *kind, size_t *count)
{
    const struct scale_model *model = kind->model;
    size_t before = scale_expand(model->before, NULL), layer = scale_expand(model->layer, NULL);
    size_t layers = (size_t)model->layers;
    *count = before + layers * layer + scale_expand(model->after, NULL);
    struct scale_tensor *tensors = calloc(*count, sizeof *tensors);
    if (!tensors)
        return NULL;
    scale_expand(model->before, tensors);
    for (size_t i = 0; i < layers; i++)
        scale_expand(model->layer, &tensors[before + i * layer]);
    scale_expand(model->after, &tensors[before + layers * layer]);
    scale_freeze(kind, tensors, *count);
    return tensors;
}

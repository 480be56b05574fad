/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Whether a model would load: the verdict, what it was checked against, and the comparison with another model
 * whose names and shapes it should have. Nobody calls a model loadable who has not checked that.
 */
#ifndef CKPTFS_CKPT_LOADABLE_H
#define CKPTFS_CKPT_LOADABLE_H

#include "base/text.h"
#include "ckpt/model.h"

enum loadable_state {
    LOADABLE_NOT_CHECKED,
    LOADABLE_YES,
    LOADABLE_PARTLY, /* all but an output layer, which loaders initialise at random */
    LOADABLE_NO,
};

/* Names with what is wrong, the first few of `count`. UTF-8 without a promise about control characters. */
enum { LOADABLE_LISTED = 5, LOADABLE_TEXT_LENGTH = 400 };
struct loadable_list {
    int64_t count;
    const char *at[LOADABLE_LISTED];
    size_t listed;
};

struct loadable {
    struct arena arena; /* owns the texts */
    enum loadable_state state;
    const char *against;             /* "LlamaForCausalLM of transformers 5.23.0"; NULL: nothing */
    const char *reason;              /* not checked: why; NULL: nobody asked */
    struct loadable_list missing;    /* names that should be there */
    struct loadable_list unexpected; /* names that nothing is known of */
    struct loadable_list mismatched; /* "NAME is [3], expected [64]" */
};

void loadable_begin(struct loadable *loadable);
void loadable_release(struct loadable *loadable);

/* Each returns 0 or -ENOMEM. Texts are cut at LOADABLE_TEXT_LENGTH bytes. */

/* Counts one more; only the first ones are kept. */
errint loadable_add(struct loadable *loadable, struct loadable_list *list, const char *format, ...)
    __attribute__((format(printf, 3, 4)));
errint loadable_say_against(struct loadable *loadable, const char *format, ...)
    __attribute__((format(printf, 2, 3)));
/* The state becomes "not checked"; reasons that were there before stay, in front. */
errint loadable_say_reason(struct loadable *loadable, const char *format, ...)
    __attribute__((format(printf, 2, 3)));
/* The state that the lists give. `only_heads`: nothing but output layers is missing. */
void loadable_judge(struct loadable *loadable, bool only_heads);

/*
 * Compares names and shapes with those of another model, which is known to load, and judges. Names may lack
 * the first component that most names of the other have, or have one too much, as from_pretrained allows.
 * What is tied to a tensor that is there is not missed. Types may differ, but not a number from an integer.
 */
errint loadable_compare(const struct model *model, const struct model *expected, struct loadable *out);
/* The tensor of that name among the other model's, found in the same way; NULL: there is none. */
const struct model_tensor *loadable_find(const struct model *expected, const char *prefix,
                                         const char *own_prefix, const char *name);
/* The first component of most names with its dot, into the arena; "": they have none in common. NULL: no
 * memory. */
const char *loadable_prefix(const struct model *model, struct arena *arena);

/* "yes", "in part", "no", "not checked". */
const char *loadable_state_name(enum loadable_state state);
/* Appends the verdict as one line without its end. */
void loadable_print(const struct loadable *loadable, struct text *text);

#define cleanup_loadable __attribute__((cleanup(loadable_release)))

#endif

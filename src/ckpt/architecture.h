/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What the library says that a model's architecture makes of its tensors: the question as text, and the
 * answer (the program that stands between them is cmd/ckptfs-architecture.py). Nothing is run here.
 */
#ifndef CKPTFS_CKPT_ARCHITECTURE_H
#define CKPTFS_CKPT_ARCHITECTURE_H

#include "base/text.h"
#include "ckpt/loadable.h"

/* An answer that is longer is refused. */
enum { ARCHITECTURE_ANSWER_MAX = 64 << 20 };

/*
 * Appends the question: the config's text as it is, and the tensors that a file of the model has, with
 * `names_tied` those that are tied to others too. `type`: what floating-point parameters are loaded as. 0 or
 * -ENOMEM.
 */
errint architecture_ask(const struct model *model, const char *config, size_t length, bool names_tied,
                        enum tensor_type type, struct text *out);

/*
 * Reads an answer, from a program that may have failed: of any bytes. The verdict is judged, or its reason
 * says why it could not be. With `kept`, the tensors of that model are marked which the library leaves in
 * their type. 0 or -ENOMEM.
 */
errint architecture_read(const char *answer, size_t length, struct model *kept, struct loadable *out);

#endif

/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Scope-bound release of what a function owns: free, close, and handing ownership on.
 */
#ifndef CKPTFS_BASE_CLEANUP_H
#define CKPTFS_BASE_CLEANUP_H

#include <stdlib.h>
#include <unistd.h>

/* The convention of every function that can fail: 0 or a negative errno. */
typedef int errint;

static inline void cleanup_free_pointer(void *pointer)
{
    free(*(void **)pointer);
}

static inline void cleanup_close_descriptor(int *fd)
{
    if (*fd >= 0)
        close(*fd);
}

#define cleanup_free __attribute__((cleanup(cleanup_free_pointer)))
#define cleanup_fd   __attribute__((cleanup(cleanup_close_descriptor)))

/* Takes a pointer (or descriptor) out of its scope: the variable no longer owns it. */
#define steal_pointer(variable)                                                                              \
    ({                                                                                                       \
        __typeof__(variable) stolen_ = (variable);                                                           \
        (variable) = NULL;                                                                                   \
        stolen_;                                                                                             \
    })
#define steal_fd(variable)                                                                                   \
    ({                                                                                                       \
        int stolen_ = (variable);                                                                            \
        (variable) = -1;                                                                                     \
        stolen_;                                                                                             \
    })

#endif

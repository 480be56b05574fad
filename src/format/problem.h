/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Why a file could not be understood: one line for people. The parsers return FORMAT_FOREIGN and fill it; the
 * caller, who knows the file's name, puts that in front.
 */
#ifndef CKPTFS_FORMAT_PROBLEM_H
#define CKPTFS_FORMAT_PROBLEM_H

#include <stdint.h>

struct format_problem {
    int64_t offset; /* in the file; -1: none */
    char text[200]; /* "expected X, found Y" */
};

/* Fills it, unless it is filled already, and returns FORMAT_FOREIGN. NULL is allowed. The text is
 * UTF-8 without control characters, whatever the file's names are. */
int format_problem_set(struct format_problem *problem, int64_t offset, const char *format, ...)
    __attribute__((format(printf, 3, 4)));

#endif

/* SPDX-License-Identifier: Apache-2.0 */
/* The segments of one zip archive, and the names of its entries. */
#ifndef CKPTFS_FORMAT_TORCH_ZIP_H
#define CKPTFS_FORMAT_TORCH_ZIP_H

#include "format/zip.h"

/*
 * Appends the segments of the archive, from its start to its end. FORMAT_FOREIGN: it is none after all, and
 * the list is as it was. `directory` is only lent: {0}, or used for another archive before.
 */
int torch_zip_append(const struct format_source *source, const struct zip_archive *archive,
                     struct zip_directory *directory, struct segment_list *list);
/* The name of the entry whose data is at `offset`; FORMAT_FOREIGN: no entry's. */
int torch_zip_name(const struct format_source *source, const struct zip_archive *archive, int64_t offset,
                   char *name, size_t size);

#endif

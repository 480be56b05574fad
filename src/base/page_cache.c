/* SPDX-License-Identifier: Apache-2.0 */
/* What is in the page cache. */
#include "base/page_cache.h"

#include <sys/mman.h>
#include <unistd.h>

/* So few at a time that a file that is not in memory costs little. */
enum { PAGE_CACHE_STEP = 64 };

/* The pages of a map that is never touched. */
static bool page_cache_has_pages(char *map, size_t pages, size_t page_size)
{
    unsigned char in_memory[PAGE_CACHE_STEP];
    for (size_t done = 0; done < pages; done += PAGE_CACHE_STEP) {
        size_t count = pages - done < PAGE_CACHE_STEP ? pages - done : PAGE_CACHE_STEP;
        if (mincore(map + done * page_size, count * page_size, in_memory) != 0)
            return false;
        for (size_t i = 0; i < count; i++) {
            if (!(in_memory[i] & 1))
                return false;
        }
    }
    return true;
}

bool page_cache_has(int fd, int64_t offset, size_t length)
{
    if (length == 0)
        return true;
    size_t page_size = (size_t)sysconf(_SC_PAGESIZE);
    int64_t begin = offset / (int64_t)page_size * (int64_t)page_size;
    size_t pages = ((size_t)(offset - begin) + length + page_size - 1) / page_size;
    char *map = mmap(NULL, pages * page_size, PROT_READ, MAP_SHARED, fd, (off_t)begin);
    if (map == MAP_FAILED)
        return false;
    bool has = page_cache_has_pages(map, pages, page_size);
    munmap(map, pages * page_size);
    return has;
}

/* A disk that becomes full: preloaded, it lets so many more writes to regular files through, and
 * then refuses all of them with ENOSPC. Messages (descriptors up to 2) always pass. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <stdatomic.h>
#include <sys/stat.h>
#include <sys/uio.h>
#include <unistd.h>

static _Atomic long left = -1; /* negative: there is room for ever */

void full_after(long writes) { left = writes; }

static int is_full(int file)
{
    struct stat about;
    if (left < 0 || file <= 2 || fstat(file, &about) || !S_ISREG(about.st_mode))
        return 0;
    if (left > 0) {
        left--;
        return 0;
    }
    errno = ENOSPC;
    return 1;
}

#define REFUSING(name, parameters, ...)                                                            \
    ssize_t name parameters                                                                        \
    {                                                                                              \
        static ssize_t(*real) parameters;                                                          \
        if (!real)                                                                                 \
            real = dlsym(RTLD_NEXT, #name);                                                        \
        return is_full(file) ? -1 : real(__VA_ARGS__);                                             \
    }

REFUSING(write, (int file, const void *from, size_t size), file, from, size)
REFUSING(pwrite, (int file, const void *from, size_t size, off_t at), file, from, size, at)
REFUSING(pwrite64, (int file, const void *from, size_t size, off64_t at), file, from, size, at)
REFUSING(writev, (int file, const struct iovec *from, int number), file, from, number)

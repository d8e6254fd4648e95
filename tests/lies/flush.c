/* Loaded into a daemon with LD_PRELOAD: every write is answered as durable that the disk was never told to make
 * durable. The tests start such a daemon to see that their power cut catches it. It reaches the calls of the C
 * library only, thus HOLDFAST_IO=threads. */
#define _GNU_SOURCE
#include <sys/syscall.h>
#include <sys/uio.h>
#include <unistd.h>

ssize_t pwritev2(int fd, const struct iovec *pieces, int count, off_t offset, int flags)
{
    return syscall(SYS_pwritev2, fd, pieces, count, offset, 0, flags & ~RWF_DSYNC);
}

int fdatasync(int fd)
{
    (void)fd;
    return 0;
}

/* Loaded into a daemon with LD_PRELOAD: while there is a file whose name is $HOLDFAST_HANG, a dot and the number of the
 * process, no flush of the C library's comes back, as on a disk that does not answer; or, if the file has a number in it, each
 * takes so many milliseconds longer. It reaches what the daemon keeps in its data folder. The data disks are flushed by
 * other calls. */
#define _GNU_SOURCE
#include <stdio.h>
#include <stdlib.h>
#include <sys/syscall.h>
#include <unistd.h>

static void hang(void)
{
    char name[4096];
    const char *flag = getenv("HOLDFAST_HANG");
    FILE *file;
    int delay;
    snprintf(name, sizeof name, "%s.%d", flag ? flag : "", (int)getpid());
    while (flag && (file = fopen(name, "r"))) {
        delay = 0;
        if (fscanf(file, "%d", &delay) != 1)
            delay = 0;
        fclose(file);
        usleep(delay > 0 ? delay * 1000 : 10000);
        if (delay > 0)
            return;
    }
}

int fsync(int fd)
{
    hang();
    return syscall(SYS_fsync, fd);
}

int fdatasync(int fd)
{
    hang();
    return syscall(SYS_fdatasync, fd);
}

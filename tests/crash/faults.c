/* Counts the calls by which one process changes files below one folder, and lets something happen at a chosen one.
 *
 * Preloaded into the unmodified product (LD_PRELOAD), so that it sees what Python, Arrow and SQLite do alike.
 *   FAULTS_UNDER   the folder, an absolute real path
 *   FAULTS_ROLE    text that the command line of the process must contain; a process that is forked counts anew
 *   FAULTS_LEDGER  where each call is noted: "number call path"
 *   FAULTS_AT      number of the call at which it happens; 0 = never
 *   FAULTS_ACTION  kill: die by SIGKILL, in the middle of the call if it is a write
 *                  pause: wait until the mark is removed
 *                  full: no space left on the device, for this call and all that follow
 *   FAULTS_MARK    created when it happens. A process that finds it at its start is not killed or paused any more,
 *                  but has no space either.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <pthread.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <sys/types.h>
#include <sys/uio.h>
#include <unistd.h>

enum action { NOTHING, KILL, PAUSE, FULL };

static const char *under, *mark;
static enum action action;
static long at, steps;
static int ledger = -1;

static void begin(void) {
    char command[65536] = {0};
    const char *folder = getenv("FAULTS_UNDER"), *role = getenv("FAULTS_ROLE"), *what = getenv("FAULTS_ACTION");
    const char *notes = getenv("FAULTS_LEDGER");
    if (!folder || !role) return;
    int file = syscall(SYS_openat, AT_FDCWD, "/proc/self/cmdline", O_RDONLY | O_CLOEXEC);
    long length = syscall(SYS_read, file, command, sizeof command - 1);
    syscall(SYS_close, file);
    for (long i = 0; i + 1 < length; i++)
        if (!command[i]) command[i] = ' ';
    if (!strstr(command, role)) return;
    under = folder;
    action = NOTHING;
    steps = 0;
    mark = getenv("FAULTS_MARK");
    at = getenv("FAULTS_AT") ? atol(getenv("FAULTS_AT")) : 0;
    if (notes) ledger = syscall(SYS_openat, AT_FDCWD, notes, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0644);
    if (what && at) action = !strcmp(what, "kill") ? KILL : !strcmp(what, "pause") ? PAUSE : FULL;
    if (action && mark && !syscall(SYS_faccessat, AT_FDCWD, mark, F_OK)) {
        if (action == FULL) at = 1;
        else action = NOTHING;
    }
}

__attribute__((constructor)) static void begin_here_and_in_forks(void) {
    begin();
    pthread_atfork(NULL, NULL, begin);
}

static int is_below(int folder, const char *path) {
    char whole[PATH_MAX] = {0};
    if (!under) return 0;
    if (path && path[0] == '/') return !strncmp(path, under, strlen(under));
    if (folder == AT_FDCWD) {
        if (!getcwd(whole, sizeof whole)) return 0;
    } else {
        char link[64];
        snprintf(link, sizeof link, "/proc/self/fd/%d", folder);
        if (syscall(SYS_readlinkat, AT_FDCWD, link, whole, sizeof whole - 1) < 0) return 0;
    }
    return !strncmp(whole, under, strlen(under));
}

static void create_mark(void) {
    if (mark) syscall(SYS_close, syscall(SYS_openat, AT_FDCWD, mark, O_WRONLY | O_CREAT | O_CLOEXEC, 0644));
}

/* What is to happen at this call. PAUSE is over when this returns. */
static enum action step(const char *call, int folder, const char *path) {
    if (!is_below(folder, path)) return NOTHING;
    int before = errno;
    long number = __atomic_add_fetch(&steps, 1, __ATOMIC_SEQ_CST);
    if (ledger >= 0) {
        char line[PATH_MAX + 64], link[64], name[PATH_MAX] = {0};
        if (!path) {
            snprintf(link, sizeof link, "/proc/self/fd/%d", folder);
            if (syscall(SYS_readlinkat, AT_FDCWD, link, name, sizeof name - 1) < 0) name[0] = 0;
        }
        int length = snprintf(line, sizeof line, "%ld %s %s\n", number, call, path ? path : name);
        syscall(SYS_write, ledger, line, length);
    }
    enum action due = action == FULL ? (number >= at ? FULL : NOTHING) : (number == at ? action : NOTHING);
    if (due && due != KILL) create_mark();
    if (due == PAUSE) {
        while (!syscall(SYS_faccessat, AT_FDCWD, mark, F_OK)) usleep(5000);
        due = NOTHING;
    }
    errno = before;
    return due;
}

static _Noreturn void die(void) {
    create_mark();
    syscall(SYS_kill, getpid(), SIGKILL);
    for (;;) pause();
}

#define REAL(name) ((__typeof__(&name))dlsym(RTLD_NEXT, #name))
#define NO_SPACE return (errno = ENOSPC, -1)

/* A call that takes no bytes: it happens, or it does not. */
#define INSTEAD(call, folder, path) \
    switch (step(call, folder, path)) { \
    case KILL: die(); \
    case FULL: NO_SPACE; \
    default: break; \
    }
/* A call that needs no space works on a full disk too. */
#define UNLESS_KILLED(call, folder, path) \
    if (step(call, folder, path) == KILL) die()

ssize_t write(int fd, const void *bytes, size_t count) {
    enum action due = step("write", fd, NULL);
    if (due == NOTHING) return syscall(SYS_write, fd, bytes, count);
    if (due == FULL) NO_SPACE;
    syscall(SYS_write, fd, bytes, count / 2);
    die();
}

ssize_t pwrite64(int fd, const void *bytes, size_t count, off64_t offset) {
    enum action due = step("pwrite", fd, NULL);
    if (due == NOTHING) return syscall(SYS_pwrite64, fd, bytes, count, offset);
    if (due == FULL) NO_SPACE;
    syscall(SYS_pwrite64, fd, bytes, count / 2, offset);
    die();
}

ssize_t pwrite(int fd, const void *bytes, size_t count, off_t offset) { return pwrite64(fd, bytes, count, offset); }

ssize_t writev(int fd, const struct iovec *vector, int count) {
    INSTEAD("writev", fd, NULL)
    return REAL(writev)(fd, vector, count);
}

ssize_t sendfile64(int to, int from, off64_t *offset, size_t count) {
    INSTEAD("sendfile", to, NULL)
    return REAL(sendfile64)(to, from, offset, count);
}

ssize_t sendfile(int to, int from, off_t *offset, size_t count) { return sendfile64(to, from, offset, count); }

int fsync(int fd) {
    UNLESS_KILLED("fsync", fd, NULL);
    return REAL(fsync)(fd);
}

int fdatasync(int fd) {
    UNLESS_KILLED("fdatasync", fd, NULL);
    return REAL(fdatasync)(fd);
}

int ftruncate64(int fd, off64_t length) {
    UNLESS_KILLED("ftruncate", fd, NULL);
    return REAL(ftruncate64)(fd, length);
}

int ftruncate(int fd, off_t length) { return ftruncate64(fd, length); }

static int open_step(int folder, const char *path, int flags, mode_t mode) {
    if (flags & (O_CREAT | O_TRUNC)) {
        INSTEAD("open", folder, path)
    }
    return syscall(SYS_openat, folder, path, flags, mode);
}

#define MODE(last) \
    mode_t mode = 0; \
    if ((flags & O_CREAT) || (flags & O_TMPFILE) == O_TMPFILE) { \
        va_list more; \
        va_start(more, last); \
        mode = va_arg(more, mode_t); \
        va_end(more); \
    }

int open(const char *path, int flags, ...) { MODE(flags) return open_step(AT_FDCWD, path, flags, mode); }
int open64(const char *path, int flags, ...) { MODE(flags) return open_step(AT_FDCWD, path, flags, mode); }
int openat(int folder, const char *path, int flags, ...) { MODE(flags) return open_step(folder, path, flags, mode); }
int openat64(int folder, const char *path, int flags, ...) { MODE(flags) return open_step(folder, path, flags, mode); }

int rename(const char *from, const char *to) {
    UNLESS_KILLED("rename", AT_FDCWD, to);
    return REAL(rename)(from, to);
}

int renameat(int from_folder, const char *from, int to_folder, const char *to) {
    UNLESS_KILLED("rename", to_folder, to);
    return REAL(renameat)(from_folder, from, to_folder, to);
}

int link(const char *from, const char *to) {
    INSTEAD("link", AT_FDCWD, to)
    return REAL(link)(from, to);
}

int symlink(const char *from, const char *to) {
    INSTEAD("symlink", AT_FDCWD, to)
    return REAL(symlink)(from, to);
}

int unlink(const char *path) {
    UNLESS_KILLED("unlink", AT_FDCWD, path);
    return REAL(unlink)(path);
}

int unlinkat(int folder, const char *path, int flags) {
    UNLESS_KILLED("unlink", folder, path);
    return REAL(unlinkat)(folder, path, flags);
}

int rmdir(const char *path) {
    UNLESS_KILLED("rmdir", AT_FDCWD, path);
    return REAL(rmdir)(path);
}

int mkdir(const char *path, mode_t mode) {
    INSTEAD("mkdir", AT_FDCWD, path)
    return REAL(mkdir)(path, mode);
}

int mkdirat(int folder, const char *path, mode_t mode) {
    INSTEAD("mkdir", folder, path)
    return REAL(mkdirat)(folder, path, mode);
}

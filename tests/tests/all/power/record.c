/* Loaded before the C library, this writes down what a program asks of the file system below one
   folder, in the order in which it takes effect: what is made, renamed, linked, removed, synced.
   What a file holds is kept each time it is synced. */

#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static unsigned long kept;

#define REAL(name) ((__typeof__(&name))dlsym(RTLD_NEXT, #name))

static const char *root(void) { return getenv("RECORD_ROOT"); }

static int is_ours(const char *path) {
    const char *folder = root();
    return folder && path && strncmp(path, folder, strlen(folder)) == 0;
}

static void say(const char *what, const char *one, const char *two) {
    int saved = errno;
    char line[3 * PATH_MAX];
    int length = snprintf(line, sizeof line, "%s\t%s\t%s\n", what, one, two ? two : "");
    int log = REAL(open)(getenv("RECORD_LOG"), O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0600);
    if (log < 0 || write(log, line, (size_t)length) != length) abort();
    close(log);
    errno = saved;
}

static int path_of(int fd, char *path) {
    char link[64];
    snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
    ssize_t length = readlink(link, path, PATH_MAX - 1);
    if (length < 0) return 0;
    path[length] = 0;
    return is_ours(path);
}

/* Keeps what a file holds, and tells under which name. */
static void keep(const char *path, char *copy) {
    snprintf(copy, PATH_MAX, "%s.%d.%lu", getenv("RECORD_LOG"), getpid(), kept++);
    int from = REAL(open)(path, O_RDONLY | O_CLOEXEC);
    int to = REAL(open)(copy, O_WRONLY | O_CREAT | O_CLOEXEC, 0600);
    char buffer[1 << 16];
    ssize_t length;
    if (from < 0 || to < 0) abort();
    while ((length = read(from, buffer, sizeof buffer)) > 0)
        if (write(to, buffer, (size_t)length) != length) abort();
    close(from);
    close(to);
}

static int sync_with(int fd, int (*real)(int)) {
    char path[PATH_MAX], copy[PATH_MAX] = "";
    struct stat found;
    pthread_mutex_lock(&lock);
    int outcome = real(fd);
    if (outcome == 0 && path_of(fd, path) && fstat(fd, &found) == 0) {
        if (S_ISREG(found.st_mode)) keep(path, copy);
        say(S_ISREG(found.st_mode) ? "sync" : "sync-folder", path, copy);
    }
    pthread_mutex_unlock(&lock);
    return outcome;
}

int fsync(int fd) { return sync_with(fd, REAL(fsync)); }
int fdatasync(int fd) { return sync_with(fd, REAL(fdatasync)); }

/* Does it under the lock, and says so if it succeeded. */
#define RECORDED(call, what, one, two)                  \
    do {                                                \
        if (!is_ours(one)) return call;                 \
        pthread_mutex_lock(&lock);                      \
        int outcome = call;                             \
        if (outcome >= 0) say(what, one, two);          \
        pthread_mutex_unlock(&lock);                    \
        return outcome;                                 \
    } while (0)

int rename(const char *from, const char *to) {
    RECORDED(REAL(rename)(from, to), "rename", from, to);
}
int link(const char *from, const char *to) { RECORDED(REAL(link)(from, to), "link", from, to); }
int linkat(int a, const char *from, int b, const char *to, int flags) {
    RECORDED(REAL(linkat)(a, from, b, to, flags), "link", from, to);
}
int unlink(const char *path) { RECORDED(REAL(unlink)(path), "remove", path, NULL); }
int mkdir(const char *path, mode_t mode) {
    RECORDED(REAL(mkdir)(path, mode), "make-folder", path, NULL);
}
int rmdir(const char *path) { RECORDED(REAL(rmdir)(path), "remove", path, NULL); }

static int open_with(int (*real)(const char *, int, ...), const char *path, int flags, mode_t mode) {
    if (!(flags & O_CREAT) || !is_ours(path)) return real(path, flags, mode);
    pthread_mutex_lock(&lock);
    int was_there = access(path, F_OK) == 0;
    int fd = real(path, flags, mode);
    if (fd >= 0 && (!was_there || (flags & O_TRUNC))) say("make", path, NULL);
    pthread_mutex_unlock(&lock);
    return fd;
}

#define MODE                                            \
    mode_t mode = 0;                                    \
    if (flags & O_CREAT) {                              \
        va_list rest;                                   \
        va_start(rest, flags);                          \
        mode = va_arg(rest, mode_t);                    \
        va_end(rest);                                   \
    }

int open(const char *path, int flags, ...) {
    MODE return open_with(REAL(open), path, flags, mode);
}
int open64(const char *path, int flags, ...) {
    MODE return open_with(REAL(open64), path, flags, mode);
}

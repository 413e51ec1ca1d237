/*
 * Lets user-mode-linux run on a processor with AMX; `boot` preloads it there.
 *
 * Owns one call. The kernel refuses PTRACE_SETREGSET of a register state that is not whole (EFAULT), and UML keeps
 * 2,696 bytes of it: all but the tiles of AMX, which nothing in the guest uses. So the rest is read from the process
 * and given back with what UML says. Fails as the call itself does.
 */
#define _GNU_SOURCE
#include <elf.h>
#include <errno.h>
#include <stdarg.h>
#include <string.h>
#include <sys/ptrace.h>
#include <sys/syscall.h>
#include <sys/types.h>
#include <sys/uio.h>
#include <unistd.h>

static long raw(long request, pid_t pid, void *addr, void *data)
{
    return syscall(SYS_ptrace, request, pid, addr, data);
}

long ptrace(enum __ptrace_request request, ...)
{
    static char whole[16384]; /* UML has one thread that does this */
    va_list rest;
    va_start(rest, request);
    pid_t pid = va_arg(rest, pid_t);
    void *addr = va_arg(rest, void *);
    void *data = va_arg(rest, void *);
    va_end(rest);

    if (request >= PTRACE_PEEKTEXT && request <= PTRACE_PEEKUSER) {
        /* The system call stores what the function of libc returns. */
        long word;
        if (raw(request, pid, addr, &word) == -1)
            return -1;
        errno = 0;
        return word;
    }
    struct iovec *part = data;
    if (request != PTRACE_SETREGSET || (long)addr != NT_X86_XSTATE || part->iov_len > sizeof whole)
        return raw(request, pid, addr, data);
    struct iovec all = { .iov_base = whole, .iov_len = sizeof whole };
    if (raw(PTRACE_GETREGSET, pid, addr, &all) == -1)
        return -1;
    memcpy(whole, part->iov_base, part->iov_len);
    return raw(PTRACE_SETREGSET, pid, addr, &all);
}

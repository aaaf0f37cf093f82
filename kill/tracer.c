/*
 * Runs a program and, on its demand, follows one thread of one of its descendants from system call to system call, and
 * kills that process at a chosen one.
 *
 *     tracer PROGRAM ARGUMENT...
 *
 * The program has a socket as descriptor 3. Requests and answers are lines:
 *
 *     trace PID      follow the main thread of PID             -> "tracing" or "refused ERRNO"
 *     arm N STEPS    count stops from here on, one at the entry of each system call and one at its exit; at the Nth
 *                    (0: at none) let STEPS more instructions run, then SIGKILL -> "armed"
 *     idle MS        wait until it has been in a waiting system call for MS ms -> "idle COUNT" or "gone"
 *     release        let it go                                 -> "released"
 *
 * Without being asked: "killed COUNT NUMBER entry|exit", and "ended STATUS" when it ends by itself.
 *
 * A call at whose entry the process is killed does not happen. Tracing descendants needs no privilege, except where the
 * machine forbids ptrace(2) altogether.
 */

#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/ptrace.h>
#include <sys/signalfd.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/user.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#define SYSCALL_STOP (SIGTRAP | 0x80)
#define OP_ENTRY 1
#define GET_SYSCALL_INFO 0x420e
#define EVENT_STOP 128

struct syscall_info {
    uint8_t op;
    uint8_t pad[3];
    uint32_t arch;
    uint64_t instruction_pointer, stack_pointer;
    uint64_t number;
    uint64_t rest[8];
};

static int channel;
static pid_t program, traced;
static long count, target, steps, number;
static long idle_ms = -1;
static int waiting; /* it is in a system call that waits */
static struct timespec waiting_since, asked_at;

static void answer(const char *format, long a, long b, const char *c)
{
    char line[128];
    int len = snprintf(line, sizeof line, format, a, b, c);
    if (write(channel, line, (size_t)len) != len)
        exit(1);
}

static long ms_since(struct timespec then)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (now.tv_sec - then.tv_sec) * 1000 + (now.tv_nsec - then.tv_nsec) / 1000000;
}

/* Since it began to wait, and not longer than since the question: what was sent just before has to be seen. */
static long waited_ms(void)
{
    long waited = ms_since(waiting_since), asked = ms_since(asked_at);
    return waited < asked ? waited : asked;
}

static int waits(long nr)
{
    return nr == SYS_epoll_wait || nr == SYS_epoll_pwait || nr == SYS_epoll_pwait2 || nr == SYS_poll || nr == SYS_ppoll;
}

static void gone(void)
{
    traced = 0;
    waiting = 0;
    if (idle_ms >= 0)
        answer("gone\n", 0, 0, "");
    idle_ms = -1;
}

/* The traced process is stopped at a system call, or has been stepped on from there. */
static void murder(int entry)
{
    int status;
    pid_t victim = traced;
    if (entry && steps == 0)
        ptrace(PTRACE_POKEUSER, victim, (void *)offsetof(struct user_regs_struct, orig_rax), (void *)-1L);
    for (long i = 0; i < steps; i++) {
        if (ptrace(PTRACE_SINGLESTEP, victim, 0, 0) != 0)
            break;
        if (waitpid(victim, &status, __WALL) != victim || !WIFSTOPPED(status))
            break;
    }
    kill(victim, SIGKILL);
    while (waitpid(victim, &status, __WALL) == victim && !WIFEXITED(status) && !WIFSIGNALED(status))
        ptrace(PTRACE_CONT, victim, 0, 0);
    answer("killed %ld %ld %s\n", count, number, entry ? "entry" : "exit");
    gone();
}

static void stopped(int status)
{
    int sig = WSTOPSIG(status);
    if (sig == SYSCALL_STOP) {
        struct syscall_info info;
        memset(&info, 0, sizeof info);
        ptrace(GET_SYSCALL_INFO, traced, (void *)sizeof info, &info);
        int entry = info.op == OP_ENTRY;
        if (entry)
            number = (long)info.number;
        count++;
        waiting = entry && waits(number);
        if (waiting)
            clock_gettime(CLOCK_MONOTONIC, &waiting_since);
        if (count == target) {
            murder(entry);
            return;
        }
        sig = 0;
    } else if (status >> 16 == EVENT_STOP) {
        if (sig != SIGTRAP) {
            ptrace(PTRACE_LISTEN, traced, 0, 0);
            return;
        }
        sig = 0;
    }
    ptrace(PTRACE_SYSCALL, traced, 0, (void *)(long)sig);
}

static void reap(void)
{
    int status;
    for (pid_t pid; (pid = waitpid(-1, &status, __WALL | WNOHANG)) > 0;) {
        if (pid == program && (WIFEXITED(status) || WIFSIGNALED(status)))
            exit(WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status));
        if (pid != traced)
            continue;
        if (WIFSTOPPED(status))
            stopped(status);
        else {
            answer("ended %ld\n", status, 0, "");
            gone();
        }
    }
}

static void trace(pid_t pid)
{
    if (ptrace(PTRACE_SEIZE, pid, 0, (void *)PTRACE_O_TRACESYSGOOD) != 0) {
        answer("refused %ld\n", errno, 0, "");
        return;
    }
    traced = pid;
    count = target = steps = waiting = 0;
    ptrace(PTRACE_INTERRUPT, pid, 0, 0);
    answer("tracing\n", 0, 0, "");
}

static void release(void)
{
    int status;
    pid_t pid = traced;
    if (pid != 0) {
        ptrace(PTRACE_INTERRUPT, pid, 0, 0);
        while (waitpid(pid, &status, __WALL) == pid && WIFSTOPPED(status)) {
            int sig = WSTOPSIG(status);
            if (status >> 16 == EVENT_STOP || sig == SYSCALL_STOP) {
                ptrace(PTRACE_DETACH, pid, 0, 0);
                break;
            }
            ptrace(PTRACE_CONT, pid, 0, (void *)(long)sig);
        }
    }
    gone();
    answer("released\n", 0, 0, "");
}

static void obey(char *line)
{
    if (strncmp(line, "trace ", 6) == 0)
        trace(atoi(line + 6));
    else if (strncmp(line, "arm ", 4) == 0) {
        count = 0;
        char *end;
        target = strtol(line + 4, &end, 10);
        steps = strtol(end, 0, 10);
        answer("armed\n", 0, 0, "");
    } else if (strncmp(line, "idle ", 5) == 0) {
        idle_ms = atoi(line + 5);
        clock_gettime(CLOCK_MONOTONIC, &asked_at);
        if (traced == 0)
            gone();
    } else if (strncmp(line, "release", 7) == 0)
        release();
}

int main(int argc, char **argv)
{
    int pair[2];
    sigset_t set, old;
    if (argc < 2 || socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair) != 0)
        return 2;
    channel = pair[0];
    sigemptyset(&set);
    sigaddset(&set, SIGCHLD);
    sigprocmask(SIG_BLOCK, &set, &old);
    program = fork();
    if (program == 0) {
        prctl(PR_SET_PDEATHSIG, SIGKILL);
        sigprocmask(SIG_SETMASK, &old, 0);
        if (pair[1] == 3)
            pair[1] = dup(pair[1]);
        dup2(pair[1], 3);
        execvp(argv[1], argv + 1);
        _exit(127);
    }
    close(pair[1]);
    int children = signalfd(-1, &set, SFD_CLOEXEC | SFD_NONBLOCK);
    /* The program's end is its own to decide on. */
    signal(SIGINT, SIG_IGN);
    char text[256];
    size_t len = 0;
    for (;;) {
        struct pollfd fds[2] = {{.fd = channel, .events = POLLIN}, {.fd = children, .events = POLLIN}};
        int timeout = -1;
        if (idle_ms >= 0 && waiting) {
            long left = idle_ms - waited_ms();
            timeout = left > 0 ? (int)left : 0;
        }
        poll(fds, 2, timeout);
        struct signalfd_siginfo info;
        while (read(children, &info, sizeof info) > 0)
            ;
        reap();
        if (idle_ms >= 0 && waiting && waited_ms() >= idle_ms) {
            idle_ms = -1;
            answer("idle %ld\n", count, 0, "");
        }
        if (fds[0].revents & POLLIN) {
            ssize_t got = read(channel, text + len, sizeof text - 1 - len);
            if (got <= 0) {
                fds[0].fd = -1;
                close(children);
                waitpid(program, 0, 0);
                return 1;
            }
            len += (size_t)got;
            text[len] = 0;
            for (char *end; (end = strchr(text, '\n')) != 0;) {
                *end = 0;
                obey(text);
                len -= (size_t)(end + 1 - text);
                memmove(text, end + 1, len + 1);
            }
        } else if (fds[0].revents & POLLHUP) {
            int status;
            waitpid(program, &status, 0);
            return WIFEXITED(status) ? WEXITSTATUS(status) : 1;
        }
    }
}

/*
 * Process 1 of the lab's guest: runs shell commands for lab/agent.ts over a serial port.
 *
 * After the magic both ways speak in frames: u32 length, u32 job (both little-endian), u8 type, payload.
 *   host to guest: 'S' start (payload: text for sh -c), 'K' kill (payload: one byte, the signal)
 *   guest to host: 'O' output of a job (stdout and stderr), 'E' its end (payload: i32 status, 128+N for signal N)
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/signalfd.h>
#include <sys/wait.h>
#include <termios.h>
#include <unistd.h>

#define MAGIC "\x01\xfe" "vmchannel-agent" "\xfd\x02"
#define HEADER 9
#define JOBS 64
#define CHUNK 4096
#define COMMAND_MAX 65536

struct job {
  uint32_t id;
  pid_t pid; /* 0: ended, the pipe is only drained so that what it left running gets no SIGPIPE */
  int fd;    /* FREE, CLOSED or the read end of its output */
};

enum { FREE = -1, CLOSED = -2 };

static struct job jobs[JOBS];
static int tty;
static sigset_t child_signals;

static void write_all(const void *data, size_t len) {
  const char *at = data;
  while (len > 0) {
    ssize_t n = write(tty, at, len);
    if (n < 0 && errno != EINTR && errno != EAGAIN) return;
    if (n > 0) at += n, len -= (size_t)n;
  }
}

static void send_frame(char type, uint32_t id, const void *payload, uint32_t len) {
  static char frame[HEADER + CHUNK];
  memcpy(frame, &len, 4);
  memcpy(frame + 4, &id, 4);
  frame[8] = type;
  memcpy(frame + HEADER, payload, len);
  write_all(frame, HEADER + len);
}

static void send_end(uint32_t id, int32_t status) { send_frame('E', id, &status, 4); }

static void start(uint32_t id, const char *text) {
  struct job *job = NULL;
  int ends[2];
  for (int i = 0; i < JOBS && !job; i++)
    if (jobs[i].fd == FREE) job = &jobs[i];
  if (!job || pipe2(ends, O_CLOEXEC) < 0) {
    static const char full[] = "agent: too many jobs\n";
    send_frame('O', id, full, sizeof full - 1);
    send_end(id, 126);
    return;
  }
  pid_t pid = fork();
  if (pid == 0) {
    int null = open("/dev/null", O_RDONLY);
    sigprocmask(SIG_UNBLOCK, &child_signals, NULL);
    setsid();
    dup2(null, 0);
    dup2(ends[1], 1);
    dup2(ends[1], 2);
    execl("/bin/sh", "sh", "-c", text, (char *)NULL);
    _exit(127);
  }
  close(ends[1]);
  fcntl(ends[0], F_SETFL, O_NONBLOCK);
  *job = (struct job){id, pid, ends[0]};
  if (pid < 0) {
    job->pid = 0;
    send_end(id, 126);
  }
}

/* One read; 1: there may be more, 0: nothing now, or closed. */
static int drain(struct job *job) {
  char data[CHUNK];
  if (job->fd < 0) return 0;
  ssize_t n = read(job->fd, data, sizeof data);
  if (n > 0 && job->pid) send_frame('O', job->id, data, (uint32_t)n);
  if (n > 0) return 1;
  if (n < 0 && (errno == EAGAIN || errno == EINTR)) return 0;
  close(job->fd);
  job->fd = job->pid ? CLOSED : FREE;
  return 0;
}

static void reap(void) {
  int status;
  pid_t pid;
  while ((pid = waitpid(-1, &status, WNOHANG)) > 0) {
    for (int i = 0; i < JOBS; i++) {
      struct job *job = &jobs[i];
      if (job->fd == FREE || job->pid != pid) continue;
      /* What it wrote is in the pipe (at most 64 KiB); what it left running may go on writing for ever. */
      for (int rounds = 0; rounds < 32 && drain(job); rounds++) {
      }
      send_end(job->id, WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status));
      job->pid = 0;
      if (job->fd == CLOSED) job->fd = FREE;
      break;
    }
  }
}

static void take(char type, uint32_t id, const char *payload, uint32_t len) {
  static char text[COMMAND_MAX + 1];
  if (type == 'S') {
    memcpy(text, payload, len);
    text[len] = 0;
    start(id, text);
  }
  for (int i = 0; type == 'K' && len == 1 && i < JOBS; i++)
    if (jobs[i].fd != FREE && jobs[i].pid && jobs[i].id == id) kill(-jobs[i].pid, payload[0]);
}

static void read_frames(void) {
  static char buffer[HEADER + COMMAND_MAX];
  static size_t held;
  ssize_t n = read(tty, buffer + held, sizeof buffer - held);
  if (n <= 0) return;
  held += (size_t)n;
  for (;;) {
    uint32_t len, id;
    if (held < HEADER) return;
    memcpy(&len, buffer, 4);
    memcpy(&id, buffer + 4, 4);
    if (len > COMMAND_MAX) { /* out of step: nothing sensible follows */
      fprintf(stderr, "agent: bad frame\n");
      held = 0;
      return;
    }
    if (held < HEADER + len) return;
    take(buffer[8], id, buffer + HEADER, len);
    held -= HEADER + len;
    memmove(buffer, buffer + HEADER + len, held);
  }
}

int main(int argc, char **argv) {
  struct termios raw;
  tty = open(argc > 1 ? argv[1] : "/dev/ttyS1", O_RDWR | O_NOCTTY | O_CLOEXEC);
  if (tty < 0) {
    perror("agent: open");
    return 1;
  }
  tcgetattr(tty, &raw);
  cfmakeraw(&raw);
  raw.c_cflag |= CLOCAL | CREAD;
  cfsetspeed(&raw, B115200);
  tcsetattr(tty, TCSANOW, &raw);
  tcflush(tty, TCIFLUSH);
  for (int i = 0; i < JOBS; i++) jobs[i].fd = FREE;
  sigemptyset(&child_signals);
  sigaddset(&child_signals, SIGCHLD);
  sigprocmask(SIG_BLOCK, &child_signals, NULL);
  int children = signalfd(-1, &child_signals, SFD_CLOEXEC | SFD_NONBLOCK);
  write_all(MAGIC, sizeof MAGIC - 1);
  for (;;) {
    struct pollfd fds[JOBS + 2] = {{tty, POLLIN, 0}, {children, POLLIN, 0}};
    for (int i = 0; i < JOBS; i++) fds[i + 2] = (struct pollfd){jobs[i].fd, POLLIN, 0};
    if (poll(fds, JOBS + 2, -1) < 0) continue;
    for (int i = 0; i < JOBS; i++) /* output first, so that it precedes the end */
      if (fds[i + 2].revents) drain(&jobs[i]);
    if (fds[1].revents) {
      struct signalfd_siginfo info;
      while (read(children, &info, sizeof info) > 0) {
      }
      reap();
    }
    if (fds[0].revents) read_frames();
  }
}

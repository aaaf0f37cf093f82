/*
 * vmtest: what a test wants to do to a character device inside the guest. The last line of output is the result, as
 * JSON; sub-commands that wait print a line "ready" first. A device may be a TCP connection, tcp:ADDRESS:PORT, to hold
 * devices against. lab/vmtest.ts runs it.
 */
#include "common.h"
#include <arpa/inet.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <sys/socket.h>

static const struct {
  const char *name;
  command *run;
  int words; /* needed after the name */
  const char *usage;
} commands[] = {
    {"sink", run_sink, 2, "DEV BYTES [BS] [--no-hash]: read that many bytes (0: until end of file)"},
    {"source", run_source, 3, "DEV BYTES BS [SEED] [--no-hash]: write the test pattern"},
    {"echo", run_echo, 1, "DEV [BYTES [BS]]: write back what was read"},
    {"loop", run_loop, 4, "BYTES BS FROM TO...: copy from one device to others; --again: for ever, opening them anew"},
    {"ping", run_ping, 3, "DEV COUNT SIZE: round trips started by the guest"},
    {"splice", run_splice, 3, "DEV FILE BYTES: file to pipe to device"},
    {"vmsplice", run_vmsplice, 3, "DEV BYTES BS [SEED] [--gift]: own pages to pipe to device"},
    {"nonblock", run_nonblock, 1, "DEV [BS [MAX]]: O_NONBLOCK read, then writes until EAGAIN"},
    {"poll", run_poll, 2, "DEV MS [in|out|inout]: what poll says"},
    {"sigio", run_sigio, 2, "DEV MS: O_ASYNC, wait for SIGIO"},
    {"storm", run_storm, 2, "DEV COUNT: open and close"},
    {"open2", run_open2, 1, "DEV: open it twice"},
    {"lseek", run_lseek, 1, "DEV: lseek and pread"},
    {"hold", run_hold, 2, "DEV MS: keep it open (0: for ever)"},
    {"winsize", run_winsize, 1, "TTY [MS]: window size; with MS wait for another one"},
};

int main(int argc, char **argv) {
  for (size_t i = 0; i < sizeof commands / sizeof *commands; i++)
    if (argc > 1 && strcmp(argv[1], commands[i].name) == 0) {
      if (argc - 2 >= commands[i].words) return commands[i].run(argc - 1, argv + 1);
      fprintf(stderr, "usage: vmtest %s %s\n", commands[i].name, commands[i].usage);
      return 2;
    }
  for (size_t i = 0; i < sizeof commands / sizeof *commands; i++)
    fprintf(stderr, "vmtest %s %s\n", commands[i].name, commands[i].usage);
  return 2;
}

const char *errno_name(int code) {
  static const struct {
    int code;
    const char *name;
  } names[] = {{0, "OK"},
#define N(e) {e, #e}
               N(EPERM),  N(ENOENT), N(EINTR),  N(EIO),    N(ENXIO),  N(EBADF),  N(EAGAIN),    N(ENOMEM),
               N(EACCES), N(EFAULT), N(EBUSY),  N(EEXIST), N(ENODEV), N(EISDIR), N(EINVAL),    N(ENFILE),
               N(EMFILE), N(ENOTTY), N(EFBIG),  N(ENOSPC), N(ESPIPE), N(EROFS),  N(EPIPE),     N(ERANGE),
               N(ENOSYS), N(EPROTO), N(ENOBUFS), N(EOPNOTSUPP), N(ETIMEDOUT), N(ECANCELED), N(ECONNRESET)
#undef N
  };
  static char text[16];
  for (size_t i = 0; i < sizeof names / sizeof *names; i++)
    if (names[i].code == code) return names[i].name;
  snprintf(text, sizeof text, "errno %d", code);
  return text;
}

void die(const char *what, const char *name) {
  int code = errno;
  printf("{\"error\":\"%s\",\"errno\":%d,\"what\":\"%s %s\"}\n", errno_name(code), code, what, name);
  exit(1);
}

uint64_t number(const char *text) {
  char *end;
  errno = 0;
  uint64_t value = strtoull(text, &end, 0);
  int shift = *end == 'k' ? 10 : *end == 'm' ? 20 : *end == 'g' ? 30 : 0;
  if (shift) end++;
  if (errno || end == text || *end || *text == '-') {
    errno = EINVAL;
    die("number", text);
  }
  return value << shift;
}

bool take_flag(int *argc, char **argv, const char *name) {
  for (int i = 1; i < *argc; i++)
    if (strncmp(argv[i], "--", 2) == 0 && strcmp(argv[i] + 2, name) == 0) {
      memmove(argv + i, argv + i + 1, (size_t)(*argc - i) * sizeof *argv);
      --*argc;
      return true;
    }
  return false;
}

/* "tcp:ADDRESS:PORT" */
static int dial(const char *place) {
  char text[64];
  int on = 1, fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
  snprintf(text, sizeof text, "%s", place + strlen("tcp:"));
  char *port = strchr(text, ':');
  if (port) *port++ = 0;
  struct sockaddr_in to = {.sin_family = AF_INET, .sin_port = htons(port ? (uint16_t)atoi(port) : 0)};
  if (inet_pton(AF_INET, text, &to.sin_addr) != 1) {
    errno = EINVAL;
    return -1;
  }
  setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
  return connect(fd, (struct sockaddr *)&to, sizeof to) < 0 ? -1 : fd;
}

int open_device(const char *path, int flags) {
  int fd = strncmp(path, "tcp:", 4) == 0 ? dial(path) : open(path, flags | O_CLOEXEC | O_NOCTTY);
  if (fd < 0) die("open", path);
  return fd;
}

void say_ready(void) {
  puts("ready");
  fflush(stdout);
}

void *allocate(size_t len) {
  void *memory = aligned_alloc(4096, (len + 4095) & ~(size_t)4095);
  if (!memory || len == 0) {
    errno = len ? ENOMEM : EINVAL;
    die("buffer", "");
  }
  return memory;
}

void write_fully(int fd, const void *data, size_t len, const char *path, uint64_t *calls, uint64_t *partial) {
  const char *at = data;
  while (len > 0) {
    ssize_t n = write(fd, at, len);
    if (n < 0 && errno == EINTR) continue;
    if (n < 0) die("write", path);
    ++*calls;
    if ((size_t)n < len) ++*partial;
    at += n, len -= (size_t)n;
  }
}

uint64_t splice_fully(int from, int to, size_t len, const char *path) {
  uint64_t calls = 0;
  for (; len > 0; calls++) {
    ssize_t n = splice(from, NULL, to, NULL, len, 0);
    if (n == 0) errno = EPIPE;
    if (n <= 0) die("splice", path);
    len -= (size_t)n;
  }
  return calls;
}

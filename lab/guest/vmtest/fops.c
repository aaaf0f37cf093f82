/* vmtest: the file operations of a port one by one. */
#include "common.h"
#include <signal.h>
#include <sys/ioctl.h>

static void print_events(short events) {
  static const struct {
    short bit;
    const char *name;
  } names[] = {{POLLIN, "IN"}, {POLLOUT, "OUT"}, {POLLERR, "ERR"}, {POLLHUP, "HUP"}, {POLLNVAL, "NVAL"}, {POLLRDHUP, "RDHUP"}};
  const char *comma = "";
  putchar('[');
  for (size_t i = 0; i < sizeof names / sizeof *names; i++)
    if (events & names[i].bit) {
      printf("%s\"%s\"", comma, names[i].name);
      comma = ",";
    }
  putchar(']');
}

static short poll_now(int fd, short events, int ms) {
  struct pollfd p = {fd, events, 0};
  return poll(&p, 1, ms) > 0 ? p.revents : 0;
}

int run_nonblock(int argc, char **argv) {
  size_t block = argc > 2 ? number(argv[2]) : 4096;
  uint64_t max = argc > 3 ? number(argv[3]) : 64 << 20, bytes = 0, writes = 0;
  unsigned char *buffer = allocate(block);
  struct pattern pattern;
  pattern_start(&pattern, 1);
  pattern_fill(&pattern, buffer, block);
  int fd = open_device(argv[1], O_RDWR | O_NONBLOCK), write_error = 0;
  ssize_t got = read(fd, allocate(block), block);
  int read_error = got < 0 ? errno : 0;
  while (bytes < max) {
    ssize_t n = write(fd, buffer, block);
    if (n < 0) {
      write_error = errno;
      break;
    }
    writes++;
    bytes += (uint64_t)n;
  }
  printf("{\"read\":%zd,\"read_errno\":\"%s\",\"writes\":%lu,\"bytes\":%lu,\"write_errno\":\"%s\",\"revents\":", got,
         errno_name(read_error), writes, bytes, errno_name(write_error));
  print_events(poll_now(fd, POLLIN | POLLOUT, 0));
  puts("}");
  return 0;
}

int run_poll(int argc, char **argv) {
  const char *which = argc > 3 ? argv[3] : "inout";
  short events = (short)((strstr(which, "in") ? POLLIN : 0) | (strstr(which, "out") ? POLLOUT : 0));
  int fd = open_device(argv[1], O_RDWR | O_NONBLOCK);
  say_ready();
  uint64_t start = now_ns();
  short revents = poll_now(fd, events, (int)number(argv[2]));
  uint64_t end = now_ns();
  printf("{\"ns\":%lu,\"revents\":", end - start);
  print_events(revents);
  puts("}");
  return 0;
}

int run_sigio(int argc, char **argv) {
  (void)argc;
  uint64_t ms = number(argv[2]);
  struct timespec limit = {(time_t)(ms / 1000), (long)(ms % 1000) * 1000000};
  sigset_t set;
  sigemptyset(&set);
  sigaddset(&set, SIGIO);
  sigprocmask(SIG_BLOCK, &set, NULL);
  int fd = open_device(argv[1], O_RDWR | O_NONBLOCK);
  if (fcntl(fd, F_SETOWN, getpid()) < 0) die("F_SETOWN", argv[1]);
  if (fcntl(fd, F_SETFL, O_NONBLOCK | O_ASYNC) < 0) die("O_ASYNC", argv[1]);
  say_ready();
  uint64_t start = now_ns();
  int got = sigtimedwait(&set, NULL, &limit);
  printf("{\"sigio\":%s,\"ns\":%lu,\"revents\":", got == SIGIO ? "true" : "false", now_ns() - start);
  print_events(poll_now(fd, POLLIN | POLLOUT, 0));
  puts("}");
  return 0;
}

int run_storm(int argc, char **argv) {
  (void)argc;
  uint64_t count = number(argv[2]), failed = 0, start = now_ns();
  int last = 0;
  for (uint64_t i = 0; i < count; i++) {
    int fd = open(argv[1], O_RDWR | O_NONBLOCK | O_CLOEXEC);
    if (fd >= 0) {
      close(fd);
      continue;
    }
    failed++;
    last = errno;
  }
  printf("{\"count\":%lu,\"failed\":%lu,\"errno\":\"%s\",\"ns\":%lu}\n", count, failed, errno_name(last), now_ns() - start);
  return 0;
}

int run_open2(int argc, char **argv) {
  (void)argc;
  open_device(argv[1], O_RDWR);
  int second = open(argv[1], O_RDWR | O_CLOEXEC);
  printf("{\"second\":%s,\"errno\":\"%s\"}\n", second >= 0 ? "true" : "false", errno_name(second >= 0 ? 0 : errno));
  return 0;
}

int run_lseek(int argc, char **argv) {
  (void)argc;
  int fd = open_device(argv[1], O_RDWR | O_NONBLOCK);
  char byte;
  const char *seek = errno_name(lseek(fd, 0, SEEK_CUR) < 0 ? errno : 0);
  const char *pread_at = errno_name(pread(fd, &byte, 1, 4096) < 0 ? errno : 0);
  printf("{\"lseek\":\"%s\",\"pread\":\"%s\"}\n", seek, pread_at);
  return 0;
}

int run_hold(int argc, char **argv) {
  (void)argc;
  uint64_t ms = number(argv[2]);
  open_device(argv[1], O_RDWR);
  say_ready();
  if (ms == 0)
    for (;;) pause();
  struct timespec time = {(time_t)(ms / 1000), (long)(ms % 1000) * 1000000};
  nanosleep(&time, NULL);
  puts("{\"held\":true}");
  return 0;
}

int run_winsize(int argc, char **argv) {
  struct winsize first, size;
  int fd = open_device(argv[1], O_RDWR | O_NONBLOCK);
  uint64_t end = now_ns() + (argc > 2 ? number(argv[2]) : 0) * 1000000u;
  if (ioctl(fd, TIOCGWINSZ, &first) < 0) die("TIOCGWINSZ", argv[1]);
  size = first;
  if (argc > 2) say_ready();
  while (now_ns() < end && memcmp(&size, &first, sizeof size) == 0) {
    usleep(10000);
    if (ioctl(fd, TIOCGWINSZ, &size) < 0) die("TIOCGWINSZ", argv[1]);
  }
  bool changed = memcmp(&size, &first, sizeof size) != 0;
  printf("{\"rows\":%u,\"cols\":%u,\"changed\":%s}\n", size.ws_row, size.ws_col, changed ? "true" : "false");
  return 0;
}

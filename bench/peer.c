/*
 * The host's end of a bench port: connects to a unix socket and consumes, produces or echoes. The last line of output
 * is JSON. Times are nanoseconds, from the first byte to the last. In C so that it costs next to nothing itself, the
 * same for every device that is measured.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <sys/un.h>
#include <time.h>
#include <unistd.h>

static char buffer[1 << 20];

static uint64_t now(void) {
  struct timespec t;
  clock_gettime(CLOCK_MONOTONIC, &t);
  return (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec;
}

static void fail(const char *what) {
  fprintf(stderr, "peer: %s: %s\n", what, strerror(errno));
  exit(1);
}

static int dial(const char *path) {
  struct sockaddr_un at = {.sun_family = AF_UNIX};
  strncpy(at.sun_path, path, sizeof at.sun_path - 1);
  int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
  if (fd < 0 || connect(fd, (struct sockaddr *)&at, sizeof at) < 0) fail(path);
  /* What was lost on the way never comes: the result then says how much did. */
  struct timeval patience = {.tv_sec = 30};
  setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof patience);
  return fd;
}

static void say_ready(void) {
  puts("ready");
  fflush(stdout);
}

static int report(uint64_t bytes, uint64_t start) {
  printf("{\"bytes\":%llu,\"ns\":%llu}\n", (unsigned long long)bytes, (unsigned long long)(now() - start));
  return 0;
}

static void put(int fd, const char *from, size_t len) {
  for (ssize_t n; len > 0; from += n, len -= (size_t)n)
    if ((n = write(fd, from, len)) < 0) fail("write");
}

/* Consumes from COUNT sockets at once, PATTERN with %d from 1 on, until so many bytes have come in all. */
static int sinks(const char *pattern, uint64_t bytes, int count) {
  struct epoll_event event = {.events = EPOLLIN}, ready[64];
  int poll = epoll_create1(EPOLL_CLOEXEC);
  uint64_t done = 0, start = 0;
  for (int i = 1; i <= count; i++) {
    char path[108];
    snprintf(path, sizeof path, pattern, i);
    event.data.fd = dial(path);
    if (epoll_ctl(poll, EPOLL_CTL_ADD, event.data.fd, &event) < 0) fail("epoll_ctl");
  }
  say_ready();
  while (done < bytes) {
    int found = epoll_wait(poll, ready, 64, 30000);
    if (found <= 0) break;
    for (int i = 0; i < found; i++) {
      ssize_t n = read(ready[i].data.fd, buffer, sizeof buffer);
      if (n <= 0) continue;
      if (start == 0) start = now();
      done += (uint64_t)n;
    }
  }
  return report(done, start);
}

int main(int argc, char **argv) {
  if (argc < 3) return 2;
  if (strcmp(argv[1], "sinks") == 0 && argc > 4) return sinks(argv[2], strtoull(argv[3], NULL, 10), atoi(argv[4]));
  int fd = dial(argv[2]);
  say_ready();
  uint64_t bytes = argc > 3 ? strtoull(argv[3], NULL, 10) : 0, done = 0, start = 0;
  size_t size = argc > 4 ? strtoull(argv[4], NULL, 10) : sizeof buffer;
  if (size == 0 || size > sizeof buffer) size = sizeof buffer;
  if (strcmp(argv[1], "source") == 0) {
    start = now();
    for (; done < bytes; done += size) put(fd, buffer, size);
    /* QEMU forgets what it has not read of a socket that was closed: until whoever started us has it all. */
    while (read(STDIN_FILENO, buffer, 1) > 0) {}
  } else {
    ssize_t n;
    int echo = strcmp(argv[1], "echo") == 0;
    while (echo || done < bytes) {
      if ((n = read(fd, buffer, sizeof buffer)) == 0) break;
      if (n < 0 && echo && errno == EAGAIN) continue;
      if (n < 0) break;
      if (start == 0) start = now();
      if (echo) put(fd, buffer, (size_t)n);
      done += (uint64_t)n;
    }
  }
  return report(done, start);
}

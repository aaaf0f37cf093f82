/* vmtest: bytes in bulk and round trips. */
#include "common.h"
#include "sha256.h"

/*
 * virtio_console answers 0 to a read while the host's end is not connected, also before it ever was: until the first
 * byte that is not the end of the file. Waits for at most ten seconds, then takes it for the end after all.
 */
static ssize_t read_first(int fd, void *to, size_t len) {
  uint64_t end = now_ns() + 10000000000u;
  for (;;) {
    ssize_t n = read(fd, to, len);
    if (n > 0 || (n < 0 && errno != EINTR) || now_ns() > end) return n;
    usleep(2000);
  }
}

int run_sink(int argc, char **argv) {
  bool hash = !take_flag(&argc, argv, "no-hash");
  uint64_t wanted = number(argv[2]), got = 0, reads = 0;
  size_t block = argc > 3 ? number(argv[3]) : 65536;
  unsigned char *buffer = allocate(block);
  struct sha256 sum;
  bool eof = false;
  int fd = open_device(argv[1], O_RDONLY);
  uint64_t opened = now_ns(), start = opened;
  say_ready();
  sha256_start(&sum);
  while (!wanted || got < wanted) {
    size_t len = wanted && wanted - got < block ? wanted - got : block;
    ssize_t n = got ? read(fd, buffer, len) : read_first(fd, buffer, len);
    if (n < 0 && errno == EINTR) continue;
    if (n < 0) die("read", argv[1]);
    if (n == 0) {
      eof = true;
      break;
    }
    if (!got) start = now_ns();
    reads++;
    got += (uint64_t)n;
    if (hash) sha256_add(&sum, buffer, (size_t)n);
  }
  uint64_t end = now_ns();
  printf("{\"bytes\":%lu,\"ns\":%lu,\"total_ns\":%lu,\"reads\":%lu,\"eof\":%s,\"sha256\":\"%s\"}\n", got, end - start,
         end - opened, reads, eof ? "true" : "false", hash ? sha256_end(&sum) : "");
  return 0;
}

/* Without the hash one block is made and sent again and again: only the device is timed. */
int run_source(int argc, char **argv) {
  bool hash = !take_flag(&argc, argv, "no-hash");
  uint64_t left = number(argv[2]), bytes = left, writes = 0, partial = 0;
  size_t block = number(argv[3]);
  unsigned char *buffer = allocate(block);
  struct pattern pattern;
  struct sha256 sum;
  pattern_start(&pattern, argc > 4 ? (uint32_t)number(argv[4]) : 1);
  if (!hash) pattern_fill(&pattern, buffer, block);
  sha256_start(&sum);
  int fd = open_device(argv[1], O_WRONLY);
  uint64_t start = now_ns();
  while (left > 0) {
    size_t len = left < block ? left : block;
    if (hash) {
      pattern_fill(&pattern, buffer, len);
      sha256_add(&sum, buffer, len);
    }
    write_fully(fd, buffer, len, argv[1], &writes, &partial);
    left -= len;
  }
  printf("{\"bytes\":%lu,\"ns\":%lu,\"writes\":%lu,\"partial\":%lu,\"sha256\":\"%s\"}\n", bytes, now_ns() - start,
         writes, partial, hash ? sha256_end(&sum) : "");
  return 0;
}

int run_echo(int argc, char **argv) {
  uint64_t wanted = argc > 2 ? number(argv[2]) : 0, got = 0, reads = 0, writes = 0, partial = 0;
  size_t block = argc > 3 ? number(argv[3]) : 65536;
  unsigned char *buffer = allocate(block);
  int fd = open_device(argv[1], O_RDWR);
  uint64_t start = now_ns();
  say_ready();
  while (!wanted || got < wanted) {
    size_t len = wanted && wanted - got < block ? wanted - got : block;
    ssize_t n = got ? read(fd, buffer, len) : read_first(fd, buffer, len);
    if (n < 0 && errno == EINTR) continue;
    if (n < 0) die("read", argv[1]);
    if (n == 0) break;
    reads++;
    got += (uint64_t)n;
    write_fully(fd, buffer, (size_t)n, argv[1], &writes, &partial);
  }
  printf("{\"bytes\":%lu,\"ns\":%lu,\"reads\":%lu,\"writes\":%lu,\"partial\":%lu}\n", got, now_ns() - start, reads,
         writes, partial);
  return 0;
}

static int by_value(const void *a, const void *b) {
  uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;
  return x < y ? -1 : x > y;
}

int run_ping(int argc, char **argv) {
  (void)argc;
  uint64_t count = number(argv[2]), writes = 0, partial = 0, wrong = 0;
  size_t size = number(argv[3]);
  unsigned char *out = allocate(size), *in = allocate(size);
  uint64_t *times = allocate(count * sizeof *times);
  struct pattern pattern;
  int fd = open_device(argv[1], O_RDWR);
  pattern_start(&pattern, 1);
  for (uint64_t i = 0; i < count; i++) {
    pattern_fill(&pattern, out, size);
    uint64_t start = now_ns();
    write_fully(fd, out, size, argv[1], &writes, &partial);
    for (size_t got = 0; got < size;) {
      ssize_t n = read(fd, in + got, size - got);
      if (n < 0 && errno == EINTR) continue;
      if (n == 0) errno = EPIPE;
      if (n <= 0) die("read", argv[1]);
      got += (size_t)n;
    }
    times[i] = now_ns() - start;
    if (memcmp(out, in, size) != 0) wrong++;
  }
  qsort(times, count, sizeof *times, by_value);
  printf("{\"count\":%lu,\"size\":%zu,\"wrong\":%lu,\"min\":%lu,\"p50\":%lu,\"p99\":%lu,\"max\":%lu}\n", count, size,
         wrong, times[0], times[count / 2], times[count * 99 / 100], times[count - 1]);
  return 0;
}

/* vmtest: bytes from one port to others, as long as both are there. */
#include "common.h"

/* Opens a device that may be away for a while: a port that is plugged again. */
static int open_again(const char *path, int flags) {
  for (;;) {
    int fd = open(path, flags | O_CLOEXEC);
    if (fd >= 0) return fd;
    usleep(5000);
  }
}

/*
 * Reads from the first device, writes it to all the others. Until BYTES have passed; with --again for ever: what fails
 * is opened anew, and a read of 0 only means that the host is away.
 */
int run_loop(int argc, char **argv) {
  bool again = take_flag(&argc, argv, "again");
  uint64_t wanted = number(argv[1]), got = 0, writes = 0, partial = 0;
  size_t block = number(argv[2]);
  unsigned char *buffer = allocate(block);
  int count = argc - 4, from = open_device(argv[3], O_RDONLY), *to = allocate((size_t)count * sizeof *to);
  for (int i = 0; i < count; i++) to[i] = open_device(argv[4 + i], O_WRONLY);
  say_ready();
  while (again || got < wanted) {
    ssize_t n = read(from, buffer, block);
    if (n == 0 || (n < 0 && errno == EINTR)) {
      usleep(2000);
      continue;
    }
    if (n < 0 && again) {
      close(from);
      from = open_again(argv[3], O_RDONLY);
      continue;
    }
    if (n < 0) die("read", argv[3]);
    got += (uint64_t)n;
    for (int i = 0; i < count; i++) {
      if (!again) {
        write_fully(to[i], buffer, (size_t)n, argv[4 + i], &writes, &partial);
        continue;
      }
      for (ssize_t at = 0, w; at < n; at += w)
        if ((w = write(to[i], buffer + at, (size_t)(n - at))) < 0) {
          if (errno == EINTR) {
            w = 0;
            continue;
          }
          /* What of this block had not gone is lost with the port. */
          close(to[i]);
          to[i] = open_again(argv[4 + i], O_WRONLY);
          break;
        }
    }
  }
  printf("{\"bytes\":%lu,\"writes\":%lu}\n", got, writes);
  return 0;
}

/* vmtest: zero-copy ways into a device. */
#include "common.h"
#include "sha256.h"
#include <sys/mman.h>
#include <sys/uio.h>

static void make_pipe(int ends[2], size_t room) {
  if (pipe2(ends, O_CLOEXEC) < 0) die("pipe", "");
  fcntl(ends[1], F_SETPIPE_SZ, room); /* a smaller pipe only means smaller steps */
}

int run_splice(int argc, char **argv) {
  (void)argc;
  uint64_t wanted = number(argv[3]), left = wanted, calls = 0;
  int ends[2];
  int from = open_device(argv[2], O_RDONLY);
  int fd = open_device(argv[1], O_WRONLY);
  make_pipe(ends, 1 << 20);
  uint64_t start = now_ns();
  while (left > 0) {
    ssize_t n = splice(from, NULL, ends[1], NULL, left < 1 << 20 ? left : 1 << 20, 0);
    if (n == 0) errno = ENOSPC; /* the file is shorter than asked for */
    if (n <= 0) die("splice from", argv[2]);
    calls += splice_fully(ends[0], fd, (size_t)n, argv[1]);
    left -= (uint64_t)n;
  }
  printf("{\"bytes\":%lu,\"ns\":%lu,\"splices\":%lu}\n", wanted, now_ns() - start, calls);
  return 0;
}

/*
 * Pages given away: nothing is copied in the guest. A pipe's page can be handed on as it is only while nobody else has
 * it, so what the pipe holds is unmapped. All pages are made before the clock starts. `bs` is a multiple of a page.
 */
static int run_gift(char **argv, uint64_t wanted, size_t block) {
  uint64_t calls = 0;
  int ends[2];
  int fd = open_device(argv[1], O_WRONLY);
  make_pipe(ends, 1 << 20);
  char *pages = mmap(NULL, wanted, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (pages == MAP_FAILED) die("mmap", "");
  madvise(pages, wanted, MADV_NOHUGEPAGE); /* a part of a huge page is never given */
  for (uint64_t at = 0; at < wanted; at += 4096) pages[at] = 1;
  uint64_t start = now_ns();
  for (uint64_t done = 0; done < wanted;) {
    struct iovec rest = {pages + done, wanted - done < block ? wanted - done : block};
    ssize_t n = vmsplice(ends[1], &rest, 1, SPLICE_F_GIFT);
    if (n <= 0) die("vmsplice", "");
    munmap(pages + done, (size_t)n);
    calls += splice_fully(ends[0], fd, (size_t)n, argv[1]);
    done += (uint64_t)n;
  }
  printf("{\"bytes\":%lu,\"ns\":%lu,\"splices\":%lu,\"sha256\":\"\"}\n", wanted, now_ns() - start, calls);
  return 0;
}

int run_vmsplice(int argc, char **argv) {
  bool gift = take_flag(&argc, argv, "gift");
  uint64_t wanted = number(argv[2]), left = wanted, calls = 0;
  size_t block = number(argv[3]);
  if (gift) return run_gift(argv, wanted, block);
  unsigned char *buffer = allocate(block);
  struct pattern pattern;
  struct sha256 sum;
  int ends[2];
  int fd = open_device(argv[1], O_WRONLY);
  make_pipe(ends, 1 << 20);
  pattern_start(&pattern, argc > 4 ? (uint32_t)number(argv[4]) : 1);
  sha256_start(&sum);
  uint64_t start = now_ns();
  while (left > 0) {
    size_t len = left < block ? left : block;
    pattern_fill(&pattern, buffer, len);
    sha256_add(&sum, buffer, len);
    /* The pages must not change before the device has them: the pipe is emptied before the next round. */
    for (struct iovec rest = {buffer, len}; rest.iov_len > 0;) {
      ssize_t n = vmsplice(ends[1], &rest, 1, 0);
      if (n <= 0) die("vmsplice", "");
      calls += splice_fully(ends[0], fd, (size_t)n, argv[1]);
      rest.iov_base = (char *)rest.iov_base + n;
      rest.iov_len -= (size_t)n;
    }
    left -= len;
  }
  printf("{\"bytes\":%lu,\"ns\":%lu,\"splices\":%lu,\"sha256\":\"%s\"}\n", wanted, now_ns() - start, calls,
         sha256_end(&sum));
  return 0;
}

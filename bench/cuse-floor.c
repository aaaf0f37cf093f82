/*
 * A character device through CUSE with nothing behind it: what is written is forgotten, what is read is whatever lies
 * there. In C and blocking, so that what is left is what CUSE itself costs: the bound for any driver behind it.
 */
#include <errno.h>
#include <fcntl.h>
#include <linux/fuse.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/uio.h>
#include <unistd.h>

#define REQUEST_MAX 131072

static char request[REQUEST_MAX + 4096], data[REQUEST_MAX];

static void reply(int fd, int error, const void *body, size_t len) {
  struct fuse_in_header *in = (void *)request;
  struct fuse_out_header out = {.len = (uint32_t)(sizeof out + len), .error = -error, .unique = in->unique};
  struct iovec parts[2] = {{&out, sizeof out}, {(void *)body, len}};
  if (writev(fd, parts, len ? 2 : 1) < 0 && errno != ENOENT) perror("cuse-floor: reply");
}

int main(int argc, char **argv) {
  if (argc < 2) return 2;
  int fd = open("/dev/cuse", O_RDWR);
  if (fd < 0) return perror("cuse-floor: /dev/cuse"), 1;
  struct fuse_in_header *in = (void *)request;
  for (;;) {
    void *body = request + sizeof *in;
    if (read(fd, request, sizeof request) < 0) {
      if (errno == EINTR || errno == ENOENT) continue;
      return perror("cuse-floor: request"), 1;
    }
    if (in->opcode == CUSE_INIT) {
      static struct {
        struct cuse_init_out out;
        char name[64];
      } init = {.out = {.major = 7, .minor = 31, .max_read = REQUEST_MAX, .max_write = REQUEST_MAX}};
      int len = snprintf(init.name, sizeof init.name, "DEVNAME=%s", argv[1]) + 1;
      reply(fd, 0, &init, sizeof init.out + (size_t)len);
      puts("ready");
      fflush(stdout);
    } else if (in->opcode == FUSE_OPEN) {
      struct fuse_open_out out = {.fh = 1};
      reply(fd, 0, &out, sizeof out);
    } else if (in->opcode == FUSE_READ) {
      reply(fd, 0, data, ((struct fuse_read_in *)body)->size);
    } else if (in->opcode == FUSE_WRITE) {
      struct fuse_write_out out = {.size = ((struct fuse_write_in *)body)->size};
      reply(fd, 0, &out, sizeof out);
    } else if (in->opcode == FUSE_RELEASE) {
      reply(fd, 0, NULL, 0);
    } else if (in->opcode != FUSE_INTERRUPT) {
      reply(fd, ENOSYS, NULL, 0);
    }
  }
}

/* Shared by the parts of vmtest: result lines, errors with names, time, the test pattern. */
#ifndef COMMON_H
#define COMMON_H
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

/* The name of an errno ("EAGAIN"), or its number in words. */
const char *errno_name(int code);

/* Prints {"error":NAME,"errno":N,"what":...} and ends with status 1. */
void die(const char *what, const char *name) __attribute__((noreturn));

/* A number with an optional k, m or g. */
uint64_t number(const char *text);

/* Takes `--NAME` out of the words; true if it was there. */
bool take_flag(int *argc, char **argv, const char *name);

int open_device(const char *path, int flags);

/* Says that the device is open and armed; the result line follows later. */
void say_ready(void);

/* Writes all of it; counts calls and those that took less than asked. */
void write_fully(int fd, const void *data, size_t len, const char *path, uint64_t *calls, uint64_t *partial);

/* Pipe to device until `len` bytes went; gives the number of calls. */
uint64_t splice_fully(int from, int to, size_t len, const char *path);

void *allocate(size_t len);

static inline uint64_t now_ns(void) {
  struct timespec t;
  clock_gettime(CLOCK_MONOTONIC, &t);
  return (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec;
}

/*
 * The test pattern, the same as in lab/pattern.ts: xorshift32 (13, 17, 5), each state after the seed as four
 * little-endian bytes.
 */
struct pattern {
  uint32_t state, left;
};

static inline void pattern_start(struct pattern *p, uint32_t seed) {
  p->state = seed ? seed : 1;
  p->left = 0;
}

static inline uint32_t pattern_next(uint32_t x) {
  x ^= x << 13;
  x ^= x >> 17;
  return x ^ (x << 5);
}

static inline void pattern_fill(struct pattern *p, unsigned char *to, size_t len) {
  size_t at = 0;
  for (; at < len && p->left; at++) to[at] = (unsigned char)(p->state >> (8 * (4 - p->left--)));
  for (; at + 4 <= len; at += 4) {
    p->state = pattern_next(p->state);
    memcpy(to + at, &p->state, 4);
  }
  if (at == len) return;
  p->state = pattern_next(p->state);
  for (p->left = 4; at < len; at++) to[at] = (unsigned char)(p->state >> (8 * (4 - p->left--)));
}

typedef int command(int argc, char **argv);
command run_sink, run_source, run_echo, run_ping;
command run_loop;
command run_splice, run_vmsplice;
command run_nonblock, run_poll, run_sigio, run_storm, run_open2, run_lseek, run_hold, run_winsize;
#endif

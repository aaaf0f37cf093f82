/*
 * Keeps every processor of the host awake while round trips are measured: one that sleeps takes longer to wake than a
 * round trip takes, in one run and not in the next. The loops give way to anything else at once (SCHED_IDLE), and offer
 * to every few microseconds: a thread that has run a little ahead of its share, as one does that wakes others, would
 * otherwise find the loop in its place until the next tick, up to 4 ms. Ends with its parent.
 */
#define _GNU_SOURCE
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <sys/prctl.h>
#include <unistd.h>

#define PAUSES 200

int main(void) {
  struct sched_param none = {0};
  cpu_set_t may;
  pid_t parent = getpid();
  prctl(PR_SET_PDEATHSIG, SIGKILL);
  if (sched_setscheduler(0, SCHED_IDLE, &none) < 0 || sched_getaffinity(0, sizeof may, &may) < 0) return 1;
  for (int cpu = 0; cpu < CPU_SETSIZE; cpu++) {
    if (!CPU_ISSET(cpu, &may) || fork() != 0) continue;
    cpu_set_t own;
    CPU_ZERO(&own);
    CPU_SET(cpu, &own);
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    /* A parent that has ended already would have us go on for ever. */
    if (getppid() != parent) return 0;
    sched_setaffinity(0, sizeof own, &own);
    for (;;) {
      for (int i = 0; i < PAUSES; i++) __asm__ volatile("pause");
      sched_yield();
    }
  }
  puts("ready");
  fflush(stdout);
  for (;;) pause();
}

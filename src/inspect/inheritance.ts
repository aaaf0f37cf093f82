/** The descriptors that QEMU inherits: by which numbers, and under which names it opens them. Used to start it. */

import { closeSync } from 'node:fs'

/** 0 to 2 are the standard streams, 3 is the shell's that starts QEMU. */
const FIRST = 4

export class Inheritance {
  readonly #fds: number[] = []
  readonly #sets = new Set<number>()
  readonly #kept: number[] = []

  /** For `stdio` of spawn. */
  get stdio(): readonly ('ignore' | number)[] {
    return ['ignore', ...this.#fds]
  }

  /** QEMU's options that make them known; to be asked last. */
  get arguments(): string[] {
    return [...this.#sets].flatMap((number) => ['-add-fd', `fd=${number},set=${number}`])
  }

  /** A descriptor of which close() is to take care. */
  keep(fd: number): number {
    this.#kept.push(fd)
    return fd
  }

  /** The name under which QEMU's block drivers open it: that is a dup(2), no path and no permission is looked at. */
  set(fd: number): string {
    const number = this.#number(fd)
    this.#sets.add(number)
    return `/dev/fdset/${number}`
  }

  /** The name under which anybody in the child opens the file anew; its user must be allowed to read it. */
  path(fd: number): string {
    return `/dev/fd/${this.#number(fd)}`
  }

  close(): void {
    for (const fd of this.#kept.splice(0)) closeSync(fd)
  }

  #number(fd: number): number {
    const known = this.#fds.indexOf(fd)
    return FIRST + (known === -1 ? this.#fds.push(fd) - 1 : known)
  }
}

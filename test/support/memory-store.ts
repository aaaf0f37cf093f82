/** A store without a keeper: remembers names, notes and descriptor numbers. For tests of what is kept, and by whom. */

import type { Kept, Store } from '../../src/store.ts'

export class MemoryStore implements Store {
  readonly items: Map<string, Kept>
  readonly #prefix: string

  constructor(items: Map<string, Kept> = new Map(), prefix = '') {
    this.items = items
    this.#prefix = prefix
  }

  recall(): undefined {
    return undefined
  }

  left(): string[] {
    return []
  }

  keep(name: string, fds: readonly number[], note = ''): void {
    this.items.set(this.#prefix + name, { fds: [...fds], note })
  }

  forget(name: string): void {
    this.items.delete(this.#prefix + name)
  }

  clear(): void {
    for (const name of this.items.keys()) if (name.startsWith(this.#prefix)) this.items.delete(name)
  }

  scope(name: string): Store {
    return new MemoryStore(this.items, `${this.#prefix}${name}/`)
  }
}

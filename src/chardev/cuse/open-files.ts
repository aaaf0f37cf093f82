/** Who has a character device open, and which of them wait in poll for something to change. Owned by device.ts. */

/** By what the kernel knows who polls; `waits` until it has been told. */
interface Poller {
  waits: boolean
  low: number
  high: number
}

export class OpenFiles {
  readonly #files = new Map<number, Poller>()
  #next = 1

  get count(): number {
    return this.#files.size
  }

  /** The handle of a new one. */
  add(): number {
    const file = this.#next++
    this.#files.set(file, { waits: false, low: 0, high: 0 })
    return file
  }

  /** Whether it was there. */
  remove(file: number): boolean {
    return this.#files.delete(file)
  }

  clear(): void {
    this.#files.clear()
  }

  /** Its programs want to be told of the next change, by a handle of the kernel's. */
  waitsFor(file: number, low: number, high: number): void {
    const poller = this.#files.get(file)
    if (poller) Object.assign(poller, { waits: true, low, high })
  }

  /** Something has changed: tells those that wait, who then have to ask anew. */
  wake(tell: (low: number, high: number) => void): void {
    for (const poller of this.#files.values()) {
      if (!poller.waits) continue
      poller.waits = false
      tell(poller.low, poller.high)
    }
  }
}

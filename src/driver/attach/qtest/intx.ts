/**
 * Interrupt pins without a processor: qtest tells when an input of the I/O APIC changes. Pins are levels and may be
 * shared, so all handlers are asked for as long as any input is up, as an operating system does.
 */

import type { QtestClient } from './client.ts'

/** Inputs of the PCI pins on q35; those below belong to old devices, such as the timer. */
const PCI_LINES_FROM = 16

export class IntxLines {
  /** Times a pin was up and nobody had raised it. */
  spurious = 0
  readonly #up = new Set<number>()
  readonly #handlers = new Set<() => boolean>()
  #scheduled = false

  /** QEMU lets one interrupt controller be watched, once. */
  constructor(client: QtestClient) {
    client.command('irq_intercept_in ioapic')
    client.onIrq = ({ line, level }) => {
      if (line < PCI_LINES_FROM) return
      if (level) this.#up.add(line)
      else this.#up.delete(line)
      this.#wake()
    }
  }

  /** Whether any pin is up, as far as the event loop has heard. */
  get level(): boolean {
    return this.#up.size > 0
  }

  /** `handler` says whether its function had raised the pin; returns the way to stop. */
  connect(handler: () => boolean): () => void {
    this.#handlers.add(handler)
    this.#wake()
    return () => void this.#handlers.delete(handler)
  }

  #wake(): void {
    if (this.#scheduled || this.#up.size === 0 || this.#handlers.size === 0) return
    this.#scheduled = true
    setImmediate(() => {
      this.#scheduled = false
      let found = false
      for (const handler of this.#handlers) found = handler() || found
      if (!found) this.spurious++
      // A level that is still there comes again: news of it are delivered in a later turn than the one now queued.
      setImmediate(() => this.#wake())
    })
  }
}

/** What the guest's kernel printed on its serial console: kept up to a limit, searched, quoted in failures. */
import { VmchannelError } from '../src/errors.ts'

const KEEP = 1 << 20

export class ConsoleLog {
  #text = ''
  #ended = false
  #panicked = false
  #watchers: (() => void)[] = []

  get text(): string {
    return this.#text
  }

  get panicked(): boolean {
    return this.#panicked
  }

  append(chunk: Buffer): void {
    const text = chunk.toString('latin1').replaceAll('\r', '')
    this.#panicked ||= (this.#text.slice(-40) + text).includes('Kernel panic - not syncing')
    this.#text = (this.#text + text).slice(-KEEP)
    this.#wake()
  }

  /** No more will come: waiting is in vain. */
  end(): void {
    this.#ended = true
    this.#wake()
  }

  async waitFor(pattern: RegExp, timeout: number): Promise<RegExpExecArray> {
    const deadline = Date.now() + timeout
    for (;;) {
      const found = pattern.exec(this.#text)
      if (found) return found
      const left = deadline - Date.now()
      if (left <= 0 || this.#ended) {
        throw new VmchannelError(
          'ERR_VMCHANNEL_TIMEOUT',
          `the guest's console did not say ${pattern}\n${this.tail(20)}`,
        )
      }
      await new Promise<void>((resolve) => {
        const timer = setTimeout(resolve, left)
        this.#watchers.push(() => (clearTimeout(timer), resolve()))
      })
    }
  }

  tail(lines: number): string {
    return this.#text.trimEnd().split('\n').slice(-lines).join('\n')
  }

  #wake(): void {
    for (const watcher of this.#watchers.splice(0)) watcher()
  }
}

/**
 * What a long command is doing, on standard error: one line that counts the seconds on a terminal, else a line for each
 * step. With --json only on a terminal, where nobody parses it.
 */

import { say, sayOver } from './print.ts'

const TICK_MS = 250

export class StepLine {
  readonly #terminal: boolean = process.stderr.isTTY
  readonly #silent: boolean
  readonly #started: number = performance.now()
  #text: string | undefined
  #timer: NodeJS.Timeout | undefined

  constructor(json: boolean) {
    this.#silent = json && !this.#terminal
  }

  step(text: string): void {
    this.#text = text
    if (this.#silent) return
    if (!this.#terminal) {
      say(`.. ${text}`)
      return
    }
    this.#timer ??= setInterval(() => this.#draw(), TICK_MS).unref()
    this.#draw()
  }

  /** Takes the line away. May be called twice. */
  end(): void {
    clearInterval(this.#timer)
    if (this.#timer) sayOver('')
    this.#timer = undefined
  }

  #draw(): void {
    const seconds = Math.floor((performance.now() - this.#started) / 1000)
    const line = `${this.#text} … ${seconds} s`
    sayOver(line)
  }
}

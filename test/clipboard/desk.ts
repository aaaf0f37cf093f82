/** One side of a clipboard: a desktop on which stock programs copy and paste. A shell runs them, here or in a guest. */
import { execFile } from 'node:child_process'
import { createHash } from 'node:crypto'

type Selection = 'clipboard' | 'primary'

export const TEXT = 'text/plain;charset=utf-8'

/** Runs a shell command on the desktop. */
export type Shell = (command: string) => Promise<{ status: number; output: string }>

interface Words {
  copy(selection: Selection, type: string): string
  paste(selection: Selection, type: string): string
  types: string
  /** Copies a text, and does not go away. */
  stay: string
}

const X11: Words = {
  copy: (selection, type) => `xclip -i -selection ${selection} ${type === TEXT ? '' : `-t ${type}`}`,
  paste: (selection, type) => `xclip -o -selection ${selection} -t ${type === TEXT ? 'UTF8_STRING' : type}`,
  types: 'xclip -o -selection clipboard -t TARGETS',
  stay: 'xclip -i -quiet -selection clipboard',
}

const WAYLAND: Words = {
  copy: (selection, type) => `wl-copy ${selection === 'primary' ? '--primary' : ''} --type '${type}'`,
  paste: (selection, type) => `wl-paste ${selection === 'primary' ? '--primary' : ''} --no-newline --type '${type}'`,
  types: 'wl-paste --list-types',
  stay: 'wl-copy --foreground',
}

/** A program that pastes for longer hangs; each one that is killed by this fails its test. */
const HANGS_S = 30

export class Desk {
  readonly #shell: Shell
  readonly #words: Words
  readonly #file: string

  /** `file`: where it keeps content. */
  constructor(shell: Shell, file: string, kind: 'x11' | 'wayland' = 'x11') {
    this.#shell = shell
    this.#file = file
    this.#words = kind === 'x11' ? X11 : WAYLAND
  }

  async copy(text: string, selection: Selection = 'clipboard'): Promise<void> {
    await this.run(`printf %s ${quote(text)} | ${this.copying(selection)}`)
  }

  /** The command that copies what it reads. */
  copying(selection: Selection = 'clipboard', type: string = TEXT): string {
    return `${this.#words.copy(selection, type)} >/dev/null 2>&1`
  }

  /** Process id of the program that has copied it and waits. */
  async copyAndStay(text: string): Promise<string> {
    await this.run(`printf %s ${quote(text)} >${this.#file}`)
    return (await this.run(`${this.#words.stay} <${this.#file} >/dev/null 2>&1 & echo $!`)).trim()
  }

  async types(): Promise<string> {
    return (await this.#shell(`timeout ${HANGS_S} ${this.#words.types} 2>/dev/null`)).output
  }

  /** Empty where nothing can be pasted. */
  async paste(selection: Selection = 'clipboard', type: string = TEXT): Promise<string> {
    const { status, output } = await this.#shell(`timeout ${HANGS_S} ${this.#words.paste(selection, type)} 2>/dev/null`)
    if (status === 124) throw new Error(`a program that pastes hangs for ${HANGS_S} s`)
    return status === 0 ? output : ''
  }

  /** Pastes into the file, and gives its checksum; empty where nothing can be pasted. */
  async keep(type: string): Promise<string> {
    const paste = `timeout ${HANGS_S} ${this.#words.paste('clipboard', type)} >${this.#file} 2>/dev/null`
    const { status, output } = await this.#shell(`${paste} && sha256sum <${this.#file} | cut -d' ' -f1`)
    if (status === 124) throw new Error(`a program that pastes hangs for ${HANGS_S} s`)
    return output.trim()
  }

  /** Fills the file. */
  async fill(bytes: Uint8Array): Promise<void> {
    await this.run(`echo ${Buffer.from(bytes).toString('base64')} | base64 -d >${this.#file}`)
  }

  /** Copies what is in the file. */
  async copyKept(type: string): Promise<void> {
    await this.run(`${this.#words.copy('clipboard', type)} <${this.#file} >/dev/null 2>&1`)
  }

  async run(command: string): Promise<string> {
    const { status, output } = await this.#shell(command)
    if (status !== 0) throw new Error(`status ${status}: ${command}`)
    return output
  }
}

/** On this machine, with a display of its own. */
export function localShell(env: NodeJS.ProcessEnv): Shell {
  return (command) =>
    new Promise((resolve) => {
      const whole = { ...process.env, ...env }
      execFile('sh', ['-c', command], { env: whole, maxBuffer: 64 << 20 }, (error, output) =>
        resolve({ status: error ? Number(error.code ?? 255) : 0, output }),
      )
    })
}

export function quote(text: string): string {
  return `'${text.replaceAll("'", `'\\''`)}'`
}

/** As `keep` gives it. */
export function checksum(bytes: Uint8Array): string {
  return createHash('sha256').update(bytes).digest('hex')
}

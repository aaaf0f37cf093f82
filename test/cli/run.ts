/** Runs the built command line as a user does: its own process, its own environment, a state directory of the test's. */
import { spawn, type ChildProcess, type StdioOptions } from 'node:child_process'
import { chmodSync, existsSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join, resolve } from 'node:path'

export const ROOT: string = resolve(import.meta.dirname, '../..')
export const MAIN: string = join(ROOT, 'dist/src/cli/main.js')
export const DROP_IN: string = join(ROOT, 'dist/src/cli/vmchannel-qemu.js')

if (!existsSync(MAIN)) throw new Error(`${MAIN} is missing: run "npm run build" first`)

export interface Result {
  status: number | null
  signal: NodeJS.Signals | null
  stdout: string
  stderr: string
}

export interface RunOptions {
  input?: string
  env?: Record<string, string | undefined>
  program?: string
  cwd?: string
  /** Whom it runs as; root only. */
  user?: number
}

/** A folder with a state directory; close() removes all of it. */
export class Bench {
  readonly folder: string = mkdtempSync(join(tmpdir(), 'vmch-cli-'))
  readonly state: string = join(this.folder, 'state')
  readonly #children: ChildProcess[] = []

  path(name: string): string {
    return join(this.folder, name)
  }

  /** Starts it; ended by close() if nothing else ends it. */
  start(args: readonly string[], options: RunOptions & { stdio?: StdioOptions } = {}): ChildProcess {
    const { env, program = MAIN, cwd = this.folder, stdio = 'pipe', user } = options
    const whole: NodeJS.ProcessEnv = { ...process.env, NO_COLOR: '1', VMCHANNEL_STATE_DIR: this.state, ...env }
    for (const name of ['VMCHANNEL_QEMU', 'VMCHANNEL_LOG', 'VMCHANNEL_VM', 'VMCHANNEL_CONTROL'])
      if (env?.[name] === undefined) delete whole[name]
    delete whole['FORCE_COLOR']
    const child = spawn(process.execPath, [program, ...args], {
      cwd,
      env: whole,
      stdio,
      ...(user === undefined ? {} : { uid: user, gid: user }),
    })
    this.#children.push(child)
    return child
  }

  /** Runs it to its end. */
  run(args: readonly string[], options: RunOptions = {}): Promise<Result> {
    const child = this.start(args, options)
    const result = collect(child)
    child.stdin!.on('error', () => {})
    child.stdin!.end(options.input ?? '')
    return result
  }

  /** An executable script. */
  script(name: string, text: string): string {
    const path = this.path(name)
    writeFileSync(path, text)
    chmodSync(path, 0o755)
    return path
  }

  /**
   * A QEMU that is none: answers the questions of the probe, else writes its arguments into the file `ran` and does
   * what `script` says.
   */
  fakeQemu({ version = '11.1.0', device = true, script = '' } = {}): string {
    return this.script(
      'qemu',
      `#!/bin/sh
case "$*" in
  -version) echo "QEMU emulator version ${version} (fake)"; exit 0 ;;
  *vfio-user-pci,help*) ${device ? 'echo "vfio-user-pci options:"; echo "  socket=<SocketAddress>"; exit 0' : 'echo "Device vfio-user-pci not found" >&2; exit 1'} ;;
esac
for word; do printf '%s\\n' "$word"; done >'${this.path('ran')}'
${script}
`,
    )
  }

  async close(): Promise<void> {
    for (const child of this.#children)
      if (child.exitCode === null && child.signalCode === null) {
        const ended = new Promise((done) => child.once('exit', done))
        child.kill('SIGTERM')
        const timer = setTimeout(() => child.kill('SIGKILL'), 5000)
        await ended
        clearTimeout(timer)
      }
    rmSync(this.folder, { recursive: true, force: true })
  }
}

export function collect(child: ChildProcess): Promise<Result> {
  let stdout = ''
  let stderr = ''
  child.stdout?.setEncoding('utf8').on('data', (chunk: string) => (stdout += chunk))
  child.stderr?.setEncoding('utf8').on('data', (chunk: string) => (stderr += chunk))
  return new Promise((done, fail) => {
    child.once('error', fail)
    child.once('close', (status, signal) => done({ status, signal, stdout, stderr }))
  })
}

export async function until<T>(
  what: string,
  look: () => T | undefined | false | Promise<T | undefined | false>,
  timeout = 30_000,
): Promise<T> {
  for (const deadline = Date.now() + timeout; ;) {
    const found = await look()
    if (found !== undefined && found !== false) return found
    if (Date.now() > deadline) throw new Error(`not within ${timeout} ms: ${what}`)
    await new Promise((done) => setTimeout(done, 20))
  }
}

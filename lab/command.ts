/**
 * Runs a host program to its end and hands back what it printed. For the short-lived helpers of the lab (apt, dpkg,
 * gcc); QEMU is started by machine.ts.
 */
import { spawn } from 'node:child_process'
import { longError } from './long-error.ts'

export interface CommandOptions {
  cwd?: string
  env?: NodeJS.ProcessEnv
  /** Called for each finished line of standard output. */
  onLine?: (line: string) => void
  input?: Uint8Array
}

export interface CommandResult {
  status: number | null
  stdout: Buffer
  stderr: string
}

/** Never rejects because of the exit status; rejects when the program cannot be started. */
export function tryCommand(
  file: string,
  args: readonly string[],
  options: CommandOptions = {},
): Promise<CommandResult> {
  return new Promise((resolve, reject) => {
    const child = spawn(file, args, {
      ...(options.cwd === undefined ? {} : { cwd: options.cwd }),
      env: { ...process.env, LC_ALL: 'C', ...options.env },
      stdio: ['pipe', 'pipe', 'pipe'],
    })
    const stdout: Buffer[] = []
    const stderr: Buffer[] = []
    let partial = ''
    child.stdout.on('data', (chunk: Buffer) => {
      stdout.push(chunk)
      if (!options.onLine) return
      const lines = (partial + chunk.toString('latin1')).split('\n')
      partial = lines.pop() ?? ''
      for (const line of lines) options.onLine(line)
    })
    child.stderr.on('data', (chunk: Buffer) => stderr.push(chunk))
    child.stdin.on('error', () => {}) // it may end without reading all of its input
    child.stdin.end(options.input)
    child.on('error', reject)
    child.on('close', (status) =>
      resolve({ status, stdout: Buffer.concat(stdout), stderr: Buffer.concat(stderr).toString() }),
    )
  })
}

/** Runs it and insists on exit status 0. */
export async function command(file: string, args: readonly string[], options: CommandOptions = {}): Promise<Buffer> {
  const { status, stdout, stderr } = await tryCommand(file, args, options)
  if (status === 0) return stdout
  const said = (stderr.trim() || stdout.toString().trim()).split('\n').slice(-12).join('\n')
  throw longError('ERR_VMCHANNEL_INTERNAL', `${file} ${args.slice(0, 6).join(' ')} ended with ${status}:\n${said}`)
}

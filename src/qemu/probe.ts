/**
 * Whether a QEMU binary can have our device: its version, and whether vfio-user-pci is in it. Asking takes a tenth of a
 * second, so a good answer is kept, for as long as the file stays the same. Called by the wrapper before it starts
 * anything.
 */

import { spawnSync } from 'node:child_process'
import { existsSync, mkdirSync, readFileSync, renameSync, rmSync, statSync, writeFileSync } from 'node:fs'
import { homedir } from 'node:os'
import { dirname, join } from 'node:path'
import { VmchannelError } from '../errors.ts'
import { printable } from '../log.ts'

export interface QemuInfo {
  path: string
  /** "11.1.3" */
  version: string
}

/** vfio-user-pci came with this one. */
const FIRST = [10, 1] as const
const ANSWER_TIMEOUT_MS = 20_000
/** More binaries than anybody has; the oldest entries go. */
const CACHE_ENTRIES = 16
const ELSE = 'install QEMU 10.1 or later, or set VMCHANNEL_QEMU to the path of one'

type Env = Readonly<Record<string, string | undefined>>

export interface QemuAbility {
  version: string
  /** Why our device cannot be plugged into it; undefined where it can. */
  obstacle: VmchannelError | undefined
}

/** Checks the binary; `file` is where answers are kept (see probeCacheFile). Throws ERR_VMCHANNEL_QEMU. */
export function probeQemu(path: string, file: string | undefined, env: Env = process.env): QemuInfo {
  const { version, obstacle } = askQemu(path, file, env)
  if (obstacle) throw obstacle
  return { path, version }
}

/** What the binary can do. Throws ERR_VMCHANNEL_QEMU where it is no QEMU at all. */
export function askQemu(path: string, file: string | undefined, env: Env = process.env): QemuAbility {
  const key = fileKey(path)
  const known = file === undefined ? undefined : readCache(file)[key]
  if (known !== undefined) return { version: known, obstacle: undefined }
  const version = askVersion(path, env)
  const obstacle = tooOld(path, version) ?? askDevice(path, version, env)
  if (!obstacle && file !== undefined) writeCache(file, key, version)
  return { version, obstacle }
}

/** What carries ports in a QEMU that cannot have our device; see transport.ts. */
export function askFallbacks(path: string, env: Env = process.env): { ownDevice: boolean; userNetwork: boolean } {
  const device = ask(path, ['-machine', 'none', '-device', 'virtserialport,help'], env)
  const network = ask(path, ['-machine', 'none', '-netdev', 'help'], env)
  return {
    ownDevice: device.status === 0 && device.text.includes('chardev='),
    userNetwork: network.status === 0 && /^user$/m.test(network.text),
  }
}

/** The file for answers: under XDG_CACHE_HOME or ~/.cache; none where there is no home. */
export function probeCacheFile(env: Env): string | undefined {
  const home = env['HOME'] || homedir()
  const base = env['XDG_CACHE_HOME']?.startsWith('/') ? env['XDG_CACHE_HOME'] : home && join(home, '.cache')
  return base ? join(base, 'vmchannel', 'qemu.json') : undefined
}

function fileKey(path: string): string {
  try {
    const { size, mtimeMs } = statSync(path)
    return `${path} ${size} ${mtimeMs}`
  } catch (cause) {
    throw new VmchannelError('ERR_VMCHANNEL_QEMU', `${path} does not exist`, { hint: ELSE, cause })
  }
}

function askVersion(path: string, env: Env): string {
  const { text } = ask(path, ['-version'], env)
  const match = /^QEMU emulator version (\d+)\.(\d+)(?:\.(\d+))?/m.exec(text)
  if (!match) {
    const said = printable(text.trim().split('\n')[0] ?? '')
    throw new VmchannelError('ERR_VMCHANNEL_QEMU', `${path} is no QEMU system emulator: -version says "${said}"`, {
      hint: ELSE,
    })
  }
  return `${Number(match[1])}.${Number(match[2])}.${match[3] ?? 0}`
}

function tooOld(path: string, version: string): VmchannelError | undefined {
  const [major = 0, minor = 0] = version.split('.').map(Number)
  if (major > FIRST[0] || (major === FIRST[0] && minor >= FIRST[1])) return undefined
  return new VmchannelError(
    'ERR_VMCHANNEL_QEMU',
    `QEMU ${version} at ${path} is too old: vfio-user-pci came with ${FIRST.join('.')}`,
    { hint: ELSE },
  )
}

function askDevice(path: string, version: string, env: Env): VmchannelError | undefined {
  const { status, text } = ask(path, ['-machine', 'none', '-device', 'vfio-user-pci,help'], env)
  if (status === 0 && text.includes('socket=')) return undefined
  return new VmchannelError(
    'ERR_VMCHANNEL_QEMU',
    `QEMU ${version} at ${path} has no vfio-user-pci device: it was built without it`,
    { hint: `use a QEMU that has it ("-device help" lists it), and set VMCHANNEL_QEMU to its path` },
  )
}

function ask(path: string, args: string[], env: Env): { status: number | null; text: string } {
  const { error, status, stdout, stderr } = spawnSync(path, args, {
    env,
    stdio: ['ignore', 'pipe', 'pipe'],
    encoding: 'utf8',
    timeout: ANSWER_TIMEOUT_MS,
    killSignal: 'SIGKILL',
    maxBuffer: 4 * 1024 * 1024,
  })
  if (!error) return { status, text: `${stdout}${stderr}` }
  const { code } = error as NodeJS.ErrnoException
  const why = code === 'ETIMEDOUT' ? `does not answer ${args.join(' ')}` : `cannot be started: ${code ?? error.message}`
  throw new VmchannelError('ERR_VMCHANNEL_QEMU', `${path} ${why}`, { hint: ELSE, cause: error })
}

/** Answers by "path size mtime". Whatever is wrong with the file, there are none then. */
function readCache(file: string): Record<string, string> {
  try {
    const parsed = JSON.parse(readFileSync(file, 'utf8')) as unknown
    if (parsed === null || typeof parsed !== 'object') return {}
    return Object.fromEntries(Object.entries(parsed).filter(([, version]) => typeof version === 'string'))
  } catch {
    return {}
  }
}

/** Best effort: a home that cannot be written costs a tenth of a second next time. */
function writeCache(file: string, key: string, version: string): void {
  const temporary = `${file}.${process.pid}`
  try {
    const others = Object.entries(readCache(file)).filter(([other]) => other.split(' ')[0] !== key.split(' ')[0])
    const entries = Object.fromEntries([...others, [key, version]].slice(-CACHE_ENTRIES))
    makeFolder(dirname(dirname(file)))
    makeFolder(dirname(file))
    writeFileSync(temporary, JSON.stringify(entries, null, 2), { mode: 0o600, flag: 'wx' })
    renameSync(temporary, file)
  } catch {
    rmSync(temporary, { force: true })
  }
}

/** One level, if it is not there. Node's own `recursive` never returns below a folder like /proc. */
function makeFolder(path: string): void {
  if (!existsSync(path)) mkdirSync(path, { mode: 0o700 })
}

/**
 * `npm run demo [-- --json | --interactive]`: what the product does, in one go, with its own commands: fetches what is
 * missing, boots a stock guest through `vmchannel qemu -virtioserial`, and talks to it through /dev/vmch0.
 */
import { spawn, spawnSync } from 'node:child_process'
import { createHash } from 'node:crypto'
import { existsSync, mkdtempSync, rmSync } from 'node:fs'
import { connect, type Socket } from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { parseArgs } from 'node:util'
import { describeError, EXIT_CODES, VmchannelError } from '../src/errors.ts'
import { helperFile, MDEV_CONF_PATH, mdevLine } from '../src/udev/rules.ts'
import { ensureKernel } from './fetch/kernel.ts'
import { ensureQemu } from './fetch/qemu.ts'
import { Machine } from './machine.ts'
import { repoRoot } from './paths.ts'
import { Pattern } from './pattern.ts'
import { startVmtest, vmtest } from './vmtest.ts'

const BYTES = 32 << 20
const DEVICE = '/dev/vmch0'
/** For the boot and for each transfer, which take seconds: a busy or small machine emulates slowly. */
const PATIENCE_MS = 300_000
const CLI = join(repoRoot(), 'dist/src/cli/main.js')

interface Options {
  json: boolean
  interactive: boolean
}

function readOptions(): Options {
  const { values } = parseArgs({
    options: { json: { type: 'boolean', default: false }, interactive: { type: 'boolean', default: false } },
  })
  return values
}

async function demo({ json, interactive }: Options): Promise<void> {
  const say = (text: string): void => void process.stderr.write(`${text}\n`)
  const started = Date.now()
  const qemu = await ensureQemu()
  const kernel = await ensureKernel('6.1')
  const folder = mkdtempSync(join(tmpdir(), 'vmchannel-demo-'))
  const socket = join(folder, 'vmch0.sock')
  // Its own state directory: other devices that run here are none of the demo's business.
  const env = { VMCHANNEL_QEMU: qemu.path, VMCHANNEL_STATE_DIR: join(folder, 'state') }
  let machine: Machine | undefined
  try {
    say(`booting Linux ${kernel.release} on QEMU ${qemu.version} (TCG), no network card:`)
    say(`  vmchannel qemu -virtioserial unix:${socket} ...`)
    const helper = helperFile()
    machine = await Machine.boot({
      qemu: qemu.path,
      kernel,
      bootTimeout: PATIENCE_MS,
      guest: {
        files: {
          [helper.path]: { text: helper.text, mode: helper.mode },
          [MDEV_CONF_PATH]: { text: `${mdevLine()}\n` },
        },
        init: 'mdev -d',
      },
      launcher: (_, args) => ({
        file: process.execPath,
        args: [
          ...[CLI, 'qemu', '-virtioserial', `unix:${socket}`],
          ...(interactive ? ['-virtioserial', 'attach,console=on,name=shell'] : []),
          ...args,
        ],
        env,
      }),
    })
    const network = (await machine.sh('ls /sys/class/net')).split(/\s+/).some((name) => name !== 'lo')
    await nodeAppears(machine, DEVICE)
    say(`the guest has ${await machine.sh(`ls -l ${DEVICE}`)}`)

    const toHost = await guestToHost(machine, socket)
    say(`guest to host: ${toHost}`)
    const toGuest = await hostToGuest(machine, socket)
    say(`host to guest: ${toGuest}`)
    say(`hot-added port: ${await hotAdd(machine, folder, env)}`)
    if (interactive) await shell(machine, socket, env, say)
    else {
      const seconds = Math.round((Date.now() - started) / 100) / 10
      say(`done in ${seconds} s: every byte arrived, SHA-256 equal on both sides`)
      const bytes = { hostToGuest: BYTES, guestToHost: BYTES }
      const result = { ok: true, device: DEVICE, network, qemu: qemu.version, kernel: kernel.release, bytes, seconds }
      if (json) process.stdout.write(`${JSON.stringify(result)}\n`)
    }
  } finally {
    await machine?.close()
    await gone(socket)
    rmSync(folder, { recursive: true, force: true })
  }
}

/** mdev makes the node a moment after the kernel has found the port. */
async function nodeAppears(machine: Machine, node: string): Promise<void> {
  await machine.sh(`for i in $(seq 50); do [ -e ${node} ] && exit; sleep 0.1; done; echo "no ${node}"; exit 1`)
}

async function dial(path: string): Promise<Socket> {
  const socket = connect(path)
  await new Promise<void>((resolve, reject) => socket.once('connect', resolve).once('error', reject))
  return socket
}

/** Takes `len` bytes from a peer; their checksum, and the time from the first to the last in ms. */
function take(peer: Socket, len: number): Promise<{ sha256: string; ms: number }> {
  const hash = createHash('sha256')
  let got = 0
  let from = 0
  return new Promise((resolve) => {
    const hear = (chunk: Buffer): void => {
      from ||= performance.now()
      hash.update(chunk)
      got += chunk.length
      if (got < len) return
      peer.off('data', hear)
      resolve({ sha256: hash.digest('hex'), ms: performance.now() - from })
    }
    peer.on('data', hear)
  })
}

async function guestToHost(machine: Machine, path: string): Promise<string> {
  const peer = await dial(path)
  const exact = take(peer, BYTES)
  const { sha256 } = await vmtest(machine, 'source', [DEVICE, BYTES, '32k'], PATIENCE_MS)
  check('guest to host', sha256, (await exact).sha256)
  // Once more without a checksum in the guest, whose emulated processor is slow at it.
  const fast = take(peer, BYTES)
  await vmtest(machine, 'source', [DEVICE, BYTES, '32k', 1, '--no-hash'], PATIENCE_MS)
  const { ms } = await fast
  peer.destroy()
  return report(sha256, ms)
}

async function hostToGuest(machine: Machine, path: string): Promise<string> {
  const bytes = new Pattern(42).take(BYTES)
  const peer = await dial(path)
  const exact = await startVmtest(machine, 'sink', [DEVICE, BYTES])
  peer.write(bytes)
  const { sha256 } = await exact.result(PATIENCE_MS)
  check('host to guest', createHash('sha256').update(bytes).digest('hex'), sha256)
  const fast = await startVmtest(machine, 'sink', [DEVICE, BYTES, '64k', '--no-hash'])
  peer.write(bytes)
  const { ns } = await fast.result(PATIENCE_MS)
  peer.destroy()
  return report(sha256, ns / 1e6)
}

function check(what: string, sent: string, received: string): void {
  if (sent !== received)
    throw new VmchannelError('ERR_VMCHANNEL_INTERNAL', `${what}: sent SHA-256 ${sent}, received ${received}`)
}

function report(sha256: string, ms: number): string {
  return `${BYTES >> 20} MiB, SHA-256 ${sha256.slice(0, 16)}… on both sides; the same again at ${Math.round(BYTES / 1e3 / ms)} MB/s`
}

/** A second port, by the command line, while the guest runs. */
async function hotAdd(machine: Machine, folder: string, env: NodeJS.ProcessEnv): Promise<string> {
  const path = join(folder, 'second.sock')
  const words = [CLI, 'port', 'add', `unix:${path},name=org.example.demo`]
  const { status, stderr } = spawnSync(process.execPath, words, { env: { ...process.env, ...env }, encoding: 'utf8' })
  if (status !== 0)
    throw new VmchannelError('ERR_VMCHANNEL_INTERNAL', `vmchannel port add ended with ${status}: ${stderr}`)
  const node = '/dev/virtio-ports/org.example.demo'
  await nodeAppears(machine, node)
  const peer = await dial(path)
  const answer = new Promise<string>((resolve) => peer.once('data', (chunk: Buffer) => resolve(chunk.toString())))
  const job = machine.spawn(`exec 3<>${node}; read -r line <&3; echo "the guest heard: $line" >&3`)
  peer.write('hello\n')
  const heard = (await answer).trim()
  await job.wait()
  peer.destroy()
  if (heard !== 'the guest heard: hello') throw new VmchannelError('ERR_VMCHANNEL_INTERNAL', `${node}: got "${heard}"`)
  return `${node} answered "${heard}"`
}

/** Hands the terminal to a shell on hvc0 until it is left. */
async function shell(
  machine: Machine,
  socket: string,
  env: NodeJS.ProcessEnv,
  say: (text: string) => void,
): Promise<void> {
  machine.spawn('while :; do setsid -c sh -i </dev/hvc0 >/dev/hvc0 2>&1; sleep 0.2; done')
  say(`\n${DEVICE} is open to try; in another terminal, for example:  socat - UNIX-CONNECT:${socket}`)
  say(`and in this shell of the guest:  cat ${DEVICE}   or   echo hello > ${DEVICE}\n`)
  const child = spawn(process.execPath, [CLI, 'connect', 'shell'], {
    stdio: 'inherit',
    env: { ...process.env, ...env },
  })
  await new Promise<void>((resolve) => child.on('close', () => resolve()))
}

/** The device process removes its sockets by itself when QEMU has ended. */
async function gone(socket: string): Promise<void> {
  for (let i = 0; i < 50 && existsSync(socket); i++) await new Promise((resolve) => setTimeout(resolve, 100))
}

try {
  await demo(readOptions())
} catch (error) {
  process.stderr.write(`demo: ${describeError(error)}\n`)
  process.exitCode = error instanceof VmchannelError ? EXIT_CODES[error.code] : 1
}

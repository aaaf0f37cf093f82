/** The checks of `vmchannel doctor`, in the order in which things are needed. Called by doctor.ts. */

import { accessSync, closeSync, constants, existsSync, openSync, readdirSync, readFileSync } from 'node:fs'
import { endianness, release } from 'node:os'
import { dirname } from 'node:path'
import { checkPrivateDir, listDirs, stateRoot } from '../daemon/state-dir.ts'
import { describeError, VmchannelError } from '../errors.ts'
import { findQemu } from '../qemu/find.ts'
import { askFallbacks, askQemu } from '../qemu/probe.ts'
import { MDEV_CONF_PATH, RULES_PATH } from '../udev/rules.ts'
import { HELPER_PATH } from '../udev/helper.ts'

export interface Finding {
  status: 'ok' | 'warn' | 'fail'
  /** What was found, as a sentence or a part of one. */
  found: string
  /** What to do about it. */
  advice?: string
}

export interface Check {
  name: string
  check: (options: Readonly<Record<string, unknown>>) => Finding | Promise<Finding>
}

const NODE_MIN = [20, 19] as const
const FILES_MIN = 1024
/** "/NAME.vfio.sock" with a usual name behind the state directory of a process. */
const SOCKET_TAIL = 40
const SOCKET_PATH_MAX = 107

export const CHECKS: readonly Check[] = [
  { name: 'Node', check: node },
  { name: 'system', check: system },
  { name: 'native calls', check: native },
  { name: 'shared memory', check: sharedMemory },
  { name: 'QEMU', check: qemu },
  { name: 'KVM', check: kvm },
  { name: 'state directory', check: stateDirectory },
  { name: 'open files', check: openFiles },
  { name: 'guest names', check: guestNames },
]

function node(): Finding {
  const [major = 0, minor = 0] = process.versions.node.split('.').map(Number)
  const found = `Node ${process.versions.node}`
  if (major > NODE_MIN[0] || (major === NODE_MIN[0] && minor >= NODE_MIN[1])) return { status: 'ok', found }
  return { status: 'fail', found, advice: `Install Node ${NODE_MIN.join('.')} or newer.` }
}

function system(): Finding {
  const found = `${process.platform} ${release()}, ${process.arch}`
  if (process.platform !== 'linux') return { status: 'fail', found, advice: 'Devices run on Linux only.' }
  if (endianness() === 'BE') return { status: 'fail', found, advice: 'Devices run on little-endian machines only.' }
  if (process.arch === 'x64') return { status: 'ok', found }
  return { status: 'warn', found, advice: 'vmchannel is tested on x86-64; tell us how it does here.' }
}

async function native(): Promise<Finding> {
  try {
    await import('../ffi/libc.ts')
    return { status: 'ok', found: 'koffi loads, the C library answers' }
  } catch (error) {
    return {
      status: 'fail',
      found: `koffi does not load: ${describeError(error).split('\n')[0]}`,
      advice: 'Install vmchannel again on this machine: koffi has a binary for each platform and C library.',
    }
  }
}

async function sharedMemory(): Promise<Finding> {
  const { createMemfd } = await import('../ffi/mmap.ts')
  const { createEventfd, drainEventfd, signalEventfd } = await import('../ffi/eventfd.ts')
  const { closeFd } = await import('../ffi/libc.ts')
  const memory = createMemfd('vmchannel-doctor', true)
  const event = createEventfd()
  signalEventfd(event)
  const heard = drainEventfd(event) === 1
  closeFd(event)
  closeFd(memory)
  if (heard) return { status: 'ok', found: 'memfd and eventfd work' }
  return { status: 'fail', found: 'an eventfd does not count', advice: 'Is this a kernel with a sandbox around it?' }
}

/** Without vfio-user-pci there are the fallbacks: less, but the same commands and the same names in the guest. */
function qemu(options: Readonly<Record<string, unknown>>): Finding {
  try {
    const path = findQemu(process.env, options['qemuBinary'] as string | undefined, process.argv[1])
    const { version, obstacle } = askQemu(path, undefined)
    if (!obstacle) return { status: 'ok', found: `QEMU ${version} with vfio-user-pci: ${path}` }
    const { ownDevice, userNetwork } = askFallbacks(path)
    const ways = [
      ...(ownDevice ? ["QEMU's own device (which transport=auto takes)"] : []),
      ...(userNetwork ? ['user networking (transport=usernet)'] : []),
    ]
    if (ways.length === 0) return { status: 'fail', found: obstacle.message, advice: obstacle.hint! }
    const advice =
      `Ports of -virtioserial are carried by ${ways.join(' or ')}; see "vmchannel help transports". ` +
      `"serve", "inspect" and the library need our device: ${obstacle.hint}.`
    return { status: 'warn', found: obstacle.message, advice }
  } catch (error) {
    if (!(error instanceof VmchannelError)) throw error
    return { status: 'fail', found: error.message, ...(error.hint === undefined ? {} : { advice: error.hint }) }
  }
}

function kvm(): Finding {
  const tcg = 'Guests run without it, slower: -accel tcg.'
  if (!existsSync('/dev/kvm')) return { status: 'warn', found: 'no /dev/kvm', advice: tcg }
  try {
    closeSync(openSync('/dev/kvm', constants.O_RDWR))
  } catch (error) {
    const { code } = error as NodeJS.ErrnoException
    const advice = code === 'EACCES' ? `Become a member of the group that owns it (kvm). ${tcg}` : tcg
    return { status: 'warn', found: `/dev/kvm does not open: ${code}`, advice }
  }
  const flags = process.arch === 'x64' ? readFileSync('/proc/cpuinfo', 'utf8') : ' vmx '
  if (/^flags\s*:.*\s(vmx|svm)(\s|$)/m.test(flags) || process.arch !== 'x64')
    return { status: 'ok', found: '/dev/kvm opens' }
  return {
    status: 'warn',
    found: '/dev/kvm opens, but the processor shows neither vmx nor svm',
    advice: `A guest may hang under KVM here, as in a VM without nested virtualisation. ${tcg}`,
  }
}

function stateDirectory(): Finding {
  const root = stateRoot()
  try {
    if (existsSync(root)) {
      checkPrivateDir(root)
      accessSync(root, constants.W_OK | constants.X_OK)
    } else accessSync(dirname(root), constants.W_OK | constants.X_OK)
  } catch (error) {
    const found = error instanceof VmchannelError ? error.message : `${root} cannot be written`
    return { status: 'fail', found, advice: 'Set VMCHANNEL_STATE_DIR to a directory of your own.' }
  }
  if (Buffer.byteLength(root) + SOCKET_TAIL > SOCKET_PATH_MAX)
    return {
      status: 'warn',
      found: `${root} is long: the path of a socket has ${SOCKET_PATH_MAX} bytes at most`,
      advice: 'Set VMCHANNEL_STATE_DIR to a shorter one.',
    }
  const count = listDirs(root).length
  return { status: 'ok', found: `${root}${count > 0 ? ` (device processes: ${count})` : ''}` }
}

function openFiles(): Finding {
  const limits = /^Max open files\s+(\S+)\s+(\S+)/m.exec(readFileSync('/proc/self/limits', 'utf8'))
  const hard = limits?.[2] === 'unlimited' ? Infinity : Number(limits?.[2] ?? 0)
  const found = `at most ${limits?.[2]} open files`
  if (hard >= FILES_MIN) return { status: 'ok', found }
  return {
    status: 'warn',
    found,
    advice: `Hundreds of ports need more: raise the limit (ulimit -Hn, LimitNOFILE=) to ${FILES_MIN} or so.`,
  }
}

/** Whether this is a guest itself, and names its ports. */
function guestNames(): Finding {
  const ports = existsSync('/sys/class/virtio-ports') ? readdirSync('/sys/class/virtio-ports') : []
  const rules = existsSync(RULES_PATH)
  const mdev = existsSync(MDEV_CONF_PATH) && readFileSync(MDEV_CONF_PATH, 'utf8').includes(HELPER_PATH)
  const installed = rules ? 'rules for udev are installed' : mdev ? 'the line for mdev is installed' : undefined
  if (ports.length === 0)
    return {
      status: 'ok',
      found: installed ?? 'this is no guest with ports; in a guest: vmchannel udev print | ssh guest sh',
    }
  if (installed) return { status: 'ok', found: `this guest has ${ports.length} ports; ${installed}` }
  return {
    status: 'warn',
    found: `this guest has ${ports.length} ports, and nothing names them /dev/vmchN`,
    advice: 'Run "vmchannel udev install" as root (with --mdev where busybox does it).',
  }
}

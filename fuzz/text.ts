/**
 * What people and programs write: port specs, QEMU command lines, the configuration file. Made of the real words in
 * any order, cut, doubled and mixed with characters that mean something. It is understood, or refused with an error
 * that a person can read; what is understood reads the same after it was written out.
 */

import assert from 'node:assert/strict'
import { formatServeConfig, parseServeConfig } from '../src/config-file.ts'
import { VmchannelError } from '../src/errors.ts'
import { formatPortSpec, parsePortSpec } from '../src/port-spec.ts'
import { planQemu } from '../src/qemu/plan.ts'
import { Random, type Seed } from './random.ts'
import { simple, type FuzzTarget } from './target.ts'

const CASES = 50
/** Longest message: one that repeats all of what it was given is no help. */
const MESSAGE_MAX = 4000

const KINDS = [
  'unix:',
  'tcp:',
  'pty',
  'pty:',
  'stdio',
  'file:',
  'pipe:',
  'null',
  'attach',
  'unix',
  ':',
  'Unix:',
  'udp:',
]
const PLACES = [
  '/tmp/a.sock',
  '/x,,y',
  '127.0.0.1:80',
  '[::1]:0',
  'localhost:99999',
  '',
  'a b',
  '"',
  '/tmp/é',
  '\u0000',
  '@abstract',
]
const KEYS = [
  'name',
  'nr',
  'console',
  'policy',
  'buffer',
  'on-close',
  'drain-ms',
  'cols',
  'rows',
  'server',
  'wait',
  'reconnect',
  'reconnect-ms',
  'mode',
  'fd',
  'path',
  'nodelay',
  'append',
  'half-close-ms',
  'transport',
  'id',
  'nmae',
]
const VALUES = [
  'on',
  'off',
  '1',
  '0',
  '-1',
  '511',
  '1e9',
  '64k',
  '10s',
  'block',
  'drop-oldest',
  'discard',
  'org.example.0',
  '..',
  'a/b',
  '',
  '0x10',
  '99999999999999999999',
  'a'.repeat(300),
  'yes',
  '\n',
  '%s',
  '${x}',
  'é',
  'keep',
  'drain',
  '0600',
  '80',
]
const OPTIONS = [
  '-virtioserial',
  '-virtio-serial',
  '-virtioserial-device',
  '-device',
  '-chardev',
  '-object',
  '-m',
  '-machine',
  '-M',
  '-drive',
  '-nographic',
  '-serial',
  '-monitor',
  '-mem-path',
  '-numa',
  '-smp',
  '-S',
  '-incoming',
  '-loadvm',
  '-readconfig',
  '--help',
  '-version',
  '-global',
  '-cpu',
  '-accel',
  'disk.img',
  '-',
]
const ARGUMENTS = [
  'virtio-serial-pci',
  'virtio-serial-pci,id=vs0',
  'virtserialport,chardev=c0,name=org.x',
  'virtserialport,bus=vs0.0,nr=1,chardev=c1',
  'virtconsole,chardev=c0',
  'socket,id=c0,path=/tmp/q,server=on,wait=off',
  'pty,id=c1',
  'stdio,id=c0',
  'file,id=c1,path=/tmp/f',
  'memory-backend-ram,id=m,size=1G,share=on',
  'memory-backend-memfd,id=m,size=1G',
  'memory-backend-file,id=m,size=1G,mem-path=/x,share=off',
  'q35,memory-backend=m',
  'pc',
  'microvm',
  'q35',
  '2G',
  '512',
  'size=1G,slots=2,maxmem=4G',
  'none',
  'tcp:0:4444',
  '?',
  'help',
  '{"driver":"virtio-serial-pci","id":"j"}',
  '{"driver":"virtserialport","chardev":"c0","bus":"j.0"}',
  '{',
  'kvm',
  'mon:stdio',
  'node,memdev=m',
  'virtio-serial-pci,max_ports=600',
  'virtio-serial-pci,addr=1f.7',
]

export function mangle(r: Random, text: string): string {
  if (r.chance(85) || text === '') return text
  const at = r.below(text.length)
  switch (r.below(4)) {
    case 0:
      return text.slice(0, at)
    case 1:
      return (
        text.slice(0, at) +
        r.pick([',', '=', ',,', '"', '\n', '\u0000', '[', ':', '\\', '%', '\u202e']) +
        text.slice(at)
      )
    case 2:
      return text + text
    default:
      return text.slice(at)
  }
}

function portText(r: Random): string {
  let text = r.pick(KINDS) + (r.chance(80) ? r.pick(PLACES) : '')
  for (let i = r.below(5); i > 0; i--) text += `,${r.pick(KEYS)}${r.chance(90) ? `=${r.pick(VALUES)}` : ''}`
  return mangle(r, text)
}

/** Runs it; an error has to be one for people. Undefined where it was refused. */
export function tolerant<T>(work: () => T): T | undefined {
  try {
    return work()
  } catch (error) {
    if (!(error instanceof VmchannelError)) throw error
    assert.match(error.code, /^ERR_VMCHANNEL_/)
    assert.ok(
      error.message.length > 0 && error.message.length < MESSAGE_MAX,
      `a message of ${error.message.length} characters`,
    )
    // oxlint-disable-next-line no-control-regex -- that is the point
    assert.doesNotMatch(error.message, /[\u0000-\u0008\u000b-\u001f\u007f]/, 'a control character reaches the terminal')
    return undefined
  }
}

function port(r: Random): void {
  const text = portText(r)
  const spec = tolerant(() => parsePortSpec(text, '--port'))
  if (spec) assert.deepEqual(parsePortSpec(formatPortSpec(spec), 'again'), spec)
}

function commandLine(r: Random): void {
  const argv: string[] = []
  for (let i = r.below(12); i > 0; i--) {
    const option = r.pick(OPTIONS)
    argv.push(mangle(r, option))
    if (r.chance(85)) argv.push(option.startsWith('-virtio') ? portText(r) : mangle(r, r.pick(ARGUMENTS)))
  }
  const plan = tolerant(() =>
    planQemu(argv, {
      readFile: () => (r.chance(50) ? '[device "x"]\n  driver = "virtio-serial-pci"\n' : undefined),
      kind: () => 'missing',
    } as never),
  )
  if (plan) tolerant(() => planQemu(argv))
}

function configuration(r: Random): void {
  const value = (): string =>
    r.pick([
      `"${r.pick(VALUES).replaceAll(/["\\\n]/g, '')}"`,
      r.pick(VALUES),
      'true',
      '7',
      '[]',
      '["unix:/tmp/a.sock"]',
      '{a=1}',
      '1979-05-27',
    ])
  let text = ''
  for (let i = r.below(10); i > 0; i--)
    text += r.chance(20)
      ? r.pick(['[[vm]]\n', '[vm]\n', '[[vm.port]]\n', '[[port]]\n'])
      : `${r.pick(['name', 'state-dir', 'control', 'log', 'memory', 'socket', 'ports', 'port', 'max-ports', 'queue-size', 'nmae', '"a b"'])} = ${value()}\n`
  const config = tolerant(() => parseServeConfig(mangle(r, text), 'serve.toml'))
  if (config) assert.deepEqual(parseServeConfig(formatServeConfig(config), 'again'), config)
}

async function episode(seed: Seed): Promise<number> {
  const r = new Random(seed)
  for (let i = 0; i < CASES && !r.ended; i++) {
    r.step()
    r.pick([port, port, commandLine, configuration])(r)
  }
  return CASES
}

export const TEXT: FuzzTarget = simple('text', 'port specs, QEMU command lines, configuration files', episode)

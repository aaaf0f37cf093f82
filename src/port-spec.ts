/**
 * A port as people write it, one string form everywhere (command line, config file, control socket, library):
 * `unix:/run/vm.sock,server=on,name=org.example.0`. Programs may give an object instead; both pass `checkPortSpec`.
 */

import {
  checkFields,
  choice,
  flag,
  formatOptions,
  integer,
  isRecord,
  quote,
  readOption,
  size,
  splitOptions,
  text,
  usage,
  type Field,
} from './chardev/options.ts'
import {
  checkChardevSpec,
  formatChardevSpec,
  parseChardevHead,
  parseChardevSpec,
  type ChardevSpec,
} from './chardev/spec.ts'
import type { OnClose, PortPolicy } from './device/port-settings.ts'

export interface PortSpec {
  /** Where the port leads on the host. */
  chardev: ChardevSpec
  /** Name in the guest: /dev/virtio-ports/NAME. */
  name?: string
  /** Port number; the next free one where it is left out. */
  id?: number
  /** A console (hvc) rather than a generic port. */
  console?: boolean
  policy?: PortPolicy
  /** Capacity of the hold buffer of the drop policies, bytes. */
  buffer?: number
  onClose?: OnClose
  /** Deadline of onClose=drain. */
  drainMs?: number
  /** Size of the terminal at the start. */
  cols?: number
  rows?: number
}

/** Highest port number: 511 ports, as many as QEMU's device can have. */
export const PORT_ID_MAX = 510
/** Bytes of a port name; name and message header must fit the smallest receive buffer of a known guest (FreeBSD, 128). */
export const PORT_NAME_MAX = 120
export const CONSOLE_BUFFER: number = 64 * 1024

// The guest prints the name in sysfs and makes a device link of it: no separators, nothing that ends a line.
const name = text(
  `a port name: 1 to ${PORT_NAME_MAX} bytes without "/" and control characters, and not "." or ".."`,
  (value) =>
    value !== '' &&
    value !== '.' &&
    value !== '..' &&
    // oxlint-disable-next-line no-control-regex
    !/[\u0000-\u001f\u007f-\u009f\u2028\u2029/]/.test(value) &&
    Buffer.from(value).toString() === value && // no lone surrogates
    Buffer.byteLength(value) <= PORT_NAME_MAX,
)

const PORT_FIELDS: readonly Field[] = [
  { key: 'name', word: 'name', type: name },
  { key: 'id', word: 'nr', type: integer(0, PORT_ID_MAX) },
  { key: 'console', word: 'console', type: flag },
  { key: 'policy', word: 'policy', type: choice(['block', 'drop-oldest', 'drop-newest', 'discard']) },
  { key: 'buffer', word: 'buffer', type: size(1024, 2 ** 30) },
  { key: 'onClose', word: 'on-close', type: choice(['discard', 'keep', 'drain']) },
  { key: 'drainMs', word: 'drain-ms', type: integer(1, 3_600_000, ' ms') },
  { key: 'cols', word: 'cols', type: integer(1, 65535) },
  { key: 'rows', word: 'rows', type: integer(1, 65535) },
]

/** Reads the string form. `argument` is what messages call it: "-virtioserial", "port 2 of vm.toml". */
export function parsePortSpec(source: string, argument: string): PortSpec {
  const [head, ...options] = splitOptions(source) as [string, ...string[]]
  const { raw: chardev, fields } = parseChardevHead(head, argument)
  const port: Record<string, unknown> = {}
  const what = `${String(chardev['kind'])} port`
  const all = [...fields, ...PORT_FIELDS]
  for (const option of options) {
    const word = option.split('=')[0]!
    const own = PORT_FIELDS.some((field) => field.word === word || (field.type === flag && `no${field.word}` === word))
    // Port words go to the port; whatever else there is to the back end, with all words to choose a suggestion from.
    if (own) readOption(option, PORT_FIELDS, port, argument, what)
    else readOption(option, all, chardev, argument, what)
  }
  return checkPort(port, checkChardevSpec(chardev, argument), argument)
}

/** Checks what a program gave: a string, or an object whose `chardev` may be a string. Returns a copy with defaults. */
export function checkPortSpec(value: unknown, argument: string): PortSpec {
  if (typeof value === 'string') return parsePortSpec(value, argument)
  if (!isRecord(value))
    throw usage(`${argument}: ${quote(value)} is not a port`, 'e.g. "unix:/run/vm.sock,name=org.example.0"')
  const { chardev, ...port } = value
  const where = `${argument}.chardev`
  const checked = typeof chardev === 'string' ? parseChardevSpec(chardev, where) : checkChardevSpec(chardev, where)
  return checkPort(port, checked, argument)
}

function checkPort(raw: Record<string, unknown>, chardev: ChardevSpec, argument: string): PortSpec {
  const port = checkFields(raw, PORT_FIELDS, argument, 'port') as Omit<PortSpec, 'chardev'>
  const spec: PortSpec = { chardev, ...port }
  if (spec.console) {
    if (spec.policy === 'block')
      throw usage(
        `${argument}: policy=block cannot be had for a console`,
        'the guest spins with interrupts off until console output is taken, so a slow reader would freeze it: ' +
          'use policy=drop-oldest with a bigger buffer=, or console=off',
      )
    spec.policy ??= 'drop-oldest'
    if (spec.policy !== 'discard') spec.buffer ??= CONSOLE_BUFFER
  }
  const holds = spec.policy === 'drop-oldest' || spec.policy === 'drop-newest'
  if (spec.buffer !== undefined && !holds)
    throw usage(
      `${argument}: buffer is of no use with policy=${spec.policy ?? 'block'}`,
      'add policy=drop-oldest or policy=drop-newest, or leave buffer out',
    )
  if (holds) spec.buffer ??= CONSOLE_BUFFER
  if (spec.drainMs !== undefined && spec.onClose !== 'drain')
    throw usage(`${argument}: drain-ms is the deadline of on-close=drain`, 'add on-close=drain, or leave drain-ms out')
  if ((spec.cols === undefined) !== (spec.rows === undefined))
    throw usage(`${argument}: cols and rows belong together`, 'give both, e.g. cols=80,rows=24')
  return spec
}

/** The string form; `parsePortSpec` reads it back to the same. */
export function formatPortSpec(spec: PortSpec): string {
  return formatChardevSpec(spec.chardev) + formatOptions(spec as unknown as Record<string, unknown>, PORT_FIELDS)
}

/**
 * `npm run conformance [-- --json] [--target T …] [ID …]`: every rule and every attack, against our device in this
 * process and over vfio-user, our driver, and QEMU's own device; or, with --qemu-args, against anybody's device. Ends
 * with 1 when one of ours, or the other one, fails; what QEMU's fails is told and is no failure of ours.
 */
import { mkdirSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { parseArgs } from 'node:util'
import type { Result } from './case.ts'
import { CATALOG } from './catalog/catalog.ts'
import { DEVICE_CASES } from './device/cases.ts'
import { DRIVER_CASES } from './driver/cases.ts'
import { runDevice, runDriver, type Wanted } from './suite.ts'
import { table } from './table.ts'
import { LoopbackTarget } from './targets/loopback.ts'
import { otherTarget, qemuTarget, vfioUserTarget } from './targets/qtest.ts'
import type { DeviceTarget } from './targets/target.ts'

const HELP = `usage: npm run conformance -- [options] [ID ...]

  ID                   ids to run, or a letter for all that begin with it; default all
  --target T           loopback, vfio-user, qemu or driver; may be given more than once; default all four
  --json               one JSON object a line: id, title, target, over, status, why
  --table              writes docs/conformance.md, with all targets side by side
  --qemu-args=WORDS    instead: the device that these words put into a QEMU, e.g. "-device virtio-serial-pci,id=v ..."
  --port NAME=SOCKET   where the host's end of that device's port listens; NAME may be its number
  --vfio-user SOCKET   where a vfio-user server of that device waits with nobody attached, for the E attacks
  --patience MS        how long that device may take for what it has to do; default 5000
`

const { values, positionals } = readArgs()
if (values.help) {
  process.stdout.write(HELP)
  process.exit(0)
}

const KNOWN = ['loopback', 'vfio-user', 'qemu', 'driver']
const other = values['qemu-args']
const targets = other === undefined ? (values.target ?? KNOWN) : ['other']
for (const name of targets)
  if (name !== 'other' && !KNOWN.includes(name)) usage(`--target ${name}: expected one of ${KNOWN.join(', ')}`)
const patience = Number(values.patience)
if (!(patience > 0)) usage(`--patience ${values.patience}: expected milliseconds`)
const sockets = new Map(
  values.port.map((word) => {
    const at = word.lastIndexOf('=')
    if (at < 1) usage(`--port ${word}: expected NAME=SOCKET`)
    return [word.slice(0, at), word.slice(at + 1)] as const
  }),
)
const wanted: Wanted = (id) =>
  positionals.length === 0 || positionals.some((p) => id === p || (/^[A-Z]$/.test(p) && id.startsWith(p)))
for (const word of positionals)
  if (!CATALOG.some(({ id }) => id === word || (/^[A-Z]$/.test(word) && id.startsWith(word))))
    usage(`${word}: there is no such id`)

const results: Result[] = []
const banners: string[] = []
for (const name of targets) {
  const device = deviceTarget(name)
  if (!device) {
    await runDriver(DRIVER_CASES, wanted, report)
    banners.push('driver over loopback: our driver, in front of a device that lies as it is told')
    continue
  }
  try {
    await runDevice(device, DEVICE_CASES, wanted, report)
    banners.push(`${device.target} over ${device.over}: ${device.banner}`)
  } finally {
    await device.close()
  }
}

if (values.table) {
  const folder = join(import.meta.dirname, '../../docs')
  mkdirSync(folder, { recursive: true })
  writeFileSync(join(folder, 'conformance.md'), table(results, banners))
}
const count = (status: string, of: readonly Result[]): number => of.filter((result) => result.status === status).length
for (const name of new Set(results.map(({ target, over }) => `${target} over ${over}`))) {
  const own = results.filter(({ target, over }) => `${target} over ${over}` === name)
  process.stderr.write(
    `${name}: ${count('pass', own)} pass, ${count('fail', own)} fail, ${count('n/a', own)} not applicable\n`,
  )
}
process.exit(results.some(({ status, target }) => status === 'fail' && target !== 'qemu') ? 1 : 0)

function deviceTarget(name: string): DeviceTarget | undefined {
  if (name === 'loopback') return new LoopbackTarget()
  if (name === 'vfio-user') return vfioUserTarget()
  if (name === 'qemu') return qemuTarget()
  return name === 'other'
    ? otherTarget(other!.split(/\s+/).filter(Boolean), sockets, patience, values['vfio-user'])
    : undefined
}

function report(result: Result): void {
  results.push(result)
  const { id, title, target, over, status, why } = result
  if (values.json) process.stdout.write(`${JSON.stringify({ id, title, target, over, status, why })}\n`)
  else
    process.stdout.write(
      `${id.padEnd(5)}${`${target}/${over}`.padEnd(17)} ${status.padEnd(5)}${title}${why ? `\n          ${why}` : ''}\n`,
    )
}

function usage(message: string): never {
  process.stderr.write(`conformance: ${message}\n\n${HELP}`)
  process.exit(2)
}

function readArgs() {
  try {
    return parseArgs({
      options: {
        json: { type: 'boolean', default: false },
        table: { type: 'boolean', default: false },
        help: { type: 'boolean', short: 'h', default: false },
        target: { type: 'string', multiple: true },
        'qemu-args': { type: 'string' },
        port: { type: 'string', multiple: true, default: [] },
        'vfio-user': { type: 'string' },
        patience: { type: 'string', default: '5000' },
      },
      allowPositionals: true,
    })
  } catch (error) {
    return usage(error instanceof Error ? error.message : String(error))
  }
}

/** `vmchannel inspect DISK…`: prints what inspectDisk finds. */

import { inspectDisk, type InspectOptions } from '../inspect/inspect-disk.ts'
import type { DiskFormat } from '../inspect/disk-formats.ts'
import type { Application, DiskReport, OperatingSystem } from '../inspect/report.ts'
import { printable } from '../log.ts'
import { paint, print as write, printJson, warn } from './print.ts'
import { StepLine } from './step-line.ts'
import { columns, indent } from './text.ts'
import type { Run } from './table.ts'

/** An appliance that a broken disk has stopped must not be waited for for ever. */
const TIMEOUT_MS = 600_000
const NAME_MAX = 400

export const inspectCommand: Run = async ({ args, options }) => {
  const json = options['json'] === true
  const progress = new StepLine(json)
  const how: InspectOptions = { timeout: TIMEOUT_MS, onStep: (text) => progress.step(text) }
  if (options['format'] !== undefined) how.format = options['format'] as DiskFormat
  if (options['qemuBinary'] !== undefined) how.qemu = options['qemuBinary'] as string
  try {
    const report = await inspectDisk(args, how)
    progress.end()
    if (json) printJson(report)
    else print(report, options['applications'] === true)
  } finally {
    progress.end()
  }
}

function print({ disks, filesystems, systems, warnings }: DiskReport, all: boolean): void {
  const out = (text: string): void => write(text)
  for (const { disk, format } of disks) out(`${paint('bold', clean(disk))}: ${format}\n`)
  out('\n')
  const rows = filesystems.map(({ device, type, label, uuid }) => [
    ...[clean(device), clean(type ?? 'unknown'), clean(label), clean(uuid)],
  ])
  out(columns([['DEVICE', 'TYPE', 'LABEL', 'UUID'], ...rows]))
  for (const system of systems) printSystem(system, all, out)
  if (systems.length === 0) out('\nNo operating system was found on it.\n')
  for (const text of warnings) warn(clean(text))
}

function printSystem(system: OperatingSystem, all: boolean, out: (text: string) => void): void {
  const { distro, majorVersion, minorVersion, productName, applications, packageFormat } = system
  const version = majorVersion === 0 && minorVersion === 0 ? '' : `${majorVersion}.${minorVersion}`
  const name = [system.type, distro, version, system.productVariant].filter((word) => word).join(' ')
  out(`\n${paint('bold', clean(name || 'an operating system'))} on ${clean(system.root)}\n`)
  const facts = [
    ['host name', clean(system.hostname)],
    ['product', clean(productName)],
    ['architecture', clean(system.arch)],
    ['packages', clean([packageFormat, system.packageManagement].filter((word) => word !== null).join(', ') || null)],
    ['libosinfo', clean(system.osinfo)],
    ['system root', clean(system.windowsSystemroot)],
    ...system.mountpoints.map(({ path, device }) => ['mounted', `${clean(device)} on ${clean(path)}`]),
    ...system.driveMappings.map(({ drive, device }) => ['drive', `${clean(drive)}: ${clean(device)}`]),
    ['applications', applications === null ? 'cannot be listed' : String(applications.length)],
  ]
  out(indent(columns(facts.filter(([, value]) => value !== '-')), 2))
  if (applications && all) out(`\n${columns([['NAME', 'VERSION', 'ARCH', 'SUMMARY'], ...applications.map(row)])}`)
}

function row({ name, displayName, epoch, version, release, arch, summary }: Application): string[] {
  const whole = `${epoch > 0 ? `${epoch}:` : ''}${version}${release === '' ? '' : `-${release}`}`
  return [displayName || name, whole, arch, summary].map((text) => clean(text || null))
}

/** Names on a disk can be anything, also what a terminal obeys. */
function clean(text: string | null): string {
  return text === null ? '-' : printable(text, NAME_MAX)
}

/**
 * Our own options before QEMU's: read by hand, because the first word that is none of them begins a command line that
 * nobody but QEMU can read. The names are those of the command table. Called by qemu.ts.
 */

import { VmchannelError } from '../errors.ts'

export const LOG_LEVELS = ['error', 'warn', 'info', 'debug'] as const
export type LogLevel = (typeof LOG_LEVELS)[number]

export interface OwnOptions {
  qemuBinary?: string
  stateDir?: string
  log: LogLevel
  keeper: boolean
  dryRun: boolean
  json: boolean
}

const WITH_VALUE: Readonly<Record<string, string>> = {
  '--qemu-binary': 'a path',
  '--state-dir': 'a directory',
  '--log': LOG_LEVELS.join(', '),
  '--keeper': 'on, off',
}

export function readOwnOptions(
  argv: readonly string[],
  env: Readonly<Record<string, string | undefined>> = process.env,
): { options: OwnOptions; rest: readonly string[] } {
  const values: Record<string, string> = {}
  let dryRun = false
  let json = false
  let at = 0
  for (; at < argv.length; at++) {
    const word = argv[at]!
    const equals = word.indexOf('=')
    const name = equals === -1 ? word : word.slice(0, equals)
    if (word === '--dry-run') dryRun = true
    else if (word === '--json') json = true
    else if (Object.hasOwn(WITH_VALUE, name)) {
      const value = equals === -1 ? argv[++at] : word.slice(equals + 1)
      if (value === undefined || value === '')
        throw new VmchannelError('ERR_VMCHANNEL_USAGE', `${name} has no value`, {
          hint: `it takes ${WITH_VALUE[name]}`,
        })
      values[name] = value
    } else break
  }
  if (argv[at] === '--') at++
  const log = logLevel(values['--log'], env['VMCHANNEL_LOG'])
  const keeper = onOff(values['--keeper'], env['VMCHANNEL_KEEPER'])
  const options: OwnOptions = { log, keeper, dryRun, json }
  const stateDir = values['--state-dir']
  if (values['--qemu-binary'] !== undefined) options.qemuBinary = values['--qemu-binary']
  if (stateDir !== undefined) options.stateDir = stateDir
  if (json && !dryRun)
    throw new VmchannelError('ERR_VMCHANNEL_USAGE', '--json goes with --dry-run', {
      hint: 'a QEMU that runs has an output of its own',
    })
  return { options, rest: argv.slice(at) }
}

/** Flag over environment over `on`. */
export function onOff(flag: string | undefined, env: string | undefined): boolean {
  const given = flag ?? (env || 'on')
  if (given === 'on' || given === 'off') return given === 'on'
  throw new VmchannelError(
    'ERR_VMCHANNEL_USAGE',
    `${flag === undefined ? 'VMCHANNEL_KEEPER' : '--keeper'}: "${given}" is neither on nor off`,
  )
}

/** Flag over environment over `warn`. */
export function logLevel(flag: string | undefined, env: string | undefined): LogLevel {
  const given = flag ?? (env || 'warn')
  const level = LOG_LEVELS.find((one) => one === given)
  if (level) return level
  throw new VmchannelError(
    'ERR_VMCHANNEL_USAGE',
    `${flag === undefined ? 'VMCHANNEL_LOG' : '--log'}: "${given}" is no log level`,
    {
      hint: `the levels are ${LOG_LEVELS.join(', ')}`,
    },
  )
}

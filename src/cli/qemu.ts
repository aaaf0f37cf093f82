/**
 * `vmchannel qemu`, and all of vmchannel-qemu: plans the run, starts the device process, and becomes QEMU.
 *
 * Nothing of process.stdin, stdout or stderr is touched before QEMU has them: Node would change their mode. Runs that
 * only ask QEMU something load little and start nothing.
 */

import { readFileSync, statSync } from 'node:fs'
import { execve, inheritedFds, stdioFlags, type ExecOptions } from '../ffi/exec.ts'
import { findQemu } from '../qemu/find.ts'
import { isOwn, splitCommandLine, withoutOwn } from '../qemu/command-line.ts'
import type { FileKind } from '../qemu/memory.ts'
import { passThroughReason } from '../qemu/pass-through.ts'
import type { PlanHost } from '../qemu/plan.ts'
import { sayNow } from './say-now.ts'
import { readOwnOptions, type OwnOptions } from './qemu-options.ts'
import type { Run } from './table.ts'

/** From the parser, which gets here for help only. */
export const qemuCommand: Run = ({ args }) => runQemu(args)

/** `argv`: our leading options, then QEMU's arguments. Returns only where QEMU does not run. */
export function runQemu(argv: readonly string[]): Promise<number> {
  const { options, rest } = readOwnOptions(argv)
  return run(rest, options)
}

/** All of `argv` is QEMU's; settings come from the environment. */
export function runAsQemu(argv: readonly string[]): Promise<number> {
  return run(argv, readOwnOptions([]).options)
}

async function run(argv: readonly string[], options: OwnOptions): Promise<number> {
  const inherited = inheritedFds()
  const flags = stdioFlags()
  const given = splitCommandLine(argv)
  if (options.stateDir !== undefined) process.env['VMCHANNEL_STATE_DIR'] = options.stateDir
  // Asked here as well as by the plan: a question to QEMU does without all of the planner.
  if (!options.dryRun && passThroughReason(given.filter((argument) => !isOwn(argument))) !== undefined) {
    const qemu = findQemu(process.env, options.qemuBinary, process.argv[1])
    execve(qemu, [qemu, ...withoutOwn(given)], { stdioFlags: flags, keepFds: inherited })
  }
  const [{ planQemu }, { askQemu, probeCacheFile }] = await Promise.all([
    import('../qemu/plan.ts'),
    import('../qemu/probe.ts'),
  ])
  const find = (): string => findQemu(process.env, options.qemuBinary, process.argv[1])
  const plan = planQemu(argv, { ...HOST, ability: () => askQemu(find(), probeCacheFile(process.env)) })
  if (options.dryRun) {
    const { printPlan } = await import('./qemu-dry-run.ts')
    return printPlan(plan, options)
  }
  const qemu = find()
  const keepFds = [...new Set([...inherited, ...plan.mentionedFds])].filter((fd) => isOpen(fd))
  const exec: ExecOptions = { stdioFlags: flags, keepFds: keepFds.filter((fd) => !plan.takenFds.includes(fd)) }
  for (const warning of plan.warnings) sayNow(`vmchannel: warning: ${warning}`)
  if (plan.passThrough !== undefined) execve(qemu, [qemu, ...plan.qemuArgs([])], exec)
  const { startAndBecome } = await import('./qemu-start.ts')
  return startAndBecome(plan, argv, qemu, options, exec)
}

/** Of a -readconfig file, in bytes. */
const CONFIG_LEN_MAX = 16 << 20

const HOST: PlanHost = { readFile, fileKind, umask: process.umask() }

/** Regular files alone: what is read of a pipe is gone, and QEMU would wait for it. */
function readFile(path: string): string | undefined {
  try {
    const stat = statSync(path)
    return stat.isFile() && stat.size <= CONFIG_LEN_MAX ? readFileSync(path, 'utf8') : undefined
  } catch {
    return undefined
  }
}

function fileKind(path: string): FileKind {
  const stat = statSync(path, { throwIfNoEntry: false })
  if (!stat) return 'missing'
  return stat.isDirectory() ? 'directory' : stat.isFile() ? 'file' : 'other'
}

function isOpen(fd: number): boolean {
  return statSync(`/proc/self/fd/${fd}`, { throwIfNoEntry: false }) !== undefined
}

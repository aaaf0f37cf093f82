/**
 * `vmchannel doctor`: what works on this machine, and what to do about the rest. The checks are in doctor-checks.ts.
 */

import { EXIT_CODES } from '../errors.ts'
import { CHECKS, type Finding } from './doctor-checks.ts'
import { paint, print, printJson } from './print.ts'
import { indent, wrap } from './text.ts'
import type { Run } from './table.ts'

interface Result extends Finding {
  check: string
}

export const doctorCommand: Run = async ({ options }) => {
  const results: Result[] = []
  for (const { name, check } of CHECKS) results.push({ check: name, ...(await tried(check, options)) })
  const ok = results.every(({ status }) => status !== 'fail')
  if (options['json'])
    printJson({ ok, checks: results.map(({ advice, ...rest }) => ({ ...rest, advice: advice ?? null })) })
  else report(results, ok)
  return ok ? 0 : EXIT_CODES.ERR_VMCHANNEL_PLATFORM
}

/** A check that cannot be made is no reason to keep the others to ourselves. */
async function tried(
  check: (typeof CHECKS)[number]['check'],
  options: Readonly<Record<string, unknown>>,
): Promise<Finding> {
  try {
    return await check(options)
  } catch (error) {
    return { status: 'fail', found: error instanceof Error ? error.message : String(error) }
  }
}

const MARKS = {
  ok: ['green', ' ok '],
  warn: ['yellow', 'warn'],
  fail: ['red', 'FAIL'],
} as const

function report(results: readonly Result[], ok: boolean): void {
  const width = Math.min(process.stdout.columns ?? 80, 100)
  const left = Math.max(...results.map(({ check }) => check.length))
  for (const { check, status, found, advice } of results) {
    const [colour, mark] = MARKS[status]
    const margin = left + 8
    const text = wrap(found, width - margin).replaceAll('\n', `\n${' '.repeat(margin)}`)
    print(`${paint(colour, mark)}  ${check.padEnd(left)}  ${text}\n`)
    if (advice !== undefined) print(`${indent(wrap(advice, width - margin - 2), margin + 2)}\n`)
  }
  const warned = results.some(({ status }) => status === 'warn')
  const verdict = !ok
    ? 'VMs cannot run here as things are.'
    : warned
      ? 'VMs can run here; see the warnings.'
      : 'VMs can run here.'
  print(`\n${paint('bold', verdict)}\n`)
}

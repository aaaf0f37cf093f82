/**
 * What a guest says, on its way to people and programs: names, host names, errors, log lines, JSON. Whatever it says,
 * what is written has no byte that steers a terminal, and no line that was not ours.
 */

import assert from 'node:assert/strict'
import { printError, printJson } from '../src/cli/print.ts'
import { describeError, VmchannelError } from '../src/errors.ts'
import { printable } from '../src/log.ts'
import { printable as agentPrintable } from '../src/agent/protocol.ts'
import { Random, type Seed } from './random.ts'
import type { FuzzTarget } from './target.ts'

const CASES = 100
/** Starts of what steers: C0, DEL, C1, line and paragraph separators, direction marks and overrides, invisible ones. */
const STARTS = [
  0, 0x07, 0x08, 0x0a, 0x0d, 0x1b, 0x7f, 0x85, 0x90, 0x9b, 0x9c, 0x9d, 0x2028, 0x2029, 0x200e, 0x202a, 0x202e,
]
const MORE = [0x2066, 0x2069, 0xfeff, 0x61c, 0xd800, 0xdfff, 0x5c, 0x22, 0xe9, 0x4e2d]
const ORDINARY = 'vm-1 [31m"host\\name'
/** What nothing may contain; a line feed only where the line is ours. */
// oxlint-disable-next-line no-control-regex -- that is the point
const STEERS = /[\u0000-\u0009\u000b-\u001f\u007f-\u009f\u2028\u2029\u202a-\u202e\u2066-\u2069]/

function text(r: Random): string {
  let out = ''
  for (let i = r.below(12); i >= 0; i--) {
    if (r.chance(50)) out += ORDINARY.slice(r.below(ORDINARY.length))
    else out += String.fromCharCode(r.pick([r.pick(STARTS), r.pick(MORE), r.below(0x1_0000), r.below(256)]))
  }
  return out
}

/** What goes to standard output and standard error meanwhile. */
function written(work: () => void): string {
  let all = ''
  const streams = [process.stdout, process.stderr]
  // oxlint-disable-next-line typescript/unbound-method -- put back into their objects below
  const own = streams.map((stream) => stream.write)
  for (const stream of streams) stream.write = (bytes: Uint8Array | string) => ((all += String(bytes)), true)
  try {
    work()
  } finally {
    for (const [i, stream] of streams.entries()) stream.write = own[i]!
  }
  return all
}

/** `lines`: how many line feeds are ours. */
function harmless(what: string, out: string, lines: number): void {
  const found = STEERS.exec(out)
  assert.ok(found === null, `${what} steers the terminal\nU+${found?.[0].charCodeAt(0).toString(16).padStart(4, '0')}`)
  assert.equal(out.split('\n').length - 1, lines, `${what}: a line that is not ours`)
}

function one(r: Random): void {
  const said = text(r)
  const error = new VmchannelError('ERR_VMCHANNEL_AGENT', `exec: ${said}`, r.chance(50) ? { hint: said } : {})
  switch (r.below(6)) {
    case 0:
      return harmless('printable', printable(said), 0)
    case 1:
      return harmless("the agent's words", agentPrintable(said), 0)
    case 2: {
      const value = r.pick<unknown>([said, [said], { [said]: said }, { hostName: said, list: [{ said }] }])
      const out = written(() => printJson(value))
      harmless('JSON', out, 1)
      return assert.deepEqual(JSON.parse(out), value, 'JSON says something else')
    }
    case 3: {
      const out = written(() => printError(error, true))
      JSON.parse(out)
      return harmless('an error as JSON', out, 1)
    }
    case 4:
      return harmless(
        'an error',
        written(() => printError(error, false)),
        error.hint === undefined ? 1 : 2,
      )
    default:
      return harmless('describeError', describeError(error), error.hint === undefined ? 0 : 1)
  }
}

async function episode(seed: Seed): Promise<number> {
  const r = new Random(seed)
  for (let i = 0; i < CASES && !r.ended; i++) {
    r.step()
    one(r)
  }
  return CASES
}

export const OUTPUT: FuzzTarget = {
  name: 'output',
  title: "guests' words, on their way to a terminal",
  start() {
    process.env['NO_COLOR'] = '1' // our own colours are none of the guest's
    return { episode, close: () => void delete process.env['NO_COLOR'] }
  },
}

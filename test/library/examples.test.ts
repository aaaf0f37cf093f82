/** The examples run, each on a stock guest. Needs the build. */
import { execFile } from 'node:child_process'
import { join } from 'node:path'
import { promisify } from 'node:util'
import { expect, it } from 'vitest'
import { repoRoot } from '../../lab/paths.ts'

const run = promisify(execFile)
const small = join(repoRoot(), 'package-lock.json')

it.each([
  ['hello', [], /^you said: hello\nyou said: goodbye\n$/],
  ['exec', [], /^status 0: Linux 6\.1\S*\nstatus 0: 42\nstatus 1: ls: .*\nstatus 0: 1 2 3\n$/],
  ['copy', [small], /^\d+ bytes there and back in [\d.]+ s\nhere {3}([0-9a-f]{64})\nthere {2}\1\nback {3}\1\n$/],
  [
    'hotplug',
    [],
    /^added {3}1 org\.example\.hot\nthe guest calls it org\.example\.hot\nremoved 1 org\.example\.hot\n$/,
  ],
  ['sandbox-exec', [], /^status 3: 4 lo\noutput: WORDS FOR THE SANDBOX\nERR_VMCHANNEL_TIMEOUT\n$/],
  ['lock-on-disconnect', [], /^viewers: 1\nviewers: 0\nlocked: guest\n$/],
  ['console-log', [], /Linux version 6\.1[^]*that is all\n\d{3,} lines, \d+ bytes, 0 dropped\n$/],
])(
  '%s',
  async (name, words, output) => {
    const env = { ...process.env }
    delete env['QEMU']
    const { stdout, stderr } = await run(process.execPath, [join(repoRoot(), 'examples', `${name}.mjs`), ...words], {
      env,
      timeout: 90_000,
    })
    expect(stderr).toBe('')
    expect(stdout).toMatch(output)
  },
  100_000,
)

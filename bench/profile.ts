/**
 * `node dist/bench/profile.js PART …`: where the device process spends its time while cases run on our side: a table of
 * self time by function, for docs/performance.md. The device process is Node with a profiler in it, nothing
 * else differs.
 */
import { mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { basename, join } from 'node:path'
import { chosenCases, SUITES } from './suites.ts'

const RUNS = 5
const ROWS = 18
const IDLE = new Set(['(idle)', '(program)', '(root)'])

interface CpuProfile {
  nodes: { id: number; callFrame: { functionName: string; url: string; lineNumber: number } }[]
  samples: number[]
  timeDeltas: number[]
}

const parts = process.argv.slice(2)
if (parts.length === 0 || parts.some((part) => !SUITES.some((suite) => chosenCases(suite, [part]).length > 0))) {
  process.stderr.write(
    'usage: node dist/bench/profile.js PART …   (cases with a device process, e.g. native.g2h.32k)\n',
  )
  process.exit(2)
}
for (const part of parts) {
  const folder = mkdtempSync(join(tmpdir(), 'vmchannel-profile-'))
  const node = process.execPath
  try {
    process.execPath = profilingNode(folder, node)
    await run(part, folder)
    const files = readdirSync(folder).filter((name) => name.endsWith('.cpuprofile'))
    if (files.length === 0) throw new Error(`${part}: no profile came; does the case have a device process?`)
    for (const file of files) print(part, JSON.parse(readFileSync(join(folder, file), 'utf8')) as CpuProfile)
  } finally {
    process.execPath = node
    rmSync(folder, { recursive: true, force: true })
  }
}

/**
 * A Node that profiles from SIGUSR2 to its end: the device process is started from `process.execPath`. By a hook of its
 * own: what starts is not to be in it, and the device process ends without what --cpu-prof waits for.
 */
function profilingNode(folder: string, node: string): string {
  const path = join(folder, 'node')
  const hook = join(folder, 'hook.cjs')
  writeFileSync(
    hook,
    `const { writeFileSync } = require('node:fs')
const place = ${JSON.stringify(folder)} + '/' + process.pid
const session = new (require('node:inspector').Session)()
session.connect()
session.post('Profiler.enable')
session.post('Profiler.setSamplingInterval', { interval: 200 })
writeFileSync(place + '.pid', '')
process.once('SIGUSR2', () => {
  session.post('Profiler.start')
  process.on('exit', () => session.post('Profiler.stop', (_, { profile }) =>
    writeFileSync(place + '.cpuprofile', JSON.stringify(profile))))
})
`,
  )
  writeFileSync(path, `#!/bin/sh\nexec '${node}' --require '${hook}' "$@"\n`, { mode: 0o755 })
  return path
}

async function run(part: string, folder: string): Promise<void> {
  const suite = SUITES.find((one) => chosenCases(one, [part]).length > 0)!
  const session = await suite.start()
  try {
    for (const name of readdirSync(folder))
      if (name.endsWith('.pid')) process.kill(Number.parseInt(name, 10), 'SIGUSR2')
    for (const info of chosenCases(suite, [part])) for (let i = 0; i < RUNS; i++) await session.run(info, 'ours')
  } finally {
    await session.close()
  }
}

function print(part: string, { nodes, samples, timeDeltas }: CpuProfile): void {
  const nameOf = new Map(
    nodes.map(({ id, callFrame: { functionName, url, lineNumber } }) => {
      const place = url ? ` ${basename(url).replace(/\.js$/, '')}:${lineNumber + 1}` : ''
      return [id, `${functionName || '(anonymous)'}${place}`]
    }),
  )
  const self = new Map<string, number>()
  for (const [i, sample] of samples.entries()) {
    const name = nameOf.get(sample)!
    self.set(name, (self.get(name) ?? 0) + timeDeltas[i]!)
  }
  const busy = [...self].filter(([name]) => !IDLE.has(name)).toSorted(([, a], [, b]) => b - a)
  const total = busy.reduce((sum, [, us]) => sum + us, 0)
  const ms = (us: number): string => `${(us / 1000).toFixed(0)} ms`
  process.stdout.write(`${part}: ${ms(total)} in JavaScript and native calls\n`)
  for (const name of IDLE) if (self.has(name)) process.stdout.write(`        ${ms(self.get(name)!)} ${name}\n`)
  for (const [name, us] of busy.slice(0, ROWS))
    process.stdout.write(`${((100 * us) / total).toFixed(1).padStart(6)} %  ${name}\n`)
}

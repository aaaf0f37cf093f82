/**
 * `npm run soak [-- --minutes N] [--seed N] [--json]`: a guest under everything that may happen, with every byte compared.
 * `npm run soak -- --flood [--json]`: flood and starvation instead.
 * Exit status 1 where one was wrong, something hung, or memory grew.
 */

import { parseArgs } from 'node:util'
import { flood } from './flood.ts'
import { soak } from './run.ts'

const { values } = parseArgs({
  options: {
    minutes: { type: 'string', default: '30' },
    seed: { type: 'string' },
    flood: { type: 'boolean', default: false },
    json: { type: 'boolean', default: false },
    help: { type: 'boolean', short: 'h', default: false },
  },
})
if (values.help) {
  process.stdout.write(
    'Usage: npm run soak -- [--minutes N (default 30)] [--seed N] [--json]\n       npm run soak -- --flood [--json]\n',
  )
  process.exit(0)
}
const minutes = Number(values.minutes)
const seed = values.seed === undefined ? Date.now() >>> 0 : Number(values.seed)
if (!(minutes > 0) || !Number.isInteger(seed) || seed < 0) {
  process.stderr.write('soak: --minutes and --seed are numbers\n')
  process.exit(2)
}
const begun = Date.now()
const note = (text: string): void => {
  const at = `${Math.round((Date.now() - begun) / 1000)}`.padStart(5)
  process.stderr.write(`${at} s  ${text}\n`)
}
if (values.flood) {
  const results = await flood({ speeds: true, note })
  for (const { scene, grown, busy, others, status, why } of results) {
    if (values.json) process.stdout.write(`${JSON.stringify({ scene, status, why, grown, busy, others })}\n`)
    else
      process.stdout.write(
        `${status}  ${scene}: ${(grown / 2 ** 20).toFixed(1)} MiB grown` +
          `${busy === undefined ? '' : `, ${(busy * 100).toFixed(1)} % busy`}, another port at ${others?.toFixed(2)} of its speed` +
          `${why === '' ? '' : ` (${why})`}\n`,
      )
  }
  process.exit(results.some(({ status }) => status === 'fail') ? 1 : 0)
}
note(`seed ${seed}`)
const report = await soak({ minutes, seed, note })
if (values.json)
  process.stdout.write(`${JSON.stringify({ seed, status: report.failure ? 'fail' : 'pass', ...report })}\n`)
else {
  const mib = (bytes: number): string => `${(bytes / 2 ** 20).toFixed(1)} MiB`
  process.stdout.write(
    `${report.seconds} s, ${report.transfers} transfers, ${mib(report.up)} up, ${mib(report.down)} down, all compared\n` +
      `events: ${Object.entries(report.events)
        .map(([name, n]) => `${name} ${n}`)
        .join(', ')}\n` +
      `device process: ${report.restarts} restarts, ${report.repeated} bytes repeated, ${mib(report.rssStart)} at the start, ${mib(report.rssEnd)} at the end\n` +
      `${report.failure ? `FAILED: ${report.failure}` : 'nothing wrong'}\n`,
  )
}
process.exitCode = report.failure ? 1 : 0

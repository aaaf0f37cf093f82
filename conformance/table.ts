/** docs/conformance.md: what came of every case on every target, side by side. */

import type { Result, Status } from './case.ts'
import { CATALOG } from './catalog/catalog.ts'

const COLUMNS = [
  ['device/loopback', 'ours, in process'],
  ['device/vfio-user', 'ours, over vfio-user'],
  ['driver/loopback', 'our driver'],
  ['qemu/qtest', "QEMU's own device"],
] as const

const MARK: Readonly<Record<Status, string>> = { pass: 'pass', fail: '**fail**', 'n/a': '–' }

export function table(results: readonly Result[], banners: readonly string[]): string {
  const by = new Map(results.map((result) => [`${result.target}/${result.over} ${result.id}`, result]))
  const lines = [
    '# Conformance',
    '',
    'Made by `npm run conformance -- --table`; do not edit. Every rule of virtio 1.3 that concerns a console (R), attacks',
    'on consoles (A), rings and transports (B), vhost-user (D) and vfio-user (E), and defects that others had (S); as',
    'tests, each against our device, our driver and the device that QEMU brings along. “–” stands for not applicable:',
    'a rule for the other half, or what this peer does not offer; the reasons are in `npm run conformance -- --json`.',
    'A device of your own: `npm run conformance -- --help`.',
    '',
    ...banners.map((banner) => `- ${banner}`),
    '',
    `| id | section | rule | ${COLUMNS.map(([, name]) => name).join(' | ')} |`,
    `|---|---|---|${COLUMNS.map(() => '---|').join('')}`,
    ...CATALOG.map(({ id, section, title, level }) => {
      const cells = COLUMNS.map(([key]) => {
        const result = by.get(`${key} ${id}`)
        return result ? MARK[result.status] : ''
      })
      return `| ${id} | ${section} | ${cell(title)}${level === 'SHOULD' ? ' (should)' : ''} | ${cells.join(' | ')} |`
    }),
    '',
    '## What failed, and why',
    '',
    ...failures(results),
    '',
  ]
  return lines.join('\n')
}

function failures(results: readonly Result[]): string[] {
  const failed = results.filter(({ status }) => status === 'fail')
  if (failed.length === 0) return ['Nothing.']
  return failed.map(
    ({ id, target, over, title, why }) => `- **${id}**, ${target} over ${over} (${cell(title)}): ${cell(why)}`,
  )
}

function cell(text: string): string {
  return text.replaceAll('|', '\\|').replaceAll('<', '&lt;').replace(/\s+/g, ' ')
}

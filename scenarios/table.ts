/** The results side by side, as Markdown. */
import { SCENARIOS } from './list/all.ts'
import type { DeviceName, ScenarioResult } from './scenario.ts'

export function row(words: readonly string[]): string {
  return `| ${words.map((word) => word.replaceAll(/\s+/g, ' ').replaceAll('|', '\\|')).join(' | ')} |\n`
}

/** A row for each scenario that has been run. */
export function rows(results: readonly ScenarioResult[], devices: readonly DeviceName[]): string[] {
  const ids = [...new Set(results.map(({ id }) => id))]
  return ids.map((id) => {
    const of = (device: DeviceName): ScenarioResult | undefined =>
      results.find((result) => result.id === id && result.device === device)
    const cells = devices.map((device) => {
      const { status = '–', why = '' } = of(device) ?? {}
      return `${status === 'fail' ? '**fail**' : status}${why ? `: ${why.slice(0, 300)}` : ''}`
    })
    return row([id, results.find((result) => result.id === id)!.title, ...cells])
  })
}

export function table(results: readonly ScenarioResult[], devices: readonly DeviceName[], banner: string): string {
  const head = { ours: 'our device, over vfio-user', qemu: "QEMU's own device" }
  const names = SCENARIOS.map(({ id, field }) => `- \`${id}\`: ${field}\n`).join('')
  return `# Scenarios

Made by \`npm run scenarios -- --table\`; do not edit. What the field tests of a virtio console (avocado-vt, \`tp-qemu\`),
each scenario written once and run on both devices in one stock guest: ${banner}. Ports come and go for each of them;
where a device fails, the next scenario gets a fresh machine. The words behind “pass” are what was seen.

${row(['id', 'scenario', ...devices.map((device) => head[device])])}${row(['---', '---', ...devices.map(() => '---')])}${rows(results, devices).join('')}
What avocado-vt calls them:

${names}`
}

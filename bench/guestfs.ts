/**
 * `npm run bench:guestfs [-- --pairs N] [tool transfer inspect]`: libguestfs on our device against QEMU's own, in turns.
 * Both have a wrapper in Node and the same shared memory, so that only the device differs. `inspect` compares our own
 * inspection with virt-inspector. Above 1 ours is better. Apart from main.ts: it wants 150 MB of packages, and minutes.
 */
import { randomBytes } from 'node:crypto'
import { truncateSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { parseArgs } from 'node:util'
import { tryCommand } from '../lab/command.ts'
import { GuestfsLab } from '../lab/guestfs.ts'
import { repoRoot } from '../lab/paths.ts'
import { sampleDisk } from '../lab/sample-disk.ts'

const PARTS = ['tool', 'transfer', 'inspect'] as const
const SIDES = ['ours', 'qemu'] as const
type Side = (typeof SIDES)[number]
const MIB = 100
const TRANSFERS = 2

const { values, positionals } = parseArgs({
  options: { pairs: { type: 'string', default: '3' } },
  allowPositionals: true,
})
const parts = PARTS.filter((part) => positionals.length === 0 || positionals.includes(part))
const lab = await GuestfsLab.open()
try {
  for (const part of parts) await measure(part, Number(values.pairs))
} finally {
  lab.close()
}

/** Seconds by what was done; the sides take turns, the first one too. */
async function measure(part: (typeof PARTS)[number], pairs: number): Promise<void> {
  const runs = { tool, transfer, inspect }
  const seen: Record<Side, Record<string, number[]>> = { ours: {}, qemu: {} }
  for (let pair = 0; pair < pairs; pair++) {
    for (const side of pair % 2 === 0 ? SIDES : SIDES.toReversed()) {
      for (const [name, seconds] of await runs[part](side)) (seen[side][name] ??= []).push(seconds)
    }
  }
  for (const name of Object.keys(seen.ours)) {
    const [ours, qemu] = [median(seen.ours[name]!), median(seen.qemu[name]!)]
    const all = (side: Side): string => seen[side][name]!.map((value) => value.toFixed(2)).join(' ')
    process.stdout.write(
      `${name.padEnd(10)} ours ${ours.toFixed(2)} s, qemu ${qemu.toFixed(2)} s, ratio ${(qemu / ours).toFixed(3)}` +
        `   (ours ${all('ours')}; qemu ${all('qemu')})\n`,
    )
  }
}

async function tool(device: Side): Promise<[string, number][]> {
  const { status, seconds } = await timed(() => lab.run('libguestfs-test-tool', [], { device }))
  if (status !== 0) throw new Error(`libguestfs-test-tool on ${device} ended with ${status}`)
  return [['test-tool', seconds]]
}

async function transfer(device: Side): Promise<[string, number][]> {
  const at = (name: string): string => join(lab.folder, name)
  writeFileSync(at('data'), randomBytes(MIB * 2 ** 20))
  writeFileSync(at('disk'), '')
  truncateSync(at('disk'), 4 * MIB * 2 ** 20)
  const once = [`time upload ${at('data')} /data`, `time download /data ${at('back')}`]
  const script = [
    ...[`add-drive ${at('disk')} format:raw`, 'run', 'mkfs ext4 /dev/sda', 'mount /dev/sda /'],
    ...Array.from({ length: TRANSFERS }, () => once).flat(),
  ]
  const { status, stdout, stderr } = await lab.run('guestfish', [], { device, input: `${script.join('\n')}\n` })
  const seconds = [...stdout.toString().matchAll(/elapsed time: ([\d.]+) seconds/g)].map((found) => Number(found[1]))
  if (status !== 0 || seconds.length !== 2 * TRANSFERS) throw new Error(`guestfish on ${device}: ${stderr}`)
  return seconds.map((value, index) => [index % 2 === 0 ? 'upload' : 'download', value])
}

/** Ours: `vmchannel inspect` on our device. Theirs: virt-inspector on QEMU's. */
async function inspect(device: Side): Promise<[string, number][]> {
  const disk = join(lab.folder, 'sample.img')
  await sampleDisk(lab.guestfs, disk)
  const words = [join(repoRoot(), 'dist/src/cli/main.js'), 'inspect', '--json', disk]
  const { status, seconds } = await timed(() =>
    device === 'ours'
      ? tryCommand(process.execPath, words, { env: lab.env() })
      : lab.run('virt-inspector', ['--no-icon', '--format=raw', '-a', disk], { device }),
  )
  if (status !== 0) throw new Error(`inspection on ${device} ended with ${status}`)
  return [['inspect', seconds]]
}

async function timed<T>(work: () => Promise<T>): Promise<T & { seconds: number }> {
  const started = performance.now()
  const result = await work()
  return { ...result, seconds: (performance.now() - started) / 1000 }
}

function median(numbers: readonly number[]): number {
  const sorted = numbers.toSorted((a, b) => a - b)
  return (sorted[(sorted.length - 1) >> 1]! + sorted[sorted.length >> 1]!) / 2
}

/**
 * The lab by hand: `fetch` gets everything but the desktop image, `desktop-image` makes that one, `boot` starts a guest
 * and gives its shell, `boot-desktop` the same with the desktop image.
 */
import { createInterface } from 'node:readline/promises'
import { describeError } from '../src/errors.ts'
import { desktopGuest, desktopUp } from './desktop-guest.ts'
import { ensureDesktopImage } from './desktop-image.ts'
import { ensureBusybox } from './fetch/busybox.ts'
import { ensureCompiler, guestProgram } from './fetch/compiler.ts'
import { ensureKernel, KERNEL_SERIES, type KernelSeries } from './fetch/kernel.ts'
import { ensureOldQemu } from './fetch/old-qemu.ts'
import { ensureQemu } from './fetch/qemu.ts'
import { Machine } from './machine.ts'
import { cacheRoot } from './paths.ts'

const USAGE = `usage: node dist/lab/cli.js fetch
       node dist/lab/cli.js boot [${KERNEL_SERIES.join('|')}] [-- QEMU arguments]
       node dist/lab/cli.js desktop-image
       node dist/lab/cli.js boot-desktop [${KERNEL_SERIES.join('|')}] [-- QEMU arguments]
`

async function fetchAll(): Promise<void> {
  const qemu = await ensureQemu()
  console.log(`QEMU ${qemu.version} (${qemu.source}): ${qemu.path}`)
  const old = await ensureOldQemu()
  console.log(`QEMU ${old.version} (${old.source}): ${old.path}`)
  console.log(`busybox: ${await ensureBusybox()}`)
  for (const series of KERNEL_SERIES) {
    const kernel = await ensureKernel(series)
    console.log(`kernel ${kernel.release}: ${kernel.vmlinuz}`)
  }
  console.log(`compiler: ${(await ensureCompiler()).path}`)
  for (const name of ['agent', 'vmtest']) console.log(`guest program: ${await guestProgram(name)}`)
  console.log(`cache: ${cacheRoot()}`)
}

async function boot(series: KernelSeries, args: readonly string[], desktop: boolean): Promise<void> {
  const qemu = await ensureQemu()
  const guest = desktop ? await desktopGuest() : { args: [] }
  const kernel = await ensureKernel(series)
  const started = Date.now()
  const machine = await Machine.boot({ qemu: qemu.path, kernel, ...guest, args: [...guest.args, ...args] })
  if (desktop) await desktopUp(machine)
  const lines = createInterface({ input: process.stdin, output: process.stdout, prompt: 'guest# ' })
  console.log(
    `up after ${((Date.now() - started) / 1000).toFixed(1)} s; QEMU is process ${machine.pid}; end with ctrl-D`,
  )
  try {
    lines.prompt()
    for await (const line of lines) {
      if (line.trim() !== '') {
        const { status, output } = await machine.run(line, { timeout: 3600e3 })
        process.stdout.write(status === 0 ? output : `${output}(status ${status})\n`)
      }
      lines.prompt()
    }
  } finally {
    await machine.close()
  }
}

async function main(words: readonly string[]): Promise<void> {
  const split = words.indexOf('--')
  const own = split < 0 ? words : words.slice(0, split)
  const series = KERNEL_SERIES.find((name) => name === (own[1] ?? '6.1'))
  if (own[0] === 'fetch' && own.length === 1) return fetchAll()
  if (own[0] === 'desktop-image' && own.length === 1) return console.log(await ensureDesktopImage())
  if (/^boot(-desktop)?$/.test(own[0] ?? '') && own.length <= 2 && series)
    return boot(series, split < 0 ? [] : words.slice(split + 1), own[0] === 'boot-desktop')
  process.stderr.write(USAGE)
  process.exitCode = 2
}

try {
  await main(process.argv.slice(2))
} catch (error) {
  process.stderr.write(`${describeError(error)}\n`)
  process.exitCode = 1
}

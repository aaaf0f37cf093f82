/** A user's program that blocks its event loop for ten seconds does not hold up the guest. Needs the build. */
import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { readFileSync } from 'node:fs'
import { join } from 'node:path'
import { createInterface } from 'node:readline'
import { afterAll, expect, it } from 'vitest'
import { TempDir } from '../daemon/temp-dir.ts'
import { sharedMemoryArgs } from '../../src/library/options.ts'
import { boot } from './boot.ts'

const temp = new TempDir()
afterAll(() => temp.remove())

it('a program that blocks for ten seconds', async () => {
  const file = join(temp.path, 'ticks')
  const program = spawn(process.execPath, [join(import.meta.dirname, 'programs/blocked.mjs'), file], {
    stdio: ['pipe', 'pipe', 'inherit'],
  })
  const lines = createInterface({ input: program.stdout })[Symbol.asyncIterator]()
  const said = async (): Promise<unknown> => JSON.parse((await lines.next()).value as string)
  const { qemuArgs, port, ticks } = (await said()) as { qemuArgs: string[]; port: number; ticks: number }
  const machine = await boot({ qemuArgs, memoryArgs: sharedMemoryArgs })
  try {
    // The guest writes its clock to one port ten times a second, and as much as it can to the one that nobody reads now.
    machine.spawn(`while :; do cut -d' ' -f1 /proc/uptime; usleep 100000; done > /dev/vport0p${ticks}`)
    program.stdin.write('block\n')
    expect(await said()).toBe('blocking')
    const start = Date.now()
    const flood = machine.spawn(`vmtest source /dev/vport0p${port} 33554432 32768`)
    const at = (): number => Number(readFileSync(file, 'latin1').trim().split('\n').at(-1))
    const before = at()
    let worst = 0
    for (let i = 0; i < 16; i++) {
      const asked = Date.now()
      await machine.sh('true')
      worst = Math.max(worst, Date.now() - asked)
      await new Promise((resolve) => setTimeout(resolve, 500))
    }
    const elapsed = (Date.now() - start) / 1000
    expect(elapsed).toBeLessThan(10) // the program still sleeps
    const times = readFileSync(file, 'latin1')
      .trim()
      .split('\n')
      .map(Number)
      .filter((time) => time >= before)
    const gaps = times.slice(1).map((time, i) => time - times[i]!)
    console.log(
      `blocked ${elapsed.toFixed(1)} s: ${times.length} ticks, longest gap ${Math.max(...gaps).toFixed(2)} s, guest command at most ${worst} ms`,
    )
    expect(Math.max(...gaps)).toBeLessThan(1)
    expect(times.length).toBeGreaterThan(30)
    expect(times.at(-1)! - before).toBeGreaterThan(elapsed * 0.8)
    expect(worst).toBeLessThan(1000)
    // It wrote until the buffers were full, and waits.
    expect(flood.ended).toBe(false)
    expect(await said()).toBe('awake')
    await flood.wait(60_000)
    program.stdin.write('end\n')
    await once(program, 'exit')
  } finally {
    await machine.close()
    program.kill('SIGKILL')
  }
}, 120_000)

/** Commands in the guest, and every way in which a machine can end. */
import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { existsSync, readFileSync, rmSync } from 'node:fs'
import { join } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import { afterEach, expect, test } from 'vitest'
import { ensureKernel } from '../../lab/fetch/kernel.ts'
import { ensureQemu } from '../../lab/fetch/qemu.ts'
import { Machine, type MachineOptions } from '../../lab/machine.ts'
import { repoRoot } from '../../lab/paths.ts'

const open = new Set<Machine>()
afterEach(async () => {
  for (const machine of open) await machine.close()
  open.clear()
})

async function boot(options: Partial<MachineOptions> = {}): Promise<Machine> {
  const [qemu, kernel] = [await ensureQemu(), await ensureKernel('6.1')]
  const machine = await Machine.boot({ qemu: qemu.path, kernel, ...options })
  open.add(machine)
  return machine
}

const isAlive = (pid: number): boolean => existsSync(`/proc/${pid}`)

test('commands: status, output, size, time limit, background, reset', async () => {
  const machine = await boot({ guest: { init: 'echo extra >/tmp/extra', files: { '/etc/motd': { text: 'hello\n' } } } })
  expect(await machine.run('echo out; echo err >&2; exit 7')).toEqual({ status: 7, output: 'out\nerr\n' })
  expect(await machine.sh('cat /tmp/extra /etc/motd')).toBe('extra\nhello')
  expect((await machine.run('kill -9 $$')).status).toBe(137)
  expect((await machine.run('no-such-thing')).output).toContain('not found')
  await expect(machine.sh('echo why; false')).rejects.toThrow(/ended with 1: echo why; false\nwhy/)

  // Kernel messages, binary bytes and 100 000 characters do not disturb each other.
  const big = await machine.sh('echo noise >/dev/kmsg; printf "\\001\\376vmchannel"; seq 20000; echo noise >/dev/kmsg')
  expect(big.split('\n').at(-1)).toBe('20000')
  expect(big.length).toBeGreaterThan(108_000)
  expect(await machine.sh(`echo '${'x'.repeat(30_000)}' | wc -c`)).toBe('30001')
  expect(() => machine.spawn('x'.repeat(40_000))).toThrow(/may have 32768 bytes/)

  const job = machine.spawn('echo started; sleep 100; echo never')
  await job.waitForOutput(/started/)
  expect(await machine.sh('echo meanwhile')).toBe('meanwhile')
  job.kill()
  expect(await job.wait()).toEqual({ status: 143, output: 'started\n' })
  await expect(machine.run('echo tail; sleep 100', { timeout: 500 })).rejects.toThrow(/500 ms.*\ntail/)
  await expect.poll(() => machine.run('ps | grep "[s]leep 100"')).toEqual({ status: 1, output: '' })

  const left = machine.spawn('(sleep 0.3; echo late) & echo early')
  expect(await left.wait()).toEqual({ status: 0, output: 'early\n' })

  await machine.sh('touch /tmp/mark')
  const lost = machine.spawn('sleep 100')
  await machine.reset()
  await expect(lost.wait()).rejects.toThrow(/reset: sleep 100/)
  expect(await machine.run('test -e /tmp/mark')).toEqual({ status: 1, output: '' })
  const starts = machine.starts
  machine.spawn('reboot -f')
  await machine.waitForStart(starts)
  expect(await machine.sh('echo again')).toBe('again')
})

test('a kernel panic fails what is under way, with the console in the message', async () => {
  const machine = await boot({ cpus: 2, machineType: 'pc' })
  expect(await machine.sh('nproc')).toBe('2')
  await expect(machine.run('echo c >/proc/sysrq-trigger')).rejects.toThrow(/panicked[\s\S]*sysrq triggered crash/i)
  await expect(machine.sh('echo')).rejects.toThrow(/panicked/)
})

test('QEMU that ends, does not start or does not know an option says so', async () => {
  const machine = await boot()
  const waiting = expect(machine.run('sleep 100')).rejects.toThrow(/QEMU has ended \(status 0\)/)
  await machine.qmp('quit')
  await waiting
  await machine.exited()
  await expect(boot({ args: ['-device', 'no-such-device'] })).rejects.toThrow(/no-such-device/)
  await expect(boot({ qemu: '/nonexistent/qemu' })).rejects.toThrow(/QEMU has ended|does not start/)
  await expect(boot({ launcher: () => ({ file: 'sleep', args: ['100'] }), bootTimeout: 500 })).rejects.toThrow(
    /did not start within 500 ms/,
  )
})

test('nothing is left behind when the owner is killed', async () => {
  const code = `
    import { ensureKernel } from './lab/fetch/kernel.js'
    import { ensureQemu } from './lab/fetch/qemu.js'
    import { Machine } from './lab/machine.js'
    const machine = await Machine.boot({ qemu: (await ensureQemu()).path, kernel: await ensureKernel('6.1') })
    console.log(JSON.stringify([machine.pid, machine.folder]))
    setInterval(() => {}, 1000)`
  const owner = spawn(process.execPath, ['--input-type=module', '-e', code], {
    cwd: join(repoRoot(), 'dist'),
    stdio: ['ignore', 'pipe', 'inherit'],
  })
  const [said] = (await once(owner.stdout, 'data')) as [Buffer]
  const [pid, folder] = JSON.parse(said.toString()) as [number, string]
  expect(readFileSync(`/proc/${pid}/cmdline`, 'latin1')).toContain('qemu-system-x86_64')
  owner.kill('SIGKILL')
  for (let tries = 0; tries < 100 && isAlive(pid); tries++) await sleep(50)
  expect(isAlive(pid)).toBe(false)
  rmSync(folder, { recursive: true }) // only sockets' names: no exit hook runs after SIGKILL
})

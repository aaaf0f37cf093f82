/** What one VM with 31 ports costs the host: memory of the device process, and silence while nothing moves. */
import { readdirSync, readFileSync } from 'node:fs'
import { mkdtemp, rm } from 'node:fs/promises'
import { connect } from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { expect, it } from 'vitest'
import { ensureKernel } from '../../lab/fetch/kernel.ts'
import { ensureQemu } from '../../lab/fetch/qemu.ts'
import { Machine } from '../../lab/machine.ts'
import { portNode } from '../../lab/ports.ts'
import { vmtest } from '../../lab/vmtest.ts'
import { startDevice } from '../../src/client/start.ts'

/** Kilobytes of a process by kind. */
function memory(pid: number): Record<string, number> {
  const status = readFileSync(`/proc/${pid}/status`, 'utf8')
  return Object.fromEntries(
    [...status.matchAll(/^(VmRSS|RssAnon|RssFile|RssShmem):\s+(\d+) kB/gm)].map((m) => [m[1]!, Number(m[2])]),
  )
}

/** How often a process has been woken, all its threads. */
function wakings(pid: number): number {
  const counts = readdirSync(`/proc/${pid}/task`).map((thread) => {
    const status = readFileSync(`/proc/${pid}/task/${thread}/status`, 'utf8')
    return Number(/^voluntary_ctxt_switches:\s+(\d+)/m.exec(status)![1])
  })
  return counts.reduce((sum, one) => sum + one, 0)
}

it('a device process with 31 ports stays within 100 MiB and is not woken while idle', async () => {
  const folder = await mkdtemp(join(tmpdir(), 'vmchannel-test-'))
  const ports = Array.from({ length: 30 }, (_, i) => `unix:${join(folder, `p${i}.sock`)},name=p${i}`)
  const device = await startDevice({
    stateDir: join(folder, 'state'),
    vms: [{ ports: ['attach,console=on', ...ports] }],
    exitWith: 'parent',
    logLevel: 'warn',
  })
  let machine: Machine | undefined
  try {
    const qemu = await ensureQemu()
    machine = await Machine.boot({
      qemu: qemu.path,
      kernel: await ensureKernel('6.1'),
      machineType: 'q35,memory-backend=mem0',
      args: ['-object', 'memory-backend-memfd,id=mem0,size=256M,share=on', ...device.vms[0]!.qemuArgs],
    })
    const node = await portNode(machine, 'p0')
    const peer = connect(join(folder, 'p0.sock'))
    peer.resume()
    await vmtest(machine, 'source', [node, '64m', '32k', 1, '--no-hash'])
    peer.destroy()
    // Eight seconds after the traffic the garbage collector tidies up once more; then there has to be silence.
    let woken = Infinity
    for (let window = 0; window < 6 && woken > 0; window++) {
      const before = wakings(device.pid)
      await new Promise((resolve) => setTimeout(resolve, 4000))
      woken = wakings(device.pid) - before
    }
    const { VmRSS = 0, RssAnon = 0, RssFile = 0, RssShmem = 0 } = memory(device.pid)
    const mib = (kb: number): number => Math.round(kb / 102.4) / 10
    process.stdout.write(
      `device process: ${mib(VmRSS)} MiB resident (${mib(RssAnon)} own, ${mib(RssFile)} of files, ${mib(RssShmem)} of the guest's memory), ` +
        `woken ${woken} times in 4 s idle, ${readdirSync(`/proc/${device.pid}/fd`).length} descriptors\n`,
    )
    // The guest's own memory is not ours to count, whatever of it was touched through the mapping.
    expect(mib(VmRSS - RssShmem)).toBeLessThan(100)
    expect(woken).toBe(0)
  } finally {
    await machine?.close()
    device.stdin.end()
    await rm(folder, { recursive: true, force: true })
  }
}, 120_000)

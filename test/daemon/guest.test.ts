/** The device process from its JSON configuration to a stock guest that talks through it. Needs the build. */
import { connect } from 'node:net'
import { existsSync } from 'node:fs'
import { join } from 'node:path'
import { once } from 'node:events'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { ensureKernel } from '../../lab/fetch/kernel.ts'
import { ensureQemu } from '../../lab/fetch/qemu.ts'
import { Machine } from '../../lab/machine.ts'
import { startDevice, type StartedDevice } from '../../src/client/start.ts'
import { TempDir } from './temp-dir.ts'

export const SHARED: string[] = ['-object', 'memory-backend-memfd,id=mem,size=256M,share=on']

describe('a device process and a guest', () => {
  const temp = new TempDir()
  let device: StartedDevice
  let machine: Machine

  beforeAll(async () => {
    const [qemu, kernel] = [await ensureQemu(), await ensureKernel('6.1')]
    device = await startDevice(
      {
        stateDir: join(temp.path, 'state'),
        vms: [{ ports: [`unix:${temp.path}/a.sock,name=org.example.0`] }],
        exitWith: 'vmm',
        logLevel: 'info',
      },
      { detached: true },
    )
    machine = await Machine.boot({
      qemu: qemu.path,
      kernel,
      machineType: 'q35,memory-backend=mem',
      args: [...SHARED, ...device.vms[0]!.qemuArgs],
    })
  })
  afterAll(async () => {
    await machine?.close()
    temp.remove()
  })

  it('bytes go both ways', async () => {
    const peer = connect(join(temp.path, 'a.sock'))
    const job = machine.spawn('head -n1 < /dev/vport0p1')
    peer.write('from the host\n')
    expect((await job.wait()).output).toBe('from the host\n')
    const data = once(peer, 'data')
    await machine.sh('echo hello > /dev/vport0p1')
    expect(String((await data)[0])).toBe('hello\n')
    peer.destroy()
  })

  it('ends with its VMM, and leaves nothing', async () => {
    process.kill(machine.pid, 'SIGKILL')
    await once(device.process, 'exit')
    expect(device.process.exitCode).toBe(0)
    expect(existsSync(join(temp.path, 'a.sock'))).toBe(false)
    expect(existsSync(join(temp.path, 'state'))).toBe(false)
  })
})

/** Our driver over VFIO: a device behind a vIOMMU, with MSI-X; and the mistakes that would corrupt memory. */
import { createHash } from 'node:crypto'
import { connect, type Socket } from 'node:net'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { ensureKernel } from '../../lab/fetch/kernel.ts'
import { ensureQemu } from '../../lab/fetch/qemu.ts'
import { codeDisk, GUEST_COMMAND, nodeGuest, type CodeDisk } from '../../lab/guest-image.ts'
import { Machine } from '../../lab/machine.ts'
import { Pattern, patternSha256 } from '../../lab/pattern.ts'
import { startVmtest, vmtest } from '../../lab/vmtest.ts'
import { guestPath, readBytes, startDriver, until } from './rig.ts'

const MIB = 1 << 20
const sha256 = (bytes: Uint8Array): string => createHash('sha256').update(bytes).digest('hex')
const NODE = '/dev/virtio-ports/one'

describe('our driver over VFIO', () => {
  let machine: Machine
  let disk: CodeDisk
  let peer: Socket

  beforeAll(async () => {
    disk = await codeDisk()
    const [qemu, kernel, guest] = await Promise.all([ensureQemu(), ensureKernel('6.1'), nodeGuest()])
    machine = await Machine.boot({
      ...{ qemu: qemu.path, kernel, guest, memory: '1G', machineType: 'q35', cpus: 2 },
      args: (folder) => [
        ...['-device', 'intel-iommu,intremap=on'],
        ...disk.args,
        ...['-device', 'virtio-serial-pci,id=behind,disable-legacy=on,iommu_platform=on,addr=0x10'],
        ...['-chardev', `socket,id=one,path=${folder}/one.sock,server=on,wait=off`],
        ...['-device', 'virtserialport,bus=behind.0,chardev=one,name=one'],
        ...['-device', 'virtio-serial-pci,id=around,disable-legacy=on,addr=0x11'],
      ],
    })
    peer = connect(`${machine.folder}/one.sock`)
    await new Promise((resolve, reject) => peer.once('connect', resolve).once('error', reject))
  })
  afterAll(async () => {
    peer?.destroy()
    await machine?.close()
    disk?.remove()
  })

  it('is chosen behind an IOMMU, moves bytes both ways, exactly, and gives the device back', async () => {
    const driver = await startDriver(machine)
    expect(driver.output).toMatch(/0000:00:10.0 \(IOMMU group \d+, MSI-X\)/)
    await guestPath(machine, NODE)
    await until(async () => (await vmtest(machine, 'poll', [NODE, 0])).revents.includes('OUT'), 'the host is there')
    const got = readBytes(peer, 2 * MIB)
    const { sha256: sent } = await vmtest(machine, 'source', [NODE, 2 * MIB, 100_000])
    expect(sha256(await got)).toBe(sent)
    const sink = await startVmtest(machine, 'sink', [NODE, 2 * MIB])
    peer.write(new Pattern().take(2 * MIB))
    expect((await sink.result()).sha256).toBe(patternSha256(2 * MIB))
    driver.kill(15)
    expect(await driver.wait()).toMatchObject({ status: 0, output: expect.stringMatching(/given back to virtio-pci/) })
    await guestPath(machine, NODE, false)
    expect(await machine.sh('cat /sys/class/virtio-ports/*/name')).toMatch('one')
  })

  it('starts again after kill -9', async () => {
    const first = await startDriver(machine)
    await guestPath(machine, NODE)
    first.kill(9)
    await first.wait()
    await guestPath(machine, NODE, false)
    const second = await startDriver(machine)
    expect(second.output).toMatch(/MSI-X/)
    await guestPath(machine, NODE)
    const got = readBytes(peer, 6)
    await machine.sh(`echo hello > ${NODE}`)
    expect(String(await got)).toBe('hello\n')
    second.kill(15)
    await second.wait()
  })

  it.each([
    ['UIO behind an IOMMU', '--device 00:10.0 --driver uio', /is behind an IOMMU.*\n.*--driver vfio/],
    ['VFIO around it', '--device 00:11.0 --driver vfio', /goes around the IOMMU.*\n.*iommu_platform=on/],
  ])('refuses %s, and changes nothing', async (_, words, text) => {
    const { status, output } = await machine.run(`${GUEST_COMMAND} ${words}`)
    expect(output).toMatch(text)
    expect(status).toBe(9)
    const drivers = await machine.sh('for d in /sys/bus/pci/devices/0000:00:1[01].0/driver; do readlink $d; done')
    expect(drivers).toMatch(/virtio-pci.*virtio-pci/s)
  })
})

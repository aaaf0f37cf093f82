/** Our driver on QEMU's own virtio-serial-pci: one modern device, and one that is transitional, without MSI-X. */
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

describe("our driver on QEMU's device", () => {
  let machine: Machine
  let disk: CodeDisk
  const sockets: Socket[] = []

  const port = (folder: string, bus: string, name: string): string[] => [
    ...['-chardev', `socket,id=${name},path=${folder}/${name}.sock,server=on,wait=off`],
    ...['-device', `virtserialport,bus=${bus}.0,chardev=${name},name=${name},id=port-${name}`],
  ]

  beforeAll(async () => {
    disk = await codeDisk()
    const [qemu, kernel, guest] = await Promise.all([ensureQemu(), ensureKernel('6.1'), nodeGuest()])
    machine = await Machine.boot({
      ...{ qemu: qemu.path, kernel, guest, memory: '1G', machineType: 'q35', cpus: 2 },
      args: (folder) => [
        ...disk.args,
        ...['-device', 'virtio-serial-pci,id=modern,disable-legacy=on,addr=0x10'],
        ...port(folder, 'modern', 'one'),
        ...port(folder, 'modern', 'two'),
        ...['-device', 'virtio-serial-pci,id=old,disable-legacy=off,disable-modern=off,vectors=0,addr=0x11'],
        ...port(folder, 'old', 'three'),
        ...['-device', 'virtio-serial-pci,id=legacy,disable-legacy=off,disable-modern=on,addr=0x12'],
        ...['-device', 'virtio-rng-pci,addr=0x13'],
      ],
    })
  })
  afterAll(async () => {
    for (const socket of sockets) socket.destroy()
    await machine?.close()
    disk?.remove()
  })

  const host = async (name: string): Promise<Socket> => {
    const socket = connect(`${machine.folder}/${name}.sock`)
    sockets.push(socket)
    await new Promise((resolve, reject) => socket.once('connect', resolve).once('error', reject))
    return socket
  }

  it.each([
    ['modern', '00:10.0', 'two'],
    ['transitional', '0000:00:11.0', 'three'],
  ])('moves bytes both ways, exactly, on a %s device, and gives it back', async (_, device, name) => {
    const driver = await startDriver(machine, `--device ${device} --share`)
    const node = `/dev/virtio-ports/${name}`
    await guestPath(machine, node)
    const peer = await host(name)
    await until(async () => (await vmtest(machine, 'poll', [node, 0])).revents.includes('OUT'), 'the host is there')

    const got = readBytes(peer, 2 * MIB)
    const { sha256: sent } = await vmtest(machine, 'source', [node, 2 * MIB, 100_000])
    expect(sha256(await got)).toBe(sent)
    const sink = await startVmtest(machine, 'sink', [node, 2 * MIB])
    peer.write(new Pattern().take(2 * MIB))
    expect((await sink.result()).sha256).toBe(patternSha256(2 * MIB))

    // Told to share: no EBUSY.
    expect((await vmtest(machine, 'open2', [node])).second).toBe(true)

    driver.kill(15)
    expect(await driver.wait()).toMatchObject({ status: 0, output: expect.stringMatching(/given back to virtio-pci/) })
    await guestPath(machine, node, false)
    expect(await machine.sh('cat /sys/class/virtio-ports/*/name')).toMatch(name)
    peer.destroy()
  })

  it('follows ports that QEMU adds and removes, and ends when the device is unplugged', async () => {
    const driver = await startDriver(machine, '--device 00:10.0')
    await guestPath(machine, '/dev/virtio-ports/two')
    await machine.qmp('device_del', { id: 'port-two' })
    await guestPath(machine, '/dev/virtio-ports/two', false)
    await machine.qmp('device_add', { driver: 'virtserialport', bus: 'modern.0', name: 'new', id: 'port-new' })
    await guestPath(machine, '/dev/virtio-ports/new')
    expect(await machine.sh('readlink /dev/virtio-ports/new')).toBe('../vmch1')
    await machine.sh('echo 1 > /sys/bus/pci/devices/0000:00:10.0/remove')
    const { status, output } = await driver.wait()
    expect(output).toMatch(/0000:00:10.0 is gone/)
    expect(status).toBe(0)
    await guestPath(machine, '/dev/vmch0', false)
  })

  /** What is said where it cannot work. Each has changed nothing: the device is with its driver still. */
  it.each([
    [
      'not root',
      `echo nobody:x:65534:65534::/:/bin/sh >/etc/passwd; su nobody -s /bin/sh -c '${GUEST_COMMAND}'`,
      9,
      /takes root; this is user \d+\n.*sudo/,
    ],
    ['no such device', `${GUEST_COMMAND} --device 00:1e.0`, 5, /there is no PCI function 0000:00:1e.0\n.*0000:00:11.0/],
    ['not a console', `${GUEST_COMMAND} --device 00:13.0`, 5, /is 1af4:\w+, not a virtio console/],
    [
      'module missing',
      `rmmod cuse && ${GUEST_COMMAND} --device 00:11.0; s=$?; insmod /modules/cuse.ko; exit $s`,
      9,
      /kernel module cuse is not loaded.*\n.*linux-image-6\.1/,
    ],
    [
      'device busy',
      `sleep 60 < $(ls /dev/vport*p1) & ${GUEST_COMMAND} --device 00:11.0; s=$?; kill $!; exit $s`,
      4,
      /0000:00:11.0 is in use: \/dev\/vport\d+p1 by process \d+\n.*--force/,
    ],
    [
      'no IOMMU',
      `${GUEST_COMMAND} --device 00:11.0 --driver vfio`,
      9,
      /is behind no IOMMU.*\n.*intel-iommu,intremap=on/,
    ],
    [
      'only the old interface',
      `${GUEST_COMMAND} --device 00:12.0`,
      5,
      /00:12.0 has only the interface from before virtio 1\.0.*\n.*disable-modern=off/,
    ],
  ])('says what is wrong: %s', async (_, command, code, text) => {
    const { status, output } = await machine.run(command)
    expect(output).toMatch(text)
    expect(output).not.toMatch(/\n\s+at /)
    expect(status).toBe(code)
    expect(await machine.sh('for d in /sys/bus/pci/devices/0000:00:1[12].0/driver; do readlink $d; done')).toMatch(
      /virtio-pci.*virtio-pci/s,
    )
  })

  it('gives way where a name in /dev is taken', async () => {
    await machine.sh('echo mine > /dev/vmch0; mkdir -p /dev/virtio-ports; echo mine > /dev/virtio-ports/three')
    const driver = await startDriver(machine, '--device 00:11.0')
    await guestPath(machine, '/dev/vmch1')
    await driver.waitForOutput(/port 1: \/dev\/virtio-ports\/three exists already; it is \/dev\/vmch1 only/)
    driver.kill(15)
    await driver.wait()
    expect(await machine.sh('cat /dev/vmch0 /dev/virtio-ports/three')).toBe('mine\nmine')
    await machine.sh('rm /dev/vmch0 /dev/virtio-ports/three; rmdir /dev/virtio-ports')
  })

  it('says that another one drives the device already', async () => {
    const driver = await startDriver(machine, '--device 00:11.0')
    const { status, output } = await machine.run(`${GUEST_COMMAND} --device 00:11.0`)
    expect(output).toMatch(/driven by another vmchannel already/)
    expect(status).toBe(4)
    await guestPath(machine, '/dev/vmch0')
    driver.kill(15)
    await driver.wait()
  })

  it('says that there are no huge pages', async () => {
    // A read-only sysfs, as in a container: none can be made.
    const pages = '/sys/kernel/mm/hugepages'
    const { status, output } = await machine.run(
      `mount -o bind ${pages} ${pages} && mount -o remount,bind,ro ${pages}
      ${GUEST_COMMAND} --device 00:11.0; s=$?; umount ${pages}; exit $s`,
    )
    expect(output).toMatch(/no huge page of 2 MiB is free \(there are 0\).*\n.*hugepages=8/)
    expect(status).toBe(7)
  })

  // Last: there is no way back from it.
  it('says that the kernel is in lockdown', async () => {
    await machine.sh('mount -t securityfs s /sys/kernel/security && echo integrity > /sys/kernel/security/lockdown')
    const { status, output } = await machine.run(`${GUEST_COMMAND} --device 00:11.0`)
    expect(output).toMatch(/lockdown \(Secure Boot\)/)
    expect(output).not.toMatch(/\n\s+at /)
    expect(status).toBe(9)
    await guestPath(machine, '/sys/bus/pci/devices/0000:00:11.0/driver')
    expect(await machine.sh('readlink /sys/bus/pci/devices/0000:00:11.0/driver')).toMatch(/virtio-pci/)
  })
})

import { join } from 'node:path'
import { expect, it } from 'vitest'
import { ensureQemu } from '../../lab/fetch/qemu.ts'
import { ensureKernel } from '../../lab/fetch/kernel.ts'
import { Machine } from '../../lab/machine.ts'
import { ConsoleDevice } from '../../src/device/console.ts'
import { VirtioPci } from '../../src/device/pci/virtio-pci.ts'
import { listenVfioUser } from '../../src/device/attach/vfio-user/server.ts'
import { GuestMemory } from '../../src/mem/guest-memory.ts'
import { MemoryChardev } from '../support/memory-chardev.ts'

it('thin', async () => {
  const log = { error: console.log, warn: console.log, info: console.log, debug: console.log }
  const memory = new GuestMemory()
  const device = new ConsoleDevice({ log, defer: setImmediate, onEvent: (e) => console.log(e.event, e.port.id) })
  const pci = new VirtioPci(device, memory)
  const path = `/tmp/thin-${process.pid}.sock`
  const server = await listenVfioUser({ path, memory, function: pci, log })
  let chardev!: MemoryChardev
  const port = await device.addPort(
    { name: 'org.example.0', console: false, policy: 'block', buffer: 65536, onClose: undefined, drainMs: 1000 },
    async (end) => (chardev = new MemoryChardev(end)),
  )
  const qemu = await ensureQemu()
  const kernel = await ensureKernel('6.1')
  const m = await Machine.boot({
    qemu: qemu.path, kernel, machineType: 'q35,memory-backend=m',
    args: ['-object', 'memory-backend-memfd,id=m,size=256M,share=on', '-device', `{"driver":"vfio-user-pci","socket":{"type":"unix","path":"${path}"}}`],
  })
  console.log(await m.sh('ls -l /dev/vport* /dev/virtio-ports; cat /proc/interrupts'))
  console.log(await m.sh('cat /sys/class/virtio-ports/*/name'))
  console.log(await m.sh('echo hello > /dev/vport0p1'))
  chardev.send('from the host\n')
  console.log(await m.sh('head -n1 < /dev/vport0p1'))
  console.log(chardev.text, port.stats())
  await m.close()
  server.close()
  expect(chardev.text).toBe('hello\n')
}, 120000)

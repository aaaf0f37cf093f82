// Adds a port to a guest that is running, uses it, and takes it away again.
import { once } from 'node:events'
import { createDevice } from 'vmchannel'
import { startGuest } from './guest.mjs'

const device = await createDevice()
device.on('port-added', ({ id, name }) => console.log(`added   ${id} ${name}`))
device.on('port-removed', ({ id, name }) => console.log(`removed ${id} ${name}`))
const guest = await startGuest(device)
await device.waitForDriver()

const port = await device.addPort({ name: 'org.example.hot' })
// The name comes a moment after the device; with udev, wait for /dev/virtio-ports/org.example.hot instead.
const file = `/sys/class/virtio-ports/vport0p${port.id}/name`
guest.run(`until test -e ${file}; do sleep 0.1; done; cat ${file} >/dev/vport0p${port.id}`)
console.log(`the guest calls it ${String((await once(port, 'data'))[0]).trim()}`)
await port.remove()

await guest.close()
await device.close()

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
const dev = `/dev/vport0p${port.id}`
guest.run(`until test -c ${dev}; do sleep 0.1; done; cat /sys/class/virtio-ports/vport0p${port.id}/name >${dev}`)
console.log(`the guest calls it ${String((await once(port, 'data'))[0]).trim()}`)
await port.remove()

await guest.close()
await device.close()

// Runs inside a guest, as root: takes the virtio-serial device from the kernel, and answers each line that the host
// writes to the port org.example.hello. No character device, no virtio_console; the kernel has the device back at the end.
//
//   host:   vmchannel qemu -virtioserial unix:/tmp/vm.sock,name=org.example.hello …
//           socat - UNIX-CONNECT:/tmp/vm.sock
//   guest:  node in-guest.mjs
import { createInterface } from 'node:readline'
import { openDevice } from 'vmchannel/guest'

const ending = new AbortController()
for (const signal of ['SIGINT', 'SIGTERM']) process.once(signal, () => ending.abort())

const device = await openDevice({ signal: ending.signal })
device.on('port-added', (port) => console.log(`there is a port ${port.name ?? port.id}`))
const port = await device.open('org.example.hello', { signal: ending.signal })
await port.waitForHost({ signal: ending.signal })

port.write('hello from the guest\n')
for await (const line of createInterface({ input: port })) {
  port.write(`you said: ${line}\n`)
  if (line === 'goodbye') break
}
await port.close()
await device.close()

// Captures what the guest's kernel says on a virtio console, line by line with the host's time. A console never makes the
// guest wait: what is not read in time is dropped, and counted.
import { createInterface } from 'node:readline'
import { createDevice } from 'vmchannel'
import { startGuest } from './guest.mjs'

const device = await createDevice()
const port = await device.addPort({ console: true, buffer: 1 << 20 })
const lines = createInterface({ input: port })
const start = Date.now()
let count = 0
lines.on('line', (line) => {
  count++
  if (/Linux version|virtio|vmchannel/.test(line))
    console.log(`+${((Date.now() - start) / 1000).toFixed(2)} ${line.trimEnd()}`)
  if (line.includes('that is all')) lines.close()
})

const guest = await startGuest(device, { append: 'console=hvc0' })
// The kernel's console from here on; what it said before, it says again.
guest.run('dmesg >/dev/hvc0; echo "vmchannel: that is all" >/dev/kmsg')
await new Promise((resolve) => lines.once('close', resolve))

const { counters } = await port.stats()
console.log(`${count} lines, ${counters.guestToHostBytes} bytes, ${counters.guestToHostDropped} dropped`)

await guest.close()
await device.close()

// Two lines each way: the host speaks first, a shell loop in the guest answers.
import { createInterface } from 'node:readline'
import { createDevice } from 'vmchannel'
import { startGuest } from './guest.mjs'

const device = await createDevice()
const port = await device.addPort({ name: 'org.example.hello' })
const guest = await startGuest(device)

guest.run(`exec 3<>/dev/vport0p${port.id}; while read -r line <&3; do echo "you said: $line" >&3; done`)
await port.waitForGuest()

const lines = createInterface({ input: port })[Symbol.asyncIterator]()
for (const word of ['hello', 'goodbye']) {
  port.write(`${word}\n`)
  console.log((await lines.next()).value)
}

await guest.close()
await device.close()

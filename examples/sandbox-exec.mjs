// A sandbox without a network: a script goes into a virtual machine, runs there, its result comes back. The guest is one
// with qemu-guest-agent; with your own (see guest.mjs), any distribution's package will do.
import { connectAgent, createDevice } from 'vmchannel'
import { startGuest } from './guest.mjs'

const device = await createDevice()
await device.addPort({ name: 'org.qemu.guest_agent.0', chardev: 'attach' })
const guest = await startGuest(device, { guest: 'agent' })
const agent = await connectAgent({ control: device.controlSocket, timeout: 120_000 })

const script = `wc -w <input
tr a-z A-Z <input >output
ls /sys/class/net; exit 3`
await agent.exec('mkdir', ['-p', '/tmp/box'])
await agent.put('words for the sandbox\n', '/tmp/box/input')
const { status, stdout } = await agent.exec('/bin/sh', ['-c', `cd /tmp/box\n${script}`], { timeout: 30_000 })
console.log(`status ${status}: ${stdout.toString().trim().replaceAll(/\s+/g, ' ')}`)
console.log(`output: ${(await agent.get('/tmp/box/output')).toString().trim()}`)

// What takes too long is killed.
try {
  await agent.exec('sleep', ['3600'], { timeout: 1000 })
} catch (error) {
  console.log(error.code)
}

agent.close()
await guest.close()
await device.close()

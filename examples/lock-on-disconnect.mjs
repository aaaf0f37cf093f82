// Locks the guest's screen when the last VNC viewer has gone. The guest of the lab has no desktop, and a stand-in for
// loginctl says what was asked; with your own (see guest.mjs) it is the real one. The viewer here shakes hands and leaves.
import { connect } from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { createDevice, lockOnDisconnect } from 'vmchannel'
import { startGuest } from './guest.mjs'

const socket = (name) => join(tmpdir(), `vmchannel-example-${process.pid}.${name}`)
const device = await createDevice()
await device.addPort({ name: 'org.qemu.guest_agent.0', chardev: 'attach' })
const guest = await startGuest(device, {
  guest: 'agent',
  args: ['-vnc', `unix:${socket('vnc')}`, '-qmp', `unix:${socket('qmp')},server=on,wait=off`],
})

const done = new AbortController()
await lockOnDisconnect({
  qmp: socket('qmp'),
  control: device.controlSocket,
  signal: done.signal,
  onEvent(event) {
    if (event.event === 'watching') look()
    if (event.event === 'viewers') console.log(`viewers: ${event.viewers}`)
    if (event.event === 'waiting') console.error(event.why)
    if (event.event === 'not-locked') console.log(`not locked: ${event.why}`)
    if (event.event === 'locked') console.log(`locked: ${event.sessions.map(({ user }) => user).join(', ')}`)
    if (event.event.endsWith('locked')) done.abort()
  },
}).catch((error) => {
  if (error.code !== 'ERR_VMCHANNEL_ABORTED') throw error
})
await guest.close()
await device.close()

/** The handshake of a viewer, as short as it can be. */
function look() {
  const viewer = connect(socket('vnc'), () => viewer.write('RFB 003.008\n\x01\x01'))
  let received = 0
  viewer.on('data', (chunk) => {
    received += chunk.length
    if (received > 40) viewer.end()
  })
}

// A user's program that blocks its event loop: makes a device, says how to start QEMU, then sleeps hard when told to.
import { createDevice } from '../../../dist/src/index.js'

const device = await createDevice({ log: 'ignore' })
const port = await device.addPort({ name: 'stream' })
const ticks = await device.addPort({ name: 'ticks', chardev: `file:${process.argv[2]}` })
console.log(JSON.stringify({ qemuArgs: device.qemuArgs, pid: device.pid, port: port.id, ticks: ticks.id }))
port.on('data', () => {})
process.stdin.once('data', () => {
  console.log('"blocking"')
  Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0, 10_000)
  console.log('"awake"')
  process.stdin.once('data', async () => {
    await device.close()
    process.exit()
  })
})

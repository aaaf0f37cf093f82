// Makes a device and does not close it. With "exit": ends by itself. With "unref": nothing keeps it running.
import { createDevice } from '../../../dist/src/index.js'

const how = process.argv[2]
const device = await createDevice({ log: 'ignore', stateDir: process.argv[3] })
const port = await device.addPort({ name: 'a' })
console.log(device.pid)
if (how === 'exit') process.exit()
if (how === 'throw') throw new Error('oops')
if (how === 'unref') {
  device.unref()
  port.unref()
}

// A process that is a VMM for a device process, as far as attaching goes; then it waits to be killed.
import { createConnection } from 'node:net'

const json = Buffer.from('{"capabilities":{"max_msg_fds":16}}\0')
const message = Buffer.alloc(16 + 4 + json.length)
message.writeUInt16LE(1, 0) // id
message.writeUInt16LE(1, 2) // VERSION
message.writeUInt32LE(message.length, 4)
json.copy(message, 20)
const socket = createConnection(process.argv[2], () => socket.write(message))
socket.once('data', () => console.log('attached'))
setInterval(() => {}, 1000)

// Copies a file into the guest and back, with its checksum: node examples/copy.mjs [FILE]
import { createHash } from 'node:crypto'
import { createReadStream, statSync } from 'node:fs'
import { once } from 'node:events'
import { pipeline } from 'node:stream/promises'
import { createDevice } from 'vmchannel'
import { startGuest } from './guest.mjs'

const file = process.argv[2] ?? process.execPath
const { size } = statSync(file)

const device = await createDevice()
const port = await device.addPort({ name: 'org.example.copy' })
const guest = await startGuest(device)
const dev = `/dev/vport0p${port.id}`

// One open for both ways: a port takes one program at a time.
guest.run(`exec 3<>${dev}; head -c ${size} <&3 >/tmp/copy; sha256sum /tmp/copy >&3; cat /tmp/copy >&3`)
await port.waitForGuest()

const there = createHash('sha256')
const start = performance.now()
await pipeline(
  createReadStream(file),
  async function* (chunks) {
    for await (const chunk of chunks) {
      there.update(chunk)
      yield chunk
    }
  },
  port,
  { end: false },
)
const sum = there.digest('hex')

// The guest's line with the checksum, then the file again.
const back = createHash('sha256')
let line = ''
let left = size
port.on('data', (chunk) => {
  if (!line.endsWith('\n')) {
    const end = chunk.indexOf(10) + 1
    line += chunk.subarray(0, end || chunk.length)
    if (end === 0) return
    chunk = chunk.subarray(end)
  }
  back.update(chunk)
  left -= chunk.length
  if (left === 0) port.emit('copied')
})
await once(port, 'copied')

const seconds = (performance.now() - start) / 1000
console.log(`${size} bytes there and back in ${seconds.toFixed(1)} s`)
console.log(`here   ${sum}\nthere  ${line.split(' ')[0]}\nback   ${back.digest('hex')}`)

await guest.close()
await device.close()

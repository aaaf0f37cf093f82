// Requests and responses: commands run in the guest, each answered with its status and output. The agent in the guest is
// a shell loop; a frame is a line with number, status and length, then that many bytes.
import { createDevice } from 'vmchannel'
import { startGuest } from './guest.mjs'

const agent = (dev) => `exec 3<>${dev}; while read -r id command <&3; do
  out=$(sh -c "$command" 2>&1 </dev/null); status=$?
  printf '%s %s %s\\n%s' "$id" "$status" "\${#out}" "$out" >&3
done`

const device = await createDevice()
const port = await device.addPort({ name: 'org.example.exec' })
const guest = await startGuest(device)
guest.run(agent(`/dev/vport0p${port.id}`))
await port.waitForGuest()

const waiting = new Map()
let buffer = Buffer.alloc(0)
port.on('data', (chunk) => {
  buffer = Buffer.concat([buffer, chunk])
  for (;;) {
    const end = buffer.indexOf('\n')
    if (end === -1) return
    const [id, status, length] = buffer.subarray(0, end).toString().split(' ').map(Number)
    if (buffer.length < end + 1 + length) return
    waiting.get(id)({ status, output: buffer.subarray(end + 1, end + 1 + length).toString() })
    waiting.delete(id)
    buffer = buffer.subarray(end + 1 + length)
  }
})

let nextId = 1
function exec(command) {
  const id = nextId++
  port.write(`${id} ${command}\n`)
  return new Promise((resolve) => waiting.set(id, resolve))
}

const results = await Promise.all([exec('uname -sr'), exec('expr 6 \\* 7'), exec('ls /nowhere'), exec('seq 3')])
for (const { status, output } of results) console.log(`status ${status}: ${output.replaceAll('\n', ' ')}`)

await guest.close()
await device.close()

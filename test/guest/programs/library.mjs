// The library in a guest, steered by the test through one of its own ports: a JSON line for a command, one for the answer.
import { createHash } from 'node:crypto'
import { createInterface } from 'node:readline'
import { pipeline } from 'node:stream/promises'
import { setTimeout as sleep } from 'node:timers/promises'
import { openDevice } from 'vmchannel/guest'

const ending = new AbortController()
const device = await openDevice({ signal: ending.signal })
const events = []
for (const event of ['port-added', 'port-removed', 'host-open', 'host-close'])
  device.on(event, (port) => events.push(`${event} ${port.name}`))
device.on('close', (reason) => console.log(`closed: ${reason?.message ?? 'as wanted'}`))
let held

const commands = {
  ports: () => device.ports.map(({ id, name, console: isConsole, hostOpen }) => ({ id, name, isConsole, hostOpen })),
  events: () => events,
  async echo({ port }) {
    const stream = await device.open(port)
    stream.once('host-close', () => stream.destroy())
    await pipeline(stream, stream).catch(() => {})
    return 'over'
  },
  async send({ port, total, size }) {
    const stream = await device.open(port)
    const hash = createHash('sha256')
    let waits = 0
    let most = 0
    for (let at = 0; at < total; at += size) {
      const bytes = Buffer.alloc(Math.min(size, total - at), (at / size) % 251)
      hash.update(bytes)
      const go = stream.write(bytes)
      most = Math.max(most, stream.writableLength)
      if (go) continue
      waits++
      await new Promise((resolve) => stream.once('drain', resolve))
    }
    await stream.close()
    return { sha256: hash.digest('hex'), waits, most }
  },
  // Opens a port and does not read; `resume` reads all there is until the host goes.
  async hold({ port }) {
    held = await device.open(port)
    held.on('error', () => {})
    held.read(0)
    await sleep(1000)
    return { kept: held.readableLength, mark: held.readableHighWaterMark }
  },
  async resume({ total }) {
    const hash = createHash('sha256')
    let got = 0
    for await (const chunk of held) {
      hash.update(chunk)
      got += chunk.length
      if (got >= total) break
    }
    return { got, sha256: hash.digest('hex') }
  },
  async refuse({ port }) {
    const first = await device.open(port)
    const code = (promise) =>
      promise.then(
        () => 'OK',
        (error) => error.code,
      )
    const codes = [
      await code(device.open(port)),
      await code(device.port('never', { timeout: 50 })),
      await code(device.port('never', { signal: AbortSignal.abort() })),
      await code(first.waitForHost({ timeout: 50 })),
    ]
    await first.close()
    const again = await device.open(port)
    again.destroy()
    return codes
  },
  // Waits for a port that is not there yet, opens it, and tells what becomes of it.
  async watch({ port }) {
    const stream = await device.open(port)
    const said = []
    stream.on('data', (chunk) => said.push(String(chunk)))
    stream.on('error', (error) => said.push(error.code))
    stream.on('end', () => said.push('end'))
    await new Promise((resolve) => stream.once('close', resolve))
    said.push(`removed ${stream.port.removed}`)
    return said
  },
  abort() {
    setImmediate(() => ending.abort())
    return 'yes'
  },
}

async function answer({ id, command, ...rest }) {
  try {
    return { id, result: await commands[command](rest) }
  } catch (error) {
    return { id, error: String(error) }
  }
}

const control = await device.open('control')
console.log('ready')
for await (const line of createInterface({ input: control }))
  void answer(JSON.parse(line)).then((said) => control.write(`${JSON.stringify(said)}\n`))

/**
 * Runs in the guest: a Node program that takes a device with `vmchannel/guest` and uses a port of it as the stream that
 * it is, while C programs do the same with a character device of the kernel. Orders come as lines of a FIFO
 * (`source BYTES SIZE`, `sink BYTES`), each is answered with a line of JSON in another one. Started by guest-rig.ts.
 */
import { once } from 'node:events'
import { createReadStream, constants, openSync, writeFile } from 'node:fs'
import { createInterface } from 'node:readline'
import { connect } from '../src/guest/index.ts'

const [device = '', port = '', orders = '', answers = ''] = process.argv.slice(2)
const stream = await connect({ device, port, driver: 'uio' })
// Open for writing too: never at an end.
const input = createReadStream('', { fd: openSync(orders, constants.O_RDWR) })
createInterface({ input }).on('line', (line) => void obey(line.split(' ')))
process.stdout.write('ready\n')

/** Writes the same memory again and again; milliseconds until the stream has taken it all. */
async function send(bytes: number, size: number): Promise<number> {
  const memory = Buffer.alloc(size, 1)
  const start = performance.now()
  for (let left = bytes; left > 0; left -= size) if (!stream.write(memory)) await once(stream, 'drain')
  return performance.now() - start
}

/** Milliseconds from the first byte to the last. */
function receive(bytes: number): Promise<number> {
  let left = bytes
  let first = 0
  return new Promise((resolve) => {
    const take = (chunk: Buffer): void => {
      first ||= performance.now()
      left -= chunk.length
      if (left > 0) return
      stream.off('data', take).pause()
      resolve(performance.now() - first)
    }
    stream.on('data', take).resume()
  })
}

async function obey([order, bytes = '', size = '']: string[]): Promise<void> {
  const ms = await (order === 'source' ? send(+bytes, +size) : receive(+bytes))
  writeFile(answers, `${JSON.stringify({ ns: ms * 1e6 })}\n`, () => {})
}

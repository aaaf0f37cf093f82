/** A VNC viewer of the smallest kind: shakes hands, and stays. */
import { connect, type NetConnectOpts, type Socket } from 'node:net'

export interface RfbOptions {
  /** Asks for the screen alone: others are sent away. */
  exclusive?: boolean
}

/** Resolves when the server has sent what follows ClientInit: the viewer is initialised. */
export async function viewer(where: NetConnectOpts, { exclusive = false }: RfbOptions = {}): Promise<Socket> {
  const socket = connect(where)
  socket.on('error', () => {})
  let held = Buffer.alloc(0)
  let wake = (): void => {}
  socket.on('data', (chunk: Buffer) => {
    held = Buffer.concat([held, chunk])
    wake()
  })
  socket.on('close', () => wake())
  const take = async (len: number): Promise<Buffer> => {
    while (held.length < len) {
      if (socket.destroyed) throw new Error(`VNC server closed after ${held.length} of ${len} bytes`)
      await new Promise<void>((resolve) => (wake = resolve))
    }
    const part = held.subarray(0, len)
    held = held.subarray(len)
    return part
  }
  const version = (await take(12)).toString()
  if (version !== 'RFB 003.008\n') throw new Error(`VNC server says ${JSON.stringify(version)}`)
  socket.write(version)
  const types = await take((await take(1))[0]!)
  if (!types.includes(1)) throw new Error(`VNC server wants security types ${[...types].join()}`)
  socket.write(Buffer.from([1]))
  if ((await take(4)).readUInt32BE() !== 0) throw new Error('VNC server refuses')
  socket.write(Buffer.from([exclusive ? 0 : 1]))
  await take((await take(24)).readUInt32BE(20))
  socket.on('data', () => {})
  return socket
}

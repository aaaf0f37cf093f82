/** Waiting for what a machine does: a condition, or bytes at the host's end of a port. Used by tests and the matrix. */
import type { Socket } from 'node:net'

/** Asks again and again, for as long as a loaded machine may need. */
export async function until(condition: () => boolean | Promise<boolean>, what: string, ms = 30_000): Promise<void> {
  const deadline = Date.now() + ms
  while (!(await condition())) {
    if (Date.now() > deadline) throw new Error(`did not happen within ${ms} ms: ${what}`)
    await new Promise((resolve) => setTimeout(resolve, 10))
  }
}

/** Reads exactly `len` bytes from a peer. */
export function readBytes(socket: Socket, len: number, ms = 30_000): Promise<Buffer> {
  return new Promise((resolve, reject) => {
    const chunks: Buffer[] = []
    let got = 0
    const timer = setTimeout(() => done(new Error(`got ${got} of ${len} bytes within ${ms} ms`)), ms)
    const done = (error?: Error): void => {
      clearTimeout(timer)
      socket.off('data', take).off('close', gone)
      socket.pause()
      if (error) reject(error)
      else resolve(Buffer.concat(chunks))
    }
    const gone = (): void => done(new Error(`closed after ${got} of ${len} bytes`))
    const take = (chunk: Buffer): void => {
      chunks.push(chunk)
      got += chunk.length
      if (got >= len) done(got > len ? new Error(`${got - len} bytes too many`) : undefined)
    }
    if (len === 0) return done()
    socket.on('data', take).on('close', gone)
    socket.resume()
  })
}

/** A picture of noise, which cannot be packed: as large as is wanted, and a PNG that every program reads. */
import { randomFillSync } from 'node:crypto'
import { crc32, deflateSync } from 'node:zlib'

export function noisePng(bytes: number): Buffer {
  const side = Math.ceil(Math.sqrt(bytes / 3))
  const line = 1 + 3 * side
  const pixels = randomFillSync(Buffer.alloc(line * side))
  for (let y = 0; y < side; y++) pixels[y * line] = 0 // no filter
  const head = Buffer.alloc(13)
  head.writeUInt32BE(side, 0)
  head.writeUInt32BE(side, 4)
  head.set([8, 2], 8) // 8 bits, RGB
  const data = deflateSync(pixels, { level: 0 })
  return Buffer.concat([
    Buffer.from('\x89PNG\r\n\x1a\n', 'latin1'),
    ...[part('IHDR', head), part('IDAT', data), part('IEND', Buffer.alloc(0))],
  ])
}

function part(name: string, data: Buffer): Buffer {
  const body = Buffer.concat([Buffer.from(name), data])
  const [len, sum] = [Buffer.alloc(4), Buffer.alloc(4)]
  len.writeUInt32BE(data.length)
  sum.writeUInt32BE(crc32(body))
  return Buffer.concat([len, body, sum])
}

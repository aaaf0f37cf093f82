/** The terminal that `vmchannel connect` takes over: raw mode with a way back, and the escape character. */

import { Transform, type Readable } from 'node:stream'
import { VmchannelError } from '../errors.ts'
import { rawMode, setTerminalMode, terminalMode } from '../ffi/tty.ts'

/** "^]" → 0x1d; "none" → undefined. */
export function escapeByte(word: string): number | undefined {
  if (word === 'none') return undefined
  const match = /^\^([A-Za-z[\\\]^_])$/.exec(word)
  if (match) return match[1]!.toUpperCase().charCodeAt(0) & 0x1f
  throw new VmchannelError('ERR_VMCHANNEL_USAGE', `--escape ${word} is no escape character`, {
    hint: 'write ^A to ^Z, ^[, ^\\, ^], ^^ or ^_, or "none"',
  })
}

/**
 * Every key as it is, at once, and every byte of the output: Node's raw mode would make CR LF of LF, which moves the
 * cursor straight down. Returns what puts the terminal back, which a signal that ends this process does too.
 */
export function rawTerminal(fd: number): () => void {
  const before = terminalMode(fd)
  if (!before) return () => {}
  const mode = rawMode(before, { signals: false, output: false })
  const raw = (): void => setTerminalMode(fd, mode)
  const restore = (): void => setTerminalMode(fd, before)
  const ends = new Map<NodeJS.Signals, number>([
    ['SIGTERM', 15],
    ['SIGHUP', 1],
    ['SIGINT', 2],
  ])
  for (const [signal, number] of ends)
    process.once(signal, () => {
      restore()
      process.exit(128 + number)
    })
  // The shell has put its own mode in meanwhile.
  process.on('SIGCONT', raw)
  process.once('exit', restore)
  raw()
  return () => {
    process.off('SIGCONT', raw)
    process.off('exit', restore)
    restore()
  }
}

/** The input up to the escape character, at which the stream says 'escape' and gives nothing more. */
export function untilEscape(input: Readable, escape: number): Readable {
  let over = false
  const stream = new Transform({
    transform(chunk: Buffer, _encoding, done) {
      if (over) return done()
      const at = chunk.indexOf(escape)
      over = at !== -1
      done(null, over ? chunk.subarray(0, at) : chunk)
      if (over) stream.emit('escape')
    },
  })
  input.pipe(stream)
  return stream
}

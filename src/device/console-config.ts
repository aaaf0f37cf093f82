/** struct virtio_console_config, §5.3.4: the twelve bytes of device configuration. */

import { printable, type Log } from '../log.ts'
import type { Ledger } from '../mem/ledger.ts'
import {
  CONSOLE_CONFIG_COLS,
  CONSOLE_CONFIG_EMERG_WR,
  CONSOLE_CONFIG_MAX_NR_PORTS,
  CONSOLE_CONFIG_ROWS,
  CONSOLE_CONFIG_SIZEOF,
} from '../spec/console.ts'
import type { Port } from './port.ts'

export class ConsoleConfig {
  readonly #bytes: Uint8Array
  readonly #view: DataView
  readonly #emergency: (byte: number) => void

  /** `emergency` gets the low byte of each write to emerg_wr, whatever the state of the device (§5.3.5.1). */
  constructor(maxPorts: number, ledger: Ledger, emergency: (byte: number) => void) {
    this.#bytes = ledger.bytes(CONSOLE_CONFIG_SIZEOF)
    this.#view = new DataView(this.#bytes.buffer, this.#bytes.byteOffset, CONSOLE_CONFIG_SIZEOF)
    this.#view.setUint32(CONSOLE_CONFIG_MAX_NR_PORTS, maxPorts, true)
    this.#emergency = emergency
  }

  get cols(): number {
    return this.#view.getUint16(CONSOLE_CONFIG_COLS, true)
  }
  get rows(): number {
    return this.#view.getUint16(CONSOLE_CONFIG_ROWS, true)
  }

  /** Sets the size of port 0; true when it is another than before. */
  setSize(cols: number, rows: number): boolean {
    if (cols === this.cols && rows === this.rows) return false
    this.#view.setUint16(CONSOLE_CONFIG_COLS, cols, true)
    this.#view.setUint16(CONSOLE_CONFIG_ROWS, rows, true)
    return true
  }

  /** What lies outside the structure reads as 0. */
  read(offset: number, out: Uint8Array): void {
    out.fill(0)
    if (offset < CONSOLE_CONFIG_SIZEOF) out.set(this.#bytes.subarray(offset, offset + out.length))
  }

  /** Only emerg_wr can be written; its low byte is what counts. */
  write(offset: number, data: Uint8Array): void {
    const at = CONSOLE_CONFIG_EMERG_WR - offset
    if (at >= 0 && at < data.length) this.#emergency(data[at]!)
  }
}

/** §5.3.5.1: to the first console, else to the first port, else into the log. */
export function emergency(ports: readonly Port[], byte: number, log: Log): void {
  const port = ports.find((p) => p.settings.console) ?? ports[0]
  if (port) port.emergency(Uint8Array.of(byte))
  else log.warn(`emergency console: ${printable(String.fromCharCode(byte))}`)
}

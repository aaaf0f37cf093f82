/** struct virtio_console_config, §5.3.4: the twelve bytes of device configuration. */

import {
  CONSOLE_CONFIG_COLS,
  CONSOLE_CONFIG_EMERG_WR,
  CONSOLE_CONFIG_MAX_NR_PORTS,
  CONSOLE_CONFIG_ROWS,
  CONSOLE_CONFIG_SIZEOF,
} from '../spec/console.ts'

export class ConsoleConfig {
  readonly #bytes = new Uint8Array(CONSOLE_CONFIG_SIZEOF)
  readonly #view = new DataView(this.#bytes.buffer)
  readonly #emergency: (byte: number) => void

  /** `emergency` gets the low byte of each write to emerg_wr, whatever the state of the device (§5.3.5.1). */
  constructor(maxPorts: number, emergency: (byte: number) => void) {
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

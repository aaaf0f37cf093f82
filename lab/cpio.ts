/** Writes a newc cpio archive, the format of an initramfs. */

export interface CpioEntry {
  /** Without a leading slash. */
  name: string
  /** Type and permission bits, as in stat. */
  mode: number
  /** File contents, or the target of a symbolic link. */
  data?: Uint8Array
}

export const S_IFDIR = 0o040000
export const S_IFREG = 0o100000
export const S_IFLNK = 0o120000

/** Parent folders must come before what they hold; owner and times are zero, so equal input gives equal bytes. */
export function cpio(entries: readonly CpioEntry[]): Buffer {
  const parts: Uint8Array[] = []
  for (const [at, entry] of [...entries, { name: 'TRAILER!!!', mode: 0 }].entries()) {
    const data: Uint8Array = ('data' in entry && entry.data) || new Uint8Array(0)
    const name = Buffer.from(`${entry.name}\0`)
    const links = entry.mode & S_IFDIR ? 2 : 1
    const fields = [at + 1, entry.mode, 0, 0, links, 0, data.length, 0, 0, 0, 0, name.length, 0]
    const header = Buffer.from(`070701${fields.map((field) => field.toString(16).padStart(8, '0')).join('')}`)
    parts.push(header, name, padding(header.length + name.length), data, padding(data.length))
  }
  return Buffer.concat(parts)
}

/** Headers and contents start at multiples of four. */
function padding(length: number): Uint8Array {
  return new Uint8Array(-length & 3)
}

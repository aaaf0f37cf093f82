/**
 * Keeps QEMU from migrating, or saving a snapshot of, a machine with a device of ours: QEMU 10.1 to 11.1 would go ahead
 * and lose the device's state without a word. There is no option for that, so the machine is given a block node of a
 * format that cannot migrate: read-only, connected to nothing, unseen by the guest. `migrate` and `savevm` then fail and
 * name it. Called by the wrapper, which puts the image where QEMU finds it.
 */

/** What QEMU's message calls it: "… used by node 'vmchannel-cannot-migrate' does not support live migration". */
const NODE = 'vmchannel-cannot-migrate'

const MAGIC = 0x514649fb
const VERSION = 1
const HEADER_LEN = 48
const DISK_LEN = 512
const CLUSTER_BITS = 12
const L2_BITS = 9

/** An empty disk of one sector in the format qcow, version 1 (docs/interop of QEMU): a header and one empty entry. */
export function blockImage(): Uint8Array {
  const bytes = new Uint8Array(HEADER_LEN + 8)
  const view = new DataView(bytes.buffer)
  view.setUint32(0, MAGIC)
  view.setUint32(4, VERSION)
  view.setBigUint64(24, BigInt(DISK_LEN))
  view.setUint8(32, CLUSTER_BITS)
  view.setUint8(33, L2_BITS)
  view.setBigUint64(40, BigInt(HEADER_LEN))
  return bytes
}

/** `file`: a path under which QEMU can open the image. */
export function blockArguments(file: string): string[] {
  const path = file.replaceAll(',', ',,')
  const protocol = `file.driver=file,file.filename=${path},file.locking=off`
  return ['-blockdev', `driver=qcow,node-name=${NODE},read-only=on,${protocol}`]
}

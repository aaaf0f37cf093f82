/**
 * Which way a port of -virtioserial takes: our device over vfio-user, or a fallback where QEMU has no vfio-user-pci.
 * Called by own-ports.ts and plan.ts.
 */

import { escapeOption, splitOptions } from '../chardev/options.ts'
import { VmchannelError } from '../errors.ts'
import { printable } from '../log.ts'

/**
 * `auto`: our device where QEMU can have it, else `qemu`: QEMU's own virtio-serial-pci. `usernet`: a connection over user
 * networking.
 */
export const TRANSPORTS = ['auto', 'vfio-user', 'qemu', 'usernet'] as const
export type Transport = (typeof TRANSPORTS)[number]

/** Takes the word transport= out of a port's option string; the rest is a port specification. */
export function takeTransport(source: string, argument: string): { transport: Transport; rest: string } {
  let found: string | undefined
  const others = splitOptions(source).filter((option) => {
    if (option !== 'transport' && !option.startsWith('transport=')) return true
    if (found !== undefined)
      throw new VmchannelError('ERR_VMCHANNEL_USAGE', `${argument}: transport is given twice`, {
        hint: 'leave one of them out',
      })
    found = option.slice('transport='.length)
    return false
  })
  const transport = found === undefined ? 'auto' : TRANSPORTS.find((one) => one === found)
  if (transport) return { transport, rest: others.map(escapeOption).join(',') }
  throw new VmchannelError(
    'ERR_VMCHANNEL_USAGE',
    `${argument}: transport=${printable(found ?? '')} is not one of ${TRANSPORTS.join(', ')}`,
    { hint: 'leave it out for our device where QEMU can have it, and its own otherwise' },
  )
}

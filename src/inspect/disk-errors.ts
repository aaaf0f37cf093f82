/** What is wrong with a disk image, as errors for people. Used by everything that looks at one. */

import { VmchannelError } from '../errors.ts'

export function diskError(message: string, hint: string): VmchannelError {
  return new VmchannelError('ERR_VMCHANNEL_DISK', message, { hint })
}

export function empty(path: string): VmchannelError {
  return diskError(
    `${path} is empty: nothing was ever written to this disk`,
    'name the image that the guest was installed on',
  )
}

export function notADisk(path: string, why: string): VmchannelError {
  return diskError(`${path} is no disk image: ${why}`, 'name a disk image')
}

export function damaged(path: string, why: string): VmchannelError {
  return diskError(
    `${path} is damaged: ${why}`,
    'compare it with the original, or repair it with the tools of its format (qemu-img check, fsck on a copy)',
  )
}

/** `what`: "qcow2 header". */
export function cutOff(path: string, what: string, size: number): VmchannelError {
  return diskError(
    `${path} is damaged: its ${what} is cut off: the file ends at byte ${size}`,
    'was it copied or downloaded in part? Compare its size with that of the original',
  )
}

export function encrypted(path: string, what: string): VmchannelError {
  return diskError(
    `${path}: ${what} is encrypted`,
    'open it with cryptsetup or qemu-img first, and inspect what is inside',
  )
}

/** One file is opened, the one that was named: whoever made the image could have named any other of this host. */
export function namesAnother(path: string, format: string, what: string): VmchannelError {
  return diskError(
    `${path} is ${format} with ${what}, and could name any file of this host`,
    `if you trust it, make one file of it: qemu-img convert -f ${format} -O qcow2 IMAGE NEW.qcow2`,
  )
}

/** A field that may be harmless, but has a meaning that is not known here. */
export function notRead(path: string, what: string, tool: string): VmchannelError {
  return diskError(`${path} is ${what}, which is not read here`, `convert it first: ${tool}`)
}

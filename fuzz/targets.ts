/** All targets, in the order they take turns in. */

import { AGENT } from './agent.ts'
import { CLIPBOARD } from './clipboard.ts'
import { CONTROL_QUEUE } from './control-queue.ts'
import { CONTROL } from './control.ts'
import { CUSE } from './cuse.ts'
import { DISK } from './disk.ts'
import { DRIVER } from './driver.ts'
import { FLOODS } from './floods.ts'
import { INSPECT_WIRE } from './inspect-wire.ts'
import { OUTPUT } from './output.ts'
import { PCI } from './pci.ts'
import { QEMU } from './qemu.ts'
import { RESUME } from './resume.ts'
import { RINGS } from './rings.ts'
import { SESSIONS } from './sessions.ts'
import { TAKEOVER } from './takeover.ts'
import type { FuzzTarget } from './target.ts'
import { TEXT } from './text.ts'
import { USERNET } from './usernet.ts'
import { VFIO_USER } from './vfio-user.ts'

export const TARGETS: readonly FuzzTarget[] = [
  ...[RINGS, FLOODS, CONTROL_QUEUE, PCI, VFIO_USER, SESSIONS, DRIVER, CUSE, RESUME],
  ...[USERNET, CLIPBOARD, AGENT, INSPECT_WIRE, DISK, TEXT, QEMU, OUTPUT],
  ...[CONTROL, TAKEOVER],
]

/** Episodes that take seconds: `npm run fuzz` runs them, the tests do not. */
export const LONG: ReadonlySet<FuzzTarget> = new Set([TAKEOVER])

/** All targets, in the order they take turns in. */

import { CONTROL } from './control.ts'
import { CUSE } from './cuse.ts'
import { DRIVER } from './driver.ts'
import { PCI } from './pci.ts'
import { RINGS } from './rings.ts'
import type { FuzzTarget } from './target.ts'
import { TEXT } from './text.ts'
import { VFIO_USER } from './vfio-user.ts'

export const TARGETS: readonly FuzzTarget[] = [RINGS, PCI, VFIO_USER, DRIVER, CUSE, TEXT, CONTROL]

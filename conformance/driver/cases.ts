/** All cases for our driver. */

import type { Case } from '../case.ts'
import { MESSAGE_CASES } from './messages.ts'
import { PCI_CASES } from './pci.ts'
import { RING_CASES } from './rings.ts'
import { START_CASES } from './start.ts'
import type { DriverTest } from './test.ts'

export const DRIVER_CASES: readonly Case<DriverTest>[] = [...START_CASES, ...PCI_CASES, ...RING_CASES, ...MESSAGE_CASES]

/** All cases for devices. */

import type { Case } from '../case.ts'
import type { DeviceTest } from '../raw/test.ts'
import { CONSOLE_CASES } from './console.ts'
import { CONTROL_CASES } from './control.ts'
import { FEATURE_CASES } from './features.ts'
import { FLOOD_CASES } from './floods.ts'
import { CHAIN_CASES } from './hostile-chains.ts'
import { MESSAGE_CASES } from './hostile-messages.ts'
import { REGISTER_CASES } from './hostile-registers.ts'
import { INTERRUPT_CASES } from './interrupts.ts'
import { PCI_CASES } from './pci.ts'
import { QUEUE_CASES } from './queues.ts'
import { RING_CASES } from './rings.ts'
import { STREAM_CASES } from './streams.ts'
import { VFIO_USER_CASES } from './vfio-user.ts'

export const DEVICE_CASES: readonly Case<DeviceTest>[] = [
  ...FEATURE_CASES,
  ...QUEUE_CASES,
  ...PCI_CASES,
  ...INTERRUPT_CASES,
  ...RING_CASES,
  ...CONSOLE_CASES,
  ...CONTROL_CASES,
  ...STREAM_CASES,
  ...CHAIN_CASES,
  ...FLOOD_CASES,
  ...MESSAGE_CASES,
  ...REGISTER_CASES,
  ...VFIO_USER_CASES,
]

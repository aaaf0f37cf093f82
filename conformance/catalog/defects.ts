/** Defects seen in devices and drivers of the field, each the name of a test; who had them stands in brackets. */

import type { Row } from './catalog.ts'

export const DEFECTS: readonly Row[] = [
  [
    'S1',
    'device',
    'defect',
    '2.7.8.2',
    'used idx becomes visible only after its element (TinyEMU, vhost-device-console)',
  ],
  ['S2', 'device', 'defect', '2.7.5.2', 'a looped chain ends after size steps and faults the device (TinyEMU)'],
  ['S3', 'device', 'defect', '4.1.4.3', 'num_queues register counts queues, not entries (TinyEMU)'],
  ['S4', 'device', 'defect', '3.1.1', 'driver_ok edge fires exactly once (v86)'],
  ['S5', 'device', 'defect', '2.7.8', 'each control chain is used exactly once (v86)'],
  [
    ...(['S6', 'device', 'defect', '5.3.6'] as const),
    'no host byte is lost while the port has no buffers, is not ready or is closed (v86, bhyve, vhost-device-console)',
  ],
  ['S7', 'device', 'defect', '5.3.6.2', 'PORT_NAME carries no NUL (v86)'],
  ['S8', 'device', 'defect', '5.3.6', 'chunks keep their order under back-pressure (vhost-device-console)'],
  ['S9', 'device', 'defect', '2.7.8', 'unfilled chains stay available (vhost-device-console)'],
  ['S10', 'both', 'defect', '2.7.7', 'the notify decision is right for every offset around the wrap (rcore)'],
  ['S11', 'driver', 'defect', '2.7', 'round-up keeps exact multiples (rcore)'],
  ['S12', 'device', 'defect', '2.2', 'offered bits are 1<<n, not n (bhyve)'],
  ['S13', 'both', 'defect', '5.3.2', 'port ↔ queue mapping round-trips; 2 and 3 are control (bhyve, libkrun)'],
  [
    'S14',
    'device',
    'defect',
    '5.3.6.2',
    'any control message from a lying driver leaves the device alive (libkrun, Serenity)',
  ],
  ['S15', 'device', 'defect', '5.3.6', 'memory held per port is bounded whatever the guest sends (crosvm)'],
  ['S16', 'device', 'defect', '2.7.5', 'descriptor len never sizes an allocation (crosvm)'],
  ['S17', 'device', 'defect', '5.3.4', 'config read beyond the struct returns zeros (vhost-device-console)'],
  ['S18', 'device', 'defect', '2.7.8.2', 'used.len is 0 for transmit chains (libkrun)'],
]

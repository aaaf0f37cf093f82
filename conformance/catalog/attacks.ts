/** Attacks that other devices and drivers fell for; the names of CVEs say where. */

import type { Row } from './catalog.ts'

export const ATTACKS: readonly Row[] = [
  [
    'A1',
    'device',
    'attack',
    '5.3.6.2',
    'control buffers of 0, 1, 7 and 8 bytes, in pieces, or not writable (CVE-2015-5745)',
  ],
  ['A2', 'device', 'attack', '2.7.5', "descriptors that point at the device's own registers (CVE-2024-3446)"],
  ['A3', 'device', 'attack', 'migration', 'a saved state that lies in any field (CVE-2013-4536)'],
  [
    'A4',
    'device',
    'attack',
    '5.3.6',
    'floods in both directions that nobody takes: memory stays bounded (CVE-2020-27174)',
  ],
  ['A5', 'device', 'attack', '2.7.5', 'descriptors that change while they are read (CVE-2021-29631, FreeBSD-SA-24:17)'],
  ['A6', 'device', 'attack', '5.3.6.2', 'messages longer than every structure (OpenBSD vmd)'],
  ['A7', 'driver', 'attack', '5.3', 'a host that lies: port numbers, lengths, used ids, storms of ports'],
  ['A8', 'device', 'attack', '5.3.6.2', 'control messages that make no sense, for any port, again and again'],
  ['A9', 'both', 'attack', '5.3.6.2', 'names that are paths, controls, too long, no UTF-8, or taken'],
  [
    'B1',
    'both',
    'attack',
    '2.7',
    'zero and huge lengths, an index that jumps, queues that are not there (CVE-2016-6490, -7422, -5403)',
  ],
  ['B2', 'device', 'attack', '2.7.5', 'chains and indirect tables that break every rule there is'],
  [
    'B3',
    'device',
    'attack',
    '2.7',
    'a chain that is refused: no spinning, no dead worker, the other ports live (openvmm#4036)',
  ],
  ['B4', 'device', 'attack', '4.1.4', 'registers out of range, odd, rewritten when live, in any order (CVE-2026-5747)'],
  [
    'B5',
    'both',
    'attack',
    '2.7.6',
    'one head twice in flight, elements lost on an error (CVE-2026-45782, CVE-2022-26354)',
  ],
  ['B6', 'device', 'attack', '2.7', 'ring fields that change between two reads (CVE-2015-8550)'],
  ['D1', 'device', 'attack', 'vhost-user', 'ring bases, sizes and configuration offsets out of range'],
  [
    'D2',
    'device',
    'attack',
    'vhost-user',
    'memory regions that overlap or wrap, wrong descriptor counts, files that shrink',
  ],
  ['D3', 'device', 'attack', '2.7', 'lengths at the very end of memory (CVE-2023-41051)'],
  ['E1', 'device', 'attack', 'vfio-user', 'messages that lie about their size, their kind, their version'],
  ['E2', 'device', 'attack', 'vfio-user', 'region accesses out of range, empty, too long, of what is read-only'],
  [
    'E3',
    'device',
    'attack',
    'vfio-user',
    'interrupts and memory maps out of range, files too short, a VMM that vanishes',
  ],
]

/** -virtioserial on a QEMU without vfio-user-pci and on one with it, by each transport, with a stock guest. */
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { ensureOldQemu } from '../../lab/fetch/old-qemu.ts'
import { ensureQemu } from '../../lab/fetch/qemu.ts'
import type { Machine } from '../../lab/machine.ts'
import { installerScript } from '../../src/udev/installer.ts'
import { heldUpAlone, movesBytes, NAMES, opensAndCloses, TransportRig } from './transports.ts'

const guest = { files: { '/root/install.sh': { text: installerScript(true) } } }
const prepare = (machine: Machine): Promise<string> => machine.sh('sh /root/install.sh; mdev -d')

describe.each([
  {
    title: 'QEMU 7.2, auto',
    old: true,
    words: '',
    warned: /^vmchannel: warning: QEMU 7\.2\.\d+ at .* is too old.*own/,
  },
  { title: 'QEMU 11.1, qemu', old: false, words: ',transport=qemu', warned: undefined },
  { title: 'QEMU 11.1, auto', old: false, words: '', warned: undefined },
])('$title', ({ old, words, warned }) => {
  let rig: TransportRig
  beforeAll(async () => {
    const qemu = (old ? await ensureOldQemu() : await ensureQemu()).path
    rig = await TransportRig.start({ qemu, words, guest, prepare, args: ['-virtioserial', `pty,console=on${words}`] })
  })
  afterAll(() => rig?.close())

  it('says what it chose', () => {
    const lines = rig.machine.stderr.split('\n').filter((line) => line.startsWith('vmchannel'))
    if (warned) expect(lines).toEqual([expect.stringMatching(warned)])
    else expect(lines).toEqual([])
  })

  it('has the same names, numbers and nodes', async () => {
    const names = await rig.machine.sh(
      'cd /sys/class/virtio-ports; for p in *; do echo $p $(cat $p/name 2>/dev/null); done',
    )
    expect(names.replaceAll(/vport\d+/g, 'vport')).toBe(`vportp0\nvportp1 ${NAMES[0]}\nvportp2 ${NAMES[1]}`)
    expect(await rig.machine.sh('ls /dev | grep vmch')).toBe('vmch0\nvmch1')
  })

  it('moves bytes both ways through both ports', () => movesBytes(rig))
  it('opens and closes', () => opensAndCloses(rig))
  it('holds up a writer whose host does not read, and nobody else', () => heldUpAlone(rig))
  it.runIf(words !== '' || old)('does so after a reboot', async () => {
    await rig.reboot()
    await movesBytes(rig)
  })
})

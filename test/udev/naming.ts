/**
 * What every guest must do with the names /dev/vmchN, on QEMU's own virtio-serial device: cold plug, hot plug, unplug,
 * reuse, names that ask for a number, consoles. Called by the tests for mdev and for udev.
 */
import { afterAll, beforeAll, expect, it } from 'vitest'
import { ensureKernel } from '../../lab/fetch/kernel.ts'
import { ensureQemu } from '../../lab/fetch/qemu.ts'
import type { GuestOptions } from '../../lab/initramfs.ts'
import { Machine } from '../../lab/machine.ts'

const ARGS = [
  ...['-device', 'virtio-serial-pci,id=vs0,max_ports=31', '-device', 'virtio-serial-pci,id=vs1'],
  ...['c0', 'c1', 'c2', 'c3', 'c4', 'c5'].flatMap((id) => ['-chardev', `null,id=${id}`]),
  ...['-device', 'virtconsole,bus=vs0.0,nr=0,chardev=c0'],
  ...['-device', 'virtserialport,bus=vs0.0,nr=1,chardev=c1,id=p1,name=org.example.0'],
  ...['-device', 'virtserialport,bus=vs0.0,nr=2,chardev=c2,id=p2'],
  ...['-device', 'virtconsole,bus=vs0.0,nr=3,chardev=c3,name=console.named'],
  ...['-device', 'virtserialport,bus=vs0.0,nr=4,chardev=c4,name=vmch7'],
  ...['-device', 'virtserialport,bus=vs1.0,nr=1,chardev=c5,name=org.example.1'],
]

/** The links of the guest: {vmch0: 'vport1p1', …}. */
export async function links(machine: Machine): Promise<Record<string, string>> {
  const text = await machine.sh('cd /dev; for l in vmch*; do [ -L $l ] && echo $l $(readlink $l); done; true')
  return Object.fromEntries(
    text
      .split('\n')
      .filter(Boolean)
      .map((line) => line.split(' ')),
  ) as Record<string, string>
}

export async function eventually(machine: Machine, check: (found: Record<string, string>) => void): Promise<void> {
  for (let tries = 0; ; tries++) {
    try {
      return check(await links(machine))
    } catch (error) {
      if (tries >= 80) throw error
      await new Promise((resolve) => setTimeout(resolve, 150))
    }
  }
}

/** Registers the tests; `start` is what makes the guest name its ports, also when it does so already. */
export function namesPorts(guest: () => Promise<GuestOptions>, start: string): void {
  let machine: Machine
  /** Kernel names of the two devices: vport1 or so. */
  let first: string
  let second: string

  const plug = (id: string, nr: number, name?: string) =>
    machine.qmp('chardev-add', { id: `c-${id}`, backend: { type: 'null', data: {} } }).then(() =>
      machine.qmp('device_add', {
        driver: 'virtserialport',
        bus: 'vs0.0',
        chardev: `c-${id}`,
        id,
        nr,
        ...(name === undefined ? {} : { name }),
      }),
    )

  beforeAll(async () => {
    machine = await Machine.boot({
      qemu: (await ensureQemu()).path,
      kernel: await ensureKernel('6.1'),
      args: ARGS,
      guest: await guest(),
    })
    await machine.sh(start, { timeout: 60_000 })
    const text = await machine.sh('cd /sys/class/virtio-ports; grep -l org.example */name')
    ;[first, second] = text.split('\n').map((line) => /^(vport\d+)p/.exec(line)![1]!) as [string, string]
    expect(first).not.toBe(second)
  })
  afterAll(() => machine?.close())

  it('names the ports that were there at boot, and no console', async () => {
    // A helper of a rule runs a moment longer than a loaded machine's `udevadm settle` waits.
    await eventually(machine, (links) =>
      expect(Object.values(links).toSorted()).toEqual([`${first}p1`, `${first}p2`, `${first}p4`, `${second}p1`]),
    )
    const found = await links(machine)
    expect(Object.keys(found).toSorted()).toEqual(['vmch0', 'vmch1', 'vmch2', 'vmch7'])
    expect(found['vmch7']).toBe(`${first}p4`)
    const names = await machine.sh('cd /dev/virtio-ports; for l in *; do echo $l $(readlink $l); done')
    expect(names.split('\n')).toContain(`org.example.0 ../${first}p1`)
  })

  it('keeps the numbers when everything is announced again', async () => {
    const before = await links(machine)
    await machine.sh('for u in /sys/class/virtio-ports/*/uevent; do echo add >$u; echo change >$u; done; sleep 1')
    await machine.sh(start, { timeout: 60_000 })
    expect(await links(machine)).toEqual(before)
  })

  it('gives a new port the lowest free number and takes it back', async () => {
    const before = await links(machine)
    await plug('hot', 9)
    await eventually(machine, (found) => expect(found).toEqual({ ...before, vmch3: `${first}p9` }))
    const freed = Object.keys(before).find((name) => before[name] === `${first}p2`)!
    await machine.qmp('device_del', { id: 'p2' })
    await eventually(machine, (found) => expect(found[freed]).toBeUndefined())
    await plug('again', 10, 'org.example.again')
    await eventually(machine, (found) => expect(found[freed]).toBe(`${first}p10`))
    await machine.qmp('device_del', { id: 'again' })
    await machine.qmp('device_del', { id: 'hot' })
    await eventually(machine, (found) =>
      expect(Object.keys(found).toSorted()).toEqual(['vmch0', 'vmch1', 'vmch2', 'vmch7'].filter((n) => n !== freed)),
    )
    expect(await machine.sh('ls /dev/virtio-ports')).not.toContain('org.example.again')
  })

  it('gives a number to the port that is named after it, whoever had it', async () => {
    const before = await links(machine)
    const [taken, loser] = Object.entries(before).find(([name]) => name !== 'vmch7')!
    await plug('named', 12, taken)
    await eventually(machine, (found) => {
      expect(found[taken]).toBe(`${first}p12`)
      expect(Object.values(found)).toContain(loser)
    })
    await machine.qmp('device_del', { id: 'named' })
    await eventually(machine, (found) => expect(Object.values(found)).not.toContain(`${first}p12`))
  })

  it('numbers many ports that come at once, each once', async () => {
    const before = Object.keys(await links(machine)).length
    for (let nr = 15; nr < 27; nr++) await plug(`many${nr}`, nr)
    await eventually(machine, (found) => {
      expect(Object.keys(found)).toHaveLength(before + 12)
      expect(new Set(Object.values(found)).size).toBe(before + 12)
    })
    expect(await machine.sh('ls -A /run/vmch | grep -v ^vmch || true')).toBe('')
  })
}

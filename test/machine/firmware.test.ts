/** OVMF and then Linux in one boot: the firmware's driver has every port first, and takes nothing of the guest's. */
import { createHash } from 'node:crypto'
import type { Socket } from 'node:net'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { Pattern, patternSha256 } from '../../lab/pattern.ts'
import { startVmtest, vmtest } from '../../lab/vmtest.ts'
import { readBytes, Rig, until } from './rig.ts'

/** More than the firmware's buffers take (128 of 128 bytes), less than the host's socket. */
const EARLY_LEN = 64 << 10

describe('OVMF, then Linux', () => {
  let rig: Rig
  let early: Socket
  let screen = ''
  const drivers: boolean[] = []
  const opens: string[] = []

  beforeAll(async () => {
    rig = await Rig.start({
      ovmf: true,
      memory: '512M',
      bootTimeout: 180_000,
      ports: ['unix,name=org.example.0', 'unix,name=screen,console=on,nr=0', 'unix,name=org.example.1'],
      device: {
        onDriver: (started) => void drivers.push(started),
        onEvent: ({ event, port }) => {
          if (event === 'guest-open') opens.push(`${port.settings.name} ${drivers.filter(Boolean).length}`)
        },
      },
      beforePower: async (machine) => {
        early = await machine.connect('org.example.0')
        early.write(new Pattern().take(EARLY_LEN))
        const console = await machine.connect('screen')
        console.setEncoding('latin1').on('data', (text) => void (screen += String(text)))
      },
    })
  })
  afterAll(() => rig?.close())

  it('the firmware has driven the device, and has opened the port', () => {
    expect(drivers).toEqual([true, false, true])
    expect(rig.port('org.example.0').stats()).toMatchObject({ firmwareOpens: 1, hostToGuestDropped: 0 })
    expect(opens.filter((text) => text.endsWith(' 1'))).toEqual(['screen 1'])
  })

  it('its console shows its text', () => {
    expect(screen).toContain('\u001b[')
  })

  it('every byte that the host wrote before power-on arrives in Linux', async () => {
    expect(rig.port('org.example.0').stats().hostToGuestBytes).toBe(0)
    const sink = await startVmtest(rig.machine, 'sink', [await rig.node('org.example.0'), EARLY_LEN])
    expect((await sink.result()).sha256).toBe(patternSha256(EARLY_LEN))
    expect(opens).toContain('org.example.0 2')
  })

  it('bytes move both ways afterwards, and after a reset through the firmware', async () => {
    for (const again of [false, true]) {
      if (again) {
        early.write(new Pattern(3).take(1000))
        await rig.machine.reset()
        const late = await startVmtest(rig.machine, 'sink', [await rig.node('org.example.0'), 1000])
        const { sha256 } = await late.result()
        expect(sha256).toBe(createHash('sha256').update(new Pattern(3).take(1000)).digest('hex'))
      }
      const got = readBytes(early, 100_000)
      const { sha256 } = await vmtest(rig.machine, 'source', [await rig.node('org.example.0'), 100_000, 5000])
      expect(
        createHash('sha256')
          .update(await got)
          .digest('hex'),
      ).toBe(sha256)
    }
    await until(() => rig.port('org.example.0').stats().firmwareOpens === 2, 'the second opening is counted')
  })
})

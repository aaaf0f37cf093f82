/** The clipboard of a guest's desktop, with the stock spice-vdagent in it, and one of the host: in a program, then Xvfb. */
import { afterAll, afterEach, beforeAll, describe, expect, it } from 'vitest'
import { AS_GUEST, desktopGuest, desktopUp } from '../../lab/desktop-guest.ts'
import { connectClipboard } from '../../src/clipboard/connect.ts'
import { MemoryClipboard } from '../../src/clipboard/memory.ts'
import type { ClipboardEvent, ClipboardSync, SyncOptions } from '../../src/clipboard/sync.ts'
import { Rig, until } from '../machine/rig.ts'

const PORT = 'com.redhat.spice.0'
const PATIENCE = 60_000

describe('the clipboard', () => {
  let rig: Rig
  let sync: ClipboardSync | undefined
  const events: ClipboardEvent[] = []
  beforeAll(async () => {
    rig = await Rig.start({ ...(await desktopGuest()), kernel: '6.12', ports: [`unix,name=${PORT}`] })
    await desktopUp(rig.machine)
  })
  afterEach(async () => {
    await sync?.close()
    sync = undefined
    await until(() => !rig.port(PORT).hostConnected, 'the port is free')
  })
  afterAll(() => rig?.close())

  const guest = (command: string): Promise<string> =>
    rig.machine.sh(`${AS_GUEST} sh -c ${JSON.stringify(command)}`, { timeout: PATIENCE })

  async function open(options: SyncOptions): Promise<void> {
    events.length = 0
    const onEvent = (event: ClipboardEvent): void => void events.push(event)
    sync = await connectClipboard({ socket: rig.socket(PORT), onEvent, ...options })
    await sync.ready({ timeout: PATIENCE })
  }

  describe('in a program', () => {
    let clipboard: MemoryClipboard
    beforeAll(() => void (clipboard = new MemoryClipboard()))

    it('text from the guest', async () => {
      await open({ backend: clipboard })
      await guest("printf 'Grüße 你好 😀' | xclip -i -selection clipboard")
      await until(() => clipboard.available().length > 0, 'the guest has copied', PATIENCE)
      expect(await clipboard.readText()).toBe('Grüße 你好 😀')
    })

    it('text to the guest', async () => {
      await open({ backend: clipboard })
      clipboard.write('vom Gastgeber: ß\n2')
      await until(
        async () => (await guest('xclip -o -selection clipboard || true')) === 'vom Gastgeber: ß\n2',
        'pasted',
        PATIENCE,
      )
    })
  })
})

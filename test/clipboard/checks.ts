/**
 * What a shared clipboard has to do, whatever the guest is; called by the test without a machine and by the desktop's.
 */
import { writeFileSync } from 'node:fs'
import { expect, it } from 'vitest'
import { until } from '../cli/run.ts'
import { checksum, TEXT, type Desk } from './desk.ts'
import { noisePng } from './png.ts'
import { PATIENCE, pastes, Sharing } from './sharing.ts'

export interface Shared {
  guest: Desk
  host: Desk
  /** A file on this machine that the host's desk keeps content in. */
  hostFile: string
  share: (...args: string[]) => Promise<Sharing>
  /** The guest's agent dies and is started again. */
  restartAgent: () => Promise<void>
}

const GREETING = 'Grüße\nзавтра 日本 😀 ẞ'
export const PNG = 'image/png'
const ODD_TEXTS: readonly [string, Buffer][] = [
  ['a NUL within', Buffer.from('a\0b')],
  ['a lone CR', Buffer.from('a\rb\r')],
  ['CR LF', Buffer.from('a\r\nb\r\n')],
  ['characters of four bytes', Buffer.from('😀👩‍👩‍👧𝄞')],
  ['UTF-8 that is cut', Buffer.from('Grüße 😀').subarray(0, -2)],
  ['no UTF-8', Buffer.from([0xfc, 0x62, 0xff, 0xfe])],
]

/** Until a side pastes just this picture. */
export async function keeps(desk: Desk, sum: string): Promise<void> {
  let last = ''
  const same = async (): Promise<boolean> => (last = await desk.keep(PNG)) === sum
  await until('the picture is pasted', same, PATIENCE).catch(() => {})
  expect(last).toBe(sum)
}

export function sharesAClipboard(get: () => Shared): void {
  it('text, both ways', { timeout: PATIENCE }, async () => {
    const { guest, host, share } = get()
    const sharing = await share()
    await guest.copy(GREETING)
    await pastes(host, GREETING)
    await host.copy(`${GREETING} back`)
    await pastes(guest, `${GREETING} back`)
    expect(sharing.said()).toEqual(['agent', 'guest clipboard', 'host clipboard'])
    expect(await sharing.end()).toMatchObject({ status: 0, stderr: '' })
  })

  it('a picture of 5 MB, both ways, to the byte', { timeout: 2 * PATIENCE }, async () => {
    const { guest, host, hostFile, share } = get()
    const sharing = await share()
    const picture = noisePng(5_000_000)
    const sum = checksum(picture)
    writeFileSync(hostFile, picture)
    await host.copyKept(PNG)
    await keeps(guest, sum)
    writeFileSync(hostFile, '')
    await sharing.copied('guest', () => guest.copyKept(PNG))
    await keeps(host, sum)
    expect(sharing.said().filter((word) => word.startsWith('refused'))).toEqual([])
    await sharing.end()
  })

  it('text of any bytes is the same on the other side, and does not come back', { timeout: 3 * PATIENCE }, async () => {
    const { guest, host, share } = get()
    const sharing = await share()
    const moves = async (from: Desk, to: Desk, bytes: Buffer, what: string): Promise<void> => {
      const sum = checksum(bytes)
      let last = ''
      await from.fill(bytes)
      await from.copyKept(TEXT)
      await until(what, async () => (last = await to.keep(TEXT)) === sum, 15_000).catch(() => {})
      expect(last, what).toBe(sum)
    }
    // What either side has had before is told first.
    await guest.copy('first')
    await pastes(host, 'first')
    const from = sharing.events.length
    for (const [what, bytes] of ODD_TEXTS) {
      await moves(guest, host, Buffer.concat([Buffer.from('g'), bytes]), `${what}, to the host`)
      await moves(host, guest, Buffer.concat([Buffer.from('h'), bytes]), `${what}, to the guest`)
    }
    expect(sharing.said(from)).toEqual(ODD_TEXTS.flatMap(() => ['guest clipboard', 'host clipboard']))
    await sharing.end()
  })

  it('a picture of 20 MB over the limit is refused, with a message, both ways', { timeout: 3 * PATIENCE }, async () => {
    const { guest, host, hostFile, share } = get()
    const sharing = await share('--limit', '16M')
    writeFileSync(hostFile, noisePng(20_000_000))
    await sharing.copied('host', () => host.copyKept(PNG))
    expect(await guest.paste('clipboard', PNG)).toBe('')
    expect(sharing.said().at(-1)).toMatch(/^refused host: .*limit of 16777216 bytes/)
    const from = sharing.events.length
    await guest.run(`head -c 20000000 /dev/zero | ${guest.copying('clipboard', PNG)}`)
    await sharing.next('copied', from)
    expect(await host.paste('clipboard', PNG)).toBe('')
    expect(await sharing.next('refused', from)).toMatchObject({
      ...{ from: 'guest', why: expect.stringMatching(/16777216|limit/) },
    })
    await guest.copy('small')
    await pastes(host, 'small')
    await sharing.end()
  })

  it('PRIMARY only when it is wanted', { timeout: PATIENCE }, async () => {
    const { guest, host, share } = get()
    let sharing = await share('--primary')
    await guest.copy('one', 'primary')
    await pastes(host, 'one', 'primary')
    await host.copy('two', 'primary')
    await pastes(guest, 'two', 'primary')
    await sharing.end()
    sharing = await share()
    await guest.copy('three', 'primary')
    await guest.copy('four')
    await pastes(host, 'four')
    expect(await host.paste('primary')).toBe('two')
    expect(sharing.said().join()).not.toContain('primary')
    await sharing.end()
  })

  it(
    'owners in quick succession: both sides end with the last one, and nothing comes back',
    { timeout: 3 * PATIENCE },
    async () => {
      const { guest, host, share } = get()
      const sharing = await share()
      const many = async (desk: Desk, name: string): Promise<void> => {
        for (let n = 1; n <= 15; n++) await desk.copy(`${name} ${n}`)
      }
      await many(guest, 'g')
      await pastes(host, 'g 15')
      await many(host, 'h')
      await pastes(guest, 'h 15')
      for (let n = 1; n <= 5; n++) {
        await sharing.copied('host', () => host.copy(`h again ${n}`))
        await sharing.copied('guest', () => guest.copy(`g again ${n}`))
      }
      await pastes(host, 'g again 5')
      expect(await guest.paste()).toBe('g again 5')
      await Promise.all([many(guest, 'g'), many(host, 'h')])
      // Both at the very same moment: the protocol says who wins, but a daemon and its agent may disagree on that, and
      // then neither side has anything. Nobody hangs, and the next copy is as good as any.
      await until(
        'both agree',
        async () => {
          const [one, other] = [await host.paste(), await guest.paste()]
          return one === other && /^([gh] 15)?$/.test(one)
        },
        PATIENCE,
      )
      const from = sharing.events.length
      await guest.copy('the end')
      await pastes(host, 'the end')
      expect(sharing.said(from)).toEqual(['guest clipboard'])
      await sharing.end()
    },
  )

  it(
    'a program that pastes never hangs: owner stopped, content too large, type not there',
    { timeout: 2 * PATIENCE },
    async () => {
      const { guest, host, hostFile, share } = get()
      const sharing = await share('--limit', '100k')
      const owner = await host.copyAndStay('stopped')
      await pastes(guest, 'stopped')
      await host.run(`kill -STOP ${owner}`)
      expect(await guest.paste()).toBe('')
      expect(sharing.said().at(-1)).toMatch(/^refused host: .*does not answer/)
      await host.run(`kill -KILL ${owner}`)
      writeFileSync(hostFile, noisePng(200_000))
      let from = sharing.events.length
      await host.copyKept(PNG)
      await until('the guest sees it', async () => (await guest.types()).includes(PNG), PATIENCE)
      expect(await guest.paste('clipboard', PNG)).toBe('')
      expect(sharing.said(from).at(-1)).toMatch(/^refused host: .*limit of 102400 bytes/)
      from = sharing.events.length
      await sharing.copied('guest', () => guest.run(`head -c 300000 /dev/zero | tr '\\0' x | ${guest.copying()}`))
      expect(await host.paste()).not.toContain('x')
      expect(await sharing.next('refused', from)).toMatchObject({ from: 'guest' })
      await guest.copy('small')
      await pastes(host, 'small')
      expect(await host.paste('clipboard', PNG)).toBe('')
      await sharing.end()
    },
  )

  it('the agent starts again: what the host has is offered anew', { timeout: 2 * PATIENCE }, async () => {
    const { guest, host, share, restartAgent } = get()
    const sharing = await share()
    await host.copy('of the host')
    await pastes(guest, 'of the host')
    const from = sharing.events.length
    await restartAgent()
    await sharing.next('agent', from)
    await pastes(guest, 'of the host')
    await guest.copy('of the guest')
    await pastes(host, 'of the guest')
    await sharing.end()
  })

  it('we start again, in the middle of a picture: the same', { timeout: 3 * PATIENCE }, async () => {
    const { guest, host, hostFile, share } = get()
    const picture = noisePng(5_000_000)
    writeFileSync(hostFile, picture)
    let sharing = await share()
    await host.copyKept(PNG)
    await keeps(guest, checksum(picture))
    const pasting = guest.keep(PNG)
    await new Promise((done) => setTimeout(done, 300))
    await sharing.end('SIGKILL')
    await pasting // whatever it got, it did not hang
    await host.copyKept(PNG) // xclip waits for ever for somebody who was killed
    sharing = await share()
    await keeps(guest, checksum(picture))
    await sharing.copied('guest', () => guest.copyKept(PNG))
    const fetching = host.keep(PNG)
    await new Promise((done) => setTimeout(done, 100))
    await sharing.end()
    await fetching
    sharing = await share()
    await guest.copy('after')
    await pastes(host, 'after')
    await sharing.end()
  })

  it('one direction, some types', { timeout: 2 * PATIENCE }, async () => {
    const { guest, host, hostFile, share } = get()
    await guest.copy('-')
    await host.copy('before')
    let sharing = await share('--direction', 'to-host')
    await host.copy('not for the guest')
    await guest.copy('for the host')
    await pastes(host, 'for the host')
    expect(sharing.said()).toEqual(['agent', 'guest clipboard'])
    await sharing.end()
    sharing = await share('--direction', 'to-guest', '--types', 'text')
    writeFileSync(hostFile, noisePng(1000))
    await host.copyKept(PNG)
    await host.copy('for the guest')
    await pastes(guest, 'for the guest')
    await guest.copy('not for the host')
    await host.copy('again for the guest')
    await pastes(guest, 'again for the guest')
    expect(sharing.said().filter((word) => word !== 'host clipboard')).toEqual(['agent'])
    await sharing.end()
  })
}

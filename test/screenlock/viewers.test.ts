/** Who counts as a viewer, and when the last one has left. */
import { describe, expect, it } from 'vitest'
import { Viewers, type ViewerEvent } from '../../src/screenlock/viewers.ts'

const [CONNECTED, INITIALIZED, DISCONNECTED] = ['VNC_CONNECTED', 'VNC_INITIALIZED', 'VNC_DISCONNECTED'] as const
const tcp = (service: string) => ({ host: '127.0.0.1', service })
const unix = { host: '', service: '' }

/** Which of the events were the last viewer leaving. */
function last(events: [ViewerEvent, { host: string; service: string }][], viewers = new Viewers()): number[] {
  return events.flatMap(([event, client], at) => (viewers.take(event, client) ? [at] : []))
}

describe('over TCP', () => {
  it('one comes and goes', () => {
    expect(
      last([
        [CONNECTED, tcp('1')],
        [INITIALIZED, tcp('1')],
        [DISCONNECTED, tcp('1')],
      ]),
    ).toEqual([2])
  })
  it('a port scan is nobody', () => {
    expect(
      last([
        [CONNECTED, tcp('1')],
        [DISCONNECTED, tcp('1')],
      ]),
    ).toEqual([])
  })
  it('a port scan beside a viewer, and one that stays when the viewer goes', () => {
    expect(
      last([
        ...([
          [CONNECTED, tcp('1')],
          [INITIALIZED, tcp('1')],
          [CONNECTED, tcp('2')],
          [DISCONNECTED, tcp('2')],
        ] as const),
        ...([
          [CONNECTED, tcp('3')],
          [DISCONNECTED, tcp('1')],
          [DISCONNECTED, tcp('3')],
        ] as const),
      ] as [ViewerEvent, { host: string; service: string }][]),
    ).toEqual([5])
  })
  it('two: only the last', () => {
    expect(
      last([
        [INITIALIZED, tcp('1')],
        [INITIALIZED, tcp('2')],
        [DISCONNECTED, tcp('1')],
        [DISCONNECTED, tcp('2')],
      ]),
    ).toEqual([3])
  })
  it('a new one before the old one is gone', () => {
    expect(
      last([
        [INITIALIZED, tcp('1')],
        [INITIALIZED, tcp('2')],
        [DISCONNECTED, tcp('1')],
      ]),
    ).toEqual([])
  })
  it('one who was there before', () => {
    expect(last([[DISCONNECTED, tcp('1')]], new Viewers([tcp('1')]))).toEqual([0])
  })
  it('an event that was missed', () => {
    const viewers = new Viewers([tcp('1'), tcp('2')])
    expect(viewers.take(DISCONNECTED, tcp('1'))).toBe(false)
    expect(viewers.correct([tcp('2')])).toBe(false)
    expect(viewers.correct([])).toBe(true)
    expect(viewers.correct([])).toBe(false)
  })
})

describe('on a unix socket', () => {
  it('one, two, scans', () => {
    expect(
      last([
        [CONNECTED, unix],
        [INITIALIZED, unix],
        [DISCONNECTED, unix],
      ]),
    ).toEqual([2])
    expect(
      last([
        [CONNECTED, unix],
        [DISCONNECTED, unix],
      ]),
    ).toEqual([])
    expect(
      last([
        [CONNECTED, unix],
        [INITIALIZED, unix],
        [CONNECTED, unix],
        [DISCONNECTED, unix],
        [CONNECTED, unix],
        [INITIALIZED, unix],
        [DISCONNECTED, unix],
        [DISCONNECTED, unix],
      ]),
    ).toEqual([7])
  })
  it('in doubt, the count of QEMU decides', () => {
    const viewers = new Viewers()
    viewers.take(CONNECTED, unix)
    viewers.take(INITIALIZED, unix)
    viewers.take(CONNECTED, unix)
    expect(viewers.take(DISCONNECTED, unix)).toBe(false)
    expect(viewers.correct([unix])).toBe(false)
    expect(viewers.take(DISCONNECTED, unix)).toBe(true)
    expect(viewers.count).toBe(0)
  })
  it('never below nobody', () => {
    const viewers = new Viewers()
    for (let n = 0; n < 3; n++) expect(viewers.take(DISCONNECTED, unix)).toBe(false)
    viewers.take(INITIALIZED, unix)
    expect(viewers.count).toBe(1)
  })
})

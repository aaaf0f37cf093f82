import * as fc from 'fast-check'
import { describe, expect, it } from 'vitest'
import {
  formatOptionString,
  optionBoolean,
  optionText,
  parseInteger,
  parseOptionString,
  parseSize,
  withOption,
  withoutOptions,
} from '../../src/qemu/option.ts'

describe('classic form', () => {
  it.each([
    ['virtio-serial-pci', [['driver', 'virtio-serial-pci']]],
    [
      'socket,path=/tmp/a,,b,server=on',
      [
        ['driver', 'socket'],
        ['path', '/tmp/a,b'],
        ['server', 'on'],
      ],
    ],
    [
      'a,,b=c,x=1',
      [
        ['driver', 'a,b=c'],
        ['x', '1'],
      ],
    ],
    [
      'socket,server,nowait',
      [
        ['driver', 'socket'],
        ['server', 'on'],
        ['wait', 'off'],
      ],
    ],
    [
      'x,a=,b==,c=1,',
      [
        ['driver', 'x'],
        ['a', ''],
        ['b', '='],
        ['c', '1'],
      ],
    ],
    ['driver=foo', [['driver', 'foo']]],
    ['', []],
  ])('reads %j', (text, expected) => {
    const option = parseOptionString(text, { implied: 'driver' })
    expect(option.entries.map((entry) => [entry.key, entry.value])).toEqual(expected)
  })

  it('takes the last of several values', () => {
    expect(optionText(parseOptionString('x,share=on,share=off', { implied: 'd' }), 'share')).toBe('off')
  })

  it('takes a first word without an implied key for a switch', () => {
    expect(parseOptionString('mem-lock,x=1').entries[0]).toEqual({ key: 'mem-lock', value: 'on' })
  })

  it('gives back what it has read, whatever the values are', () => {
    const key = fc.stringMatching(/^[a-z][a-z0-9._-]{0,8}$/)
    const entries = fc.array(fc.record({ key, value: fc.string() }), { maxLength: 6 })
    fc.assert(
      fc.property(entries, fc.boolean(), (list, implied) => {
        const first = implied ? { implied: list[0]?.key ?? 'driver' } : {}
        const option = { json: false, entries: list }
        expect(parseOptionString(formatOptionString(option, first.implied), first)).toEqual(option)
      }),
    )
  })

  it('never fails, and formats any text to something that means the same', () => {
    fc.assert(
      fc.property(fc.string({ unit: fc.constantFrom('a', 'n', 'o', ',', '=', '1', ' ') }), (text) => {
        const option = parseOptionString(text, { implied: 'driver' })
        expect(parseOptionString(formatOptionString(option, 'driver'), { implied: 'driver' })).toEqual(option)
      }),
      { numRuns: 2000 },
    )
  })
})

describe('JSON form', () => {
  it('is read where QEMU takes it, and only there', () => {
    const text = '{"driver":"virtserialport","nr":2,"multifunction":true,"socket":{"type":"unix"}}'
    const option = parseOptionString(text, { implied: 'driver', json: true })
    expect(option.json).toBe(true)
    expect(optionText(option, 'nr')).toBe('2')
    expect(optionBoolean(option, 'multifunction', false)).toBe(true)
    expect(optionText(option, 'socket')).toBeUndefined()
    expect(JSON.parse(formatOptionString(option))).toEqual(JSON.parse(text))
    expect(parseOptionString(text, { implied: 'driver' }).json).toBe(false)
  })

  it('names the argument when it is broken', () => {
    expect(() => parseOptionString('{"driver":', { json: true, argument: '-device' })).toThrow(
      /^-device: .* is not JSON/,
    )
    expect(() => parseOptionString('{', { json: true })).toThrow(
      expect.objectContaining({ code: 'ERR_VMCHANNEL_USAGE' }),
    )
  })
})

it('sets and removes keys in place', () => {
  const option = parseOptionString('memory-backend-ram,id=m,size=1G', { implied: 'qom-type' })
  const shared = withOption(withOption(option, 'qom-type', 'memory-backend-memfd'), 'share', 'on')
  expect(formatOptionString(shared, 'qom-type')).toBe('memory-backend-memfd,id=m,size=1G,share=on')
  expect(formatOptionString(withoutOptions(shared, 'size', 'id'), 'qom-type')).toBe('memory-backend-memfd,share=on')
})

it.each([
  ['on', true],
  ['yes', true],
  ['true', true],
  ['y', true],
  ['off', false],
  ['n', false],
  ['no', false],
  ['false', false],
  ['1', undefined],
  ['ON', undefined],
])('boolean word %s', (word, expected) => {
  expect(optionBoolean(parseOptionString(`x=${word}`), 'x', true)).toBe(expected)
})

// What QEMU 11.1.3 makes of -m TEXT, as its monitor reports it (before rounding).
it.each([
  ['512', 512 * 2 ** 20],
  ['1G', 2 ** 30],
  ['1.5G', 1.5 * 2 ** 30],
  ['0.25G', 2 ** 28],
  ['512m', 2 ** 29],
  ['128K', 131072],
  ['64B', 64],
  [' 64', 64 * 2 ** 20],
  ['+64', 64 * 2 ** 20],
  ['0x100', undefined],
  ['1e2', undefined],
  ['255.5B', undefined],
  ['64MB', undefined],
  ['64 M', undefined],
  ['-1', undefined],
  ['', undefined],
])('size %j', (text, expected) => {
  expect(parseSize(text, 'm')).toBe(expected)
})

it.each([
  ['3', 3],
  ['0x1f', 31],
  ['010', 8],
  ['x', undefined],
  ['', undefined],
  ['-1', undefined],
])('integer %j', (text, expected) => {
  expect(parseInteger(text)).toBe(expected)
})

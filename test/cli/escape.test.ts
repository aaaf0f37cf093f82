/** What anybody else says, on its way to a terminal, a log or a program: it steers nothing and starts no line. */
import fc from 'fast-check'
import { describe, expect, it } from 'vitest'
import { columns, definitions } from '../../src/cli/text.ts'
import { paint } from '../../src/cli/print.ts'
import { restyled, styled, unstyled } from '../../src/cli/style.ts'
import { shellQuote } from '../../src/cli/shell-quote.ts'
import { printable as quoted } from '../../src/agent/protocol.ts'
import { describeError, VmchannelError } from '../../src/errors.ts'
import { escapeJson, escapeLine, escapeText } from '../../src/escape.ts'
import { printable } from '../../src/log.ts'

/** All that must not arrive, said by properties of Unicode and ranges rather than in the words of the code. */
const STEERS = [
  [0x00, 0x1f],
  [0x7f, 0x9f],
  [0x61c, 0x61c],
  [0x200b, 0x200b],
  [0x200e, 0x200f],
  [0x2028, 0x202e],
  [0x2066, 0x2069],
  [0xd800, 0xdfff],
  [0xfeff, 0xfeff],
  [0xe0000, 0xe007f],
] as const
const steering = (text: string, except = ''): string[] =>
  Array.from(text).filter(
    (c) => !except.includes(c) && STEERS.some(([from, to]) => c.codePointAt(0)! >= from && c.codePointAt(0)! <= to),
  )

/**
 * Any text, with much of what matters in it: lone surrogates, CSI in both forms, overrides, separators, line breaks.
 */
const hostile = fc
  .array(
    fc.oneof(
      fc.string({ unit: 'binary' }),
      fc.constantFrom(...STEERS.flat()).map((code) => String.fromCodePoint(code)),
      fc.constantFrom(
        '\n',
        '\r\n',
        '\u001b[31m',
        '\u009b2J',
        '\u001b]0;x\u0007',
        '\udc00',
        '\\',
        'vmchannel: error: x',
      ),
      fc.constantFrom('ü', 'שלום', '日本', '👩‍👩‍👧', 'فارسی‌ها'),
    ),
    { maxLength: 12 },
  )
  .map((parts) => parts.join(''))

const property = (check: (text: string) => void): void => fc.assert(fc.property(hostile, check), { numRuns: 2000 })

describe('text of others', () => {
  it.each([
    ['a line', escapeLine],
    ['a quotation', (text: string) => printable(text, 60)],
    ["the agent's words", (text: string) => quoted(text, 60)],
    ['an error', (text: string) => new VmchannelError('ERR_VMCHANNEL_AGENT', text).message],
    ['a hint', (text: string) => new VmchannelError('ERR_VMCHANNEL_AGENT', '', { hint: text }).hint!],
    ['an error of others', (text: string) => describeError(new Error(text))],
    ['a word for a shell', shellQuote],
  ])('as %s: nothing that steers', (_, make) => {
    property((text) => {
      expect(steering(make(text))).toEqual([])
    })
  })

  it('as a table: one line a row', () => {
    property((text) => {
      const table = columns([
        ['A', 'B', 'C'],
        [text, paint('bold', text), 'x'],
        [styled('red', text, true), text, text],
      ])
      expect(table.split('\n')).toHaveLength(4)
      const shown = unstyled(table, escapeText)
      const sequences = ['31', '39'].map((code) => `\u001b[${code}m`)
      expect(
        steering(
          sequences.reduce((left, one) => left.replaceAll(one, ''), shown),
          '\n',
        ),
      ).toEqual([])
    })
  })

  it('as definitions: every line but the first of each is indented', () => {
    property((text) => {
      const shown = unstyled(
        definitions(
          [
            ['name', text],
            ['other', text],
          ],
          60,
        ),
        escapeText,
      )
      expect(steering(shown, '\n')).toEqual([])
      expect(shown.split('\n').filter((line) => !/^ {4}/.test(line) && line !== '')).toHaveLength(2)
    })
  })

  it('as JSON: the same value, on one line, nothing that steers', () => {
    fc.assert(
      fc.property(fc.dictionary(hostile, fc.jsonValue()), hostile, (value, text) => {
        const whole = { text, value }
        const line = escapeJson(whole)
        expect(steering(line)).toEqual([])
        expect(JSON.parse(line)).toEqual(JSON.parse(JSON.stringify(whole)))
      }),
    )
    expect(escapeJson({ hostname: '\u009b31mX\u{e0041}' })).toBe('{"hostname":"\\u009b31mX\\udb40\\udc41"}')
  })

  it('what people write stays as it is', () => {
    for (const text of ['ünïcödé', 'שלום', '日本語', '👩‍👩‍👧‍👦', 'فارسی‌ها', 'a\\b', '…'])
      expect([escapeLine(text), escapeText(text), JSON.parse(escapeJson(text))]).toEqual([text, text, text])
    expect(escapeText('a\n\tb')).toBe('a\n\tb')
    expect(escapeLine('a\n\u202eb\u009b\ud800')).toBe('a\\x0a\\u202eb\\x9b\\ud800')
  })

  it('colours are those of this program, not of what it prints', () => {
    const text = restyled(styled('red', 'a\u001b[32mb\n', true), escapeLine)
    expect(unstyled(text, escapeText)).toBe('\u001b[31ma\\x1b[32mb\\x0a\u001b[39m')
  })

  it('a shell reads the same word', () => {
    expect(shellQuote("it's")).toBe(`'it'\\''s'`)
    expect(shellQuote("a\u001b[1m'\\ü")).toBe(`$'a\\033[1m\\047\\134\\303\\274'`)
  })
})

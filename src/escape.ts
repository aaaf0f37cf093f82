/**
 * Text of others made fit to be shown: nothing in it moves a cursor, colours a terminal, reverses a line, hides a part
 * of one or starts one of its own. Everything that this package prints or logs goes through here, but for bytes that
 * are the data themselves (connect, the output of agent exec, agent get to standard output).
 */

/**
 * C0, DEL and C1; the soft hyphen; controls of direction (U+061C, U+200E/F, U+202A–202E, U+2066–2069); separators of
 * lines and paragraphs; what is invisible and joins or separates nothing (U+180E, U+200B, U+2060–2065, U+206A–206F,
 * U+FEFF, U+FFF9–FFFB, tags); halves of surrogate pairs. U+200C and U+200D stay: scripts and emoji are written with
 * them.
 */
const UNSAFE =
  // oxlint-disable-next-line no-control-regex, no-misleading-character-class -- those are what it is about
  /[\u0000-\u001f\u007f-\u009f\u00ad\u061c\u180e\u200b\u200e\u200f\u2028-\u202e\u2060-\u206f\ufeff\ufff9-\ufffb\p{Cs}\u{e0000}-\u{e007f}]/gu

/** For a place within a line: line breaks are escaped as everything else. */
export function escapeLine(text: string): string {
  return text.replace(UNSAFE, escaped)
}

/** The same, but line breaks and tabs stay: of text that we have laid out ourselves. */
export function escapeText(text: string): string {
  return text.replace(UNSAFE, (c) => (c === '\n' || c === '\t' ? c : escaped(c)))
}

/** One line of JSON; JSON.stringify alone escapes C0 and lone surrogates only. */
export function escapeJson(value: unknown): string {
  return JSON.stringify(value).replace(UNSAFE, (c) => {
    let text = ''
    for (let i = 0; i < c.length; i++) text += `\\u${hex(c.charCodeAt(i), 4)}`
    return text
  })
}

/** At most so many code units, without half a character at the end. */
export function cut(text: string, max: number): string {
  const end = text.charCodeAt(max - 1) >> 10 === 0xd800 >> 10 ? max - 1 : max
  return text.slice(0, end)
}

function escaped(c: string): string {
  const code = c.codePointAt(0)!
  if (code < 0x100) return `\\x${hex(code, 2)}`
  return code < 0x1_0000 ? `\\u${hex(code, 4)}` : `\\u{${hex(code, 5)}}`
}

function hex(code: number, digits: number): string {
  return code.toString(16).padStart(digits, '0')
}

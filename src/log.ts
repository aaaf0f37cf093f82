/**
 * What the library needs of a logger, and the one that is silent. The daemon passes pino; a user may pass anything.
 * Never called in a ring loop: the data path counts, it does not talk.
 */

export interface Log {
  error(message: string): void
  warn(message: string): void
  info(message: string): void
  debug(message: string): void
}

export const SILENT: Log = { error() {}, warn() {}, info() {}, debug() {} }

/** Makes text of the other half fit to print: control bytes escaped, length bounded. Log lines cannot be forged. */
export function printable(text: string, max = 120): string {
  // oxlint-disable-next-line no-control-regex
  const safe = text.replace(/[\u0000-\u001f\u007f-\u009f\u2028\u2029\\]/g, (c) =>
    c === '\\' ? '\\\\' : `\\x${c.charCodeAt(0).toString(16).padStart(2, '0')}`,
  )
  return safe.length > max ? `${safe.slice(0, max)}…` : safe
}

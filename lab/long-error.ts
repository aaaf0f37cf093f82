/** An error of many lines, for whoever reads a test's output: what a guest or a program said belongs to it, escaped. */

import { VmchannelError, type ErrorCode } from '../src/errors.ts'
import { escapeText } from '../src/escape.ts'

export function longError(code: ErrorCode, text: string): VmchannelError {
  return Object.assign(new VmchannelError(code, ''), { message: escapeText(text) })
}

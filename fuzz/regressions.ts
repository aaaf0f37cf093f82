/** Seeds and inputs (base64) that once found something, kept for good: inputs are also what mutation begins with. */

export interface Regression {
  readonly target: string
  readonly seed?: number
  readonly input?: string
  readonly what: string
}

export const REGRESSIONS: readonly Regression[] = [
  { target: 'text', seed: 32, what: 'an error quoted a control character, which reached the terminal' },
]

/** Seeds that once found something, kept for good: target, seed, what it was. */

export const REGRESSIONS: readonly { readonly target: string; readonly seed: number; readonly what: string }[] = [
  { target: 'text', seed: 32, what: 'an error quoted a control character, which reached the terminal' },
]

/** Makes the input of a finding smaller, as long as it still finds the same. */

import type { Executed } from './executor.ts'

/** Two findings are one where what is thrown, numbers aside, and the place in src are the same. */
export function signature(error: unknown): string {
  let root = error
  while (root instanceof Error && root.cause instanceof Error) root = root.cause
  const text = root instanceof Error ? `${root.name}: ${root.message}` : String(root)
  const frame = root instanceof Error ? /\/(src\/[\w/-]+\.[jt]s):\d+/.exec(root.stack ?? '')?.[1] : undefined
  const [line = ''] = text.split('\n', 1)
  return `${line
    .replaceAll(/"[^"]*"|'[^']*'/g, '"…"')
    .replaceAll(/\d+/g, 'N')
    .slice(0, 120)} @ ${frame ?? ''}`
}

/** Steps first, in ever smaller groups, then bytes, then bytes to zeros; ends after `ms`. Undefined: not seen again. */
export async function shrink(
  found: Executed,
  run: (bytes: Uint8Array) => Promise<Executed>,
  ms: number,
): Promise<Executed | undefined> {
  const wanted = signature(found.error)
  const end = performance.now() + ms
  const again = await run(found.bytes)
  if (!again.error || signature(again.error) !== wanted) return undefined
  let best = again
  const better = async (bytes: Uint8Array): Promise<boolean> => {
    const ran = await run(bytes)
    if (!ran.error || signature(ran.error) !== wanted || ran.bytes.length > best.bytes.length) return false
    best = ran
    return true
  }
  for (let count = best.marks.length >> 1; count >= 1; count >>= 1)
    for (let first = 0; first < best.marks.length && performance.now() < end;) {
      const { bytes, marks } = best
      const less = Buffer.concat([
        bytes.subarray(0, marks[first]),
        bytes.subarray(marks[first + count] ?? bytes.length),
      ])
      if (!(await better(less))) first += count
    }
  for (let len = best.bytes.length >> 1; len >= 1; len >>= 1)
    for (let at = 0; at < best.bytes.length && performance.now() < end;) {
      const less = Buffer.concat([best.bytes.subarray(0, at), best.bytes.subarray(at + len)])
      if (!(await better(less))) at += len
    }
  for (let at = 0; at < best.bytes.length && performance.now() < end; at++) {
    if (best.bytes[at] === 0) continue
    const zero = best.bytes.slice()
    zero[at] = 0
    await better(zero)
  }
  return best
}

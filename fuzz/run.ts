/** Runs targets for a time: equal shares, one seed after another. Called by main.ts and by the test that CI runs. */

import { Finding, type FuzzTarget } from './target.ts'

export interface FuzzResult {
  target: string
  episodes: number
  cases: number
  seconds: number
  /** The first seed, and the one to go on from. */
  from: number
  next: number
  finding: Finding | undefined
}

export interface FuzzPlan {
  targets: readonly FuzzTarget[]
  /** For all of them together. */
  seconds: number
  /** First seed of each. */
  seed: number
  /** One episode of each only. */
  once?: boolean
  /** An episode that takes longer hangs. */
  hangMs?: number
}

const HANG_MS = 60_000

export async function fuzz(plan: FuzzPlan, report: (result: FuzzResult) => void): Promise<FuzzResult[]> {
  const results: FuzzResult[] = []
  for (const target of plan.targets) {
    const result = await one(target, plan)
    results.push(result)
    report(result)
  }
  return results
}

async function one(target: FuzzTarget, plan: FuzzPlan): Promise<FuzzResult> {
  const start = performance.now()
  const result: FuzzResult = {
    target: target.name,
    episodes: 0,
    cases: 0,
    seconds: 0,
    from: plan.seed,
    next: plan.seed,
    finding: undefined,
  }
  const share = (plan.seconds * 1000) / plan.targets.length
  const session = await target.start()
  try {
    do {
      result.cases += await inTime(session.episode(result.next), plan.hangMs ?? HANG_MS)
      result.episodes++
      result.next = (result.next + 1) >>> 0
    } while (!plan.once && performance.now() - start < share)
  } catch (error) {
    result.finding = new Finding(target.name, result.next, error)
  } finally {
    await session.close()
  }
  result.seconds = (performance.now() - start) / 1000
  return result
}

async function inTime(episode: Promise<number>, ms: number): Promise<number> {
  let timer: NodeJS.Timeout | undefined
  const hang = new Promise<never>((_, reject) => {
    timer = setTimeout(() => reject(new Error(`no end after ${ms / 1000} s`)), ms)
  })
  try {
    return await Promise.race([episode, hang])
  } finally {
    clearTimeout(timer)
  }
}

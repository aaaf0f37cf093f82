/** Runs targets for a time: equal shares. Called by main.ts and by the test that CI runs. */

import { join } from 'node:path'
import { Corpus, inputName } from './corpus.ts'
import type { Coverage } from './coverage.ts'
import { Executor, type Executed } from './executor.ts'
import { mutate } from './mutate.ts'
import { Random } from './random.ts'
import { shrink, signature } from './shrink.ts'
import { Finding, type FuzzTarget } from './target.ts'

export interface Found {
  finding: Finding
  /** How many cases and seconds of the target it took. */
  cases: number
  seconds: number
  /** Whether the same input found it again. */
  again: boolean
}

export interface FuzzResult {
  target: string
  episodes: number
  cases: number
  seconds: number
  /** The first seed, and the one to go on from. */
  from: number
  next: number
  /** Inputs kept, and the features they reach. */
  corpus: number
  features: number
  findings: Found[]
  /** The first of them. */
  finding: Finding | undefined
}

export interface FuzzPlan {
  targets: readonly FuzzTarget[]
  /** For all of them together. */
  seconds: number
  /** First seed of each. */
  seed: number
  /** One episode of each only: that of the seed, or this input. */
  once?: boolean
  input?: Uint8Array
  /** Goes on after a finding, for others. */
  all?: boolean
  /** An episode that takes longer hangs. */
  hangMs?: number
  /** Feedback: which code ran. */
  coverage?: Coverage
  /** A folder that keeps what was reached, one for each target in it. */
  corpus?: string
  /** Inputs to begin with. */
  seeds?: (target: string) => readonly Uint8Array[]
  /** See ExecutorOptions. */
  storage?: Uint8Array
  onEpisode?: (target: string) => void
  shrinkMs?: number
}

const HANG_MS = 60_000
const SHRINK_MS = 10_000
/** Of inputs that are made from nothing, while there are others to make them from. */
const FRESH_PERCENT = 15
const NONE = new Uint8Array(0)

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
  const passed = (): number => performance.now() - start
  const share = (plan.seconds * 1000) / plan.targets.length
  const findings: Found[] = []
  const known = new Set<string>()
  let [episodes, cases, next] = [0, 0, plan.seed]
  const executor = new Executor(target, {
    coverage: plan.coverage,
    hangMs: plan.hangMs ?? HANG_MS,
    storage: plan.storage,
    onEpisode: () => plan.onEpisode?.(target.name),
  })
  const corpus = new Corpus(plan.corpus && join(plan.corpus, target.name))
  const waiting = plan.once ? [] : [...(plan.seeds?.(target.name) ?? []), ...corpus.stored()]
  const r = new Random(plan.seed ^ 0x5eed_f00d)

  const found = async (ran: Executed, seed: number | undefined): Promise<void> => {
    const sign = signature(ran.error)
    if (known.has(sign)) return
    known.add(sign)
    const at = { cases, seconds: passed() / 1000 }
    const smaller = await shrink(ran, (bytes) => executor.run(bytes), plan.shrinkMs ?? SHRINK_MS)
    const { bytes, error } = smaller ?? ran
    const finding = new Finding(target.name, { seed, input: bytes, name: inputName(bytes) }, error)
    findings.push({ finding, ...at, again: smaller !== undefined })
  }

  try {
    do {
      const kept = plan.input ?? waiting.shift()
      const fresh = !kept && (corpus.size === 0 || r.chance(FRESH_PERCENT))
      const { bytes, seed } = kept
        ? { bytes: kept, seed: undefined }
        : fresh
          ? { bytes: NONE, seed: next }
          : mutate(r, corpus.pick(r), corpus.pick(r))
      if (fresh) next = (next + 1) >>> 0
      const ran = await executor.run(bytes, seed)
      episodes++
      cases += ran.cases
      if (ran.error) await found(ran, fresh ? seed : undefined)
      else if (!plan.once) corpus.add(ran.bytes, ran.marks, ran.features)
    } while (!plan.once && (plan.all || findings.length === 0) && passed() < share)
  } finally {
    await executor.dispose()
  }
  return {
    target: target.name,
    episodes,
    cases,
    seconds: passed() / 1000,
    from: plan.seed,
    next,
    corpus: corpus.size,
    features: corpus.features,
    findings,
    finding: findings[0]?.finding,
  }
}

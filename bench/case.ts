/**
 * What a measurement is: cases in suites, each suite with a rig that is started only when one of its cases is asked
 * for.
 */

export const SIDES = ['ours', 'qemu'] as const
export type Side = (typeof SIDES)[number]

/** Units, and whether more of it is better. */
export const MORE_IS_BETTER = {
  'MB/s': true,
  'GB/s': true,
  'M/s': true,
  us: false,
  's/GB': false,
  'ms/s': false,
  KiB: false,
  MiB: false,
} as const
export type Unit = keyof typeof MORE_IS_BETTER

/** Figures of one run, by case id. */
export type Figures = Record<string, number>

/** What cases are measured on. */
export interface BenchRig {
  /** Versions and the like, for a person. */
  readonly banner: string
  close(): Promise<void>
}

export interface Case<R extends BenchRig> {
  /** One run gives these. */
  ids: readonly string[]
  title: string
  unit: Unit
  /** The other units, where not all are the same. */
  units?: Readonly<Record<string, Unit>>
  /** Who takes part; default both. */
  sides?: readonly Side[]
  /** Of runs that take long: at most so many pairs, and whether the first is only to warm up; default all, and true. */
  pairsMax?: number
  warmUp?: boolean
  run(rig: R, side: Side): Promise<Figures>
  /** The same figures with nothing in between, where that can be had. */
  limit?(rig: R): Promise<Figures>
}

export type CaseInfo = Omit<Case<BenchRig>, 'run' | 'limit'>

/** A suite whose rig runs. */
export interface Session {
  readonly banner: string
  run(info: CaseInfo, side: Side): Promise<Figures>
  limit(info: CaseInfo): Promise<Figures>
  close(): Promise<void>
}

/** What may be asked of rigs; those with a stock guest follow. */
export interface RigWish {
  /** MSI-X vectors of both sides; default: what each side has by itself. */
  vectors?: number
}

export interface Suite {
  readonly cases: readonly CaseInfo[]
  start(wish?: RigWish): Promise<Session>
}

export function makeSuite<R extends BenchRig>(
  cases: readonly Case<R>[],
  startRig: (wish: RigWish) => Promise<R>,
): Suite {
  const find = (info: CaseInfo): Case<R> => cases.find(({ ids }) => ids[0] === info.ids[0])!
  return {
    cases,
    async start(wish = {}) {
      const rig = await startRig(wish)
      return {
        banner: rig.banner,
        run: (info, side) => find(info).run(rig, side),
        limit: (info) => find(info).limit?.(rig) ?? Promise.resolve({}),
        close: () => rig.close(),
      }
    },
  }
}

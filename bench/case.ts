/** What a measurement is: cases in suites, each suite with a rig that is started only when one of its cases is asked for. */

export const SIDES = ['ours', 'qemu'] as const
export type Side = (typeof SIDES)[number]

/** What cases are measured on. */
export interface BenchRig {
  /** Versions and the like, for a person. */
  readonly banner: string
  close(): Promise<void>
}

export interface Case<R extends BenchRig> {
  id: string
  title: string
  unit: 'MB/s' | 'us'
  /** Runs once; several figures where one run gives several cases. */
  run(rig: R, side: Side): Promise<Record<string, number>>
  /** The same figures with no device in between, where that can be had. */
  limit?(rig: R): Promise<Record<string, number>>
}

export interface CaseInfo {
  id: string
  title: string
  unit: Case<BenchRig>['unit']
}

/** A suite whose rig runs. */
export interface Session {
  readonly banner: string
  run(info: CaseInfo, side: Side): Promise<Record<string, number>>
  limit(info: CaseInfo): Promise<Record<string, number>>
  close(): Promise<void>
}

export interface Suite {
  readonly cases: readonly CaseInfo[]
  start(): Promise<Session>
}

export function makeSuite<R extends BenchRig>(cases: readonly Case<R>[], startRig: () => Promise<R>): Suite {
  const byId = new Map(cases.map((measured) => [measured.id, measured]))
  return {
    cases,
    async start() {
      const rig = await startRig()
      return {
        banner: rig.banner,
        run: ({ id }, side) => byId.get(id)!.run(rig, side),
        limit: ({ id }) => byId.get(id)!.limit?.(rig) ?? Promise.resolve({}),
        close: () => rig.close(),
      }
    },
  }
}

/**
 * The inputs that each reach something no other reaches, the shortest one for each feature (see coverage.ts); kept in a
 * folder between runs. An input all of whose features have shorter ones is dropped.
 */

import { createHash } from 'node:crypto'
import { mkdirSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import type { Parent } from './mutate.ts'
import type { Random } from './random.ts'

interface Entry extends Parent {
  readonly name: string
  /** For how many features it is the shortest. */
  owns: number
  /** How often it was a parent: those that were not, first. */
  used: number
}

/** Shorter than the owner by this much before it takes over a feature: else two of nearly a length change for ever. */
const SHORTER = 0.75

export class Corpus {
  readonly #owners = new Map<number, Entry>()
  readonly #entries = new Set<Entry>()
  readonly #folder: string | undefined

  constructor(folder: string | undefined) {
    this.#folder = folder
    if (folder) mkdirSync(folder, { recursive: true })
  }

  get size(): number {
    return this.#entries.size
  }
  get features(): number {
    return this.#owners.size
  }

  /** What was kept by earlier runs. */
  stored(): Uint8Array[] {
    const folder = this.#folder
    return folder ? readdirSync(folder).map((name) => readFileSync(join(folder, name))) : []
  }

  /** Takes it in where it reaches something new, or the same in fewer bytes. */
  add(bytes: Uint8Array, marks: readonly number[], features: readonly number[]): boolean {
    const name = inputName(bytes)
    const entry: Entry = { name, bytes, marks: marks.slice(), owns: 0, used: 0 }
    for (const feature of features) {
      const owner = this.#owners.get(feature)
      if (owner && bytes.length >= owner.bytes.length * SHORTER) continue
      this.#owners.set(feature, entry)
      entry.owns++
      if (owner && --owner.owns === 0) this.#drop(owner)
    }
    if (entry.owns === 0) return false
    this.#entries.add(entry)
    if (this.#folder) writeFileSync(join(this.#folder, name), bytes)
    return true
  }

  #drop(entry: Entry): void {
    this.#entries.delete(entry)
    if (this.#folder) rmSync(join(this.#folder, entry.name), { force: true })
  }

  /** One of them: of a few, the one that was least used for what only it reaches. */
  pick(r: Random): Parent {
    const entries = [...this.#entries]
    let best = r.pick(entries)
    for (let i = 0; i < 2; i++) {
      const other = r.pick(entries)
      if (other.used / other.owns < best.used / best.owns) best = other
    }
    best.used++
    return best
  }
}

export function inputName(bytes: Uint8Array): string {
  return createHash('sha1').update(bytes).digest('hex').slice(0, 16)
}

/** Names of types as X11 has them, and their numbers on one server. Used by x11-reader.ts and x11-writer.ts. */

import { MIME_TYPES, type MimeType } from './wire.ts'
import type { XServer } from './x11-server.ts'

export const TEXT: MimeType = 'text/plain;charset=utf-8'
/** What programs call a text; the first one is asked for. */
const TEXT_NAMES = ['UTF8_STRING', TEXT, 'text/plain', 'STRING', 'TEXT'] as const

export class TypeAtoms {
  readonly targets: number
  readonly incr: number
  readonly atom: number = 4
  readonly string: number = 31
  readonly utf8: number
  readonly #byAtom = new Map<number, MimeType>()
  readonly #byType = new Map<MimeType, number[]>()

  static async get(server: XServer): Promise<TypeAtoms> {
    const names = ['TARGETS', 'INCR', ...TEXT_NAMES, ...MIME_TYPES]
    const found = await Promise.all(names.map((name) => server.atom(name)))
    return new TypeAtoms(new Map(names.map((name, at) => [name, found[at]!])))
  }

  private constructor(atoms: ReadonlyMap<string, number>) {
    this.targets = atoms.get('TARGETS')!
    this.incr = atoms.get('INCR')!
    this.utf8 = atoms.get('UTF8_STRING')!
    for (const type of MIME_TYPES) {
      const all = type === TEXT ? TEXT_NAMES.map((name) => atoms.get(name)!) : [atoms.get(type)!]
      this.#byType.set(type, all)
      for (const atom of all) this.#byAtom.set(atom, type)
    }
  }

  type(atom: number): MimeType | undefined {
    return this.#byAtom.get(atom)
  }

  /** Under which names a type is offered. */
  names(type: MimeType): readonly number[] {
    return this.#byType.get(type)!
  }

  /** Of the names that a program offers, the best one for a type. */
  best(type: MimeType, offered: ReadonlySet<number>): number | undefined {
    return this.names(type).find((atom) => offered.has(atom))
  }
}

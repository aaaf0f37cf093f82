/**
 * The only list of back ends: which opener makes which kind. A new kind is a type and a table in spec.ts and a line here.
 */

import { openAttach } from './attach.ts'
import type { Chardev, ChardevEnd } from './chardev.ts'
import { openNull } from './null.ts'
import type { ChardevKind, ChardevSpec } from './spec.ts'
import { openUnix } from './unix.ts'

type Opener<K extends ChardevKind> = (
  spec: Extract<ChardevSpec, { kind: K }>,
  end: ChardevEnd,
  signal?: AbortSignal,
) => Chardev | Promise<Chardev>

const OPENERS: { readonly [K in ChardevKind]?: Opener<K> } = {
  unix: openUnix,
  null: openNull,
  attach: openAttach,
}

/**
 * Opens a back end for a port. `spec` has passed checkChardevSpec. The signal ends a wait (wait=on, name resolution, a
 * connection in progress). `end` hears nothing before this has resolved: what is there then is in `connected`.
 */
export async function openChardev(spec: ChardevSpec, end: ChardevEnd, signal?: AbortSignal): Promise<Chardev> {
  return (OPENERS[spec.kind] as Opener<ChardevKind>)(spec, end, signal)
}

/**
 * The only list of back ends: which opener makes which kind. A new kind is a type and a table in spec.ts and a line here.
 */

import { openAttach } from './attach.ts'
import type { Chardev, ChardevEnd } from './chardev.ts'
import { openFile } from './file.ts'
import { openNull } from './null.ts'
import { openPipe } from './pipe.ts'
import { openPtyChardev } from './pty.ts'
import type { ChardevKind, ChardevSpec } from './spec.ts'
import { openStdio } from './stdio.ts'
import { openTcp } from './tcp.ts'
import { openUnix } from './unix.ts'
import type { Store } from '../store.ts'

type Opener<K extends ChardevKind> = (
  spec: Extract<ChardevSpec, { kind: K }>,
  end: ChardevEnd,
  signal?: AbortSignal,
  store?: Store,
) => Chardev | Promise<Chardev>

const OPENERS: { readonly [K in ChardevKind]: Opener<K> } = {
  unix: openUnix,
  tcp: openTcp,
  pty: openPtyChardev,
  stdio: openStdio,
  file: openFile,
  pipe: openPipe,
  null: openNull,
  attach: openAttach,
}

/**
 * Opens a back end for a port. `spec` has passed checkChardevSpec. The signal ends a wait (wait=on, name resolution, a
 * connection in progress). The store has what another process left of it. `end` hears of no connection before this has resolved: who is there by then shows in `connected`.
 */
export async function openChardev(
  spec: ChardevSpec,
  end: ChardevEnd,
  signal?: AbortSignal,
  store?: Store,
): Promise<Chardev> {
  return (OPENERS[spec.kind] as Opener<ChardevKind>)(spec, end, signal, store)
}

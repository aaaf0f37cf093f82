/** Says when a selection of an X11 display gets another owner, which no clipboard tool does: XFIXES, SelectionNotify. */

import type { Selection } from './wire.ts'
import { u32, XServer } from './x11-server.ts'

const PRIMARY = 1 // the one atom with a fixed number
/** New owner, owner's window destroyed, owner's connection closed. */
const ALL_CHANGES = 7

export interface SelectionChange {
  selection: Selection
  /** Window; 0 where nobody owns it. */
  owner: number
  /** The server's time of the change. */
  since: number
}

export interface SelectionAtoms {
  atoms: ReadonlyMap<number, Selection>
  /** Undefined where it is another event. */
  read(event: Buffer): SelectionChange | undefined
}

/** Asks for the events. */
export async function selectChanges(server: XServer, selections: readonly Selection[]): Promise<SelectionAtoms> {
  const fixes = await server.extension('XFIXES')
  if (!fixes) throw server.fault('the X server has no XFIXES')
  await server.request(fixes.major, 0, u32(5, 0))
  const atoms = new Map<number, Selection>()
  for (const selection of selections) {
    const atom = selection === 'primary' ? PRIMARY : await server.atom('CLIPBOARD')
    atoms.set(atom, selection)
    server.send(fixes.major, 2, u32(server.root, atom, ALL_CHANGES))
  }
  return {
    atoms,
    read(event) {
      const selection = (event[0]! & 0x7f) === fixes.event ? atoms.get(event.readUInt32LE(12)) : undefined
      if (selection === undefined) return undefined
      return { selection, owner: event.readUInt32LE(8), since: event.readUInt32LE(20) }
    },
  }
}

export async function watchX11(
  env: NodeJS.ProcessEnv,
  selections: readonly Selection[],
  changed: (selection: Selection) => void,
  failed: (error: Error) => void,
): Promise<() => void> {
  const server = await XServer.open(env)
  try {
    const changes = await selectChanges(server, selections)
    server.onEvent = (event) => {
      const change = changes.read(event)
      if (change) changed(change.selection)
    }
    server.onGone = failed
    return () => server.close()
  } catch (error) {
    server.close()
    throw error
  }
}

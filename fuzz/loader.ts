/** A loader hook of Node: the modules of src come instrumented (see instrument.ts). Registered by main.ts. */

import type { LoadHook } from 'node:module'
import { instrument } from './instrument.ts'

const OURS = /\/dist\/src\/.*\.js$/

export const load: LoadHook = async (url, context, nextLoad) => {
  const loaded = await nextLoad(url, context)
  if (!OURS.test(url) || loaded.format !== 'module' || !loaded.source) return loaded
  const code = Buffer.from(loaded.source as Uint8Array).toString()
  return code.startsWith('#!') ? loaded : { ...loaded, source: instrument(code).code }
}

/**
 * Where the lab finds its own files and keeps what it made. Works from `lab/*.ts` (tests) and from `dist/lab/*.js`
 * alike: the repository is the nearest folder upwards with a package.json.
 */
import { accessSync, constants, existsSync, statSync } from 'node:fs'
import { delimiter, dirname, join, resolve } from 'node:path'

/** The folder of the repository. */
export function repoRoot(): string {
  let folder = import.meta.dirname
  while (!existsSync(join(folder, 'package.json'))) folder = dirname(folder)
  return folder
}

/** Everything fetched or built: `VMCHANNEL_CACHE`, else `.cache` in the repository (ignored by git). */
export function cacheRoot(): string {
  return resolve(process.env['VMCHANNEL_CACHE'] || join(repoRoot(), '.cache'))
}

/** A C program or script of the guest, in the source tree (it is not copied to dist). */
export function guestSource(name: string): string {
  return join(repoRoot(), 'lab', 'guest', name)
}

/** First executable of that name on PATH. */
export function findProgram(name: string): string | undefined {
  for (const folder of (process.env['PATH'] ?? '').split(delimiter)) {
    const path = join(folder || '.', name)
    try {
      accessSync(path, constants.X_OK)
      if (statSync(path).isFile()) return path // a folder may be searched, which is the same permission
    } catch {
      // not here
    }
  }
  return undefined
}

/**
 * A folder with the unpacked files of some Debian packages. The folder appears by a rename when all of it is there,
 * so a half-done fetch is never taken for a complete one; what was downloaded before a break is kept and used.
 */
import { existsSync } from 'node:fs'
import { mkdir, readdir, rename, rm, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { command } from '../command.ts'
import { cacheRoot } from '../paths.ts'
import { PrivateApt, type Suite } from './apt.ts'
import { ensureLaunchers, type Launcher } from './launcher.ts'
import { withLock } from './lock.ts'
import { type Progress, stderrProgress } from './progress.ts'

export interface FetchOptions {
  progress?: Progress
}

export interface PackageSet {
  /** Folder name in the cache. */
  name: string
  suite: Suite
  install: readonly string[]
  /** Which packages of apt's plan are wanted; all when left out. */
  keep?: RegExp
  /** Which are not. */
  drop?: RegExp
  /** Last touches to the unpacked tree, which is not yet where it will be; `debs` holds the packages. */
  finish?: (tree: string, debs: string) => Promise<void>
  /** How its programs are started. */
  launchers?: readonly Launcher[]
}

/** The folder, fetched now or before. */
export async function ensurePackages(set: PackageSet, options: FetchOptions = {}): Promise<string> {
  const tree = await ensureTree(set, options)
  await ensureLaunchers(tree, set.launchers ?? [])
  return tree
}

async function ensureTree(set: PackageSet, options: FetchOptions): Promise<string> {
  const cache = cacheRoot()
  const final = join(cache, 'trees', set.name)
  if (existsSync(final)) return final
  const progress = options.progress ?? stderrProgress()
  await mkdir(join(cache, 'trees'), { recursive: true })
  return withLock(
    cache,
    async () => {
      if (!existsSync(final)) await fetchTree(set, cache, final, progress)
      return final
    },
    () => progress.step(`${set.name}: waiting for another fetch to end`),
  )
}

async function fetchTree(set: PackageSet, cache: string, final: string, progress: Progress): Promise<void> {
  const debs = join(cache, 'debs', set.name)
  const tree = join(cache, 'unpack', set.name) // only the owner of the lock works here
  try {
    const apt = new PrivateApt(join(cache, 'apt'))
    await apt.prepare((text) => progress.step(text))
    const plan = (await apt.plan(set.suite, set.install)).filter(
      (name) => (set.keep?.test(name) ?? true) && !set.drop?.test(name),
    )
    await apt.download(debs, plan, (count) => progress.step(`${set.name}: fetching ${count}/${plan.length}`))
    await rm(tree, { recursive: true, force: true })
    await mkdir(tree, { recursive: true })
    for (const [at, deb] of (await readdir(debs)).filter((file) => file.endsWith('.deb')).entries()) {
      progress.step(`${set.name}: unpacking ${at + 1}/${plan.length}`)
      await command('dpkg', ['-x', join(debs, deb), tree])
    }
    await writeFile(join(tree, 'packages.txt'), plan.join('\n') + '\n')
    await ensureLaunchers(tree, set.launchers ?? [])
    await set.finish?.(tree, debs)
    await rename(tree, final)
    await rm(debs, { recursive: true, force: true })
    progress.done(`${set.name}: ready`)
  } catch (error) {
    progress.fail(`${set.name}: not fetched`)
    throw error
  }
}

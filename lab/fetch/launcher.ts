/**
 * Unpacked programs bring their own C library, and the system's is usually another one: each is started through its
 * own loader. A launcher is a shell script that does just that and becomes the program (`exec`), so that the process
 * id, the signals and the exit status are the program's.
 *
 * A launcher finds its tree from its own place when it runs: a checkout or a cache may be moved, renamed or copied.
 * Those that an older vmchannel wrote had the path of their tree in them; they are written anew where they are met.
 */
import { chmod, mkdir, readFile, rename, stat, writeFile } from 'node:fs/promises'
import { dirname, join, posix } from 'node:path'

/** A word as it is, or a path inside the tree. */
export type Word = string | { readonly inTree: string }

export interface Launcher {
  /** The script and the program, relative to the tree. */
  script: string
  program: string
  env?: Readonly<Record<string, Word>>
  /** Arguments before the caller's. */
  args?: readonly Word[]
  /** More folders with shared libraries, relative to the tree. */
  libraries?: readonly string[]
  /** Folder of the tree that it works in. */
  cwd?: string
}

const LIBRARIES = 'usr/lib/x86_64-linux-gnu'
const LOADER = `${LIBRARIES}/ld-linux-x86-64.so.2`

/** Writes those that are missing in `tree`, or are not what they should be. */
export async function ensureLaunchers(tree: string, launchers: readonly Launcher[]): Promise<void> {
  for (const launcher of launchers) {
    const path = join(tree, launcher.script)
    const text = launcherText(launcher)
    if (await isThere(path, text)) continue
    try {
      await mkdir(dirname(path), { recursive: true })
      // By a rename: a shell may be reading the one that is there.
      await writeFile(`${path}.${process.pid}`, text)
      await chmod(`${path}.${process.pid}`, 0o755)
      await rename(`${path}.${process.pid}`, path)
    } catch (error) {
      // A cache that is for reading only: whether the one that is there works, its caller sees.
      if (!['EACCES', 'EPERM', 'EROFS'].includes((error as NodeJS.ErrnoException).code ?? '')) throw error
    }
  }
}

async function isThere(path: string, text: string): Promise<boolean> {
  try {
    return (await readFile(path, 'utf8')) === text && ((await stat(path)).mode & 0o111) !== 0
  } catch {
    return false
  }
}

/** The loader separates folders by these, and replaces words behind the last. */
const REFUSED = `case $vmch_tree in *[:\\;\\$]*)
  echo "$0: programs cannot be started from a folder with one of : ; $ in its path: $vmch_tree" >&2
  exit 126
esac`

/** The script. Its variables are named so that no variable of the environment is changed for the program. */
export function launcherText({ script, program, env = {}, args = [], libraries = [], cwd }: Launcher): string {
  const up = posix.relative(posix.dirname(script), '.')
  const lines = [
    '#!/bin/sh',
    `# ${program} with the loader and the libraries of the tree that this file is in, wherever that is.`,
    'vmch_self=$0',
    '[ -h "$vmch_self" ] && vmch_self=$(readlink -f -- "$vmch_self")',
    'case $vmch_self in */*) ;; *) vmch_self=./$vmch_self ;; esac',
    `vmch_tree=$(CDPATH= cd -- "\${vmch_self%/*}/${up}" && pwd -P) || exit 126`,
    REFUSED,
    ...Object.entries(env).map(([name, value]) => `export ${name}=${quote(value)}`),
    ...(cwd === undefined ? [] : [`cd ${quote({ inTree: cwd })} || exit 126`]),
  ]
  const folders = [LIBRARIES, ...libraries].map((inTree) => quote({ inTree })).join(':')
  const words = [{ inTree: LOADER }, '--library-path'].map(quote)
  words.push(folders, ...[{ inTree: program }, ...args].map(quote))
  return `${lines.join('\n')}\nexec ${words.join(' ')} "$@"\n`
}

function quote(word: Word): string {
  if (typeof word !== 'string') return `"$vmch_tree"/${quote(word.inTree)}`
  return `'${word.replaceAll("'", `'\\''`)}'`
}

/**
 * Unpacked programs bring their own C library, and the system's is usually another one: each is started through its
 * own loader. A launcher is a shell script that does just that and becomes the program (`exec`), so that the process
 * id, the signals and the exit status are the program's.
 */
import { chmod, mkdir, writeFile } from 'node:fs/promises'
import { dirname, join } from 'node:path'

export interface LauncherOptions {
  env?: Record<string, string>
  /** Arguments before the caller's. */
  args?: readonly string[]
  /** More folders with shared libraries, relative to the tree. */
  libraries?: readonly string[]
  /** Folder that it works in. */
  cwd?: string
}

const LIBRARIES = 'usr/lib/x86_64-linux-gnu'

/** Writes `script` for `program` (relative to `tree`, where the tree will be when the script runs). */
export async function writeLauncher(
  script: string,
  tree: string,
  program: string,
  options: LauncherOptions = {},
): Promise<void> {
  const libraries = [LIBRARIES, ...(options.libraries ?? [])].map((folder) => join(tree, folder)).join(':')
  const words = [
    join(tree, LIBRARIES, 'ld-linux-x86-64.so.2'),
    '--library-path',
    libraries,
    join(tree, program),
    ...(options.args ?? []),
  ]
  const env = Object.entries(options.env ?? {}).map(([name, value]) => `export ${name}=${quote(value)}\n`)
  await mkdir(dirname(script), { recursive: true })
  const enter = options.cwd === undefined ? '' : `cd ${quote(options.cwd)} || exit\n`
  await writeFile(script, `#!/bin/sh\n${enter}${env.join('')}exec ${words.map(quote).join(' ')} "$@"\n`)
  await chmod(script, 0o755)
}

function quote(word: string): string {
  return `'${word.replaceAll("'", `'\\''`)}'`
}

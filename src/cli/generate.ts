/** Writes the files of the package that are made from the command table: man page and completions. `node dist/src/cli/generate.js`. */

import { mkdirSync, writeFileSync } from 'node:fs'
import { dirname, join, resolve } from 'node:path'
import { SHELLS } from './completion.ts'
import { manPage } from './man.ts'

/** Path in the package → what belongs there. */
export function generatedFiles(): Record<string, string> {
  const names: Readonly<Record<string, string>> = { bash: 'vmchannel.bash', zsh: '_vmchannel', fish: 'vmchannel.fish' }
  const files: Record<string, string> = { 'man/vmchannel.1': manPage() }
  for (const [shell, make] of Object.entries(SHELLS)) files[`completions/${names[shell]}`] = make()
  return files
}

export function writeGeneratedFiles(root: string): void {
  for (const [path, text] of Object.entries(generatedFiles())) {
    mkdirSync(dirname(join(root, path)), { recursive: true })
    writeFileSync(join(root, path), text)
  }
}

if (process.argv[1] === import.meta.filename) writeGeneratedFiles(resolve(import.meta.dirname, '../../..'))

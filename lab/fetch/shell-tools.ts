/**
 * Programs that people have on their host and this one may lack, for tests that ask them: other shells read their
 * completions, lspci reads our configuration space.
 */
import { join } from 'node:path'
import { ensurePackages, type FetchOptions } from './packages.ts'

const PROGRAMS = { zsh: 'usr/bin/zsh', fish: 'usr/bin/fish', lspci: 'usr/bin/lspci' } as const
const PACKAGES = ['zsh', 'fish', 'pciutils']
/** What they are linked with; apt's plan has all that their packages want besides. */
const LIBRARIES = [
  ...['libc6', 'libgcc-s1', 'libcap2', 'libtinfo6', 'libncursesw6', 'libpcre2-32-0', 'libpci3', 'libkmod2'],
  ...['libudev1', 'zlib1g', 'liblzma5', 'libzstd1', 'libssl3t64'],
]
export type ShellTool = keyof typeof PROGRAMS

/** The path of one. */
export async function ensureShellTool(name: ShellTool, options: FetchOptions = {}): Promise<string> {
  const tree = await ensurePackages(
    {
      name: 'shell-tools',
      suite: 'trixie',
      install: PACKAGES,
      keep: new RegExp(`^(${LIBRARIES.join('|')}|${PACKAGES.join('|')})=`),
      launchers: Object.entries(PROGRAMS).map(([tool, program]) => ({ script: `bin.vmchannel/${tool}`, program })),
    },
    options,
  )
  return join(tree, 'bin.vmchannel', name)
}

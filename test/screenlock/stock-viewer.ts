/** Debian's vncsnapshot: a viewer written by others, without a window. It takes one picture of the screen and leaves. */
import { statSync } from 'node:fs'
import { join } from 'node:path'
import { tryCommand } from '../../lab/command.ts'
import { ensurePackages } from '../../lab/fetch/packages.ts'

const LIBRARIES = 'usr/lib/x86_64-linux-gnu'

/** Bytes of the picture. `display` is VNC's: the port less 5900. */
export async function takePicture(display: number, file: string): Promise<number> {
  const tree = await ensurePackages({ name: 'vncsnapshot', suite: 'trixie', install: ['vncsnapshot'] })
  const loader = join(tree, LIBRARIES, 'ld-linux-x86-64.so.2')
  const words = ['--library-path', join(tree, LIBRARIES), join(tree, 'usr/bin/vncsnapshot')]
  const { status, stderr } = await tryCommand(loader, [...words, '-quiet', `127.0.0.1:${display}`, file])
  if (status !== 0) throw new Error(`vncsnapshot ended with ${status}: ${stderr}`)
  return statSync(file).size
}

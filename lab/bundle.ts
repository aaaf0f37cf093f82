/**
 * The guest's program as two files that need nothing but Node: one of JavaScript, and koffi's native part beside it.
 * Used for guest images and by all tests that run it in a guest: it starts faster than a hundred modules.
 */
import { existsSync } from 'node:fs'
import { copyFile, mkdir } from 'node:fs/promises'
import { join } from 'node:path'
import { rolldown } from 'rolldown'
import { VmchannelError } from '../src/errors.ts'
import { repoRoot } from './paths.ts'

export const BUNDLE_MAIN = 'vmchannel-guest.mjs'
export const BUNDLE_NATIVE = 'koffi.node'

/** Instead of koffi's search for its native part, which looks everywhere but here. */
const LOADER = `import { createRequire } from 'node:module'
export default createRequire(import.meta.url)('./${BUNDLE_NATIVE}')
`

/** Writes both files into `folder`, from what `tsc -b` has made. */
export async function writeBundle(folder: string): Promise<void> {
  const entry = join(repoRoot(), 'dist/src/guest/main.js')
  if (!existsSync(entry))
    throw new VmchannelError('ERR_VMCHANNEL_NOT_FOUND', `${entry} is missing`, { hint: 'run "npm run build"' })
  await mkdir(folder, { recursive: true })
  const bundle = await rolldown({
    input: entry,
    platform: 'node',
    plugins: [
      {
        name: 'koffi beside the bundle',
        resolveId: (id) => (id === 'koffi' ? '\0koffi' : null),
        load: (id) => (id === '\0koffi' ? LOADER : null),
      },
    ],
  })
  try {
    await bundle.write({ file: join(folder, BUNDLE_MAIN), format: 'esm', codeSplitting: false, minify: 'dce-only' })
  } finally {
    await bundle.close()
  }
  await copyFile(nativeKoffi(), join(folder, BUNDLE_NATIVE))
}

/** Of this machine's architecture; the lab's guests have the same, and Debian's C library. */
function nativeKoffi(): string {
  const { arch } = process
  const path = join(repoRoot(), `node_modules/@koromix/koffi-linux-${arch}/linux_${arch}/koffi.node`)
  if (existsSync(path)) return path
  throw new VmchannelError('ERR_VMCHANNEL_PLATFORM', `koffi has no native part for linux-${arch} here: ${path}`, {
    hint: 'run "npm ci" without --omit=optional',
  })
}

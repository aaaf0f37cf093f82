#!/usr/bin/env node
/**
 * Entry of vmchannel-qemu, the drop-in for QEMU: every argument is QEMU's, settings are environment variables. For what
 * starts QEMU by itself: <emulator> of libvirt, LIBGUESTFS_HV of libguestfs.
 */

import { finish } from './finish.ts'

await finish(false, async () => {
  const { runAsQemu } = await import('./qemu.ts')
  return runAsQemu(process.argv.slice(2))
})

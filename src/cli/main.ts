#!/usr/bin/env node
/**
 * Entry of the command line. `vmchannel qemu` goes past the parser: its arguments are QEMU's, and libguestfs and libvirt
 * start it often.
 */

import { finish } from './finish.ts'

const argv = process.argv.slice(2)

await finish(argv.includes('--json'), async () => {
  if (argv[0] === 'qemu' && argv[1] !== '--help') {
    const { runQemu } = await import('./qemu.ts')
    return runQemu(argv.slice(1))
  }
  // Whoever reads our output may stop at any time, as head does.
  process.stdout.on('error', (error: NodeJS.ErrnoException) => {
    if (error.code !== 'EPIPE') throw error
    process.exit()
  })
  const { runProgram } = await import('./program.ts')
  return runProgram(argv)
})

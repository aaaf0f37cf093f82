/** The frame of both programs: errors become messages and exit statuses. Called by main.ts and vmchannel-qemu.ts. */

import { EXIT_CODES, VmchannelError } from '../errors.ts'

/** Runs a program to its end. `json`: errors are for a program to read. */
export async function finish(json: boolean, run: () => Promise<number>): Promise<void> {
  try {
    process.exitCode = await run()
  } catch (error) {
    const { printError } = await import('./print.ts')
    printError(error, json)
    process.exitCode = error instanceof VmchannelError ? EXIT_CODES[error.code] : 1
  }
}

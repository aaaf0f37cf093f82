/**
 * Setup of the project "faults" (vitest.config.ts): ordinary tests, with one system call in seven interrupted, told to
 * come again, or done in part. They have to pass as they are. VMCHANNEL_FAULT_SEED chooses other calls.
 */
import { vi } from 'vitest'
import { FAULTS } from './faults.ts'

vi.mock('../../src/ffi/libc.ts', async (original) => {
  const actual = await original<typeof import('../../src/ffi/libc.ts')>()
  return { ...actual, declare: (signature: string) => FAULTS.wrap(signature, actual.declare(signature)) }
})

const seed = Number(process.env['VMCHANNEL_FAULT_SEED'] ?? 1)
FAULTS.passing(7, seed)
